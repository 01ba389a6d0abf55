"""Intervals of accuracies, of differences, of agreement, and of what help is worth.

All take the clustered variance of `clusters.spread`, express it as a number of independent
observations that would vary as much, and use an interval that is made for few of them (Korn and
Graubard 1998, "Confidence Intervals for Proportions with Small Expected Number of Positive Counts
Estimated from Survey Data"). So an interval stays within its bounds, never shrinks to a point,
contains its estimate, and changes little where one answer changes.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from amplify.evaluation.statistics.clusters import (
    Batch,
    Clusters,
    Spread,
    collapse,
    spread,
    tabulate,
)

LEVEL = 0.05
"""Error rate of the intervals that reports print: they are 95 % intervals."""
POWER = 0.8
FADE = 12
"""How fast a difference goes without imaginary clusters: with 6 % of items changed, by half."""
TOO_FEW = "too few contexts to tell"

Interval = tuple[float, float]


class Proportion(NamedTuple):
    """A share, or another mean, with its 95 % interval; None where there are too few contexts to
    tell.
    """

    estimate: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> Interval | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two assistants on the same items. `delta` is after minus before, as a fraction."""

    items: int  # different questions about different contexts
    contexts: int
    effective_contexts: float  # contexts of one size that these amount to
    delta: float
    standard_error: float | None  # clustered by context; None where nothing varies
    interval: Interval | None  # 95 %; None: too few contexts to tell
    wins: int  # items answered better after than before
    losses: int
    p_value: float | None  # two-sided, clustered by context; agrees with the interval
    smallest_effect: float | None  # true difference that the interval would show with 80 % power


def accuracy(
    right: Shaped[np.ndarray, " rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None = None,
    error_rate: float = LEVEL,
) -> Proportion:
    """Share of items answered rightly.

    Args:
        right: whether each row was, or a share of it.
        context, question: which item a row belongs to: see `clusters.tabulate`.

    Raises:
        ValueError: if there are no rows.
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
    """Mean of values on any scale, with Student's t interval from the clustered standard error.

    Args:
        values: finite numbers.
        context, question: which item a row belongs to: see `clusters.tabulate`.

    Returns:
        No interval where no value differs from another, either: without bounds on the scale there
        is nothing to tell how far such a mean may be off.

    Raises:
        ValueError: if there are no rows.
    """
    clusters = tabulate(values, context, question)
    estimate, error = float(clusters.mean), standard_error(clusters)
    if not clusters.enough or error is None:
        return Proportion(estimate, None, None)
    half = _quantile(clusters, error_rate) * error
    return Proportion(estimate, estimate - half, estimate + half)


def proportion_bounds(clusters: Clusters, error_rate: float = LEVEL) -> tuple[Batch, Batch]:
    """Interval of a mean of values in 0..1."""
    mean = clusters.mean
    found = spread(clusters, (2 * mean - 1) ** 2 * (mean**2 + (1 - mean) ** 2))
    return _clopper_pearson(mean, _binomial_worth(clusters, found, mean), found.freedom, error_rate)


def _binomial_worth(clusters: Clusters, found: Spread, mean: Batch) -> Batch:
    """How many independent right-or-wrong observations vary as much as the clustered ones."""
    items = clusters.items
    within = mean * (1 - mean) * items - _within(clusters, mean)  # 0 unless values lie between
    variance = np.maximum(found.variance, 1e-300)  # 0 where every item was right half of the time
    worth = (found.independent * items**2 + np.maximum(within, 0)) / (variance * items)
    return np.minimum(worth, items)


def _within(clusters: Clusters, mean: Batch) -> Batch:
    """Sum of the squared distances of items from their mean."""
    return clusters.squares.sum(-1) - mean**2 * clusters.items


def _clopper_pearson(
    rate: Batch,
    worth: Batch,
    freedom: Batch,
    error_rate: float,
) -> tuple[Batch, Batch]:
    """Clopper and Pearson's (1934) bounds for `rate` of `worth` observations, of which there are
    fewer as their variance is estimated with fewer degrees of freedom (Korn and Graubard 1998).
    """
    from scipy import special  # half a second to load, which pages that need none do not wait for

    tail = error_rate / 2
    exact, student = special.ndtri(1 - tail), special.stdtrit(freedom, 1 - tail)
    worth = worth * (exact / student) ** 2
    hits = rate * worth
    misses = np.maximum(worth - hits, 0)
    # A beta's parameters are positive; at 0 and 1 the bound is exactly there.
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
    """The paired difference of two assistants that answered the same items.

    Args:
        before, after: whether each row was answered rightly.
        context, question: which item a row belongs to: see `clusters.tabulate`.

    Raises:
        ValueError: on unequal lengths, or no rows.
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
    """Cluster-robust, with the factor G / (G - 1); None where nothing is seen to vary."""
    number = clusters.sizes.shape[-1]
    residuals = clusters.totals - clusters.mean * clusters.sizes
    squares = float((residuals**2).sum())
    if number < 2 or squares < 1e-18:
        return None
    return float(np.sqrt(number / (number - 1) * squares) / clusters.items)


class PairedDifference(NamedTuple):
    """Bounds of a mean difference, with its two-sided p-value against 0 and its standard error."""

    low: Batch
    high: Batch
    p_value: Batch
    error: Batch


def paired_difference(clusters: Clusters, error_rate: float = LEVEL) -> PairedDifference:
    """Interval of a mean of differences in -1..1.

    Bonett and Price's adjusted Wald interval (2012, "Adjusted Wald Confidence Interval for a
    Difference of Binomial Proportions Based on Paired Data"), which adds an item won and an item
    lost, for as many items as the clustered ones are worth.
    """
    from scipy import special  # as above

    mean, items = clusters.mean, clusters.items
    moved = clusters.squares.sum(-1) / items
    flat = (1 - moved) ** FADE + np.abs(mean) ** FADE  # 1 if no item changed, or all did alike
    found = spread(clusters, flat * (1 + mean**2))
    worth = np.minimum(items * found.independent / found.variance, items)
    won = ((moved + mean) / 2 * worth + 1) / (worth + 2)
    lost = ((moved - mean) / 2 * worth + 1) / (worth + 2)
    centre = won - lost
    error = np.sqrt((won + lost - centre**2) / (worth + 2))
    half = special.stdtrit(found.freedom, 1 - error_rate / 2) * error
    low = np.clip(np.minimum(centre - half, mean), -1, 1)
    high = np.clip(np.maximum(centre + half, mean), -1, 1)
    p_value = 2 * special.stdtr(found.freedom, -np.abs(centre) / error)
    return PairedDifference(low, high, p_value, error)


def _quantile(clusters: Clusters, error_rate: float) -> float:
    from scipy import special  # as above

    freedom = np.maximum(clusters.effective - 1, 1)
    return float(special.stdtrit(freedom, 1 - error_rate / 2))


def unpaired_difference(one: Proportion, two: Proportion) -> Interval | None:
    """Interval of `two` minus `one`, taken on different items: Newcombe's hybrid of their own
    (1998, "Interval Estimation for the Difference Between Independent Proportions", method 10).
    """
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return None
    delta = two.estimate - one.estimate
    low = delta - np.hypot(two.estimate - two.low, one.high - one.estimate)
    high = delta + np.hypot(two.high - two.estimate, one.estimate - one.low)
    return max(-1.0, float(low)), min(1.0, float(high))
