"""Counts what reviews take: calls of whoever judges, and human effort."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from amplify.models.abilities import simulates_person
from amplify.models.reward_model import RewardModelConfig
from amplify.overseers.reviewers import Reviewer
from amplify.runtime import calls, effort
from amplify.task_abilities import statements_of
from amplify.types import Task

JUDGE = "judge"
"""The part that compares two answers, in the ledger."""
JUDGE_SCORES = f"{JUDGE}, scores"
"""The same part where it scores answers."""


class Consulted(NamedTuple):
    """Numbers of look-ups, and of questions to a helper: of each review, or of all together."""

    looks: Any
    asks: Any

    def of_each(self, value: Array) -> dict[str, Array]:
        """Returns both for each review, where a number may stand for all."""
        return {name: jnp.broadcast_to(part, value.shape) for name, part in self._asdict().items()}


def count_reviews(
    judge: Reviewer,
    task: Task,
    config: RewardModelConfig,
    obtained: Shaped[np.ndarray, "..."],
    consulted: Consulted,
) -> None:
    """Counts reviews in the ledger, and checks that enough were obtained. Of a language model, its
    prompts are counted instead, elsewhere.

    Args:
        judge: who reviewed.
        task: whose answers were reviewed.
        config: says what is reviewed.
        obtained: not 0 for each review that was obtained.
        consulted: what the judge looked up and asked for all of them.

    Raises:
        AmplifyError: if the judge failed to review too often.
    """
    if judge.traced:
        calls.count(_part_of(config), obtained.size)
    if simulates_person(judge):
        effort.count_all(effort_of(task, config, obtained.size, consulted))
    check = getattr(judge, "check", None)
    if check is not None:
        check(int((obtained != 0).sum()), obtained.size)


def effort_of(
    task: Task, config: RewardModelConfig, reviews: int, consulted: Consulted
) -> dict[str, Any]:
    """Returns what it takes somebody to review answers, by action.

    Args:
        task: whose answers are reviewed.
        config: says what is reviewed.
        reviews: number of reviews.
        consulted: numbers of parts that are checked, and asked about, for all of them.
    """
    decides = effort.SCORE if config.reviews_as == "scores" else effort.COMPARISON
    read = reviews * config.shown * statements_of(task)
    return {
        decides: reviews,
        effort.READ: read,
        effort.LOOK: consulted.looks,
        effort.ASK: consulted.asks,
    }


def _part_of(config: RewardModelConfig) -> str:
    """The name in the ledger of a judge's reviews of one kind."""
    if config.reviews_as == "scores":
        return JUDGE_SCORES
    return JUDGE if config.candidates == 2 else f"{JUDGE}, best of {config.candidates}"
