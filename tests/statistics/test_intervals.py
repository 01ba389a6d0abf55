import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from amplify.evaluation.statistics import Proportion, accuracy, compare, unpaired_difference
from amplify.evaluation.statistics.clusters import Clusters
from amplify.evaluation.statistics.intervals import paired_difference, proportion_bounds
from tests.statistics.simulation import Cell, changed, coverage, grid, right

RUNS = 1500
"""At 93 and 95 % coverage, three standard errors are .02 and .017."""
THIN = [cell for n, cell in enumerate(grid((5, 20, 100))) if n % 3 == 0 or cell.ordinary]


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


# --- coverage: `make coverage` prints the whole grid ------------------------------------------


@pytest.mark.parametrize("cell", THIN, ids=str)
def test_intervals_of_accuracies_cover(cell):
    drawn = right(np.random.default_rng(0), RUNS, cell)
    held, _ = coverage(proportion_bounds(drawn), cell.accuracy)
    assert held >= 0.93 - 0.02
    if cell.ordinary:
        assert 0.94 - 0.017 <= held <= 0.975 + 0.012


@pytest.mark.parametrize("cell", THIN, ids=str)
@pytest.mark.parametrize(("gained", "kept"), [(0.0, 0.5), (0.3, None)])
def test_intervals_of_paired_differences_cover(cell, gained, kept):
    gain = gained * (1 - cell.accuracy)
    drawn = changed(np.random.default_rng(1), RUNS, cell, gain, kept)
    low, high, *_ = paired_difference(drawn)
    held, _ = coverage((low, high), gain)
    assert held >= 0.93 - 0.02
    if cell.ordinary:
        assert 0.94 - 0.017 <= held <= 0.975 + 0.012


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_intervals_of_unpaired_differences_cover(alike):
    cells = [Cell(40, "unequal", alike, 0.5), Cell(60, "equal", alike, 0.5)]
    random, held = np.random.default_rng(2), 0
    one, two = (right(random, 400, cell) for cell in cells)
    bounds = [np.stack([c.mean, *proportion_bounds(c)], axis=1) for c in (one, two)]
    for mine, theirs in zip(*bounds, strict=True):
        low, high = unpaired_difference(Proportion(*mine), Proportion(*theirs))
        held += low <= 0 <= high
    assert held / 400 >= 0.93 - 0.03


# --- few answers more or less -----------------------------------------------------------------


@pytest.mark.parametrize(("contexts", "each"), [(1024, 4), (20, 4), (20, 16), (100, 1), (512, 16)])
def test_bounds_rise_with_every_right_answer_and_never_jump(contexts, each):
    """Up to 50 wrong ones, each in another context; 4,095 of 4,096 is no other world than all."""
    wrong = np.arange(min(50, contexts))
    totals = np.full((len(wrong), contexts), float(each))
    for row, count in enumerate(wrong):
        totals[row, :count] -= 1
    low, high = proportion_bounds(Clusters(totals, totals, np.full(contexts, float(each))))
    assert np.all(np.diff(low) < 0)
    assert np.all(np.diff(high) <= 0)
    assert np.abs(np.diff(low)).max() <= 2 / contexts
    won = np.where(np.arange(contexts) < wrong[:, None], 1.0, 0.0)
    low, high, *_ = paired_difference(Clusters(won, won, np.full(contexts, float(each))))
    assert np.all(np.diff(low) > 0)
    assert np.all(np.diff(high) > 0)
    assert max(np.diff(low).max(), np.diff(high).max()) <= 2 / contexts


def test_all_right_is_worth_a_context_each():
    context = np.repeat(np.arange(1024), 4)
    found = accuracy(np.ones(4096, bool), context)
    assert (found.estimate, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 1024), abs=1e-4)
    one_wrong = accuracy(np.arange(4096) > 0, context)
    assert found.low - 0.001 < one_wrong.low < found.low


def test_two_rounds_that_are_the_same_are_not_called_so_with_certainty():
    everything, problem = np.ones(600, bool), np.repeat(np.arange(100), 6)
    result = compare(everything, everything, problem)
    assert result.delta == 0
    low, high = result.interval
    assert low == -high
    # None of 100 contexts changed. Of one item won and one lost among 102, the error is 2 ** .5.
    assert high == pytest.approx(stats.t.ppf(0.975, 99) * 2**0.5 / 102)
    assert result.smallest_effect is None  # nothing was seen to vary


# --- against others ---------------------------------------------------------------------------


def test_golden_numbers_worked_out_by_hand():
    # Problems: (+1, 0), (+1, +1), (0, -1), sums 1, 2, -1 over 6 items: delta 2/6.
    before = np.array([0, 1, 0, 0, 1, 1], bool)
    after = np.array([1, 1, 1, 1, 1, 0], bool)
    problem = np.array([7, 7, 8, 8, 9, 9])
    result = compare(before, after, problem)
    assert (result.items, result.contexts, result.wins, result.losses) == (6, 3, 3, 1)
    assert result.effective_contexts == 3
    assert result.delta == pytest.approx(1 / 3)
    # Residuals 1/3, 4/3, -5/3: squares sum to 42/9, times 3/2 is 7; root over 6 items.
    assert result.standard_error == pytest.approx(np.sqrt(7) / 6)


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


