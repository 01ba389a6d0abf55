"""Means over seeds: against the definition of their variance, and by simulated coverage."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.evaluation.statistics import accuracy
from amplify.evaluation.statistics.seeds import (
    Observations,
    between_seeds,
    cell_variance,
    difference_over_seeds,
    mean_over_seeds,
)
from tests.statistics import seeded


def rows(values):
    """Observations of a seed from an array (contexts, questions)."""
    contexts, questions = np.indices(values.shape).reshape(2, -1)
    return Observations(values.ravel(), contexts, questions)


def answers(seed, contexts=40, seeds=3, accuracy=0.8, spread=0.5):
    cell = seeded.Cell(seeds, contexts, spread, accuracy)
    random = np.random.default_rng(seed)
    return [
        (random.random((contexts, 4)) < rate).astype(float)
        for rate in random.normal(cell.accuracy, spread / 10, seeds).clip(0, 1)
    ]


@given(st.integers(0, 999), st.integers(2, 5), st.integers(2, 9))
def test_the_cell_part_is_the_residual_of_a_two_way_layout(seed, seeds, contexts):
    values = np.random.default_rng(seed).random((seeds, contexts))
    residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    variance = (residuals**2).sum() / ((seeds - 1) * (contexts - 1))
    assert np.isclose(cell_variance(values, np.ones(contexts)), variance / (seeds * contexts))


@given(st.integers(0, 999), st.integers(2, 5), st.integers(2, 9))
def test_the_variance_between_seeds_is_that_of_their_mean(seed, seeds, contexts):
    means = np.random.default_rng(seed).random(seeds)
    assert np.isclose(between_seeds(means, None).variance, np.var(means, ddof=1) / seeds)


@given(st.integers(0, 99), st.booleans())
def test_an_interval_over_seeds_holds_the_mean_and_is_no_narrower_than_one_of_contexts(seed, same):
    each = answers(seed)
    if same:
        each = [each[0]] * 3
    found = mean_over_seeds([rows(one) for one in each])
    assert found.estimate == pytest.approx(np.mean(each))
    assert 0 <= found.low < found.estimate < found.high <= 1
    pooled = rows(np.mean(each, axis=0))
    of_contexts = accuracy(*pooled)
    assert found.high - found.low > of_contexts.high - of_contexts.low


def test_seeds_that_all_know_everything_have_an_interval_that_is_not_a_point():
    found = mean_over_seeds([rows(np.ones((100, 4)))] * 3)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert 0.7 < found.low < 0.99


def test_seeds_with_contexts_of_their_own_vary_only_as_their_means_do():
    each = answers(1, spread=1.0)
    apart = [one._replace(context=one.context + 100 * n) for n, one in enumerate(map(rows, each))]
    together, separate = (mean_over_seeds(some) for some in ([*map(rows, each)], apart))
    assert separate.estimate == pytest.approx(together.estimate)
    assert separate.high - separate.low < together.high - together.low


def test_two_contexts_are_too_few():
    assert mean_over_seeds([rows(np.ones((2, 4)))] * 3).interval is None


def test_a_measure_of_any_size_gets_a_t_interval():
    values = [np.full((10, 1), -3.0) + n + np.linspace(0, 1, 10)[:, None] for n in range(3)]
    found = mean_over_seeds([rows(one) for one in values], share=False)
    assert found.low < -3 < found.estimate < found.high
    still = mean_over_seeds([rows(np.full((10, 1), 7.0))] * 3, share=False)
    assert (still.estimate, still.interval) == (7.0, None)


@given(st.integers(0, 99), st.sampled_from([(1, 3), (3, 1), (2, 3), (3, 3)]), st.booleans())
def test_a_difference_is_that_of_the_means_and_changes_its_sign(seed, counts, paired):
    few, many = (
        np.stack([one.ravel() for one in answers(seed + 100 * n, seeds=count)])
        for n, count in enumerate(counts)
    )
    _, context, question = rows(np.zeros((40, 4)))
    same = paired and len(few) == len(many)
    there, back = (
        difference_over_seeds(*pair, context, question, same_seeds=same)
        for pair in ((few, many), (many, few))
    )
    assert there[0] == pytest.approx(many.mean() - few.mean())
    assert back[0] == pytest.approx(-there[0])
    assert back[1] == pytest.approx((-there[1][1], -there[1][0]))
    assert there[1][0] <= there[0] <= there[1][1]


CELLS = [
    seeded.Cell(3, 100, 0.1, 0.5),
    seeded.Cell(3, 100, 0.5, 0.9),
    seeded.Cell(5, 20, 0.5, 0.98),
    seeded.Cell(3, 100, 0.5, 0.5, crossed=False),
]


@pytest.mark.parametrize("cell", CELLS)
def test_intervals_over_seeds_cover_where_those_of_contexts_do_not(cell):
    random = np.random.default_rng(0)
    found = seeded.in_parts(
        functools.partial(seeded.sample, random, cell=cell), seeded.MEAN, cell.accuracy, 500
    )
    assert found["ours"][0] >= 0.94
    assert found["ours"][0] >= found["contexts only"][0] - 0.005


def test_differences_over_seeds_cover_where_those_of_contexts_do_not():
    random, cell = np.random.default_rng(0), CELLS[1]
    found = seeded.in_parts(
        functools.partial(seeded.sample_difference, random, cell=cell),
        seeded.DIFFERENCE, seeded.GAIN, 500,
    )  # fmt: skip
    assert found["contexts only"][0] < 0.5
    assert min(found["ours"][0], found["ours, seeds paired"][0]) >= 0.93
