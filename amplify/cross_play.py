"""Lets the assistants of two rounds debate against each other: which of them convinces the judge?

Both argue about the same held-out questions, and each takes each side once. The *score difference*
is the mean of what one of them earns, 1 for a debate that it wins and -1 for one that it loses.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from amplify.errors import AmplifyError
from amplify.evaluation.items import ALL, FINAL
from amplify.evaluation.statistics import Proportion, average
from amplify.oversight.arguing import argue_against
from amplify.oversight.debate import DebateOversight
from amplify.oversight.draws import draw_held_out
from amplify.oversight.restore import load_assistant
from amplify.store import Store
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import columns_in_chunks
from amplify.types import Problems


class Result(NamedTuple):
    """How one assistant fared against another, about a class of questions or all."""

    label: str
    questions: int  # different ones about different contexts
    score: Proportion  # from -1 to 1, with an interval clustered by context
    decided: float  # share of debates that either of them won

    def as_row(self) -> dict[str, Any]:
        """Returns what JSON can hold."""
        interval = self.score.interval
        return {
            "class": self.label,
            "questions": self.questions,
            "score_difference": self.score.estimate,
            "interval": None if interval is None else list(interval),
            "decided": self.decided,
        }


def cross_play(store: Store, number: int, against: int) -> list[Result]:
    """Lets two rounds' assistants debate about the held-out questions of the final split.

    Args:
        store: an experiment whose oversight is debate or another protocol for two sides.
        number: the round whose score is returned.
        against: the other round.

    Returns:
        A result for each class of questions, then one for all.

    Raises:
        AmplifyError: if there is no debate, or a round has no assistant.
    """
    experiment, oversight = store.experiment, store.experiment.oversight
    if not isinstance(oversight, DebateOversight):
        raise AmplifyError(
            f"{store.path}: its assistants do not argue: cross-play needs oversight.kind ="
            f' "debate", got {experiment.values["oversight.kind"]!r}'
        )
    rules = oversight.rules(experiment.task)
    one, other = (
        experiment.mesh.bring_here(
            load_assistant(experiment, store.roles(store.finished(n, "checkpoint")))
        )
        for n in (number, against)
    )

    def argue(chunk: Problems) -> dict[str, Any]:
        root = jax.random.key(experiment.seed)
        bound = oversight.precommitment
        return argue_against(
            experiment.task, experiment.assistant, rules, bound, one, other, root, chunk
        )

    problems = draw_held_out(experiment, FINAL, experiment.evals.final)
    place = experiment.mesh.here.row_sharding
    found = columns_in_chunks(argue, problems, place=place)
    return [*_by_class(store, problems, found)]


def _by_class(
    store: Store, problems: Problems, found: dict[str, Float[np.ndarray, "batch questions"]]
) -> Iterator[Result]:
    """Results by class. Equal contexts are one cluster, in which a question counts once."""
    task = store.experiment.task
    contexts, questions = jax.device_get((problems.contexts, problems.questions))
    labels = jax.device_get(jax.jit(vmap_questions(task.class_of))(contexts, questions)).reshape(-1)
    context = np.repeat(_numbered(contexts), questions.shape[1])
    question = _numbered(questions.reshape(-1, questions.shape[-1]))
    of_question = {name: values.reshape(-1).astype(float) for name, values in found.items()}
    for number, label in enumerate([*task.classes, ALL]):
        where = (labels == number) | (label == ALL)
        if not where.any():
            continue
        item = (context[where], question[where])
        score = average(of_question["score"][where], *item)
        decided = average(of_question["decided"][where], *item).estimate
        yield Result(label, len({*zip(*item, strict=True)}), score, decided)


def _numbered(rows: np.ndarray) -> Int[np.ndarray, " rows"]:
    """A number for each row, the same for equal ones."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
