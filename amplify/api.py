"""The Python interface: everything that `import amplify` offers.

It reads experiments and their rounds, runs rounds, asks assistants questions and compares
experiments. Its numbers are those of the commands. Arrays are numpy arrays, tables are pandas data
frames.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Int

from amplify import signals, words
from amplify.comparison import Comparison, data_frame, results_frame
from amplify.errors import AmplifyError
from amplify.evaluation.answering import answer_alone, check_tokens
from amplify.files.json_lines import read_lines
from amplify.held_out import Problems, Texts, draw, format_each
from amplify.inspection import FoundTree, training_tree
from amplify.oversight.restore import load_assistant
from amplify.reading import derived
from amplify.records.round_folder import RoundFolder, read_evals
from amplify.report import costs
from amplify.store import Store
from amplify.task_abilities import search_of

if TYPE_CHECKING:
    import pandas


def open(path: str | Path) -> "Experiment":  # noqa: A001 (as in PIL.Image.open: never starred)
    """Opens the folder of an experiment.

    >>> experiment = amplify.open("rounds/wildcard")
    >>> experiment
    Experiment('rounds/wildcard', 3 rounds)

    Args:
        path: a folder with an `experiment.toml`. Code in it is run.

    Raises:
        AmplifyError: if there is no experiment, or it cannot be read.
    """
    return Experiment(Path(path))


@dataclasses.dataclass(frozen=True, repr=False)
class Answers:
    """Answers to the questions about each context."""

    tokens: Int[np.ndarray, "batch questions answer_length"]
    texts: Texts
    probabilities: Float[np.ndarray, "batch questions"]
    """Probability that the assistant gives each whole answer."""

    def __repr__(self) -> str:
        contexts, questions, _ = self.tokens.shape
        return f"Answers({contexts} contexts, {questions} answers about each)"


class Experiment:
    """An experiment: its rounds, their results and their cost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = Store(path)

    def __repr__(self) -> str:
        count = len(self.rounds)
        return f"Experiment({str(self.path)!r}, {count} round{'' if count == 1 else 's'})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._store.name

    @property
    def config(self) -> Mapping[str, Any]:
        """Every key of the experiment file with its value, defaults filled in.

        >>> experiment.config["training.steps"]
        60
        """
        return dict(self._store.experiment.values)

    @property
    def rounds(self) -> list["Round"]:
        """The finished rounds, ascending; round 0 is the untrained assistant.

        >>> [round.number for round in experiment.rounds]
        [0, 1, 2]
        """
        found = [self._store.round(number) for number in self._store.rounds()]
        return [Round(self, folder) for folder in found if folder.complete]

    def round(self, number: int) -> "Round":
        """Returns a finished round.

        Raises:
            AmplifyError: if there is no finished round of this number.
        """
        for found in self.rounds:
            if found.number == number:
                return found
        there = ", ".join(str(found.number) for found in self.rounds) or "none"
        raise AmplifyError(f"{self.path}: no finished round {number!r}; there are {there}")

    @property
    def best(self) -> "Round":
        """The last promoted round; round 0 if none was promoted.

        Raises:
            AmplifyError: if no round is finished.
        """
        numbers = [found.number for found in self.rounds]
        return self.round(self._store.best_before(max(numbers, default=0) + 1).number)

    @property
    def results(self) -> "pandas.DataFrame":
        """Means of all measures by round, split and class, as in `amplify compare --json`.

        What is nested in JSON has plain columns here: intervals, costs and calls.

        >>> list(experiment.results.columns)[:5]
        ['experiment', 'round', 'split', 'class', 'alone']
        >>> experiment.results[["alone.low", "alone.high", "cost.seconds"]].shape
        (24, 3)
        """
        return results_frame([self._store])

    @property
    def ledger(self) -> "pandas.DataFrame":
        """The cost of the rounds, one a row, in answers of people and models, and seconds."""
        rows = [
            {"round": one.number, **one.ledger, "calls": costs.nested(one.record)}
            for one in self.rounds
        ]
        return data_frame(rows)

    def run(self, n: int) -> "Experiment":
        """Runs rounds up to `n`; finished rounds are kept, an unfinished one is resumed.

        Raises:
            AmplifyError: for the user errors of the command `amplify round`.
        """
        from amplify.launch import launch

        if not isinstance(n, int) or n < 1:
            raise AmplifyError(f"a round number is a whole number of 1 or more, got {n!r}")
        with launch(self.path, cluster=False, last=n) as (_, run_round):
            for number in range(n + 1):
                run_round(number)
        return self

    def derive(self, path: str | Path, changes: Mapping[str, Any]) -> "Experiment":
        """Writes an experiment that differs in some keys, or opens the one that is there.

        >>> shorter = experiment.derive("rounds/shorter", {"training.steps": 30})
        >>> shorter.config["training.steps"], shorter.rounds
        (30, [])

        Args:
            path: its folder.
            changes: new values by full key.

        Raises:
            AmplifyError: if a key or value is not allowed, or something else is in the folder.
        """
        return Experiment(derived.derive(self.path, Path(path), dict(changes)).write())

    def with_seeds(self, seeds: Sequence[int]) -> list["Experiment"]:
        """Returns an experiment for each seed, with the same held-out questions.

        They are written beside this one; this one stands for its own seed.

        >>> [one.name for one in experiment.with_seeds([0, 1])]
        ['wildcard', 'wildcard-seed-1']

        Raises:
            AmplifyError: if seeds are not different, or something else is in a folder.
        """
        found = derived.with_seeds(self.path, list(seeds))
        return [Experiment(one if isinstance(one, Path) else one.write()) for one in found]

    def held_out(self, split: str = "final", contexts: int | None = None) -> Problems:
        """Returns the problems of an eval split, which are the same in every round.

        >>> problems = experiment.held_out("final", contexts=10)
        >>> problems.questions.shape
        (10, 6, 3)

        Args:
            split: "select", which the gate reads, or "final", which is only reported.
            contexts: number of contexts; None: as many as evals use, which is also the most.

        Raises:
            AmplifyError: if there is no such split, or it has fewer contexts.
        """
        return draw(self._store.experiment, split, contexts)


