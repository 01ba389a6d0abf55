"""Evaluation: the measures of a round, on held-out problems.

`measures_of` says which measures an experiment has, and `evaluate` takes them. Results are kept
item by item, because rounds are compared item by item; the items are the same in every round of an
experiment.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.evaluation.judging import OVERSEEN, Team, count, judge, right_alone
from amplify.evaluation.measures import (
    ALONE,
    ALONE_IF_FOUND,
    AMPLIFIED,
    CEILING,
    CONSISTENT,
    FOUND,
    LIVE,
    Measure,
)
from amplify.overseers.human import learner_of
from amplify.overseers.language_model import check_failed
from amplify.runtime import calls
from amplify.task_abilities import knows_truth, rule_of, search_of
from amplify.tasks.problems import TOGETHER, at_a_time, in_chunks
from amplify.types import (
    DONT_KNOW,
    FAILED,
    Assistant,
    OverseerKind,
    Problems,
    Task,
    Weights,
)
from amplify.words import shown

CHUNK = TOGETHER
"""Contexts evaluated at a time, at most."""


def measures_of(task: Task, assistant: Assistant, overseer: OverseerKind) -> tuple[Measure, ...]:
    """The measures that evals of an experiment have, in the order in which they are shown.

    A task without a truth has no measures of right and wrong: what remains is how far the assistant
    and its overseer agree. A task whose contexts are found by a search has the search's recall
    beside them.

    Args:
        task, assistant, overseer: as the experiment file builds them.
    """
    costly = is_costly(overseer)
    teachable = learner_of(overseer) is not None
    right = (
        ALONE,
        dataclasses.replace(AMPLIFIED, costly=costly),
        dataclasses.replace(CEILING, costly=costly, constant=not teachable),
    )
    if not knows_truth(task):
        return (dataclasses.replace(CONSISTENT, costly=costly),)
    found = (FOUND, ALONE_IF_FOUND) if search_of(task) else ()
    return right + found


def is_costly(overseer: OverseerKind) -> bool:
    """Whether an answer of the overseer costs something: it asks a server, a language model or
    somebody else, so it runs in Python.
    """
    return not overseer.traced


@dataclasses.dataclass(frozen=True)
class Item:
    """One held-out question, how it was answered, and what was measured: a line of `evals.jsonl`.

    Measures of right and wrong are written as JSON's true and false, which are read as 1 and 0.
    """

    split: str
    problem: str  # the seed of the problem, "stream:index"
    context: str  # digest of what its context says; items with the same one are not independent
    question: str
    label: str  # the question's class
    truth: str | None  # None: the task knows none
    answer: str  # the assistant's own likeliest
    probability: float  # which it gave that answer
    measures: Mapping[str, bool | float]  # by name; those without a value here are left out

    def as_row(self) -> dict[str, Any]:
        row = {key: value for key, value in vars(self).items() if key not in ("label", "measures")}
        if self.truth is None:
            del row["truth"]
        return {"class": self.label, **row, **self.measures}


def evaluate(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    problems: Problems,
    seed: int,
    *,
    split: str,
    known: Collection[str] = (),
    advance: Callable[[int], Any] = lambda rows: None,
    place: Sharding | None = None,
) -> list[Item]:
    """Takes every measure of every different question of every problem.

    Two problems may have the same context. Their items say so by its digest, and statistics count
    what is the same once.

    Args:
        split: what the items' rows say of it.
        known: measures that are not taken, because another round has them (see
            `constant_measures`).
        advance: is told of contexts that were evaluated, for a progress bar.
        place: where contexts lie.

    Raises:
        AmplifyError: if the overseer gives too many of them no answer.
    """
    root = jax.random.key(seed)
    names = [measure.name for measure in measures_of(task, assistant, overseer)]
    wanted = [name for name in OVERSEEN if name not in known]
    team = Team(task, assistant, overseer)
    function = functools.partial(judge, team, wanted, weights, root)
    size = at_a_time(len(problems.seeds), CHUNK, place)
    chunks = list(in_chunks(function, size, problems, advance=advance, place=place))
    judged = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    count(judged)
    judged |= _compared(task, judged)
    check_failed(overseer, judged["amplified_answer"])
    seeds, questions = jax.device_get((problems.seeds, problems.questions))
    digests = [context_digest(context) for context in jax.device_get(problems.contexts)]
    return [
        Item(
            split=split,
            problem="{}:{}".format(*seeds[row]),
            context=digests[row],
            question=shown(task, questions[row, column]),
            label=task.classes[judged["class"][row, column]],
            truth=shown(task, judged["truth"][row, column]) if "truth" in judged else None,
            answer=shown(task, judged["answer"][row, column]),
            probability=round(float(judged["probability"][row, column]), 4),
            measures={
                name: value
                for name in names
                if name in judged
                if math.isfinite(value := judged[name][row, column].item())
            },
        )
        for row, column in _different(questions)
    ]


def context_digest(context: Int[np.ndarray, "facts fact_length"]) -> str:
    """The same for the same facts, in whatever order: splits take those for one context, too."""
    facts = np.ascontiguousarray(context, dtype=np.int64)
    ordered = facts[np.lexsort(facts.T[::-1])]
    return hashlib.sha256(repr(facts.shape).encode() + ordered.tobytes()).hexdigest()[:16]


def _compared(
    task: Task, judged: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, "batch questions"]]:
    """What is measured by comparing texts, where nobody knows the truth and the overseer was
    asked.
    """
    if knows_truth(task) or "amplified_answer" not in judged:
        return {}
    return {CONSISTENT.name: same_answers(task, judged["answer"], judged["amplified_answer"])}


def same_answers(
    task: Task,
    alone: Int[np.ndarray, "batch questions answer_length"],
    amplified: Int[np.ndarray, "batch questions answer_length"],
) -> Float[np.ndarray, "batch questions"]:
    """Whether the assistant and its overseer give the same answer, by the task's own rule.

    Args:
        alone: the assistant's own answers.
        amplified: the overseer's answers with the assistant's help.

    Returns:
        1 where they are the same, 0 where they differ or one of them is "don't know", and NaN where
        no answer of the overseer was obtained.
    """
    rule = rule_of(task)

    def same(one: Int[np.ndarray, " length"], two: Int[np.ndarray, " length"]) -> float:
        if FAILED in two:
            return math.nan
        both_know = np.any(one != DONT_KNOW) and np.any(two != DONT_KNOW)
        return float(both_know and rule.same(shown(task, one), shown(task, two)))

    pairs = zip(*(side.reshape(-1, side.shape[-1]) for side in (alone, amplified)), strict=True)
    return np.array([same(*pair) for pair in pairs]).reshape(alone.shape[:-1])


def evaluate_during_training(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    student: PyTree[Array],
    problems: Problems,
    root: Key[Array, ""],
    *,
    asks: bool = True,
) -> dict[str, Any]:
    """Measures while training, on few problems: `{"accuracy": {measure: {class: mean}}}`.

    Args:
        student: the weights that training changes, of which the target network is the average.
        asks: whether the overseer is asked; if not, its measures are left out.

    Returns:
        The names are those of `measures_of` and, where there is a truth, LIVE. Classes without
        values are left out.
    """
    wanted, team = OVERSEEN if asks else (), Team(task, assistant, overseer)
    judged = jax.device_get(judge(team, wanted, weights, root, problems))
    count(judged)
    judged |= _compared(task, judged)
    names = [measure.name for measure in measures_of(task, assistant, overseer)]
    seen = {name: judged[name] for name in names if name in judged}
    if knows_truth(task):
        seen[LIVE.name] = jax.device_get(right_alone(team, student, problems))
        calls.count(calls.ASSISTANT, seen[LIVE.name].size)
    return {
        "accuracy": {
            name: {
                label: round(float(values[of_class].mean()), 4)
                for index, label in enumerate(task.classes)
                if (of_class := (judged["class"] == index) & np.isfinite(values)).any()
            }
            for name, values in seen.items()
        }
    }


def _different(
    questions: Int[np.ndarray, "batch questions question_length"],
) -> list[tuple[int, int]]:
    """(row, column) of each question that its problem was not asked before."""
    places = []
    for row, asked in enumerate(questions):
        _, first = np.unique(asked, axis=0, return_index=True)
        places += [(row, int(column)) for column in np.sort(first)]
    return places
