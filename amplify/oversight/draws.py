"""Draws the problems of an experiment: the same ones every time."""

from amplify.experiment.sections import Experiment
from amplify.tasks.problems import EVALS_STREAM, draw_problems
from amplify.types import Problems


def draw_round(experiment: Experiment, number: int) -> Problems:
    """Draws the problems of a round.

    Args:
        experiment: its seed, task and `[questions]` determine the problems.
        number: of the round.

    Returns:
        `questions.contexts` contexts with `questions.per_context` questions about each.
    """
    asked = experiment.questions
    depths = asked.depths(number, experiment.task.max_depth)
    return draw_problems(
        experiment.task,
        experiment.seed,
        number,
        "train",
        asked.contexts,
        depths,
        apart=experiment.evals.apart,
    )


def draw_held_out(experiment: Experiment, split: str, count: int) -> Problems:
    """Draws the first problems of an eval split, the same in every round.

    The split of a context depends on its content alone, so contexts that are held out under one
    seed are never trained on under another.

    Args:
        experiment: its seed of evals, task and `[evals]` determine the problems.
        split: "select" or "final".
        count: number of contexts.
    """
    task, evals = experiment.task, experiment.evals
    depths = evals.depths(task.max_depth)
    return draw_problems(
        task, experiment.evals_seed, EVALS_STREAM, split, count, depths, apart=evals.apart
    )
