import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.audits import (
    _mixture_quantile,
    draw,
    estimate,
    sampling_probabilities,
    uniforms,
)
from tests.statistics.audits_simulation import POPULATIONS, audit, covered


def sample(seed=0, items=300, budget=60, active=True):
    random = np.random.default_rng(seed)
    proxy = random.normal(size=items)
    values = 0.6 * proxy + random.normal(size=items)
    uncertainty = random.exponential(size=items) if active else None
    probabilities = sampling_probabilities(items, budget, uncertainty)
    return proxy, values, draw(probabilities, range(items), seed), probabilities


# --- what is drawn ----------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=40),
    st.floats(0.1, 60),
    st.floats(0.05, 1),
)
def test_probabilities_add_up_to_the_budget_within_their_bounds(uncertainty, budget, floor):
    items = len(uncertainty)
    found = sampling_probabilities(items, budget, np.array(uncertainty), floor)
    assert found.sum() == pytest.approx(min(budget, items))
    assert np.all(found >= floor * min(budget / items, 1) * (1 - 1e-9))
    assert np.all(found <= 1)


def test_probabilities_are_proportional_to_uncertainty_between_the_bounds():
    found = sampling_probabilities(4, 2, np.array([1.0, 2.0, 3.0, 100.0]), floor=0.1)
    assert found[3] == 1
    np.testing.assert_allclose(found[:3], np.array([1, 2, 3]) / 6)
    np.testing.assert_array_equal(sampling_probabilities(4, 2), np.full(4, 0.5))


def test_a_draw_depends_on_an_items_key_and_not_on_its_place():
    keys = [("step 5", n) for n in range(1000)]
    first = draw(np.full(1000, 0.3), keys, seed=1)
    assert 0.25 < first.mean() < 0.35
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(
        draw(np.full(1000, 0.3), [keys[n] for n in order], 1), first[order]
    )
    assert np.all(draw(np.full(1000, 0.5), keys, 1) >= first)  # one drawn before is drawn again
    assert np.any(draw(np.full(1000, 0.3), keys, 2) != first)


def test_the_numbers_of_keys_are_uniform_and_never_change():
    found = uniforms(range(5000), 3)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    np.testing.assert_array_equal(found[:3], uniforms([0, 1, 2], 3))


def test_everything_is_reviewed_where_the_budget_allows():
    proxy, values, _, _ = sample()
    probabilities = sampling_probabilities(300, 1000, np.random.default_rng(0).random(300))
    np.testing.assert_array_equal(probabilities, np.ones(300))
    audited = draw(probabilities, range(300), 0)
    found = estimate(proxy, values, audited, probabilities)
    assert audited.all()
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(stats.sem(values), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 5), "no items"),
        ((10, 0), "budget"),
        ((10, float("nan")), "budget"),
        ((10, 5, None, 0.0), "floor"),
        ((10, 5, None, 1.5), "floor"),
        ((10, 5, np.ones(9)), "9 uncertainties"),
        ((3, 2, np.array([1, np.nan, 1])), "finite"),
        ((3, 2, np.array([1, -1.0, 1])), "0 or more"),
    ],
)
def test_probabilities_of_nonsense_are_rejected(arguments, said):
    with pytest.raises(AmplifyError, match=said):
        sampling_probabilities(*arguments)


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_probabilities_are_rejected(wrong):
    proxy, values, audited, probabilities = sample()
    probabilities[7] = wrong
    with pytest.raises(AmplifyError, match="item 7"):
        draw(probabilities, range(300), 0)
    with pytest.raises(AmplifyError, match="item 7"):
        estimate(proxy, values, audited, probabilities)


def test_items_that_cannot_be_told_apart_are_rejected():
    with pytest.raises(AmplifyError, match="'again'"):
        draw(np.full(3, 0.5), ["once", "again", "again"], 0)
    with pytest.raises(AmplifyError, match="2 keys"):
        draw(np.full(3, 0.5), ["one", "two"], 0)


# --- the estimate -----------------------------------------------------------------------------


def test_tuning_0_is_the_mean_of_reviews_and_its_classical_interval():
    proxy, values, audited, probabilities = sample(active=False)
    found = estimate(proxy, values, audited, probabilities, tuning=0.0)
    reviewed = values[audited]
    expected = stats.t.interval(0.95, len(reviewed) - 1, reviewed.mean(), stats.sem(reviewed))
    assert found.value == pytest.approx(reviewed.mean())
    assert found.one_look()[1:] == pytest.approx(expected)
    assert found.one_look().name == "95 % interval of one look"


