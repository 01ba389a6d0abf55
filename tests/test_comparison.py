import dataclasses
import json

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from amplify import comparison
from amplify.comparison import compare, judge, proportion_interval, spent_error_rate


def clustered(seed, problems=256, per_problem=6, before=0.5, gain=0.0, alike=0.3):
    """Right and wrong before and after: items of a problem go together, and a round with itself.

    Each problem has a difficulty; `alike` is how much of the variance lies between problems. The
    true difference is `gain` where `before` and `before + gain` stay inside 0..1 for all problems.
    """
    random = np.random.default_rng(seed)
    a, b = before * (1 / alike - 1), (1 - before) * (1 / alike - 1)
    chance = np.repeat(random.beta(a, b, problems), per_problem)
    problem = np.repeat(np.arange(problems), per_problem)
    was = random.random(len(problem)) < chance
    kept = random.random(len(problem)) < 0.6  # otherwise answered anew
    anew = random.random(len(problem)) < chance
    now = np.where(kept, was, anew)
    flipped = random.random(len(problem)) < gain / (1 - before)
    return was, now | flipped, problem


def test_golden_numbers_worked_out_by_hand():
    # Problems: (+1, 0), (+1, +1), (0, -1), sums 1, 2, -1 over 6 items: delta 2/6.
    before = np.array([0, 1, 0, 0, 1, 1], bool)
    after = np.array([1, 1, 1, 1, 1, 0], bool)
    problem = np.array([7, 7, 8, 8, 9, 9])
    result = compare(before, after, problem)
    assert (result.items, result.problems, result.wins, result.losses) == (6, 3, 3, 1)
    assert result.delta == pytest.approx(1 / 3)
    # Residuals 1/3, 4/3, -5/3: squares sum to 42/9, times 3/2 is 7; root over 6 items.
    assert result.standard_error == pytest.approx(np.sqrt(7) / 6)
    assert result.p_value == pytest.approx(2 * (1 + 4) / 16)
    assert result.smallest_effect == pytest.approx((1.959964 + 0.841621) * np.sqrt(7) / 6, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_mcnemar_is_that_of_statsmodels(seed):
    before, after, problem = clustered(seed, gain=0.05)
    table = [[np.sum(x & y) for y in (after, ~after)] for x in (before, ~before)]
    expected = mcnemar(np.array(table), exact=True).pvalue
    assert compare(before, after, problem).p_value == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_standard_error_is_that_of_statsmodels_clustered_regression(seed):
    before, after, problem = clustered(seed, problems=30, gain=0.1)
    keep = np.random.default_rng(seed).random(len(before)) < 0.7  # problems of different sizes
    before, after, problem = before[keep], after[keep], problem[keep]
    difference = after.astype(float) - before
    fit = sm.OLS(difference, np.ones(len(difference))).fit(
        cov_type="cluster", cov_kwds={"groups": problem, "use_correction": False}
    )
    groups = len(np.unique(problem))
    expected = fit.bse[0] * np.sqrt(groups / (groups - 1))
    assert compare(before, after, problem).standard_error == pytest.approx(expected)


def test_the_interval_is_that_of_resampling_problem_by_problem():
    """The fast form, which counts problems of a kind, against the bootstrap's definition."""
    before, after, problem = clustered(5, problems=80, gain=0.1)
    difference = (after.astype(int) - before).reshape(80, -1)
    random = np.random.default_rng(1)
    draws = [difference[random.integers(0, 80, 80)].mean() for _ in range(20_000)]
    expected = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose(compare(before, after, problem).interval, expected, atol=0.003)


@pytest.mark.parametrize("before", [0.5, 0.9])
def test_95_percent_intervals_cover_the_truth_95_percent_of_the_time(before, monkeypatch):
    """600 simulated rounds; 5 standard errors of a proportion either way would be 0.045."""
    monkeypatch.setattr(comparison, "RESAMPLES", 4000)
    gain, covered, runs = 0.04, 0, 600
    for seed in range(runs):
        was, now, problem = clustered(seed, problems=200, before=before, gain=gain)
        low, high = compare(was, now, problem).interval
        covered += low <= gain <= high
    assert 0.95 - 0.03 <= covered / runs <= 0.95 + 0.025


def test_accuracy_intervals_cover_also_near_100_percent():
    for before in (0.5, 0.97):
        covered, runs = 0, 600
        for seed in range(runs):
            was, _, problem = clustered(seed, problems=150, before=before)
            _, low, high = proportion_interval(was, problem)
            covered += low <= before <= high
        assert covered / runs >= 0.95 - 0.035, before


def test_rounds_that_are_no_better_are_hardly_ever_promoted_however_long_one_goes_on(monkeypatch):
    """The whole error rate is spent over the rounds: ten rounds of nothing, 300 times."""
    monkeypatch.setattr(comparison, "RESAMPLES", 4000)
    promoted = 0
    for seed in range(300):
        verdicts = []
        for number in range(1, 11):
            was, now, problem = clustered(1000 * seed + number, problems=100)
            verdict = judge(was, now, problem, round_number=number, error_rate=0.2, worthwhile=0.01)
            verdicts.append(verdict.verdict)
        promoted += "promoted" in verdicts
    # Spent on both sides, so half of 0.2 is a promotion; 3 standard errors above.
    assert promoted / 300 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert promoted > 0  # or this shows nothing


def test_a_better_round_is_promoted_a_worse_one_rejected_and_a_small_sample_left_open():
    def verdict(gain, problems, turned=False):
        was, now, problem = clustered(3, problems=problems, gain=gain)
        pair = (now, was) if turned else (was, now)
        return judge(*pair, problem, round_number=2, error_rate=0.05, worthwhile=0.01)

    assert verdict(0.1, 400).verdict == "promoted"
    assert verdict(0.1, 400, turned=True).verdict == "rejected"
    assert verdict(0.05, 8).verdict == "inconclusive"
    assert "+" in verdict(0.1, 400).reason


def test_two_rounds_that_are_the_same_are_not_called_so_with_certainty():
    right, problem = np.ones(600, bool), np.repeat(np.arange(100), 6)
    result = compare(right, right, problem)
    assert result.delta == 0
    low, high = result.interval
    assert low < 0 < high
    # None of 100 problems differed: at most 1 - 0.025 ** (1 / 100) of all problems do.
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_one_problem_tells_nothing_about_others():
    right = np.array([True, False, True])
    result = compare(~right, right, np.zeros(3, int))
    assert result.standard_error is None
    assert result.interval is None
    assert result.smallest_effect is None
    verdict = judge(
        ~right, right, np.zeros(3, int), round_number=1, error_rate=0.05, worthwhile=0.0
    )
    assert verdict.verdict == "inconclusive"


def test_an_effect_as_large_as_the_smallest_that_shows_is_shown_four_times_out_of_five(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 4000)
    effects = [compare(*clustered(seed, problems=200)).smallest_effect for seed in range(300)]
    shown, gain = 0, float(np.mean(effects))
    for seed in range(300):
        was, now, problem = clustered(10_000 + seed, problems=200, gain=gain)
        low, high = compare(was, now, problem).interval
        shown += low > 0 or high < 0
    assert 0.7 <= shown / 300 <= 0.9


items = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        *(st.lists(st.booleans(), min_size=n, max_size=n) for _ in range(2)),
        st.lists(st.integers(0, 8), min_size=n, max_size=n),
    )
)


