"""The gate: whether a round is better than the best before it.

A bettor starts with 1 and stakes a share of what they have on each context: they gain where the
round did better there, and lose where it did worse. If the round is no better, their wealth ends
above 1 / alpha with a chance of at most alpha (Markov's inequality; Waudby-Smith and Ramdas 2024,
"Estimating Means of Bounded Random Variables by Betting", arXiv:2010.09686, section 4). That holds
for any number of contexts and however skewed their gains are, which a standard error does not give.
The wealth is averaged over stakes that are fixed beforehand, so the order of contexts does not
matter.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from amplify.evaluation.statistics.clusters import Batch, Clusters, collapse, tabulate
from amplify.evaluation.statistics.intervals import (
    POWER,
    TOO_FEW,
    Comparison,
    compare,
    paired_difference,
)

STAKES = 1 / (1 + np.exp(-np.linspace(-5, 4, 37)))
"""Shares of the wealth that are staked on each context, from 0.7 to 98 %; they weigh alike. Small
ones find small gains in many contexts, large ones gains that come without losses.
"""
LEARNED = 0.5
"""Below this share of training answers reproduced, an assistant more often than not says something
else than what it was trained to say. Noise in the answers lowers the share, too, but not so far
while most answers are right.
"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the gate decided about a round, and why."""

    verdict: str  # "promoted", "rejected" or "inconclusive"
    reason: str
    error_rate: float  # what the round could spend, what was carried over included
    at_least: float | None  # the gain is more, at that error rate; None: too few contexts
    at_most: float | None  # the gain is less, at the gate's whole error rate
    smallest_effect: float | None  # gain that would have been promoted with 80 % power
    agreement: float | None  # share of its training answers that the assistant reproduces
    comparison: Comparison


