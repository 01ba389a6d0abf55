"""Paired statistics of two rounds, and the gate that promotes, rejects or cannot tell.

Both rounds answered the same items, so their difference is taken item by item; items of one problem
share its context and are not independent, so errors are clustered by problem (Miller 2024, "Adding
Error Bars to Evals", arXiv:2411.00640, sections 2.2 and 4.2). Knows arrays of right and wrong and
nothing of models or files.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

RESAMPLES = 100_000
"""Enough that some 20 resamples lie beyond each end of the interval at the error rate that is left
for round 10.
"""
FEW_DISCORDANT = 10
"""With fewer problems than this on which the rounds differ, a bootstrap has too little to resample.
"""
POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Accuracies are fractions; `delta` is after minus before. None where a single problem leaves
    it undefined.
    """

    items: int
    problems: int
    delta: float
    standard_error: float | None  # clustered by problem
    interval: tuple[float, float] | None  # 95%, cluster bootstrap
    wins: int  # items right after and wrong before
    losses: int
    p_value: float  # exact McNemar, two-sided; takes items as independent, the interval does not
    smallest_effect: (
        float | None
    )  # true difference that this many items would have shown with 80% power


@dataclasses.dataclass(frozen=True)
class Verdict:
    verdict: str  # "promoted", "rejected" or "inconclusive"
    reason: str
    error_rate: float  # spent on this round
    decision_interval: tuple[float, float] | None  # at level 1 - error_rate
    comparison: Comparison


class Proportion(NamedTuple):
    estimate: float
    low: float
    high: float


def judge(
    before: Bool[np.ndarray, " items"],
    after: Bool[np.ndarray, " items"],
    problem: Int[np.ndarray, " items"],
    *,
    round_number: int,
    error_rate: float,
    worthwhile: float,
) -> Verdict:
    """The gate: is `after` better than `before`, at the share of the error rate that this round may
    spend?

    Promoted if the decision interval lies above 0: better, however little. Otherwise rejected if it
    lies below `worthwhile`: an improvement of that size can be ruled out. Otherwise inconclusive.

    Args:
        before, after: whether each item was answered rightly.
        problem: which problem each item belongs to.
        error_rate: chance of ever promoting a round that is no better, over all rounds together.
        worthwhile: accuracy, a fraction.

    Raises:
        ValueError: on unequal lengths, no items, or a number out of range.
    """
    if worthwhile < 0:
        raise ValueError(f"worthwhile must be 0 or more, got {worthwhile}")
    spent = spent_error_rate(round_number, error_rate)
    clusters = _Clusters.of(before, after, problem)
    comparison, interval = _compare(clusters, before, after, spent), clusters.interval(spent)
    if interval is not None and interval[0] > 0:
        verdict = "promoted"
    elif interval is not None and interval[1] < worthwhile:
        verdict = "rejected"
    else:
        verdict = "inconclusive"
    return Verdict(
        verdict, _reason(verdict, comparison, interval, spent), spent, interval, comparison
    )


def compare(
    before: Bool[np.ndarray, " items"],
    after: Bool[np.ndarray, " items"],
    problem: Int[np.ndarray, " items"],
    *,
    error_rate: float = 0.05,
) -> Comparison:
    """The paired difference. `error_rate` is the level that `smallest_effect` is reckoned at."""
    return _compare(_Clusters.of(before, after, problem), before, after, error_rate)


def _compare(
    clusters: "_Clusters",
    before: Bool[np.ndarray, " items"],
    after: Bool[np.ndarray, " items"],
    error_rate: float,
) -> Comparison:
    wins, losses = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    error = clusters.standard_error()
    effect = stats.norm.ppf(1 - error_rate / 2) + stats.norm.ppf(POWER)
    return Comparison(
        items=len(before),
        problems=len(clusters.sums),
        delta=clusters.delta(),
        standard_error=error,
        interval=clusters.interval(0.05),
        wins=wins,
        losses=losses,
        p_value=float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
        smallest_effect=None if error is None else float(effect * error),
    )


def spent_error_rate(round_number: int, error_rate: float) -> float:
    """What round n may spend of the error rate: error_rate / (n (n + 1)).

    To go on "as long as it keeps improving" is optional stopping: tested anew each round at the
    full error rate, some round would be promoted by chance in the end. These shares add up to
    `error_rate` over all rounds there can be, and by the union bound that needs no independence
    between rounds. That the best so far was picked on the same items flatters it, not the newcomer,
    so it errs on the side of not promoting.
    """
    if round_number < 1:
        raise ValueError(f"a round number is 1 or more, got {round_number}")
    if not 0 < error_rate < 1:
        raise ValueError(f"an error rate is between 0 and 1, got {error_rate}")
    return error_rate / (round_number * (round_number + 1))