def test_tuning_1_is_plain_prediction_powered_inference():
    proxy, values, audited, probabilities = sample()
    found = estimate(proxy, values, audited, probabilities, tuning=1.0)
    weights = 1 / probabilities[audited]
    rectifier = sum(
        w * (v - f) for w, v, f in zip(weights, values[audited], proxy[audited], strict=True)
    )
    assert found.value == pytest.approx(proxy.mean() + rectifier / weights.sum())


@pytest.mark.parametrize(
    ("tuning", "value", "low", "high"),
    [
        (0.0, -0.06682764515160398, -0.22029894022066776, 0.08664364991745978),
        (1.0, 0.025258046992378828, -0.1264733832734001, 0.17698947725815775),
        (None, -0.01830500704531163, -0.15140493370663752, 0.11479491961601426),
    ],
)
def test_it_agrees_with_ppi_python(tuning, value, low, high):
    """Values of ppi-python 0.2.3, `ppi_mean_pointestimate` and `ppi_mean_ci`, with all proxies as
    its unlabelled ones. It takes these to be independent of the labelled ones and uses normal
    quantiles, so that its tuning and its widths differ a little.
    """
    random = np.random.default_rng(5)
    gold, other, noise = random.normal(size=(3, 2000))
    proxy, values = 0.6 * gold + 0.8 * other, gold + 0.5 * noise
    audited = np.arange(2000) < 200
    found = estimate(proxy, values, audited, np.full(2000, 0.1), tuning=tuning)
    assert found.value == pytest.approx(value, abs=0.005 if tuning is None else 1e-12)
    interval = found.one_look()
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.04)


def test_the_tuning_is_the_slope_and_shortens_the_interval():
    proxy, values, audited, probabilities = sample(active=False, items=4000, budget=1000)
    found = estimate(proxy, values, audited, probabilities)
    slope = stats.linregress(proxy[audited], values[audited]).slope
    assert found.tuning == pytest.approx(slope)
    without = estimate(proxy, values, audited, probabilities, tuning=0.0)
    assert found.standard_error < without.standard_error
    upside_down = estimate(-proxy, values, audited, probabilities)
    assert upside_down.value == pytest.approx(found.value)
    assert upside_down.tuning == pytest.approx(-slope)


def test_values_of_items_that_were_not_reviewed_do_not_matter():
    proxy, values, audited, probabilities = sample()
    hidden = np.where(audited, values, np.nan)
    assert estimate(proxy, hidden, audited, probabilities) == estimate(
        proxy, values, audited, probabilities
    )


def test_units_and_order_do_not_matter():
    proxy, values, audited, probabilities = sample()
    found = estimate(proxy, values, audited, probabilities)
    moved = estimate(5 - 3 * proxy, 100 + 10 * values, audited, probabilities)
    assert moved.value == pytest.approx(100 + 10 * found.value)
    assert moved.standard_error == pytest.approx(10 * found.standard_error)
    turned = estimate(*(column[::-1] for column in (proxy, values, audited, probabilities)))
    assert turned.value == pytest.approx(found.value)
    assert turned.standard_error == pytest.approx(found.standard_error)


def test_answers_to_one_question_are_not_independent():
    proxy, values, audited, probabilities = sample(active=False, budget=120)
    alone = estimate(proxy, values, audited, probabilities, cluster=np.arange(300))
    assert alone == estimate(proxy, values, audited, probabilities)
    twice = [np.tile(column, 2) for column in (proxy, values, audited, probabilities)]
    repeated = estimate(*twice, cluster=np.tile(np.arange(300), 2))
    assert repeated.standard_error == pytest.approx(alone.standard_error, rel=0.02)
    assert repeated.freedom == pytest.approx(alone.freedom)
    assert estimate(*twice).standard_error < 0.75 * alone.standard_error


# --- little, or nothing, to go by -------------------------------------------------------------


def few(values, proxy=None):
    """Estimated from the first of 20 items."""
    audited = np.arange(20) < len(values)
    padded = np.concatenate([values, np.full(20 - len(values), np.nan)])
    proxy = np.arange(20.0) if proxy is None else proxy
    return estimate(proxy, padded, audited, np.full(20, 0.2))


