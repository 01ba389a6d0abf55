import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.scaling_laws import (
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_kl_bound,
    fit,
)

KL = np.array([0.0, 0.5, 1, 2, 4, 8, 16])


@pytest.mark.parametrize("optimiser", ["best_of_n", "reinforcement"])
def test_a_law_is_recovered_from_its_own_points(optimiser):
    distance = np.sqrt(KL)
    bent = distance if optimiser == "best_of_n" else np.log(np.maximum(distance, 1e-9))
    found = fit(optimiser, KL, distance * (1.3 - 0.4 * bent))
    assert (found.alpha, found.beta) == pytest.approx((1.3, 0.4))
    assert found.r_squared == pytest.approx(1)
    np.testing.assert_allclose(
        found.predict(np.array([9.0])),
        3 * (1.3 - 0.4 * (3 if optimiser == "best_of_n" else np.log(3))),
    )
    assert found.predict(np.array([0.0])) == pytest.approx(0)


def test_the_fit_is_least_squares_and_r_squared_its_share():
    random = np.random.default_rng(0)
    reward = np.sqrt(KL) * (1 - 0.2 * np.sqrt(KL)) + 0.1 * random.normal(size=len(KL))
    found = fit("best_of_n", KL, reward)
    left = reward - found.predict(KL)
    assert found.r_squared == pytest.approx(1 - left.var() * 7 / (reward.var() * 7), abs=0.05)
    for alpha, beta in itertools.product((-0.01, 0.01), repeat=2):
        other = np.sqrt(KL) * (found.alpha + alpha - (found.beta + beta) * np.sqrt(KL))
        assert ((reward - other) ** 2).sum() > (left**2).sum()


def test_equal_rewards_have_no_r_squared():
    assert fit("best_of_n", KL, np.zeros(7)).r_squared is None


@pytest.mark.parametrize(
    ("kl", "reward", "said"),
    [
        ([1.0, 2], [1.0, 2, 3], "2 values of KL, but 3"),
        ([0.0, 0, 1, 2], [0.0, 0, 1, 2], "three different"),
        ([1.0, 2, -1], [1.0, 2, 3], "0 or more"),
        ([1.0, 2, np.nan], [1.0, 2, 3], "0 or more"),
        ([1.0, 2, 3], [1.0, 2, np.nan], "rewards must be finite"),
    ],
)
def test_points_that_cannot_be_fitted_are_rejected(kl, reward, said):
    with pytest.raises(AmplifyError, match=said):
        fit("reinforcement", np.array(kl), np.array(reward))


def enumerated_kl(probabilities, scores, n):
    """Over all n-tuples of answers, with ties broken at random."""
    best = np.zeros(len(scores))
    for drawn in itertools.product(range(len(scores)), repeat=n):
        top = [one for one in drawn if scores[one] == max(scores[other] for other in drawn)]
        for one in top:
            best[one] += np.prod([probabilities[other] for other in drawn]) / len(top)
    seen = best > 0
    return float((best[seen] * np.log(best[seen] / probabilities[seen])).sum())


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("scores", [[0.0, 1, 2, 3], [1.0, 1, 0, 2], [1.0, 1, 1, 1]])
def test_the_exact_kl_is_that_of_enumeration(n, scores):
    probabilities = np.array([0.4, 0.3, 0.2, 0.1])
    found = best_of_n_kl(probabilities, np.array(scores), n)
    assert found == pytest.approx(enumerated_kl(probabilities, scores, n), abs=1e-12)
    assert found <= best_of_n_kl_bound(n) + 1e-12


def test_the_bound_is_reached_where_scores_never_tie():
    many = 20_000
    exact = best_of_n_kl(np.full(many, 1 / many), np.arange(many, dtype=float), 16)
    assert exact == pytest.approx(best_of_n_kl_bound(16), abs=1e-3)
    assert best_of_n_kl_bound(1) == 0


def test_answers_that_are_never_given_do_not_matter():
    some = best_of_n_kl(np.array([0.5, 0.5, 0.0]), np.array([0.0, 1, 9]), 3)
    assert some == pytest.approx(best_of_n_kl(np.array([0.5, 0.5]), np.array([0.0, 1]), 3))


@pytest.mark.parametrize(
    ("probabilities", "scores", "n", "said"),
    [
        ([0.5, 0.5], [0.0, np.nan], 2, "1 of 2 scores are NaN"),
        ([0.5, 0.6], [0.0, 1], 2, "add up to 1"),
        ([1.5, -0.5], [0.0, 1], 2, "add up to 1"),
        ([1.0], [0.0, 1], 2, "2 scores"),
        ([0.5, 0.5], [0.0, 1], 0, "n must be 1 or more"),
    ],
)
def test_answers_without_a_distribution_are_rejected(probabilities, scores, n, said):
    with pytest.raises(AmplifyError, match=said):
        best_of_n_kl(np.array(probabilities), np.array(scores), n)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(0, 2**32 - 1))
def test_the_curve_is_the_mean_over_all_subsets(proxy, seed):
    gold = np.random.default_rng(seed).normal(size=len(proxy))
    ns = range(1, len(proxy) + 1)
    found = best_of_n_curve(np.array(proxy, float), gold, ns)
    for n, mean in zip(ns, found, strict=True):
        every = []
        for subset in itertools.combinations(range(len(proxy)), n):
            best = max(proxy[one] for one in subset)
            every.append(np.mean([gold[one] for one in subset if proxy[one] == best]))
        assert mean == pytest.approx(np.mean(every))


def test_the_curve_of_a_large_sample_ends_at_its_best():
    random = np.random.default_rng(0)
    proxy = random.normal(size=8192)
    found = best_of_n_curve(proxy, proxy, [1, 2, 16, 8192])
    assert found[0] == pytest.approx(proxy.mean())
    assert found[1] == pytest.approx(1 / np.sqrt(np.pi), abs=0.03)  # of two normal deviates
    assert found[3] == proxy.max()
    assert np.all(np.diff(found) > 0)


@pytest.mark.parametrize(
    ("proxy", "gold", "n", "said"),
    [
        ([1.0, np.nan, 2], [0.0, 0, 0], 2, "scores are NaN, the first is that of sample 1"),
        ([1.0, 3, 2], [0.0, np.nan, 0], 2, "gold must be finite"),
        ([1.0, 3, 2], [0.0, 0], 2, "2 have gold"),
        ([1.0, 3, 2], [0.0, 0, 0], 4, "1 to 3"),
        ([], [], 1, "no samples"),
    ],
)
def test_samples_that_cannot_be_ranked_are_rejected(proxy, gold, n, said):
    with pytest.raises(AmplifyError, match=said):
        best_of_n_curve(np.array(proxy), np.array(gold), [n])
