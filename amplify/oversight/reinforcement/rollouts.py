"""Reinforcement learning against a reward model, with a penalty for leaving the reference policy.

The plain policy gradient (Williams 1992) on whole answers, which are sampled from the weights that
are trained. An answer's return is its reward minus beta times log p - log p_reference: its mean is
the reward minus beta times the KL divergence (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree
from pydantic import Field

from amplify.experiment.sections import Experiment
from amplify.models.abilities import chooser_of
from amplify.models.reward_model import RewardModel
from amplify.overseers.reviewers import Reviewer
from amplify.oversight.restore import load
from amplify.oversight.reviews.counting import JUDGE_SCORES, Consulted, effort_of
from amplify.oversight.reviews.preferences import SCORES
from amplify.oversight.reviews.scorers import log_likelihood
from amplify.oversight.work import Work, draw_batch
from amplify.records.round_folder import Handle
from amplify.runtime import effort
from amplify.runtime.calls import ASSISTANT, metric
from amplify.training.mesh import Mesh
from amplify.training.phase import Metrics, RoleState, Source, Update
from amplify.trees.amplification import contexts_for
from amplify.types import Answers, Assistant, Roles, Scores, Task

REWARD_MODEL, REFERENCE = "reward_model", "reference"
"""Roles beside the assistant."""
REFERENCE_BATCHES = 8
"""Batches of the reference policy's answers by which rewards are normalised."""


@dataclasses.dataclass(frozen=True)
class Penalty:
    """How leaving the reference policy is penalised."""

    beta: Annotated[float, Field(ge=0)] = 0.0
    """Reward, in standard deviations of the reference policy's, that a nat of KL costs."""
    target_kl: Annotated[float, Field(ge=0)] = 0.0
    """If not 0, beta is adapted so that the KL divergence approaches this many nats."""
    horizon: Annotated[float, Field(gt=0)] = 10_000.0
    """Answers over which an adaptive beta changes; changes are proportional to the relative error,
    clipped to 0.2 (Ziegler et al. 2019, section 2.2)."""
    unfinished: Annotated[float, Field(ge=0)] = 0.0
    """What an answer without an end loses, in standard deviations of the reference policy's reward:
    one of a language model that is as long as an answer may be and would go on. Otherwise it is
    rewarded like any other."""

    def __post_init__(self) -> None:
        """Checks that an adaptive beta can change.

        Raises:
            ValueError: if it begins at 0, of which every multiple is 0.
        """
        if self.target_kl and not self.beta:
            raise ValueError(
                "oversight.penalty.target_kl adapts oversight.penalty.beta by factors: beta must"
                " begin above 0, got 0"
            )

    def adapt(self, beta: Float[Array, ""], kl: Float[Array, ""], answers: int) -> Array:
        """The next beta.

        Args:
            beta: the current one.
            kl: measured in this step, in nats.
            answers: number of answers that it was measured on.
        """
        if not self.target_kl:
            return beta
        error = jnp.clip(kl / self.target_kl - 1, -0.2, 0.2)
        return beta * (1 + error * min(1, answers / self.horizon))


@dataclasses.dataclass(frozen=True)
class PolicyGradient:
    """Objective of the policy: the advantage times the log-probability of each answer."""

    assistant: Any

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        memory = self.assistant.encode(params, batch["context"])
        log_prob = self.assistant.log_prob(params, memory, batch["questions"], batch["answers"])
        loss = -jnp.mean(batch["advantage"] * jnp.sum(log_prob, axis=-1))
        return loss, {"loss": loss, "answered": jnp.float32(batch["advantage"].size)}


class Normaliser(NamedTuple):
    """Mean and spread of each member's rewards on answers of the reference policy."""

    mean: Float[Array, " members"]
    scale: Float[Array, " members"]

    def __call__(self, rewards: Float[Array, "members *b"]) -> Float[Array, "members *b"]:
        """Rewards in standard deviations from the mean, so that beta keeps its meaning."""
        shape = (-1, *(1,) * (rewards.ndim - 1))
        return (rewards - self.mean.reshape(shape)) / self.scale.reshape(shape)