def arrays(drawn):
    before, after, problem = drawn
    return np.array(before, bool), np.array(after, bool), np.array(problem)


@given(items, st.randoms())
def test_the_order_of_items_and_the_names_of_problems_do_not_matter(drawn, random):
    before, after, problem = arrays(drawn)
    order = list(range(len(before)))
    random.shuffle(order)
    other = compare(before[order], after[order], 100 - 3 * problem[order])
    ours = compare(before, after, problem)
    assert other.delta == pytest.approx(ours.delta)
    assert other.standard_error == pytest.approx(ours.standard_error)
    assert (other.interval is None) == (ours.interval is None)
    if ours.interval:
        np.testing.assert_allclose(other.interval, ours.interval, atol=0.02)


@given(items)
def test_before_and_after_turned_round_turns_the_sign(drawn):
    before, after, problem = arrays(drawn)
    ours, other = compare(before, after, problem), compare(after, before, problem)
    assert (other.delta, other.wins, other.losses) == (-ours.delta, ours.losses, ours.wins)
    assert other.p_value == ours.p_value
    assert other.standard_error == pytest.approx(ours.standard_error)


@given(items)
def test_every_item_twice_within_its_problem_changes_nothing(drawn):
    before, after, problem = arrays(drawn)
    ours = compare(before, after, problem)
    other = compare(*(np.repeat(column, 2) for column in (before, after, problem)))
    assert other.delta == pytest.approx(ours.delta)
    assert other.standard_error == pytest.approx(ours.standard_error)


@given(items)
def test_an_accuracy_lies_in_its_interval_which_is_no_point(drawn):
    before, _, problem = arrays(drawn)
    estimate, low, high = proportion_interval(before, problem)
    assert estimate == pytest.approx(before.mean())
    assert 0 <= low <= estimate <= high <= 1
    assert low < high


def test_independent_items_give_wilsons_interval():
    right = np.arange(50) < 45
    _, low, high = proportion_interval(right, np.arange(50))
    expected = stats.binomtest(45, 50).proportion_ci(method="wilson")
    # The clustered error has the factor 50 / 49, so it takes the items to be worth a 49th less.
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_the_shares_of_the_error_rate_add_up_to_it():
    total = sum(spent_error_rate(number, 0.05) for number in range(1, 100_000))
    assert 0.04999 < total < 0.05


def test_a_verdict_can_be_written_as_json():
    verdict = judge(*clustered(0), round_number=1, error_rate=0.05, worthwhile=0.01)
    assert json.loads(json.dumps(dataclasses.asdict(verdict)))["comparison"]["items"] == 1536


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"round_number": 0}, "1 or more, got 0"),
        ({"error_rate": 1.0}, "between 0 and 1, got 1"),
        ({"error_rate": 0.0}, "between 0 and 1, got 0"),
        ({"worthwhile": -0.1}, "0 or more, got -0.1"),
    ],
)
def test_bad_input_is_refused(change, said):
    given_ = {
        "before": np.zeros(4, bool),
        "after": np.ones(4, bool),
        "problem": np.arange(4),
        "round_number": 1,
        "error_rate": 0.05,
        "worthwhile": 0.01,
    } | change
    with pytest.raises(ValueError, match=said):
        judge(**given_)


def test_no_items_are_refused():
    nothing = np.zeros(0, bool)
    with pytest.raises(ValueError, match="no items"):
        compare(nothing, nothing, np.zeros(0, int))
    with pytest.raises(ValueError, match="no items"):
        proportion_interval(nothing, np.zeros(0, int))