@pytest.mark.parametrize("seed", range(3))
def test_with_one_item_a_context_the_p_value_is_about_mcnemars(seed):
    before, after, _ = clustered(seed, problems=1500, per_problem=1, gain=0.02)
    table = [[np.sum(x & y) for y in (after, ~after)] for x in (before, ~before)]
    expected = mcnemar(np.array(table), exact=True).pvalue
    assert compare(before, after, np.arange(1500)).p_value == pytest.approx(expected, rel=0.25)


def test_clusters_count_in_the_p_value():
    """Each context twice: as much is known as before."""
    before, after, problem = clustered(0, per_problem=1, gain=0.05)
    once = compare(before, after, problem)
    twice = compare(*(np.repeat(column, 2) for column in (before, after, problem)))
    assert twice.p_value == pytest.approx(once.p_value, rel=0.1)


def test_with_one_item_a_context_the_interval_is_about_clopper_and_pearsons():
    answers = np.arange(50) < 45
    _, low, high = accuracy(answers, np.arange(50))
    expected = stats.binomtest(45, 50).proportion_ci(method="exact")
    # Wider, because the variance is estimated, with 49 degrees of freedom.
    assert expected.low - 0.01 < low < expected.low
    assert expected.high < high < expected.high + 0.01


def test_the_interval_is_about_that_of_resampling_problem_by_problem():
    before, after, problem = clustered(5, problems=80, gain=0.1)
    difference = (after.astype(int) - before).reshape(80, -1)
    random = np.random.default_rng(1)
    draws = [difference[random.integers(0, 80, 80)].mean() for _ in range(20_000)]
    expected = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose(compare(before, after, problem).interval, expected, atol=0.006)


def test_an_effect_as_large_as_the_smallest_that_shows_is_shown_four_times_out_of_five():
    effects = [compare(*clustered(seed, problems=200)).smallest_effect for seed in range(100)]
    shown, gain = 0, float(np.mean(effects))
    for seed in range(300):
        was, now, problem = clustered(10_000 + seed, problems=200, gain=gain)
        low, high = compare(was, now, problem).interval
        shown += low > 0 or high < 0
    assert 0.7 <= shown / 300 <= 0.9


# --- whatever the numbers ----------------------------------------------------------------------

ITEMS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        *(st.lists(st.booleans(), min_size=n, max_size=n) for _ in range(2)),
        st.lists(st.integers(0, 8), min_size=n, max_size=n),
    )
)


def arrays(drawn):
    before, after, problem = drawn
    return np.array(before, bool), np.array(after, bool), np.array(problem)


@given(ITEMS)
def test_before_and_after_turned_round_turns_the_sign(drawn):
    before, after, problem = arrays(drawn)
    ours, other = compare(before, after, problem), compare(after, before, problem)
    assert (other.delta, other.wins, other.losses) == (-ours.delta, ours.losses, ours.wins)
    assert other.p_value == ours.p_value
    assert other.standard_error == pytest.approx(ours.standard_error)
    if ours.interval:
        assert other.interval == pytest.approx((-ours.interval[1], -ours.interval[0]))


@given(ITEMS)
def test_every_item_twice_within_its_problem_hardly_changes_anything(drawn):
    before, after, problem = arrays(drawn)
    ours = compare(before, after, problem)
    other = compare(*(np.repeat(column, 2) for column in (before, after, problem)))
    assert other.delta == pytest.approx(ours.delta)
    assert other.standard_error == pytest.approx(ours.standard_error)


@given(ITEMS)
def test_an_interval_holds_its_estimate_within_its_bounds_and_is_no_point(drawn):
    before, after, problem = arrays(drawn)
    found, change = accuracy(before, problem), compare(before, after, problem)
    assert found.estimate == pytest.approx(before.mean())
    if found.interval is None:
        assert change.interval is change.p_value is change.smallest_effect is None
        return
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high
    low, high = change.interval
    assert -1 <= low <= change.delta <= high <= 1
    assert low < high
    assert 0 <= change.p_value <= 1


@given(ITEMS)
def test_the_p_value_and_the_interval_agree(drawn):
    found = compare(*arrays(drawn))
    if found.interval is not None and abs(found.p_value - 0.05) > 1e-6:
        assert (found.p_value < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


def test_a_smallest_effect_never_comes_from_an_error_of_0():
    random = np.random.default_rng(0)
    for _ in range(50):
        wrong = random.integers(0, 2)
        before = np.arange(60) >= wrong
        found = compare(before, before, np.repeat(np.arange(20), 3))
        assert found.smallest_effect is None
        assert found.standard_error is None