class Round:
    """A finished round."""

    def __init__(self, experiment: Experiment, folder: RoundFolder) -> None:
        self.experiment, self._folder = experiment, folder

    def __repr__(self) -> str:
        verdict = (self.verdict or {}).get("verdict", "untrained")
        return f"Round({self.number}, {verdict})"

    @property
    def number(self) -> int:
        """Its number; round 0 is the untrained assistant."""
        return self._folder.number

    @property
    def path(self) -> Path:
        """The round's folder."""
        return self._folder.path

    @property
    def record(self) -> Mapping[str, Any]:
        """The contents of `record.json`, such as stages with their seconds and digests."""
        return self._folder.record

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The gate's decision, with its interval; None for round 0."""
        return self._folder.verdict

    @property
    def ledger(self) -> Mapping[str, Any]:
        """The cost of the round in answers of people and models, and seconds."""
        ledger: Mapping[str, Any] = self.record.get("ledger", {})
        return ledger

    @property
    def evals(self) -> "pandas.DataFrame":
        """Held-out questions, one a row, with the assistant's answers and all measures.

        Measures are floats, 1.0 for right and 0.0 for wrong, and NaN where there is no value.

        >>> experiment.best.evals.query("split == 'final'").alone.dtype
        dtype('float64')
        """
        frame = data_frame(read_evals(self._folder))
        names = [one["name"] for one in self.record.get("measures", [])]
        return frame.astype({name: float for name in names if name in frame})

    @property
    def metrics(self) -> "pandas.DataFrame":
        """The training curve of the phase that last trained the assistant, one row per log step."""
        return data_frame(self._folder.training_curve())

    @property
    def trees(self) -> list[dict[str, Any]]:
        """The decomposition trees that the round stored, which are all of people's and a sample of
        others.
        """
        path = self._folder.main.interactions
        return list(read_lines(path)) if path.exists() else []

    @property
    def signal(self) -> "pandas.DataFrame":
        """What the assistant was trained on, one question a row, as `amplify data` exports it.

        `signal.attrs` has the digest and a description of each column.

        >>> experiment.round(1).signal[["class", "question", "answer"]].head(2)
                class question answer
        0  1 wildcard      *bb     +2
        1  1 wildcard      aa*      0

        Raises:
            AmplifyError: if the round stored no signal, as round 0.
        """
        store = self.experiment._store
        return signals.as_frame(store, signals.find_signal(store, self.number))

    def tree(self, row: int, question: int = 0, depth: int = 1) -> FoundTree:
        """Recomputes the tree behind one answer of the round's training signal.

        Raises:
            AmplifyError: if there is no such row, or it cannot be reproduced on this machine.
        """
        return training_tree(self.experiment._store, self.number, row, question, depth)

    @functools.cached_property
    def assistant(self) -> "Policy":
        """The assistant at the end of the round."""
        return Policy(self.experiment, self._folder)


