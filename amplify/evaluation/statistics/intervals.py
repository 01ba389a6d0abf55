"""Confidence intervals for accuracies, means and differences.

The variance from `clusters.clustered_variance` is converted to an effective number of independent
observations, for which a small-sample interval is computed (Korn and Graubard 1998, "Confidence
Intervals for Proportions with Small Expected Number of Positive Counts Estimated from Survey
Data"). Intervals therefore stay within the bounds of the scale, never collapse to a point, contain
the estimate, and change little when a single answer changes.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from amplify.evaluation.statistics.clusters import (
    Batch,
    Between,
    ClusteredVariance,
    Clusters,
    clustered_variance,
    collapse,
    tabulate,
)

LEVEL = 0.05
"""Error rate of the intervals in reports: they are 95 % intervals."""
POWER = 0.8
"""Power for which smallest effects are reported."""
FADE = 12
"""How fast pseudo-clusters lose weight: if 6 % of the items change, they have half of it."""
TOO_FEW = "too few contexts to tell"

Interval = tuple[float, float]


class Proportion(NamedTuple):
    """A share or another mean with its 95 % interval; None: there are too few contexts."""

    estimate: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> Interval | None:
        """The bounds; None if there are too few contexts."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A paired comparison of two assistants. `delta` is after minus before, as a fraction."""

    items: int  # distinct questions about distinct contexts
    contexts: int
    effective_contexts: float  # number of equally large contexts with the same information
    delta: float
    standard_error: float | None  # clustered by context; None: nothing varies
    interval: Interval | None  # 95 %; None: too few contexts
    wins: int  # items with a higher score after than before
    losses: int
    p_value: float | None  # two-sided, clustered by context; consistent with the interval
    smallest_effect: float | None  # true difference that is detected with 80 % power


