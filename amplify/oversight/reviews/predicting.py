"""Objectives that teach a reward model to predict reviews: which answer is best, or scores.

Both train member i of the ensemble on all folds but fold i, and measure it on that one. A review's
weight multiplies its loss; of weight 0, it was not obtained.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from amplify.models.reward_model import RewardModel
from amplify.oversight.work import WEIGHT
from amplify.training.phase import Metrics
from amplify.types import Roles

CHOSEN, TARGET = "chosen", "target"
"""Columns of reviews that are predicted: 1 for the best answer to a question and 0 for the others;
or a score, in standard deviations from the mean."""


@dataclasses.dataclass(frozen=True)
class PredictChoices:
    """The cross-entropy of choices: the probability that an answer is chosen is the softmax of the
    rewards of all candidates.

    Luce 1959, "Individual Choice Behavior". With two candidates this is Bradley and Terry's model:
    the difference between two rewards is the log-odds that one answer is preferred. Christiano et
    al. 2017 (arXiv:1706.03741), section 2.2; of four candidates, Ziegler et al. 2019
    (arXiv:1909.08593), section 2.
    """

    model: RewardModel

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        number = self.model.config.candidates
        rewards = self._rewards(params, batch, number)
        best, *others = self._best_first(rewards, batch[CHOSEN])
        # The logarithm of the softmax, as a sum over the others.
        losses = functools.reduce(
            jnp.logaddexp, [other - best for other in others], jnp.zeros_like(best)
        )
        split = _split(batch, best, number)
        margin = best - sum(others) / (number - 1)
        loss = _mean(split.weight * losses, split.trained)
        return loss, {
            "loss": loss,
            "accuracy_on_held_out_reviews": _mean(
                _is_highest(best, others), split.held_out, otherwise=1 / number
            ),
            "disagreement": jnp.mean(jnp.std(margin, axis=0)),
            "answered": split.reviewed,
        }

    def _rewards(
        self, params: PyTree[Array], batch: dict[str, Array], number: int
    ) -> Float[Array, "members rows questions candidates"]:
        """The rewards of all candidates; those of a question are neighbours in the batch."""
        each = [
            self.model.rewards(
                params,
                batch.get("context"),
                batch["questions"][:, place::number],
                batch["answers"][:, place::number],
            )
            for place in range(number)
        ]
        return jnp.stack(each, axis=-1)

    def _best_first(
        self,
        rewards: Float[Array, "members rows questions candidates"],
        chosen: Int[Array, "rows answers"],
    ) -> list[Float[Array, "members rows questions"]]:
        """The rewards of the chosen answers, and those of the others."""
        number = rewards.shape[-1]
        place = jnp.argmax(chosen.reshape(rewards.shape[1:]), axis=-1, keepdims=True)
        order = (place + jnp.arange(number)[None, None]) % number
        order = jnp.broadcast_to(order, rewards.shape)
        return list(jnp.unstack(jnp.take_along_axis(rewards, order, axis=-1), axis=-1))


@dataclasses.dataclass(frozen=True)
class PredictScores:
    """The squared error of scores. The accuracy is the share of pairs of held-out answers in a
    batch, of different scores, whose order is predicted.

    Stated ratings as a target: Knox and Stone 2009, "Interactively shaping agents via human
    reinforcement" (TAMER).
    """

    model: RewardModel

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        asked = (batch.get("context"), batch["questions"], batch["answers"])
        rewards = self.model.rewards(params, *asked)
        split = _split(batch, rewards, 1)
        target = jnp.broadcast_to(batch[TARGET].astype(rewards.dtype), rewards.shape)
        loss = _mean(split.weight * (rewards - target) ** 2, split.trained)
        return loss, {
            "loss": loss,
            "accuracy_on_held_out_reviews": _concordance(rewards, target, split.held_out),
            "disagreement": jnp.mean(jnp.std(rewards, axis=0)),
            "answered": split.reviewed,
        }


class _Split(NamedTuple):
    """Which reviews a member is trained on, and which it is measured on."""

    weight: Float[Array, "members rows questions"]
    trained: Bool[Array, "members rows questions"]
    held_out: Bool[Array, "members rows questions"]
    reviewed: Float[Array, ""]  # number of reviews that were obtained


def _split(
    batch: dict[str, Array], like: Float[Array, "members rows questions"], number: int
) -> _Split:
    """Splits reviews by their folds, of which each of `number` candidates has the same."""
    fold, weight = (
        jnp.broadcast_to(column[:, ::number], like.shape)
        for column in (
            batch["fold"],
            batch.get(WEIGHT, jnp.ones(batch["fold"].shape, like.dtype)),
        )
    )
    held_out = fold == jnp.arange(len(like), dtype=fold.dtype)[:, None, None]
    reviewed = weight != 0
    return _Split(
        weight,
        ~held_out & reviewed,
        held_out & reviewed,
        jnp.sum(reviewed[0]).astype(like.dtype),
    )


def _is_highest(
    best: Float[Array, "members rows questions"],
    others: Sequence[Float[Array, "members rows questions"]],
) -> Float[Array, "members rows questions"]:
    """1 where a reward is the highest and 0 where it is not; where several are, as for equal
    answers, the probability that one of them drawn by chance is this one.
    """
    equal = sum((best == other).astype(best.dtype) for other in others)
    highest = functools.reduce(jnp.logical_and, [best >= other for other in others])
    return jnp.where(highest, 1 / (1 + equal), 0.0)


def _mean(values: Array, where: Array, otherwise: float = 0.0) -> Array:
    number = jnp.sum(where)
    mean = jnp.sum(values, where=where) / jnp.maximum(number, 1).astype(values.dtype)
    return jnp.where(number > 0, mean, otherwise)


def _concordance(
    rewards: Float[Array, "members rows questions"],
    target: Float[Array, "members rows questions"],
    where: Bool[Array, "members rows questions"],
) -> Float[Array, ""]:
    """The share of pairs with different targets whose rewards are in the same order; 0.5 if there
    are no such pairs.
    """
    given, wanted, counts = (
        column.reshape(len(rewards), -1) for column in (rewards, target, where)
    )
    higher = wanted[:, :, None] > wanted[:, None, :]
    pairs = higher & counts[:, :, None] & counts[:, None, :]
    right = given[:, :, None] > given[:, None, :]
    return _mean(right.astype(rewards.dtype), pairs, otherwise=0.5)
