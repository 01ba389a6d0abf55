"""Proximal policy optimisation against a reward model.

Schulman et al. 2017 (arXiv:1707.06347), with the details that matter for language: the reward of an
answer at its last token, and a KL penalty at every token (Ziegler et al. 2019, arXiv:1909.08593;
Huang et al. 2023, "The N implementation details of RLHF with PPO"). The value network is a model of
its own (Stiennon et al. 2020, arXiv:2009.01325).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree
from pydantic import Field

from amplify.models.abilities import chooser_of
from amplify.models.language_value import LanguageValueModel
from amplify.models.value_model import ValueModel
from amplify.oversight.reinforcement.rollouts import (
    REFERENCE,
    Rollouts,
    RolloutState,
    sample,
)
from amplify.oversight.work import Work, draw_batch
from amplify.runtime.calls import ASSISTANT, metric
from amplify.training.phase import Metrics, RoleState, Source, Update
from amplify.trees.amplification import contexts_for
from amplify.types import Roles

VALUE = "value"
"""The role that predicts the return of an answer so far."""
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Tokens = Float[Array, "batch questions tokens"]
Mask = Bool[Array, "batch questions tokens"]


@dataclasses.dataclass(frozen=True)
class PPO:
    """`[oversight.ppo]` of an experiment file."""

    epochs: Count = 4
    """Times that each batch of answers is used."""
    minibatches: Count = 1
    """Parts of a batch; each step of training uses one."""
    clip: Annotated[float, Field(gt=0)] = 0.2
    """How far the ratio of probabilities may be from 1."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    """How far a value may be from the one before the update."""
    discount: Share = 1.0
    """Discount of later rewards, gamma."""
    decay: Share = 0.95
    """Decay of the generalised advantage estimate, lambda."""

    @property
    def updates(self) -> int:
        """Updates on one batch of answers."""
        return self.epochs * self.minibatches


def token_rewards(
    score: Float[Array, "batch questions"], log_ratio: Tokens, beta: Float[Array, ""], mask: Mask
) -> Tokens:
    """The reward of each token: a penalty for leaving the reference policy, and at the last token
    of the answer also its score.

    Args:
        score: of whole answers.
        log_ratio: log p - log p_reference of each token, in nats.
        beta: what a nat costs.
        mask: True for tokens of the answer, False for padding after its end.
    """
    place = jnp.arange(mask.shape[-1])
    last = jnp.max(jnp.where(mask, place, -1), axis=-1, keepdims=True)
    at_end = jnp.broadcast_to(place, mask.shape) == last
    return jnp.where(mask, -beta * log_ratio, 0.0) + jnp.where(at_end, score[..., None], 0.0)


def advantages(
    rewards: Tokens, values: Tokens, mask: Mask, *, discount: float, decay: float
) -> Tokens:
    """Generalised advantage estimates (Schulman et al. 2015, arXiv:1506.02438, equation 16).

    Args:
        rewards: of each token.
        values: predicted returns before each token.
        mask: True for tokens of the answer; rewards and values after its end are ignored.
        discount: gamma.
        decay: lambda.

    Returns:
        Advantages, 0 where the mask is False.
    """
    rewards, values = (jnp.where(mask, x, 0.0) for x in (rewards, values))

    def back(later: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[Any, Array]:
        advantage, next_value = later
        reward, value = now
        advantage = reward + discount * next_value - value + discount * decay * advantage
        return (advantage, value), advantage

    zeros = jnp.zeros(rewards.shape[:-1], rewards.dtype)
    by_token = (jnp.moveaxis(rewards, -1, 0), jnp.moveaxis(values, -1, 0))
    _, found = jax.lax.scan(back, (zeros, zeros), by_token, reverse=True)
    return jnp.where(mask, jnp.moveaxis(found, 0, -1), 0.0)


def masked_mean(values: Tokens, mask: Mask) -> Float[Array, ""]:
    """The mean where the mask is True; 0 if it is nowhere."""
    number = jnp.maximum(jnp.sum(mask), 1).astype(values.dtype)
    return jnp.sum(values, where=mask) / number


def masked_scale(values: Tokens, mask: Mask) -> Tokens:
    """Scales values to a standard deviation of 1 where the mask is True; 0 elsewhere.

    Nothing is added to them: a constant for each token would reward long answers, or short ones.
    """
    variance = masked_mean(jnp.square(values - masked_mean(values, mask)), mask)
    return jnp.where(mask, values * jax.lax.rsqrt(variance + 1e-8), 0.0)


def masked_whiten(values: Tokens, mask: Mask) -> Tokens:
    """Scales values to a standard deviation of 1, and shifts them to a mean of 0, where the mask is
    True; 0 elsewhere.
    """
    return masked_scale(jnp.where(mask, values - masked_mean(values, mask), 0.0), mask)


@dataclasses.dataclass(frozen=True)
class ClippedPolicy:
    """Objective of the policy: the clipped surrogate (Schulman et al. 2017, equation 7)."""

    assistant: Any
    clip: float

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        memory = self.assistant.encode(params, batch["context"])
        log_prob = self.assistant.log_prob(params, memory, batch["questions"], batch["answers"])
        loss, clipped = clipped_policy_loss(
            log_prob, batch["log_prob"], batch["advantage"], batch["mask"], self.clip
        )
        answered = jnp.float32(batch["mask"][..., 0].size)
        return loss, {"loss": loss, "clipped": clipped, "answered": answered}


def clipped_policy_loss(
    log_prob: Tokens, before: Tokens, advantage: Tokens, mask: Mask, clip: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean over tokens of the larger of two losses, without and with a clipped ratio.

    Args:
        log_prob: of each token, under the policy that is trained.
        before: the same, under the policy that sampled.
        advantage: of each token.
        mask: True for tokens of the answer.
        clip: how far the ratio of probabilities may be from 1.

    Returns:
        The loss, and the share of tokens where clipping makes it larger.
    """
    ratio = jnp.exp(jnp.where(mask, log_prob - before, 0.0))
    free = -advantage * ratio
    bound = -advantage * jnp.clip(ratio, 1 - clip, 1 + clip)
    is_clipped = (bound > free).astype(free.dtype)
    return masked_mean(jnp.maximum(free, bound), mask), masked_mean(is_clipped, mask)