def proportion_interval(
    right: Bool[np.ndarray, " items"], problem: Int[np.ndarray, " items"], error_rate: float = 0.05
) -> Proportion:
    """Accuracy and its interval: Wilson's, for as many independent items as the clustered ones are
    worth.

    That number is items / design effect, and no less than the problems (Dean and Pagano 2015,
    "Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys"). At 0%
    and 100%, where the design effect cannot be seen, a problem counts as one item, so that the
    interval never shrinks to a point.
    """
    if not len(right):
        raise ValueError("no items to take the accuracy of")
    clusters = _Clusters.of(np.zeros_like(right), right, problem)
    rate, error = clusters.delta(), clusters.standard_error()
    worth = float(len(clusters.sums))
    if error:
        worth = float(np.clip(rate * (1 - rate) / error**2, 1, len(right)))
    z = stats.norm.ppf(1 - error_rate / 2)
    centre = (rate + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z / (1 + z**2 / worth) * np.sqrt(rate * (1 - rate) / worth + z**2 / (4 * worth**2))
    # The bounds meet 0 and 1 exactly there, where rounding would leave them a hair off.
    return Proportion(rate, min(max(0.0, centre - half), rate), max(min(1.0, centre + half), rate))


@dataclasses.dataclass(frozen=True)
class _Clusters:
    """Per problem: the sum of its items' differences, and how many items it has."""

    sums: Int[np.ndarray, " problems"]
    sizes: Int[np.ndarray, " problems"]

    @classmethod
    def of(
        cls,
        before: Bool[np.ndarray, " items"],
        after: Bool[np.ndarray, " items"],
        problem: Int[np.ndarray, " items"],
    ) -> "_Clusters":
        if not len(before) == len(after) == len(problem):
            raise ValueError(
                f"paired items must be as many before as after, got {len(before)}, {len(after)}"
                f" and {len(problem)} problem labels"
            )
        if not len(before):
            raise ValueError("no items to compare")
        _, index = np.unique(problem, return_inverse=True)
        differences = after.astype(np.int64) - before.astype(np.int64)
        sums = np.bincount(index, weights=differences).astype(np.int64)
        return cls(sums, np.bincount(index))

    def delta(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    def standard_error(self) -> float | None:
        """Cluster-robust, with the factor G / (G - 1); None for a single problem."""
        problems = len(self.sums)
        if problems < 2:
            return None
        residuals = self.sums - self.delta() * self.sizes
        factor = problems / (problems - 1)
        return float(np.sqrt(factor * np.sum(residuals**2)) / self.sizes.sum())

    def interval(self, error_rate: float) -> tuple[float, float] | None:
        """Percentile cluster bootstrap (Efron and Tibshirani 1993, chapters 8 and 13); exact where
        too few problems differ for that; None for a single problem.
        """
        if len(self.sums) < 2:
            return None
        if np.count_nonzero(self.sums) < FEW_DISCORDANT:
            return _exact_interval(self, error_rate)
        low, high = np.quantile(self._resampled_deltas, [error_rate / 2, 1 - error_rate / 2])
        return float(low), float(high)

    @functools.cached_property
    def _resampled_deltas(self) -> Float[np.ndarray, " resamples"]:
        """The difference in RESAMPLES draws of as many problems with replacement; always the same
        draws.

        Problems with the same sum and size are interchangeable, so a draw is how many of each
        *kind* it has: one multinomial over a few kinds instead of an index for every problem.
        """
        kinds, counts = np.unique(np.stack([self.sums, self.sizes]), axis=1, return_counts=True)
        problems = len(self.sums)
        drawn = np.random.default_rng(0).multinomial(problems, counts / problems, size=RESAMPLES)
        sums, sizes = kinds @ drawn.T
        return sums / sizes


def _exact_interval(clusters: _Clusters, error_rate: float) -> tuple[float, float]:
    """Bounds from the exact (Clopper-Pearson) shares of problems that could be better or worse.

    Where next to nothing differs a bootstrap would claim certainty. A problem that could differ is
    taken to differ on every item, which makes this wider than need be and never too narrow.
    """

    def at_most(count: int) -> float:
        return float(stats.beta.ppf(1 - error_rate / 2, count + 1, len(clusters.sums) - count))

    return -at_most(int(np.sum(clusters.sums < 0))), at_most(int(np.sum(clusters.sums > 0)))


def _reason(
    verdict: str, comparison: Comparison, interval: tuple[float, float] | None, spent: float
) -> str:
    if interval is None:
        return "one problem alone tells nothing about others"
    low, high = (f"{100 * end:+.1f}" for end in interval)
    said = {
        "promoted": "better",
        "rejected": "no worthwhile improvement",
        "inconclusive": "too few items to tell",
    }
    return (
        f"{said[verdict]}: {100 * comparison.delta:+.1f} points,"
        f" interval {low} to {high} at the {100 * (1 - spent):.4g}% level"
    )
