"""Means over several seeds: experiments that differ in nothing but their random numbers.

Two things vary by chance: which contexts were held out, and how training with a seed turned out. If
all seeds answer the same questions, seeds and contexts are crossed. The variance of the mean is
then that between seeds, plus that between contexts, minus the part that is in both (Owen 2007, "The
Pigeonhole Bootstrap", section 3; Cameron, Gelbach and Miller 2011, "Robust Inference with Multiway
Clustering"). It is never below the larger of the first two. Otherwise the variance between seeds
contains everything. Seeds are few, so intervals use a t quantile with one degree of freedom fewer
than there are seeds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from amplify.evaluation.statistics.clusters import (
    Batch,
    Between,
    ClusteredVariance,
    Clusters,
    collapse,
    tabulate,
)
from amplify.evaluation.statistics.intervals import (
    LEVEL,
    Interval,
    Proportion,
    difference_variance,
    proportion_bounds,
    standard_error,
    t_quantile,
)


class Observations(NamedTuple):
    """The rows of one seed; columns as in `clusters.tabulate`."""

    values: Shaped[np.ndarray, " rows"]
    context: Shaped[np.ndarray, " rows"]
    question: Shaped[np.ndarray, " rows"]


def mean_over_seeds(
    seeds: Sequence[Observations], *, share: bool = True, error_rate: float = LEVEL
) -> Proportion:
    """Returns the mean over seeds of a measure, with its interval.

    Args:
        seeds: two or more.
        share: whether values are in 0..1; otherwise the interval is Student's.
        error_rate: 1 minus the confidence level.

    Raises:
        ValueError: if a seed has no rows.
    """
    each = [tabulate(*one) for one in seeds]
    pooled = tabulate(*map(np.concatenate, zip(*seeds, strict=True)))
    means = np.array([one.mean for one in each])
    estimate = float(means.mean())
    if not pooled.enough:
        return Proportion(estimate, None, None)
    between = between_seeds(means, _cells_of(each, pooled))
    if not share:
        return _student(estimate, pooled, between, error_rate)
    low, high = proportion_bounds(pooled, error_rate, between)
    return Proportion(estimate, min(float(low), estimate), max(float(high), estimate))


def _cells_of(each: Sequence[Clusters], pooled: Clusters) -> Batch | None:
    """The variance of seeds x contexts; 0, which is cautious, if only some questions are shared."""
    if all(one.items == pooled.items for one in each):
        return cell_variance(np.stack([one.totals for one in each]), pooled.sizes)
    apart = pooled.sizes.shape[-1] == sum(one.sizes.shape[-1] for one in each)
    return None if apart else np.float64(0)


def _student(estimate: float, pooled: Clusters, between: Between, error_rate: float) -> Proportion:
    error = standard_error(pooled) or 0.0
    found = ClusteredVariance(np.float64(error**2), np.float64(0), np.float64(1))
    total = float(between.widen(found).variance)
    if total < 1e-18:
        return Proportion(estimate, None, None)
    half = float(t_quantile(between.freedom, error_rate)) * total**0.5
    return Proportion(estimate, estimate - half, estimate + half)


def between_seeds(means: Float[np.ndarray, "*batch seeds"], cells: Batch | None) -> Between:
    """Returns the variance of a mean over seeds.

    Args:
        means: of each seed; two or more.
        cells: from `cell_variance`; None: the seeds share no contexts.
    """
    number = means.shape[-1]
    variance = means.var(axis=-1, ddof=1) / number
    return Between(variance, cells, np.full_like(variance, number - 1), number)


def cell_variance(
    totals: Float[np.ndarray, "*batch seeds contexts"], sizes: Float[np.ndarray, " contexts"]
) -> Batch:
    """Returns the variance of the mean that is due to seeds and contexts together only.

    It is the residual of the two-way layout: what neither the seed nor the context explains.

    Args:
        totals: sum over a context's items of a seed's values.
        sizes: items of each context.
    """
    seeds, contexts = totals.shape[-2:]
    items = sizes.sum()
    means = totals.sum(-1) / items
    of_seed = (means - means.mean(-1, keepdims=True))[..., None] * sizes
    residuals = totals - totals.mean(-2, keepdims=True) - of_seed
    pairs = seeds * (seeds - 1) * items**2
    return (residuals**2).sum((-1, -2)) / pairs * contexts / max(contexts - 1, 1)


def difference_over_seeds(
    before: Float[np.ndarray, "seeds rows"],
    after: Float[np.ndarray, "others rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"],
    *,
    same_seeds: bool,
    error_rate: float = LEVEL,
) -> tuple[float, Interval | None]:
    """Compares means over seeds of two experiments whose seeds all answered the same questions.

    Args:
        before: scores in 0..1 by seed.
        after: those of the other experiment. One of the two has two or more seeds; a single seed is
            taken to vary like the other experiment's.
        context: as in `clusters.tabulate`.
        question: as in `clusters.tabulate`.
        same_seeds: whether row i of both is the same seed; then seeds are paired, too.
        error_rate: 1 minus the confidence level.

    Returns:
        After minus before, as a fraction, and its interval; None: there are too few contexts.
    """
    columns, cluster = collapse(context, question, *before, *after)
    was, now = np.split(np.stack(columns), [len(before)])
    clusters = tabulate(now.mean(0) - was.mean(0), cluster)
    between = between_of_difference(
        _totals(was, cluster), _totals(now, cluster), clusters.sizes, same_seeds
    )
    low, high = difference_bounds(clusters, between, error_rate)
    return float(clusters.mean), (float(low), float(high)) if clusters.enough else None


def difference_bounds(
    clusters: Clusters, between: Between, error_rate: float = LEVEL
) -> tuple[Batch, Batch]:
    """Returns the t interval of a mean of differences in -1..1.

    Args:
        clusters: the differences of values that are averaged over seeds.
        between: variation between seeds.
        error_rate: 1 minus the confidence level.
    """
    found = between.widen(difference_variance(clusters))
    half = t_quantile(found.freedom, error_rate) * np.sqrt(found.variance)
    return np.clip(clusters.mean - half, -1, 1), np.clip(clusters.mean + half, -1, 1)


def _totals(
    values: Float[np.ndarray, "seeds items"], cluster: Shaped[np.ndarray, " items"]
) -> Float[np.ndarray, "seeds contexts"]:
    return np.stack([np.bincount(cluster, weights=one) for one in values])


def between_of_difference(
    before: Float[np.ndarray, "*batch seeds contexts"],
    after: Float[np.ndarray, "*batch others contexts"],
    sizes: Float[np.ndarray, " contexts"],
    same_seeds: bool,
) -> Between:
    """Returns how far a difference of means over seeds varies because seeds do.

    Args:
        before: sums by seed and context, as in `cell_variance`.
        after: those of the other experiment.
        sizes: items of each context.
        same_seeds: whether seeds are paired.
    """
    if same_seeds:
        return _between(after - before, sizes)
    counts = [totals.shape[-2] for totals in (before, after)]
    found = [_between(totals, sizes) for totals in (before, after) if totals.shape[-2] > 1]
    variance = np.asarray(sum(one.variance for one in found))
    cells = np.asarray(sum(one.cells for one in found if one.cells is not None))
    if len(found) == 1:  # the mean of a single seed varies as much as each of the other's
        variance, cells = variance * (1 + found[0].number), cells * (1 + found[0].number)
    freedom = np.full_like(variance, min(one.number for one in found) - 1)
    return Between(variance, cells, freedom, min(counts))


def _between(totals: Float[np.ndarray, "*batch seeds contexts"], sizes: np.ndarray) -> Between:
    return between_seeds(totals.sum(-1) / sizes.sum(), cell_variance(totals, sizes))