def judge(
    before: Shaped[np.ndarray, " rows"],
    after: Shaped[np.ndarray, " rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None = None,
    *,
    round_number: int,
    error_rate: float,
    worthwhile: float,
    carried: float = 0.0,
    agreement: float | None = None,
) -> Verdict:
    """Is `after` better than `before`, at the share of the error rate that this round may spend?

    Promoted if it is better, however little. Otherwise rejected if an improvement of `worthwhile`
    can be ruled out, which spends nothing of what promotions may. Otherwise inconclusive.

    Args:
        before, after: what each row scored, 0 to 1, such as whether it was answered rightly.
        context, question: which item a row belongs to: see `clusters.tabulate`.
        error_rate: chance of ever promoting a round that is no better, over all rounds together;
            also of rejecting a round that is better by `worthwhile`, in each.
        worthwhile: accuracy, a fraction.
        carried: error rate that the round before passes on: see `carried_error_rate`.
        agreement: share of its training answers that the assistant reproduces, where known.

    Raises:
        ValueError: on unequal lengths, no rows, or a number out of range.
    """
    if not 0 <= worthwhile <= 1:
        raise ValueError(f"worthwhile must be 0 or more, and 1 at most, got {worthwhile}")
    spent = min(spent_error_rate(round_number, error_rate) + carried, error_rate)
    comparison = compare(before, after, context, question)
    [was, now], cluster = collapse(context, question, before, after)
    clusters = tabulate(now - was, cluster)
    told = clusters.enough
    if told and log_wealth(clusters) >= -np.log(spent):
        verdict = "promoted"
    elif told and log_wealth(_turned(clusters), -worthwhile) >= -np.log(error_rate):
        verdict = "rejected"
    else:
        verdict = "inconclusive"
    found = Verdict(
        verdict=verdict,
        reason="",
        error_rate=spent,
        at_least=lower_bound(clusters, spent) if told else None,
        at_most=-lower_bound(_turned(clusters), error_rate) if told else None,
        smallest_effect=_smallest_effect(clusters, spent) if comparison.smallest_effect else None,
        agreement=agreement,
        comparison=comparison,
    )
    full = bool(np.all(was == 1))
    return dataclasses.replace(found, reason=_reason(found, worthwhile, full))


def spent_error_rate(round_number: int, error_rate: float) -> float:
    """What round n may spend of the error rate by itself: error_rate / (n (n + 1)).

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


def carried_error_rate(before: Mapping[str, Any] | None) -> float:
    """What the verdict of the round just before passes on: all that it could spend if it was
    promoted, for a rightly promoted round has used up nothing; nothing otherwise.

    This is the fallback procedure (Wiens 2003, "A Fixed Sequence Bonferroni Procedure for Testing
    Multiple Endpoints"; Wiens and Dmitrienko 2005), which keeps the chance of any false promotion.
    """
    if before is None or before["verdict"] != "promoted":
        return 0.0
    return float(before["error_rate"])


def log_wealth(clusters: Clusters, gain: float = 0.0) -> float:
    """Logarithm of what a bettor against "the mean difference is at most `gain`" ends with.

    Whoever rejects that where this exceeds log(1 / alpha) is wrong with a chance of at most alpha.
    """
    scale = clusters.sizes.max() * (1 + abs(gain))
    gains = (clusters.totals - gain * clusters.sizes) / scale  # each in -1..1
    values, counts = np.unique(gains, return_counts=True)  # who gains alike is interchangeable
    return float(wealth_of(values, counts))


def wealth_of(
    gains: Float[np.ndarray, " kinds"], counts: Shaped[np.ndarray, "*batch kinds"]
) -> Batch:
    """Logarithm of the final wealth, from how many contexts gained how much.

    Args:
        gains: in -1..1; a context that was always wrong and is always right gains 1.
        counts: of the contexts with each gain.
    """
    return _mean_exp(counts @ np.log1p(np.outer(gains, STAKES)))


def _mean_exp(logs: Float[np.ndarray, "*batch stakes"]) -> Batch:
    """Logarithm of the mean over the last axis of what these are the logarithms of."""
    most = logs.max(-1, keepdims=True)
    return np.log(np.exp(logs - most).mean(-1)) + most[..., 0]


def _turned(clusters: Clusters) -> Clusters:
    return clusters._replace(totals=-clusters.totals)


def lower_bound(clusters: Clusters, error_rate: float) -> float:
    """The largest gain that the mean difference exceeds at this error rate; -1 if there is none.
    Above 0 if, and only if, `log_wealth` says so.
    """
    low, high = -1.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if log_wealth(clusters, middle) >= -np.log(error_rate):
            low = middle
        else:
            high = middle
    return low


def smallest_gain(contexts: int, per_context: int, error_rate: float) -> float | None:
    """The smallest gain in accuracy that can be promoted: that of a round that loses nothing.

    Such gains weigh most if they are spread evenly over contexts. None if not even an assistant
    that was always wrong and is always right could be promoted.

    Args:
        error_rate: what the round may spend.
    """
    items = contexts * per_context

    def promoted(newly_right: int) -> bool:
        each, more = divmod(newly_right, contexts)
        totals = np.full(contexts, each, dtype=np.float64)
        totals[:more] += 1
        sizes = np.full(contexts, per_context, dtype=np.float64)
        return bool(log_wealth(Clusters(totals, totals, sizes)) >= -np.log(error_rate))

    if not promoted(items):
        return None
    low, high = 0, items
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if promoted(middle) else (middle, high)
    return high / items


def _smallest_effect(clusters: Clusters, error_rate: float) -> float:
    """True gain that would be promoted with 80 % power, were contexts to vary as much as these.

    Wealth is taken for many contexts, where it depends on their sum and squares only.
    """
    from scipy import special  # half a second to load, which pages that need none do not wait for

    error = float(paired_difference(clusters).error)
    spread = error * float(clusters.items / clusters.sizes.max())  # of the sum of gains
    low, high = 0.0, 100.0  # standard errors
    for _ in range(40):
        middle = (low + high) / 2
        wealth = _mean_exp(STAKES * middle * spread - (STAKES * spread) ** 2 / 2)
        low, high = (low, middle) if wealth >= -np.log(error_rate) else (middle, high)
    return float((high + special.ndtri(POWER)) * error)


def _reason(found: Verdict, worthwhile: float, full: bool) -> str:
    """Why, in words that the numbers support."""
    comparison = found.comparison
    change = _points(comparison.delta)
    points = f"{100 * worthwhile:g} point{'' if worthwhile == 0.01 else 's'}"
    contexts = f"{comparison.contexts:,} context{'' if comparison.contexts == 1 else 's'}"
    if found.at_least is None or found.at_most is None:
        return (
            f"{TOO_FEW}: {change} points in {contexts}, which amount to"
            f" {comparison.effective_contexts:g}"
        )
    if full and comparison.delta == 0:
        said = f"no room left: all {comparison.items:,} items scored 1 before and after"
    elif found.verdict == "promoted":
        level = f"{100 * (1 - found.error_rate):.4g} % confidence"
        said = f"better: {change} points, more than {_points(found.at_least)} with {level}"
    elif found.verdict == "rejected":
        said = (
            f"an improvement of {points} or more is ruled out:"
            f" {change} points, less than {_points(found.at_most)}"
        )
    else:
        said = (
            f"{TOO_FEW}: {change} points in {contexts},"
            f" from {_points(found.at_least)} to {_points(found.at_most)}"
        )
    if found.verdict != "promoted" and found.agreement is not None and found.agreement < LEARNED:
        said = (
            f"did not learn what it was given: reproduces {100 * found.agreement:.0f} % of its"
            f" training answers (more steps?); {said}"
        )
    return said


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"