class RolloutState(NamedTuple):
    """The state of `Rollouts`."""

    normaliser: Normaliser
    beta: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Rollouts(Source):
    """Answers of the live policy, rewarded by the reward model, or by the judge."""

    experiment: Experiment
    model: RewardModel
    penalty: Penalty
    judge: Reviewer | None = None
    """Scores every answer instead of the reward model, if it is given; its methods are traced."""
    traced = True

    def begin(self, work: Work | None, carried: Roles) -> RolloutState:
        """Measures the reward model on answers of the reference policy."""
        members = jnp.ones(self.model.config.members)
        normaliser = Normaliser(0 * members, members)
        if work is not None:
            normaliser = normaliser_of(self.experiment, self.model, work.roles)
        beta = jnp.float32(self.penalty.beta)
        if work is not None and work.roles[ASSISTANT].round_.number == work.this.number:
            beta = carried.get(ASSISTANT, beta)  # an earlier phase of this round adapted it
        return RolloutState(normaliser, beta)

    def carry(self, state: RolloutState) -> dict[str, PyTree[Array]]:
        """Returns an adaptive beta, for the next phase of the round."""
        return {ASSISTANT: state.beta} if self.penalty.target_kl else {}

    @property
    def frozen(self) -> tuple[tuple[str, Any], ...]:
        """The roles that it reads, with their models."""
        return ((REWARD_MODEL, self.model), (REFERENCE, self.experiment.assistant))

    def reward(
        self,
        frozen: Roles,
        normaliser: Normaliser,
        read: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions"]:
        """The reward of whole answers, in standard deviations of the reference policy's rewards.

        Args:
            frozen: parameters, among them the reward model's.
            normaliser: of the ensemble's rewards.
            read: the contexts that the policy read.
            questions: about each context.
            answers: one to each question.
        """
        rewards = self.model.rewards(frozen[REWARD_MODEL], read, questions, answers)
        ended = chooser_of(self.experiment.assistant)(answers).ended
        return self.model.combine(normaliser(rewards)) - jnp.where(
            ended, 0.0, self.penalty.unfinished
        )

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: RolloutState,
        key: Key[Array, ""],
    ) -> tuple[RolloutState, dict[str, Update], Metrics]:
        """Samples answers to new questions and computes their advantages."""
        draw_key, answer_key = jax.random.split(key)
        contexts, questions = draw_batch(self.experiment, draw_key)
        assistant = self.experiment.assistant
        read = contexts_for(self.experiment.task, contexts, questions)
        answers, log_prob = sample(assistant, live[ASSISTANT].params, read, questions, answer_key)
        if self.judge is None:
            reward = self.reward(frozen, state.normaliser, read, questions, answers)
        else:
            keys = jax.random.split(jax.random.fold_in(key, 2), questions.shape[:2])
            scored = self.judge.score({}, contexts, questions, answers, keys)
            reward = scored.value
        log_ratio = log_prob - log_likelihood(
            assistant, frozen[REFERENCE], read, questions, answers
        )
        kl = jnp.mean(log_ratio)
        batch = {
            "context": read,
            "questions": questions,
            "answers": answers,
            "advantage": whiten(reward - state.beta * log_ratio),
        }
        measured = {
            "reward": jnp.mean(reward),
            "kl": kl,
            "beta": state.beta,
            metric(ASSISTANT): jnp.int32(reward.size),
        }
        if self.judge is not None:
            measured |= _effort_of_scores(self.experiment.task, scored)
        state = state._replace(beta=self.penalty.adapt(state.beta, kl, reward.size))
        return state, {ASSISTANT: Update(batch)}, measured


def _effort_of_scores(task: Task, scored: Scores) -> Metrics:
    """What it takes a simulated judge to score answers."""
    number, looks = scored.value.size, jnp.sum(jnp.asarray(scored.looks), dtype=jnp.int32)
    actions = jax.tree.map(jnp.int32, effort_of(task, SCORES, number, Consulted(looks, 0)))
    return {metric(JUDGE_SCORES): jnp.int32(number), **effort.as_metrics(actions)}


def sample(
    assistant: Assistant,
    params: PyTree[Array],
    read: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    key: Key[Array, ""],
) -> Answers:
    """Samples an answer to each question.

    Args:
        assistant: the model.
        params: of the policy.
        read: the contexts that it reads, see `contexts_for`.
        questions: about each context.
        key: consumed.
    """
    keys = jax.random.split(key, questions.shape[:2])
    return assistant.answer(params, assistant.encode(params, read), questions, keys)


def normaliser_of(
    experiment: Experiment, model: RewardModel, roles: Mapping[str, Handle]
) -> Normaliser:
    """Measures a round's reward model on answers of its reference policy, as `measure_rewards`
    does. Phases and audits with the same two checkpoints share the result.

    Args:
        experiment: its seed decides which answers these are.
        model: the reward model.
        roles: checkpoints, by role.
    """
    handles = (roles[REWARD_MODEL], roles[REFERENCE])
    digests = tuple(handle.digest for handle in handles)
    return _measure(experiment, model, _Checkpoints(digests, experiment.mesh, handles))


@dataclasses.dataclass(frozen=True)
class _Checkpoints:
    """Checkpoints that are the same if their contents are, and go to the same devices."""

    digests: tuple[str, ...]
    mesh: Mesh
    handles: tuple[Handle, Handle] = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=16)
def _measure(experiment: Experiment, model: RewardModel, of: _Checkpoints) -> Normaliser:
    reward_model, reference = of.handles
    roles = {
        REWARD_MODEL: load(experiment, model, reward_model),
        REFERENCE: load(experiment, experiment.assistant, reference),
    }
    return measure_rewards(experiment, model, roles, jax.random.key(experiment.seed))


def measure_rewards(
    experiment: Experiment, model: RewardModel, roles: Roles, key: Key[Array, ""]
) -> Normaliser:
    """Measures a reward model on answers of the reference policy.

    Args:
        experiment: draws the questions.
        model: the reward model.
        roles: its parameters, and those of the reference policy.
        key: consumed.

    Returns:
        The mean and the standard deviation of each member.
    """

    keys = jax.random.split(key, REFERENCE_BATCHES)
    batches = [_reference_rewards(experiment, model, roles, key) for key in keys]
    rewards = jnp.concatenate(batches, axis=1)
    return Normaliser(jnp.mean(rewards, axis=1), jnp.maximum(jnp.std(rewards, axis=1), 1e-6))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _reference_rewards(
    experiment: Experiment, model: RewardModel, roles: Roles, key: Key[Array, ""]
) -> Float[Array, "members answers"]:
    draw_key, answer_key = jax.random.split(key)
    contexts, questions = draw_batch(experiment, draw_key)
    read = contexts_for(experiment.task, contexts, questions)
    answers = sample(experiment.assistant, roles[REFERENCE], read, questions, answer_key)
    rewards = model.rewards(roles[REWARD_MODEL], read, questions, answers.tokens)
    return rewards.reshape(model.config.members, -1)


def whiten(values: Float[Array, "batch questions"]) -> Float[Array, "batch questions"]:
    """Shifts and scales values to mean 0 and standard deviation 1."""
    return (values - jnp.mean(values)) / (jnp.std(values) + 1e-6)
