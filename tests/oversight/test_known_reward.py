"""PPO where the reward is known: it ends at the optimum, which is computed over all answers."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.models.value_model import ValueModel
from amplify.oversight.reinforcement.ppo import (
    PPO,
    VALUE,
    ClippedPolicy,
    ClippedValue,
    ProximalRollouts,
)
from amplify.oversight.reinforcement.rollouts import REFERENCE, REWARD_MODEL, Penalty, Rollouts
from amplify.reading.experiment_file import read_experiment
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.training.phase import Phase, Trained
from amplify.training.step import begin, fresh_role, make_step
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

STEPS, BETA = 1000, 0.5
CONTEXT, QUESTION = jnp.ones((1, 2), jnp.int32), jnp.ones(4, jnp.int32)
ANSWERS = jnp.stack(jnp.divmod(jnp.arange(256, dtype=jnp.int32), 16), axis=-1)


@dataclasses.dataclass(frozen=True)
class Pairs(Permutation):
    """One question, with answers of two of 16 tokens."""

    symbols: int = 15
    facts = 1
    answer_length = 2

    def draw_context(self, key):
        return CONTEXT

    def draw_question(self, key, context, depth):
        return QUESTION


@dataclasses.dataclass(frozen=True)
class Table(RewardModel):
    """Each of the 256 answers has a reward of its own, which no sum over its tokens explains."""

    def init(self, key):
        return jax.random.normal(key, (16, 16))

    def rewards(self, params, contexts, questions, answers):
        return params[answers[..., 0], answers[..., 1]][None]


def known_reward(folder: Path):
    """A phase of PPO: the policy, and the value network beside it."""
    task, ppo = Pairs(), PPO(epochs=2)
    experiment = read_experiment(tiny_experiment(folder, JUDGED_ESSAYS) / "experiment.toml")
    config = FactTransformerConfig(
        width=32, heads=2, encoder_layers=0, decoder_layers=1, copies=False
    )
    policy, value = config.build(task), ValueModel(config, task)
    training = dataclasses.replace(
        experiment.training,
        steps=STEPS,
        batch=1,
        learning_rate=5e-3,
        final_learning_rate=0.0,  # whitened advantages stay as noisy at the optimum as elsewhere
        warmup_steps=0,
    )
    experiment = dataclasses.replace(
        experiment,
        task=task,
        assistant=policy,
        training=training,
        questions=dataclasses.replace(experiment.questions, per_context=512),
        evals=dataclasses.replace(experiment.evals, apart=False),
    )
    table = Table(RewardModelConfig(members=1), task)
    rollouts = Rollouts(experiment, table, Penalty(beta=BETA))
    source = ProximalRollouts(rollouts, value, ppo)
    trained = (
        Trained("assistant", policy, ClippedPolicy(policy, ppo.clip), training),
        Trained(VALUE, value, ClippedValue(value, ppo.value_clip), training),
    )
    return Phase("reinforcement", trained, training.schedule, source, frozen=source.frozen)


@pytest.mark.slow
def test_ppo_ends_at_the_optimum_that_the_penalty_sets(tmp_path):
    """The best policy is the reference times exp(reward / beta): Korbak et al. 2022
    (arXiv:2205.11275), section 2.
    """
    phase = known_reward(tmp_path / "tiny")
    policy, value, table = phase.trains[0].model, phase.trains[1].model, phase.frozen[0][1]

    @jax.jit
    def log_probs(params):
        memory = policy.encode(params, CONTEXT[None])
        questions = jnp.broadcast_to(QUESTION, (1, 256, 4))
        return jnp.sum(policy.log_prob(params, memory, questions, ANSWERS[None])[0], axis=-1)

    def distance(params, optimum):
        return 0.5 * float(jnp.sum(jnp.abs(jnp.exp(log_probs(params)) - optimum)))

    started, ended = [], []
    for seed in range(5):
        keys = jax.random.split(jax.random.key(seed), 4)
        reference, rewards = policy.init(keys[0]), table.init(keys[1])
        optimum = jax.nn.softmax(log_probs(reference) + rewards.reshape(-1) / BETA)
        params = {"assistant": reference, VALUE: value.init(keys[2])}
        before = {one.role: fresh_role(one, params[one.role]) for one in phase.trains}
        state = begin(phase, before, phase.source.begin(None, {}))
        step = make_step(phase, {REWARD_MODEL: rewards, REFERENCE: reference}, keys[3])
        for _ in range(STEPS):
            state, _ = step(state)
        started.append(distance(reference, optimum))
        ended.append(distance(state.roles["assistant"].params, optimum))
    assert min(started) >= 0.5
    assert max(ended) <= 0.02, ended