def test_an_audit_without_reviews_is_an_error():
    with pytest.raises(AmplifyError, match="none of 20 items was audited"):
        few([])


def test_one_review_is_a_value_without_an_interval():
    found = few([2.0])
    assert (found.value, found.standard_error, found.reviews) == (2.0, None, 1)
    assert found.one_look() is None
    assert found.over_looks(20) is None


def test_two_reviews_have_the_interval_of_two():
    found = few([1.0, 2.0])
    assert found.one_look()[1:] == pytest.approx(stats.t.interval(0.95, 1, 1.5, 0.5))
    assert found.over_looks(20) is None  # no mixture reaches this level with two reviews


@pytest.mark.parametrize("value", [0.0, 0.3, 1e6])
@pytest.mark.parametrize("proxy", [np.arange(20.0), np.full(20, 3.3)])
def test_equal_reviews_do_not_pass_for_certainty(value, proxy):
    found = few([value] * 20, proxy)
    assert found.value == pytest.approx(value)
    assert found.standard_error is None
    assert found.one_look() is None


def test_a_proxy_that_is_the_same_for_all_is_of_no_use():
    _, values, audited, probabilities = sample()
    found = estimate(np.full(300, 0.1), values, audited, probabilities)
    assert found.tuning == 0
    assert found.value == pytest.approx(
        np.average(values[audited], weights=1 / probabilities[audited])
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_missing_review_is_never_left_out_in_silence(wrong):
    proxy, values, audited, probabilities = sample()
    at = int(np.flatnonzero(audited)[3])
    values[at] = wrong
    with pytest.raises(AmplifyError, match=f"1 of {audited.sum()} audited items .* item {at}"):
        estimate(proxy, values, audited, probabilities)


def test_a_proxy_that_is_not_a_number_is_rejected():
    proxy, values, audited, probabilities = sample()
    proxy[11] = np.nan
    with pytest.raises(AmplifyError, match="item 11"):
        estimate(proxy, values, audited, probabilities)


# --- intervals --------------------------------------------------------------------------------


def test_the_mixture_reaches_the_level_at_its_quantile():
    """By integration over the effect, for known variance; and more is needed with fewer reviews."""
    rate = 0.0025
    limit = _mixture_quantile(1e7, rate)
    spread = 2 * np.log(1 / rate) + np.log1p(2 * np.log(1 / rate))
    ratio, _ = integrate.quad(
        lambda shift: (
            stats.norm.pdf(limit, shift)
            / stats.norm.pdf(limit)
            * stats.norm.pdf(shift, scale=np.sqrt(spread))
        ),
        -40,
        40,
    )
    assert ratio == pytest.approx(1 / rate, rel=1e-3)
    quantiles = [_mixture_quantile(freedom, rate) for freedom in (10.0, 20.0, 40.0, 100.0, 1e3)]
    assert quantiles == sorted(quantiles, reverse=True)


def test_intervals_over_looks_are_wider_and_say_so():
    found = estimate(*sample())
    one, all_looks = found.one_look(), found.over_looks(20)
    assert all_looks.name == "95 % interval over all 20 looks"
    assert all_looks.low < one.low < found.value < one.high < all_looks.high
    with pytest.raises(AmplifyError, match="looks"):
        found.over_looks(0)


@pytest.mark.parametrize("active", [False, True], ids=["random", "active"])
@pytest.mark.parametrize("population", POPULATIONS, ids=lambda one: one.name)
def test_intervals_of_one_look_cover(population, active):
    """The table of `make audits`, thinned out; at 95 %, three standard errors are .024."""
    random = np.random.default_rng(0)
    held = [
        (one := audit(random, population, 40, active).one_look()).low <= population.mean <= one.high
        for _ in range(750)
    ]
    assert 0.93 - 0.024 <= np.mean(held) <= 0.97 + 0.019


@pytest.mark.slow
@pytest.mark.parametrize("budget", [40, 100, 400])
@pytest.mark.parametrize("population", POPULATIONS, ids=lambda one: one.name)
def test_intervals_over_looks_cover_all_looks(population, budget):
    found = covered(np.random.default_rng(1), population, budget, active=True, repeats=200)
    assert found.over_looks >= 0.95
    assert 1.9 <= found.wider <= 2.3
    assert abs(found.bias) < 4


def test_estimates_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate(*sample()).value = 1.0