def accuracy(
    right: Shaped[np.ndarray, " rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None = None,
    error_rate: float = LEVEL,
) -> Proportion:
    """Returns the share of items answered correctly, with its interval.

    Args:
        right: 0 to 1 for each row.
        context: as in `clusters.tabulate`.
        question: as in `clusters.tabulate`.
        error_rate: 1 minus the confidence level.

    Raises:
        ValueError: if lengths differ, or there are no rows.
    """
    clusters = tabulate(right, context, question)
    estimate = float(clusters.mean)
    if not clusters.enough:
        return Proportion(estimate, None, None)
    low, high = proportion_bounds(clusters, error_rate)
    return Proportion(estimate, float(low), float(high))


def average(
    values: Shaped[np.ndarray, " rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None = None,
    error_rate: float = LEVEL,
) -> Proportion:
    """Returns the mean of unbounded values, with a t interval from the clustered standard error.

    Args:
        values: finite numbers.
        context: as in `clusters.tabulate`.
        question: as in `clusters.tabulate`.
        error_rate: 1 minus the confidence level.

    Returns:
        The mean. It has no interval if all values are equal, because without bounds on the scale
        the error cannot be estimated.

    Raises:
        ValueError: if lengths differ, or there are no rows.
    """
    clusters = tabulate(values, context, question)
    estimate, error = float(clusters.mean), standard_error(clusters)
    if not clusters.enough or error is None:
        return Proportion(estimate, None, None)
    half = _quantile(clusters, error_rate) * error
    return Proportion(estimate, estimate - half, estimate + half)


def proportion_bounds(
    clusters: Clusters, error_rate: float = LEVEL, between: Between | None = None
) -> tuple[Batch, Batch]:
    """Returns the interval of a mean of values in 0..1.

    Args:
        clusters: the observations.
        error_rate: 1 minus the confidence level.
        between: variation between seeds, if values are means over them.
    """
    mean = clusters.mean
    found = clustered_variance(clusters, (2 * mean - 1) ** 2 * (mean**2 + (1 - mean) ** 2))
    most = clusters.items
    if between is not None:
        found, most = between.widen(found), most * between.number
    size = np.minimum(_effective_size(clusters, found, mean), most)
    return _clopper_pearson(mean, size, found.freedom, error_rate)


def _effective_size(clusters: Clusters, found: ClusteredVariance, mean: Batch) -> Batch:
    """The number of independent binary observations with the same variance."""
    items = clusters.items
    within = mean * (1 - mean) * items - _within(clusters, mean)  # 0 if all values are 0 or 1
    variance = np.maximum(found.variance, 1e-300)  # 0 if every item was right half of the time
    return (found.independent * items**2 + np.maximum(within, 0)) / (variance * items)


def _within(clusters: Clusters, mean: Batch) -> Batch:
    """Sum of squared deviations of items from the mean."""
    return clusters.squares.sum(-1) - mean**2 * clusters.items


def _clopper_pearson(
    rate: Batch,
    size: Batch,
    freedom: Batch,
    error_rate: float,
) -> tuple[Batch, Batch]:
    """The interval of Clopper and Pearson (1934) for `rate` of `size` observations.

    The size is first reduced for the degrees of freedom of its estimated variance (Korn and
    Graubard 1998).
    """
    from scipy import special  # takes half a second to import, and pages may not need it

    tail = error_rate / 2
    exact, student = special.ndtri(1 - tail), special.stdtrit(freedom, 1 - tail)
    size = size * (exact / student) ** 2
    hits = rate * size
    misses = np.maximum(size - hits, 0)
    # The parameters of a beta distribution must be positive; bounds at 0 and 1 are set below.
    tiny = 1e-12
    low = special.betaincinv(np.maximum(hits, tiny), misses + 1, tail)
    high = special.betaincinv(hits + 1, np.maximum(misses, tiny), 1 - tail)
    low, high = np.where(rate <= 0, 0.0, low), np.where(rate >= 1, 1.0, high)
    return np.minimum(low, rate), np.maximum(high, rate)


def compare(
    before: Shaped[np.ndarray, " rows"],
    after: Shaped[np.ndarray, " rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None = None,
    *,
    error_rate: float = LEVEL,
) -> Comparison:
    """Compares two assistants that answered the same items.

    Args:
        before: score of each row, 0 to 1.
        after: the other assistant's score.
        context: as in `clusters.tabulate`.
        question: as in `clusters.tabulate`.
        error_rate: 1 minus the confidence level.

    Raises:
        ValueError: if lengths differ, or there are no rows.
    """
    [was, now], cluster = collapse(context, question, before, after)
    clusters = tabulate(now - was, cluster)
    found = paired_difference(clusters, error_rate)
    enough, moved = clusters.enough, bool(clusters.squares.any())
    student = _quantile(clusters, error_rate) + _quantile(clusters, 2 * (1 - POWER))
    return Comparison(
        items=len(was),
        contexts=clusters.sizes.shape[-1],
        effective_contexts=round(float(clusters.effective), 1),
        delta=float(clusters.mean),
        standard_error=standard_error(clusters),
        interval=(float(found.low), float(found.high)) if enough else None,
        wins=int(np.sum(now > was)),
        losses=int(np.sum(now < was)),
        p_value=float(found.p_value) if enough else None,
        smallest_effect=student * float(found.error) if enough and moved else None,
    )


def standard_error(clusters: Clusters) -> float | None:
    """Returns the cluster-robust standard error, with the factor G / (G - 1); None if it is 0."""
    number = clusters.sizes.shape[-1]
    residuals = clusters.totals - clusters.mean * clusters.sizes
    squares = float((residuals**2).sum())
    if number < 2 or squares < 1e-18:
        return None
    return float(np.sqrt(number / (number - 1) * squares) / clusters.items)


class PairedDifference(NamedTuple):
    """The interval of a mean difference, its two-sided p-value, and its standard error."""

    low: Batch
    high: Batch
    p_value: Batch
    error: Batch


def difference_variance(clusters: Clusters) -> ClusteredVariance:
    """Returns the variance of a mean of differences in -1..1, which is never 0.

    Args:
        clusters: the differences.
    """
    mean, moved = clusters.mean, clusters.squares.sum(-1) / clusters.items
    flat = (1 - moved) ** FADE + np.abs(mean) ** FADE  # 1 if no item changed, or all alike
    return clustered_variance(clusters, flat * (1 + mean**2))


def paired_difference(clusters: Clusters, error_rate: float = LEVEL) -> PairedDifference:
    """Returns the interval of a mean of differences in -1..1.

    This is the adjusted Wald interval of Bonett and Price (2012, "Adjusted Wald Confidence Interval
    for a Difference of Binomial Proportions Based on Paired Data"), which adds one win and one
    loss, for the effective number of items.

    Args:
        clusters: the differences.
        error_rate: 1 minus the confidence level.
    """
    from scipy import special  # as above

    mean, items = clusters.mean, clusters.items
    moved = clusters.squares.sum(-1) / items
    found = difference_variance(clusters)
    size = np.minimum(items * found.independent / found.variance, items)
    won = ((moved + mean) / 2 * size + 1) / (size + 2)
    lost = ((moved - mean) / 2 * size + 1) / (size + 2)
    centre = won - lost
    error = np.sqrt((won + lost - centre**2) / (size + 2))
    half = special.stdtrit(found.freedom, 1 - error_rate / 2) * error
    low = np.clip(np.minimum(centre - half, mean), -1, 1)
    high = np.clip(np.maximum(centre + half, mean), -1, 1)
    p_value = 2 * special.stdtr(found.freedom, -np.abs(centre) / error)
    return PairedDifference(low, high, p_value, error)


def _quantile(clusters: Clusters, error_rate: float) -> float:
    return float(t_quantile(np.maximum(clusters.effective - 1, 1), error_rate))


def t_quantile(freedom: Batch, error_rate: float) -> Batch:
    """Returns the two-sided quantile of Student's t.

    Args:
        freedom: degrees of freedom.
        error_rate: 1 minus the confidence level.
    """
    from scipy import special  # as above

    quantile: Batch = special.stdtrit(freedom, 1 - error_rate / 2)
    return quantile


def unpaired_difference(one: Proportion, two: Proportion) -> Interval | None:
    """Returns the interval of `two` minus `one`, measured on different items.

    This is Newcombe's hybrid of their own intervals (1998, "Interval Estimation for the Difference
    Between Independent Proportions", method 10).

    Args:
        one: a share with its interval.
        two: another one.

    Returns:
        The bounds; None if one of the shares has no interval.
    """
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return None
    delta = two.estimate - one.estimate
    low = delta - np.hypot(two.estimate - two.low, one.high - one.estimate)
    high = delta + np.hypot(two.high - two.estimate, one.estimate - one.low)
    return max(-1.0, float(low)), min(1.0, float(high))