@dataclasses.dataclass(frozen=True)
class ClippedValue:
    """Objective of the value network: the squared error, clipped as the policy's loss is."""

    model: ValueModel | LanguageValueModel
    clip: float

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        values = self.model.values(params, batch["context"], batch["questions"], batch["answers"])
        loss = clipped_value_loss(values, batch["value"], batch["return"], batch["mask"], self.clip)
        return loss, {"loss": loss, "answered": jnp.float32(batch["mask"][..., 0].size)}


def clipped_value_loss(
    values: Tokens, before: Tokens, returns: Tokens, mask: Mask, clip: float
) -> Float[Array, ""]:
    """Half the mean over tokens of the larger of two squared errors, without and with clipping.

    Args:
        values: predicted by the network that is trained.
        before: predicted when the answers were sampled.
        returns: what is to be predicted.
        mask: True for tokens of the answer.
        clip: how far values may be from those before.
    """
    bound = jnp.clip(values, before - clip, before + clip)
    errors = jnp.maximum(jnp.square(values - returns), jnp.square(bound - returns))
    return 0.5 * masked_mean(errors, mask)


class ProximalState(NamedTuple):
    """The state of `ProximalRollouts`."""

    rollouts: RolloutState
    updates: Float[Array, ""]  # on the current batch of answers
    batch: dict[str, Array]
    measured: Metrics  # of the current batch of answers


