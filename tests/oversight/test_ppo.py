"""The components of PPO, each against values computed by hand or by a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.value_model import ValueModel
from amplify.oversight.reinforcement.ppo import (
    PPO,
    advantages,
    clipped_policy_loss,
    clipped_value_loss,
    masked_mean,
    masked_scale,
    masked_whiten,
    token_rewards,
)
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.essays.task import Essays

LENGTHS = [[5, 3, 1], [2, 4, 0]]


def batch(seed: int = 0):
    """Numbers for answers of up to 5 tokens, one of which is empty."""
    random = np.random.default_rng(seed)
    mask = np.arange(5) < np.array(LENGTHS)[..., None]
    draw = lambda: jnp.asarray(random.normal(size=(2, 3, 5)), jnp.float32)  # noqa: E731
    return draw(), draw(), jnp.asarray(mask)


def test_the_score_is_paid_at_the_last_token_of_the_answer_and_the_penalty_at_every_one():
    log_ratio, _, mask = batch()
    score = jnp.arange(6, dtype=jnp.float32).reshape(2, 3) + 1
    rewards = np.asarray(token_rewards(score, log_ratio, jnp.float32(0.5), mask))
    for row in range(2):
        for column, length in enumerate(LENGTHS[row]):
            expected = [-0.5 * float(x) for x in log_ratio[row, column, :length]] + [0] * (
                5 - length
            )
            if length:
                expected[length - 1] += float(score[row, column])
            np.testing.assert_allclose(rewards[row, column], expected, rtol=1e-6)


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_advantages_are_sums_of_decayed_errors(discount: float, decay: float):
    """Equation 16 of Schulman et al. 2015, term by term."""
    rewards, values, mask = batch()
    found = np.asarray(advantages(rewards, values, mask, discount=discount, decay=decay))
    for row in range(2):
        for column, length in enumerate(LENGTHS[row]):
            r, v = (np.asarray(x[row, column, :length], float) for x in (rewards, values))
            delta = r + discount * np.append(v[1:], 0)[:length] - v
            expected = [
                sum((discount * decay) ** (k - t) * delta[k] for k in range(t, length))
                for t in range(length)
            ]
            np.testing.assert_allclose(found[row, column, :length], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(found[row, column, length:], 0)


def test_advantages_are_means_of_estimates_over_all_horizons():
    """The definition that equation 16 sums up: of the estimates that look 1, 2, ... tokens ahead,
    the mean with weights (1 - lambda) lambda^(k - 1); those beyond the end are all the same. In
    float64, without the recursion.
    """
    rewards, values, mask = batch(1)
    discount, decay = 0.97, 0.9
    found = np.asarray(advantages(rewards, values, mask, discount=discount, decay=decay))
    for row in range(2):
        for column, length in enumerate(LENGTHS[row]):
            r, v = (np.asarray(x[row, column], np.float64) for x in (rewards, values))
            for t in range(length):
                estimates, left = [], length - t
                for k in range(1, left + 1):
                    ahead = sum(discount**i * r[t + i] for i in range(k))
                    after = discount**k * v[t + k] if k < left else 0.0
                    estimates.append(ahead + after - v[t])
                weights = [(1 - decay) * decay**k for k in range(left - 1)] + [decay ** (left - 1)]
                assert sum(weights) == pytest.approx(1)
                expected = np.dot(weights, estimates)
                assert found[row, column, t] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_without_decay_to_speak_of_advantages_are_returns_less_values():
    rewards, values, mask = batch()
    found = advantages(rewards, values, mask, discount=1.0, decay=1.0)
    rewards = jnp.where(mask, rewards, 0)
    returns = jnp.cumsum(rewards[..., ::-1], axis=-1)[..., ::-1]
    expected = jnp.where(mask, returns - values, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "mean_after"), [(masked_whiten, 0.0), (masked_scale, None)], ids=["whiten", "scale"]
)
def test_only_tokens_of_answers_are_whitened_or_scaled(scale, mean_after):
    values, _, mask = batch()
    values = jnp.where(mask, 3 * values + 7, 1e6)
    found = np.asarray(scale(values, mask))
    inside = np.asarray(values, float)[np.asarray(mask)]
    expected = inside / inside.std()
    if mean_after is not None:
        expected += mean_after - expected.mean()
    np.testing.assert_allclose(found[np.asarray(mask)], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[~np.asarray(mask)], 0)


def test_scaled_rewards_prefer_no_length():
    """Of two answers with the same return, one of them longer, neither gains by scaling."""
    mask = jnp.array([[[True, True, True, True], [True, False, False, False]]])
    rewards = jnp.array([[[0.5, 0.5, 0.5, 0.5], [2.0, 0.0, 0.0, 0.0]]])
    scaled = masked_scale(rewards, mask)[0]
    assert float(scaled[0].sum()) == pytest.approx(float(scaled[1].sum()))


def test_the_mean_of_nothing_is_0():
    values, _, mask = batch()
    assert masked_mean(values, jnp.zeros_like(mask)) == 0


def test_the_policys_loss_is_clipped_only_where_that_makes_it_larger():
    """Four tokens: the ratio too large or too small, the advantage positive or negative."""
    ratio = jnp.array([1.5, 1.5, 0.5, 0.5])[None, None]
    advantage = jnp.array([1.0, -1.0, 1.0, -1.0])[None, None]
    mask = jnp.ones(ratio.shape, bool)
    before = jnp.full(ratio.shape, -2.0)
    loss, clipped = clipped_policy_loss(before + jnp.log(ratio), before, advantage, mask, 0.2)
    assert loss == pytest.approx(np.mean([-1.2, 1.5, -0.5, 0.8]))
    assert clipped == pytest.approx(0.5)
    gradient = jax.grad(lambda x: clipped_policy_loss(x, before, advantage, mask, 0.2)[0])(
        before + jnp.log(ratio)
    )
    np.testing.assert_allclose(gradient[0, 0], [0, 1.5 / 4, -0.5 / 4, 0], atol=1e-6)


def test_the_values_loss_is_clipped_only_where_that_makes_it_larger():
    values, before = jnp.array([1.0, 1.0, 0.1]), jnp.array([0.0, 0.0, 0.0])
    returns = jnp.array([2.0, -1.0, 5.0])
    shape = (1, 1, 3)
    found = clipped_value_loss(
        *(x.reshape(shape) for x in (values, before, returns)), jnp.ones(shape, bool), 0.2
    )
    expected = [(0.2 - 2) ** 2, (1 + 1) ** 2, (0.1 - 5) ** 2]
    assert found == pytest.approx(0.5 * np.mean(expected))


@pytest.mark.parametrize("padding", [1e3, -1e3])
def test_what_is_masked_does_not_count(padding: float):
    """In losses and their gradients, however far the values of padding are from anything."""
    one, two, mask = batch()
    for loss in (
        lambda x: clipped_policy_loss(x, two, two, mask, 0.2)[0],
        lambda x: clipped_value_loss(x, two, two, mask, 0.2),
    ):
        value, gradient = jax.value_and_grad(loss)(jnp.where(mask, one, 0))
        padded, gradient_padded = jax.value_and_grad(loss)(jnp.where(mask, one, padding))
        assert padded == pytest.approx(float(value), rel=1e-6)
        np.testing.assert_allclose(gradient_padded, gradient, rtol=1e-6)
        np.testing.assert_array_equal(gradient_padded[~mask], 0)


def test_an_answer_counts_by_its_tokens():
    """The mean is over all tokens of the batch, not over answers first."""
    mask = jnp.array([[[True, True, True], [True, False, False]]])
    advantage = jnp.array([[[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]]])
    loss, _ = clipped_policy_loss(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2, 3)), advantage, mask, 0.2)
    assert loss == pytest.approx(-(1 + 2 + 3 + 10) / 4)


TASK = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=1)
VALUES = ValueModel(FactTransformerConfig(width=16, heads=2, copies=False), TASK)


def questions_and_answers():
    contexts = jax.vmap(TASK.draw_context)(jax.random.split(jax.random.key(1), 3))
    questions = jnp.full((3, 2, 1), TASK.vocabulary.index("write"), jnp.int32)
    return contexts, questions, jnp.ones((3, 2, 5), jnp.int32)


def test_a_value_network_begins_at_0_and_can_learn():
    params, asked = VALUES.init(jax.random.key(0)), questions_and_answers()
    values = VALUES.values(params, *asked)
    assert values.shape == (3, 2, 5)
    np.testing.assert_array_equal(values, 0)
    gradient = jax.grad(lambda params: jnp.sum(VALUES.values(params, *asked)))(params)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


def test_a_value_is_of_what_was_said_before_the_token():
    params = moved(VALUES.init(jax.random.key(0)))
    contexts, questions, answers = questions_and_answers()
    before = VALUES.values(params, contexts, questions, answers)
    after = VALUES.values(params, contexts, questions, answers.at[..., 2].set(7))
    np.testing.assert_array_equal(before[..., :3], after[..., :3])
    assert (before[..., 3:] != after[..., 3:]).all()


def test_updates_on_one_batch():
    assert PPO(epochs=4, minibatches=2).updates == 8


def moved(params, seed: int = 2):
    """Parameters far from where they begin, so that every input shows in the output."""
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params)


def test_a_padded_fact_changes_no_value():
    """With an encoder layer, through which it could also change what other facts become."""
    task = Permutation(5, 3)
    model = ValueModel(FactTransformerConfig(width=16, heads=2, encoder_layers=1), task)
    params = moved(model.init(jax.random.key(0)))
    contexts = jax.vmap(lambda key: task.draw_context_of_size(key, jnp.int32(3)))(
        jax.random.split(jax.random.key(1), 4)
    )
    questions, answers = jnp.ones((4, 2, 4), jnp.int32), jnp.ones((4, 2, 1), jnp.int32)
    padded = model.values(params, contexts, questions, answers)
    without = model.values(params, contexts[:, :3], questions, answers)
    np.testing.assert_allclose(padded, without, atol=1e-5)
    fewer = model.values(params, contexts[:, :2], questions, answers)
    assert (jnp.abs(fewer - without) > 1e-3).all()


def test_a_value_network_has_no_parameters_that_it_never_uses():
    """Whatever the policy copies from facts."""
    model = ValueModel(FactTransformerConfig(width=16, heads=2, encoder_layers=1), TASK)
    params, asked = moved(model.init(jax.random.key(0))), questions_and_answers()
    gradient = jax.grad(lambda params: jnp.sum(model.values(params, *asked)))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
