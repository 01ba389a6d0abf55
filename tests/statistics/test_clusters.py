import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.evaluation.statistics import accuracy, compare, judge
from amplify.evaluation.statistics.clusters import Clusters, clustered_variance, collapse, tabulate
from tests.statistics.simulation import Cell, right, sizes_of

ROWS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 8), st.integers(0, 3)),
    min_size=1,
    max_size=60,
)


def columns(rows):
    before, after, context, question = (np.array(column) for column in zip(*rows, strict=True))
    return before.astype(bool), after.astype(bool), context, question


def everything(before, after, context, question):
    """All that is printed about two rounds."""
    gate = {"round_number": 1, "error_rate": 0.05, "worthwhile": 0.01}
    verdict = judge(before, after, context, question, **gate)
    return [
        *accuracy(after, context, question),
        *vars(compare(before, after, context, question)).values(),
        verdict.verdict,
        verdict.at_least,
        verdict.at_most,
        verdict.smallest_effect,
    ]


def flat(values):
    return [one for value in values for one in (value if isinstance(value, tuple) else [value])]


def assert_same(one, two):
    for mine, theirs in zip(flat(one), flat(two), strict=True):
        assert mine == (theirs if isinstance(theirs, str) else pytest.approx(theirs, abs=1e-7))


def test_a_repeated_question_counts_once_with_the_mean_of_what_was_observed():
    [values], cluster = collapse(
        np.array(["c", "c", "c", "d"]), np.array(["q", "q", "r", "q"]), np.array([1, 0, 1, 1])
    )
    assert values.tolist() == [0.5, 1, 1]
    assert cluster.tolist() == [0, 0, 1]
    table = tabulate(np.array([1, 0, 1, 1]), np.array([5, 5, 5, 7]), np.array([1, 1, 2, 1]))
    assert table.totals.tolist() == [1.5, 1]
    assert table.squares.tolist() == [1.25, 1]
    assert table.sizes.tolist() == [2, 1]


@given(ROWS, st.integers(2, 5))
def test_drawing_every_question_several_times_changes_nothing(rows, times):
    once = columns(rows)
    assert_same(everything(*once), everything(*(np.tile(column, times) for column in once)))


@given(ROWS, st.randoms())
def test_the_order_of_rows_and_the_names_of_contexts_and_questions_do_not_matter(rows, random):
    before, after, context, question = columns(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    names = np.array([f"context {9 - number}" for number in context])
    asked = np.array(["dbca"[number] for number in question])
    other = everything(before[order], after[order], names[order], asked[order])
    assert_same(everything(before, after, context, question), other)


def test_items_that_are_right_half_of_the_time_have_an_interval():
    context = np.repeat(np.arange(10), 2)
    found = accuracy(np.tile([0, 1], 10), context, context)
    assert found.low < found.estimate == 0.5 < found.high


def test_two_questions_drawn_512_times_are_two_items():
    """One of two newly right, repeated as 512 problems: no p-value of 4e-143, no promotion."""
    context, question = np.tile(["3", "4"], 512), np.tile(["who?", "when?"], 512)
    before, after = np.zeros(1024, bool), np.tile([True, False], 512)
    found = compare(before, after, context, question)
    assert (found.items, found.contexts, found.wins) == (2, 2, 1)
    assert found.interval is None
    assert found.p_value is None
    assert found.smallest_effect is None
    verdict = judge(
        before, after, context, question, round_number=1, error_rate=0.05, worthwhile=0.01
    )
    assert verdict.verdict == "inconclusive"
    assert verdict.reason.startswith("too few contexts to tell: +50.0 points in 2 contexts")


@pytest.mark.parametrize("drawn", [7, 10])
def test_intervals_over_a_few_contexts_drawn_512_times_cover(drawn):
    """Clustered by the draw, such intervals hold the truth in a quarter of cases."""
    random, held = np.random.default_rng(0), 0
    runs = 300
    for _ in range(runs):
        chance = random.beta(1.2, 1.2, drawn)
        context = random.integers(0, drawn, 512)
        question = random.integers(0, 8, 512)
        answers = random.random((drawn, 8)) < chance[:, None]
        _, low, high = accuracy(answers[context, question], context, question)
        held += low <= 0.5 <= high
    assert held / runs >= 0.93 - 0.03


@pytest.mark.parametrize("kind", sizes_of(5))
def test_the_effective_number_of_clusters_is_kish_s(kind):
    sizes = sizes_of(20)[kind]
    found = Clusters(sizes, sizes, sizes).effective
    assert found == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
    assert 1 <= found <= 20


def test_too_few_is_fewer_than_three_clusters_of_one_size():
    two, three = ([np.arange(n), np.arange(n)] for n in (2, 3))
    assert accuracy(np.ones(2), *two).interval is None
    assert accuracy(np.ones(3), *three).interval is not None
    heavy = np.repeat([0, 1, 2, 3], [40, 1, 1, 1])
    assert accuracy(np.ones(43), heavy).interval is None


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=3, max_size=12))
def test_the_variance_is_the_larger_of_two_definitions(contexts):
    """Item by item: leaving out a cluster at a time, and one correlation within all clusters."""
    items = [np.array(context, float) for context in contexts]
    sizes = np.array([len(context) for context in items], float)
    n, everything_right = sizes.sum(), np.concatenate(items)
    mean, number = everything_right.mean(), len(items)
    rest = [np.concatenate(items[:g] + items[g + 1 :]).mean() for g in range(number)]
    jackknife = (number - 1) / number * np.sum((np.array(rest) - mean) ** 2)
    variance = np.mean((everything_right - mean) ** 2)
    pairs = sum(
        (np.sum(context - mean) ** 2 - np.sum((context - mean) ** 2)) / (len(context) - 1)
        for context in items
        if len(context) > 1
    )
    among = variance * sizes[sizes > 1].sum()
    correlation = np.clip(pairs / among, 0, 1) if among > 1e-12 else 0
    typical = np.sum(sizes**2) / n
    alike = variance / n * (1 + correlation * (typical - 1))
    expected = np.clip(max(jackknife, alike), variance / n, variance / n * typical)
    totals = np.array([context.sum() for context in items])
    found = clustered_variance(Clusters(totals, totals, sizes), np.float64(0))
    assert found.variance == pytest.approx(expected, abs=1e-12)
    assert found.independent == pytest.approx(variance / n, abs=1e-12)


def test_a_batch_is_what_each_of_it_is():
    batch = right(np.random.default_rng(0), 5, Cell(20, "unequal", 0.3, 0.5))
    found = clustered_variance(batch, np.full(5, 0.3))
    for row in range(5):
        one = Clusters(batch.totals[row], batch.squares[row], batch.sizes)
        assert clustered_variance(one, np.float64(0.3)).variance == pytest.approx(
            found.variance[row]
        )


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no items"):
        collapse(np.arange(0), None, np.ones(0))
