"""The held-out problems of an experiment, as arrays and texts."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.oversight.draws import draw_held_out
from amplify.task_abilities import knows_truth
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import SPLITS
from amplify.types import Task

Texts = list[list[str]]
"""A text for each question about each context."""


@dataclasses.dataclass(frozen=True, repr=False)
class Problems:
    """Contexts with questions about each. A question may occur twice about a context; tables and
    `Round.evals` count it once.
    """

    contexts: Int[np.ndarray, "batch facts fact_length"]
    questions: Int[np.ndarray, "batch questions question_length"]
    names: list[str]
    """Name of each context, as in the column `problem` of `Round.evals`."""
    texts: Texts
    """The questions as people type them."""
    classes: Texts
    """The class of each question, as in tables."""
    truth: Texts | None
    """The true answers, written as `Answers.texts` are; None if the task knows no truth. Several
    answers may be right: `Round.evals` says which of the assistant's are."""

    def __repr__(self) -> str:
        contexts, questions, _ = self.questions.shape
        return f"Problems({contexts} contexts, {questions} questions about each)"


def draw(experiment: Experiment, split: str, contexts: int | None) -> Problems:
    """Draws the problems of an eval split.

    Args:
        experiment: the experiment.
        split: a key of `SPLITS`.
        contexts: number of contexts; None: as many as evals use, which is also the most.

    Raises:
        AmplifyError: if there is no such split, or it has fewer contexts.
    """
    if split not in SPLITS:
        raise AmplifyError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    most = getattr(experiment.evals, split)
    count = most if contexts is None else contexts
    if not 1 <= count <= most:
        raise AmplifyError(
            f"contexts must be 1 to {most} (evals.{split}: no others are kept out of training),"
            f" got {count}"
        )
    task = experiment.task
    seeds, given, questions = jax.device_get(draw_held_out(experiment, split, count))
    truth = None
    if knows_truth(task):
        found = jax.jit(vmap_questions(task.truth))(given, questions)
        truth = format_each(task, jax.device_get(found))
    names = ["{}:{}".format(*seed) for seed in seeds]
    numbers = jax.device_get(jax.jit(vmap_questions(task.class_of))(given, questions))
    classes = [[task.classes[number] for number in row] for row in numbers]
    return Problems(given, questions, names, format_each(task, questions), classes, truth)


def format_each(task: Task, tokens: Int[np.ndarray, "batch questions length"]) -> Texts:
    """Formats the questions about each context, or the answers to them.

    Args:
        task: the task that they belong to.
        tokens: of each.
    """
    return [[words.format_tokens(task, one) for one in row] for row in tokens]
