"""Inspects single answers: questions asked by hand, and the trees behind training rows.

The trees of a simulated overseer are not stored. They are recomputed bit for bit from the same
problems, overseer, checkpoint and chunk size, and checked against the rows of the data set.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import rich
from rich.tree import Tree as RichTree

from amplify import report, words
from amplify.errors import AmplifyError
from amplify.evaluation.answering import answer_alone
from amplify.files.json_lines import read_lines
from amplify.models.abilities import exporter_of
from amplify.overseers.exchanges import replaying, replaying_with_server
from amplify.oversight.draws import draw_held_out, draw_round
from amplify.oversight.make_data import AMPLIFIED, amplify_for
from amplify.oversight.people.collecting import recorded_by_people
from amplify.oversight.restore import load_assistant, load_weights
from amplify.records.round_folder import RoundFolder
from amplify.store import Store
from amplify.task_abilities import knows_truth, search_of
from amplify.training import dataset
from amplify.trees.chunks import Amplified, chunk_size
from amplify.types import Problems, Roles


@dataclasses.dataclass(frozen=True)
class FoundTree:
    """A decomposition tree and the round that it belongs to."""

    round_: RoundFolder
    title: str
    tree: words.Tree

    def __str__(self) -> str:
        """The drawn tree."""
        lines = io.StringIO()
        rich.print(self.render(), file=lines)
        return lines.getvalue()

    def render(self) -> RichTree:
        """Returns the tree for the terminal."""
        return report.rich_tree(self.tree, self.title)

    def write_html(self) -> Path:
        """Writes the tree as an HTML page into the round's folder; returns the page's path."""
        return report.write_tree(self.round_.path, self.title, self.tree)


def training_tree(store: Store, number: int, row: int, question: int, depth: int) -> FoundTree:
    """Recomputes the tree behind one question of a training row.

    Args:
        store: the experiment's folder.
        number: the round whose data set contains the row.
        row: index of the row.
        question: index of the question in the row.
        depth: levels of the tree, 1 or more. At depth 1, the result is checked against the data
            set; at greater depths, sub-questions are decomposed too.

    Raises:
        AmplifyError: if there is no such row, the signal was streamed, the tree at depth 1 does
            not have the answer in the data set, or there is none because nothing was amplified.
    """
    experiment = store.experiment
    if experiment.training.targets == "streaming":
        raise AmplifyError(
            f"{store.path}: streamed answers come from weights that were not kept; a sample of"
            f" their trees is in {store.round(number).main.interactions}"
        )
    this = store.finished(number, "data")
    title = f"round {number}, row {row}, question {question}"
    if AMPLIFIED not in this.record["stages"]:
        return FoundTree(this, title, _stored_tree(this, row, question))
    asked = experiment.questions
    for name, value, count in (
        ("row", row, asked.contexts),
        ("question", question, asked.per_context),
    ):
        if not 0 <= value < count:
            raise AmplifyError(f"--{name}: must be 0 to {count - 1} in round {number}, got {value}")
    if depth < 1:
        raise AmplifyError(f"--depth: must be 1 or more, got {depth}")
    people = recorded_by_people(experiment, this, AMPLIFIED, draw_round(experiment, number))
    people_trees = [] if people is None else people.trees
    for tree in people_trees:
        if (tree["row"], tree["column"]) == (row, question):
            return FoundTree(this, title, tree)
    weights = load_weights(experiment, store.roles_of_signal(this))
    # The whole chunk is recomputed: other shapes may be rounded differently.
    size = chunk_size(asked.contexts, experiment.mesh.row_sharding)
    start = row - row % size
    problems = jax.tree.map(
        lambda column: column[start : start + size], draw_round(experiment, number)
    )
    with (replaying if depth == 1 else replaying_with_server)(this.path, AMPLIFIED):
        [chunk] = _amplify(store, weights, problems, depth, size)
    with this.redo_hint(AMPLIFIED):
        dataset.verify(this.main.data, this.record["stages"][AMPLIFIED]["digest"])
        stored = dataset.read(this.main.data)[row]["answers"][question]
    recomputed = np.asarray(chunk.answers)[row - start, question]
    if depth == 1 and not np.array_equal(recomputed, stored):
        was, now = (words.format_tokens(experiment.task, answer) for answer in (stored, recomputed))
        raise AmplifyError(
            f"{this.main.data}: row {row} cannot be reproduced on this machine: the recorded"
            f" answer is {was}, the recomputed one {now}"
        )
    context = jax.device_get(problems.contexts)[row - start]
    tree = words.describe_tree(experiment.task, context, chunk.trees, row - start, question)
    return FoundTree(this, title, tree | words.describe_context(experiment.task, context))


def _stored_tree(this: RoundFolder, row: int, question: int) -> words.Tree:
    """Returns a tree that a round stored, of oversight without trees that could be recomputed.

    Raises:
        AmplifyError: if it did not store this one.
    """
    path = this.main.interactions
    stored = list(read_lines(path)) if path.exists() else []
    places = {(tree.get("row"), tree.get("column")): tree for tree in stored}
    if (row, question) in places:
        return places[row, question]
    some = ", ".join(f"--row {r} --question {q}" for r, q in [*places][:3] if r is not None)
    raise AmplifyError(
        f"{this.path}: no tree of row {row}, question {question}: this round's answers were not"
        f" amplified, and it stored {f'only some trees, such as {some}' if some else 'none'}"
    )


def export_weights(store: Store, number: int | None, out: Path) -> int:
    """Exports a language model's weights in the format of transformers.

    Args:
        store: the experiment's folder.
        number: the round whose assistant is exported; None: the best round.
        out: a new folder.

    Returns:
        The round's number.

    Raises:
        AmplifyError: if the assistant is not a language model, or the round has no checkpoint.
    """
    assistant = store.experiment.assistant
    export = exporter_of(assistant)
    if export is None:
        raise AmplifyError(
            f"{store.path}: only a language model can be exported; this assistant is not one"
        )
    number = _best(store) if number is None else number
    roles = store.roles(store.finished(number, "checkpoint"))
    params = load_assistant(store.experiment, roles)
    export(params, out)
    return number


class Session:
    """Answers questions that a person asks a checkpoint about one held-out problem."""

    def __init__(self, store: Store, number: int | None, problem: int, depth: int) -> None:
        """Loads a checkpoint and draws a problem.

        Args:
            store: the experiment's folder.
            number: the round whose checkpoint is asked; None: the best round.
            problem: index of the held-out problem in the split `select`.
            depth: levels of the overseer's tree; 0: only the assistant is asked.

        Raises:
            AmplifyError: if there is no such round, or `problem` is negative.
        """
        number = _best(store) if number is None else number
        if problem < 0:
            raise AmplifyError(f"--problem: must be 0 or more, got {problem}")
        experiment = store.experiment
        self.store, self.depth, self.number = store, depth, number
        self.weights = load_weights(experiment, store.roles(store.finished(number, "checkpoint")))
        drawn = draw_held_out(experiment, "select", problem + 1)
        self.problem: Problems = jax.tree.map(lambda column: column[problem : problem + 1], drawn)

    def introduction(self) -> str:
        """Returns the problem's facts or, if the task searches for contexts, its questions."""
        task = self.store.experiment.task
        if search_of(task):
            questions = jax.device_get(self.problem.questions)[0]
            asked = [words.format_tokens(task, question) for question in questions]
            title = f"{self.store.name}, round {self.number}. Questions such as:"
            return "\n  ".join([title, *asked])
        facts = [
            words.format_tokens(task, fact) for fact in jax.device_get(self.problem.contexts)[0]
        ]
        return f"{self.store.name}, round {self.number}. The facts:\n  " + "   ".join(facts)

    def ask(self, text: str) -> str | RichTree:
        """Answers one question.

        Args:
            text: the question, as the task's people type it.

        Returns:
            The assistant's answer with its probability, the truth if the task knows it, and the
            passages found, if any; or, at depth 1 or more, the overseer's tree with that line as
            its title.

        Raises:
            AmplifyError: if the text is not a question of the task.
        """
        experiment = self.store.experiment
        task, assistant = experiment.task, experiment.assistant
        context, question = self.problem.contexts[0], jnp.asarray(words.read_question(task, text))
        if jax.device_get(task.is_primitive(question)):
            answer = jax.device_get(task.environment(context, question, jax.random.key(0)))
            return (
                f"{words.format_tokens(task, answer)}   (a primitive question, for the environment)"
            )
        problem = self.problem._replace(questions=question[None, None])
        params = self.weights["assistant"]
        read, tokens, log_prob = answer_alone(
            task, assistant, params, problem.contexts, problem.questions
        )
        about = f"probability {np.exp(log_prob[0, 0]):.3f}"
        if knows_truth(task):
            truth = task.truth(context, question)
            about += f"; the truth is {words.format_tokens(task, jax.device_get(truth))}"
        line = f"{words.format_tokens(task, tokens[0, 0])}   ({about})"
        if search_of(task):
            passages = [words.format_tokens(task, row) for row in read[0] if row.any()]
            line = "\n  ".join([line, "from:", *passages])
        if self.depth == 0:
            return line
        [chunk] = _amplify(self.store, self.weights, problem, self.depth)
        tree = words.describe_tree(task, jax.device_get(context), chunk.trees, 0, 0)
        return report.rich_tree(tree, f"assistant alone: {line}")


def _amplify(
    store: Store, weights: Roles, problems: Problems, depth: int, size: int | None = None
) -> Iterator[Amplified]:
    place = store.experiment.mesh.row_sharding
    return amplify_for(store.experiment, weights, problems, depth=depth, size=size, place=place)


def _best(store: Store) -> int:
    return store.best_before(max(store.rounds(), default=0) + 1).number
