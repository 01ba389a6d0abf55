"""Reward models with a network like the policy's, read after an answer's last token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amplify.models.abilities import trainable_of
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModelConfig
from amplify.models.language_value import LanguageValueModel
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.models.value_model import ValueModel
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.essays.task import Essays
from tests.checkpoints import checkpoint_folder

TASK = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=1)
LANGUAGE = LanguageModelConfig(width=16, heads=2, key_heads=1, layers=2)
FACTS = FactTransformerConfig(width=16, heads=2, encoder_layers=0)
CONFIG = RewardModelConfig(members=2, network="policy")


def reward_model(kind: str, task: Essays = TASK) -> RewardModel:
    scorer = (
        LanguageValueModel(LANGUAGE.build(task)) if kind == "language" else ValueModel(FACTS, task)
    )
    return RewardModel(CONFIG, task, scorer)


def moved(params, seed: int = 3):
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params)


def asked(rows: int = 3):
    questions = jnp.full((rows, 2, 1), TASK.vocabulary.index("write"), jnp.int32)
    return questions, jax.random.randint(jax.random.key(2), (rows, 2, TASK.length), 1, 8)


@pytest.mark.parametrize("kind", ["language", "facts"])
def test_every_token_of_an_answer_counts_and_members_differ(kind):
    model, (questions, answers) = reward_model(kind), asked()
    params = moved(model.init(jax.random.key(0)))
    rewards = jax.jit(model.rewards)
    before = rewards(params, None, questions, answers)
    assert before.shape == (2, 3, 2)
    assert (before[0] != before[1]).all()
    for place in range(TASK.length):
        after = rewards(params, None, questions, answers.at[..., place].set(9))
        assert (before != after).all()


@pytest.mark.parametrize("kind", ["language", "facts"])
@pytest.mark.parametrize("reads", [False, True])
def test_the_context_counts_only_for_a_reward_model_that_reads_it(kind, reads):
    model, (questions, answers) = reward_model(kind), asked()
    model = dataclasses.replace(
        model, config=dataclasses.replace(model.config, reads_context=reads)
    )
    params = moved(model.init(jax.random.key(0)))
    shape = (len(questions), TASK.facts, TASK.fact_length)
    one, two = (jax.random.randint(jax.random.key(seed), shape, 1, 8) for seed in (3, 4))
    rewards = jax.jit(model.rewards)
    differ = rewards(params, one, questions, answers) != rewards(params, two, questions, answers)
    assert (differ == reads).all()


def test_the_reward_of_a_language_model_is_not_read_at_padding():
    """What an answer is worth does not depend on how long it could have been, nor on what stands
    after its end.
    """
    short, long = (
        reward_model("language", dataclasses.replace(TASK, length=length)) for length in (5, 8)
    )
    params, (questions, answers) = moved(short.init(jax.random.key(0))), asked()
    longer = jnp.pad(answers, [(0, 0), (0, 0), (0, 3)])
    whole = short.rewards(params, None, questions, answers)
    np.testing.assert_allclose(
        long.rewards(params, None, questions, longer), whole, rtol=1e-4, atol=1e-5
    )
    ended = answers.at[..., 2].set(0)
    garbage = short.rewards(params, None, questions, ended)
    clean = short.rewards(params, None, questions, ended.at[..., 3:].set(0))
    np.testing.assert_allclose(garbage, clean, rtol=1e-5)
    assert (jnp.abs(whole - clean) > 1e-4).all()


@pytest.mark.parametrize("rank", [0, 2])
def test_members_begin_with_the_policys_checkpoint(tmp_path, rank):
    checkpoint_folder(tmp_path / "checkpoint")
    task = Permutation(3, 2)
    config = LanguageModelConfig(pretrained=str(tmp_path / "checkpoint"), lora_rank=rank)
    model = RewardModel(CONFIG, task, LanguageValueModel(config.build(task)))
    params = model.load()
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda one, two: one.shape == two.shape, params, abstract))
    own, kept = trainable_of(model).split(params)
    for member in own if rank else ():
        names = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(member)}
        assert {name for name in names if "low_" not in name} == {"head/bias", "head/kernel"}
    joined = trainable_of(model).join(own, kept)
    assert jax.tree.all(jax.tree.map(np.array_equal, joined, params))


def test_members_begin_with_the_policy_that_imitated_drafts():
    """With its network, all but the logits, and no opinion of any answer."""
    model, (questions, answers) = reward_model("language"), asked()
    policy = moved(model.scorer.policy.init(jax.random.key(0)))
    params = jax.jit(model.begin_with)(policy)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda one, two: one.shape == two.shape, params, abstract))
    same = dict(nnx.to_flat_state(policy))
    for member in params:
        trunk = dict(nnx.to_flat_state(member["trunk"]))
        assert 0 < len(trunk) <= len(same)
        assert all(np.array_equal(leaf[...], same[path][...]) for path, leaf in trunk.items())
    assert (model.rewards(params, None, questions, answers) == 0).all()


def test_an_mlp_stays_the_default():
    model = RewardModel(RewardModelConfig(), TASK)
    assert model.load() is None
    params = model.init(jax.random.key(0))
    joined = model.join(*model.split(params))
    assert jax.tree.all(jax.tree.map(np.array_equal, joined, params))