class Policy:
    """A round's assistant, which answers questions."""

    def __init__(self, experiment: Experiment, folder: RoundFolder) -> None:
        self._name = f"assistant of round {folder.number} of {str(experiment.path)!r}"
        self._experiment = experiment._store.experiment
        roles = experiment._store.roles(folder)
        params = load_assistant(self._experiment, roles)
        self._params = self._experiment.mesh.bring_here(params)

    def __repr__(self) -> str:
        return f"Policy({self._name})"

    def answer(
        self,
        contexts: np.ndarray | None,
        questions: np.ndarray | Sequence[Sequence[str]],
        *,
        seed: int | None = None,
    ) -> Answers:
        """Returns the assistant's own answers, without the overseer.

        >>> answers = experiment.best.assistant.answer(problems.contexts, problems.questions)
        >>> answers.tokens.shape, answers.probabilities.shape
        ((10, 6, 1), (10, 6))

        Args:
            contexts: tokens, integers of shape [batch, facts, fact_length]; None if the task
                searches for contexts.
            questions: tokens, integers of shape [batch, questions, question_length], or texts.
            seed: seed for sampling; None: the most likely token at each position, as in evals.

        Raises:
            AmplifyError: if shapes do not match the task, or a text is not a question.
        """
        task = self._experiment.task
        asked = self._read(questions)
        given = _contexts(task, contexts, len(asked))
        keys = None
        if seed is not None:
            keys = jax.random.split(jax.random.key(seed), asked.shape[:2])
        place = self._experiment.mesh.here.row_sharding
        model = self._experiment.assistant
        found = answer_alone(task, model, self._params, given, asked, keys, place=place)
        return Answers(found.tokens, format_each(task, found.tokens), np.exp(found.log_prob))

    def _read(self, questions: Any) -> Int[np.ndarray, "batch questions question_length"]:
        task = self._experiment.task
        if not isinstance(questions, np.ndarray | jax.Array):
            if any(isinstance(row, str) for row in questions):
                raise AmplifyError(
                    "questions must be a list of texts for each context: [['one', 'two']] asks two"
                    " questions about one context"
                )
            lengths = {len(row) for row in questions}
            if len(lengths) != 1:
                raise AmplifyError("each context must have the same number of questions, 1 or more")
            questions = [[words.read_question(task, text) for text in row] for row in questions]
        tokens = np.asarray(jax.device_get(questions))
        check_tokens("questions", tokens, ("batch", "questions", task.question_length), task)
        return tokens.astype(np.int32)


def _contexts(task: Any, contexts: Any, batch: int) -> Int[np.ndarray, "batch facts fact_length"]:
    shape = ("batch", task.facts, task.fact_length)
    if contexts is None:
        if search_of(task) is None:
            raise AmplifyError("contexts must be given: this task does not search for them")
        contexts = np.zeros((batch, *shape[1:]), np.int32)
    tokens = np.asarray(jax.device_get(contexts))
    check_tokens("contexts", tokens, shape, task)
    if len(tokens) != batch:
        lengths = f"{len(tokens)} and {batch}"
        raise AmplifyError(f"contexts and questions must have equal length, got {lengths}")
    return tokens.astype(np.int32)


def compare(
    experiments: "str | Path | Experiment | Sequence[str | Path | Experiment]",
    *others: "str | Path | Experiment",
) -> "Comparison":
    """Compares the rounds of experiments: tables, and a figure in notebooks.

    Experiments that differ only in their seed are one group, whose means are over seeds.

    >>> comparison = amplify.compare(["rounds/wildcard"])
    >>> sorted(set(comparison.table.split))
    ['final', 'select']

    Args:
        experiments: an experiment or its folder, or a list of them.
        *others: more of them.

    Raises:
        AmplifyError: if an experiment has no finished round.
    """
    if isinstance(experiments, str | Path | Experiment):
        experiments = [experiments]
    several = [*experiments, *others]
    if not several:
        raise AmplifyError("nothing to compare: name at least one experiment")
    found = [one if isinstance(one, Experiment) else Experiment(Path(one)) for one in several]
    return Comparison([one._store for one in found])