@dataclasses.dataclass(frozen=True)
class ProximalRollouts(Source):
    """Answers of the live policy, each of which is used for several updates."""

    rollouts: Rollouts
    value_model: ValueModel | LanguageValueModel
    ppo: PPO
    traced = True

    @property
    def frozen(self) -> tuple[tuple[str, Any], ...]:
        """The roles that it reads, with their models."""
        return self.rollouts.frozen

    def begin(self, work: Work | None, carried: Roles) -> ProximalState:
        """Begins without answers: the first step samples some."""
        rollouts = self.rollouts.begin(work, carried)
        shapes = jax.eval_shape(self._abstract_batch, rollouts)
        batch, measured = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return ProximalState(rollouts, jnp.zeros((), jnp.int32), batch, measured)

    def carry(self, state: ProximalState) -> dict[str, PyTree[Array]]:
        """Returns an adaptive beta, for the next phase of the round."""
        return self.rollouts.carry(state.rollouts)

    def _abstract_batch(self, state: RolloutState) -> tuple[dict[str, Array], Metrics]:
        experiment, key = self.rollouts.experiment, jax.random.key(0)
        frozen = {role: model.init(key) for role, model in self.frozen}
        assistant = experiment.assistant.init(key)
        value = self.value_model.init(key)
        return self._roll_out(frozen, assistant, value, state, key)

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: ProximalState,
        key: Key[Array, ""],
    ) -> tuple[ProximalState, dict[str, Update], Metrics]:
        """Takes the next part of the answers; samples new ones where all updates are done."""
        fresh = state.updates == 0
        batch, measured = jax.lax.cond(
            fresh,
            lambda: self._roll_out(
                frozen, live["assistant"].params, live[VALUE].params, state.rollouts, key
            ),
            lambda: (state.batch, state.measured),
        )
        part = state.updates % self.ppo.minibatches
        rows = jax.tree.map(lambda column: self._part(column, part), batch)
        answers = batch["mask"][..., 0].size
        adapted = self.rollouts.penalty.adapt(state.rollouts.beta, measured["kl"], answers)
        beta = jnp.where(fresh, adapted, state.rollouts.beta)
        state = ProximalState(
            state.rollouts._replace(beta=beta),
            (state.updates + 1) % self.ppo.updates,
            batch,
            measured,
        )
        counted = {metric(ASSISTANT): jnp.where(fresh, answers, 0).astype(jnp.int32)}
        return state, {"assistant": Update(rows), VALUE: Update(rows)}, measured | counted

    def _part(self, column: Array, part: Array) -> Array:
        """Every `minibatches`-th row; rows were drawn independently, so any part will do."""
        by_part = column.reshape(-1, self.ppo.minibatches, *column.shape[1:])
        return jnp.take(by_part, part, axis=1)

    def _roll_out(
        self,
        frozen: Roles,
        params: PyTree[Array],
        value_params: PyTree[Array],
        state: RolloutState,
        key: Key[Array, ""],
    ) -> tuple[dict[str, Array], Metrics]:
        """Samples answers and computes their advantages and returns."""
        experiment = self.rollouts.experiment
        assistant = experiment.assistant
        draw_key, answer_key = jax.random.split(key)
        contexts, questions = draw_batch(experiment, draw_key)
        read = contexts_for(experiment.task, contexts, questions)
        answers = sample(assistant, params, read, questions, answer_key).tokens
        log_prob, reference = (
            assistant.log_prob(one, assistant.encode(one, read), questions, answers)
            for one in (params, frozen[REFERENCE])
        )
        mask = chooser_of(assistant)(answers).tokens
        score = self.rollouts.reward(frozen, state.normaliser, read, questions, answers)
        rewards = token_rewards(score, log_prob - reference, state.beta, mask)
        rewards = masked_scale(rewards, mask)
        values = self.value_model.values(value_params, read, questions, answers)
        advantage = advantages(
            rewards, values, mask, discount=self.ppo.discount, decay=self.ppo.decay
        )
        batch = {
            "context": read,
            "questions": questions,
            "answers": answers,
            "mask": mask,
            "log_prob": log_prob,
            "value": values,
            "return": advantage + values,
            "advantage": masked_whiten(advantage, mask),
        }
        kl = jnp.mean(jnp.sum(log_prob - reference, axis=-1))
        return batch, {"reward": jnp.mean(score), "kl": kl, "beta": state.beta}
