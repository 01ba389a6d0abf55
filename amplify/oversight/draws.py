"""Which problems an experiment draws: the same whenever they are drawn."""

from amplify.experiment.sections import Experiment
from amplify.tasks.problems import EVALS, draw_problems
from amplify.types import Problems


def draw_round(experiment: Experiment, number: int) -> Problems:
    """The problems of a round."""
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
    """The first problems of a split, the same in every round."""
    task, evals = experiment.task, experiment.evals
    depths = evals.depths(task.max_depth)
    return draw_problems(task, experiment.seed, EVALS, split, count, depths, apart=evals.apart)
