"""The gate: a sequential test of whether a round is better than the best one before it.

It is a test by betting. A bettor starts with wealth 1 and stakes a share of it on each context,
winning if the round did better there and losing if it did worse. If the round is no better, the
probability that the final wealth exceeds 1 / alpha is at most alpha (Markov's inequality;
Waudby-Smith and Ramdas 2024, "Estimating Means of Bounded Random Variables by Betting",
arXiv:2010.09686, section 4). This holds for any number of contexts and any skewness of their gains,
unlike tests based on standard errors. The wealth is averaged over stakes that are fixed in advance,
so the order of contexts does not matter.
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
"""Shares of the wealth staked on each context, from 0.7 to 98 %, equally weighted. Small stakes
detect small gains in many contexts, large stakes gains without losses.
"""
MIN_AGREEMENT = 0.5
"""Share of its training answers below which an assistant is said not to have learned them. Noise in
the answers lowers the share, too, but not below this value while most answers are right.
"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The gate's decision about a round, and the reason."""

    verdict: str  # "promoted", "rejected" or "inconclusive"
    reason: str
    error_rate: float  # what the round could spend, including what was carried over
    at_least: float | None  # lower bound of the gain at that error rate; None: too few contexts
    at_most: float | None  # upper bound of the gain at the gate's whole error rate
    smallest_effect: float | None  # true gain that is promoted with 80 % power
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
    """Decides whether `after` is better than `before`, at the error rate that this round may spend.

    The round is promoted if it is better, by however little. Otherwise it is rejected if a gain of
    `worthwhile` can be ruled out, which costs no error rate of later promotions. Otherwise the
    result is inconclusive.

    Args:
        before: score of each row, 0 to 1, such as whether it was answered correctly.
        after: the new round's score.
        context: as in `clusters.tabulate`.
        question: as in `clusters.tabulate`.
        round_number: 1 or more.
        error_rate: probability of promoting any round that is no better, over all rounds together;
            also, in each round, of rejecting one that is better by `worthwhile`.
        worthwhile: gain in the mean score, 0 to 1.
        carried: error rate passed on by the previous round, see `carried_error_rate`.
        agreement: share of its training answers that the assistant reproduces; None: unknown.

    Raises:
        ValueError: if lengths differ, there are no rows, or a number is out of range.
    """
    if not 0 <= worthwhile <= 1:
        raise ValueError(f"worthwhile must be 0 to 1, got {worthwhile}")
    spent = min(spent_error_rate(round_number, error_rate) + carried, error_rate)
    comparison = compare(before, after, context, question)
    [was, now], cluster = collapse(context, question, before, after)
    clusters = tabulate(now - was, cluster)
    enough = clusters.enough
    if enough and log_wealth(clusters) >= -np.log(spent):
        verdict = "promoted"
    elif enough and log_wealth(_negated(clusters), -worthwhile) >= -np.log(error_rate):
        verdict = "rejected"
    else:
        verdict = "inconclusive"
    found = Verdict(
        verdict=verdict,
        reason="",
        error_rate=spent,
        at_least=lower_bound(clusters, spent) if enough else None,
        at_most=-lower_bound(_negated(clusters), error_rate) if enough else None,
        smallest_effect=_smallest_effect(clusters, spent) if comparison.smallest_effect else None,
        agreement=agreement,
        comparison=comparison,
    )
    full = bool(np.all(was == 1))
    return dataclasses.replace(found, reason=_reason(found, worthwhile, full))


def spent_error_rate(round_number: int, error_rate: float) -> float:
    """Returns the share of the error rate that round n may spend: error_rate / (n (n + 1)).

    Continuing "as long as the assistant improves" is optional stopping: if each round were tested
    at the full error rate, some round would eventually be promoted by chance. The shares add up to
    `error_rate`, and the union bound needs no independence between rounds. Selecting the best round
    on the same items favours the old round, which makes promotions conservative.

    Args:
        round_number: 1 or more.
        error_rate: of all rounds together, between 0 and 1.

    Raises:
        ValueError: if a number is out of range.
    """
    if round_number < 1:
        raise ValueError(f"round_number must be 1 or more, got {round_number}")
    if not 0 < error_rate < 1:
        raise ValueError(f"error_rate must be between 0 and 1, got {error_rate}")
    return error_rate / (round_number * (round_number + 1))


def carried_error_rate(before: Mapping[str, Any] | None) -> float:
    """Returns the error rate that the previous round passes on: all it could spend, if promoted.

    A correct promotion uses up no error rate. This is the fallback procedure (Wiens 2003, "A Fixed
    Sequence Bonferroni Procedure for Testing Multiple Endpoints"; Wiens and Dmitrienko 2005), which
    controls the probability of any false promotion.

    Args:
        before: the previous round's verdict, as recorded; None: there is none.
    """
    if before is None or before["verdict"] != "promoted":
        return 0.0
    return float(before["error_rate"])


def log_wealth(clusters: Clusters, gain: float = 0.0) -> float:
    """Returns the log of the final wealth of a bettor against "the mean gain is at most `gain`".

    Rejecting this hypothesis when the result exceeds log(1 / alpha) is a test at level alpha.

    Args:
        clusters: differences of scores, after minus before.
        gain: -1 to 1.
    """
    scale = clusters.sizes.max() * (1 + abs(gain))
    gains = (clusters.totals - gain * clusters.sizes) / scale  # each in -1..1
    values, counts = np.unique(gains, return_counts=True)  # equal gains are interchangeable
    return float(log_wealth_from_counts(values, counts))


def log_wealth_from_counts(
    gains: Float[np.ndarray, " kinds"], counts: Shaped[np.ndarray, "*batch kinds"]
) -> Batch:
    """Returns the log of the final wealth, given how many contexts had each gain.

    Args:
        gains: in -1..1; 1 is a context that was always wrong and is now always right.
        counts: number of contexts with each gain.
    """
    return _mean_exp(counts @ np.log1p(np.outer(gains, STAKES)))


def _mean_exp(logs: Float[np.ndarray, "*batch stakes"]) -> Batch:
    """Log-mean-exp over the last axis."""
    most = logs.max(-1, keepdims=True)
    return np.log(np.exp(logs - most).mean(-1)) + most[..., 0]


def _negated(clusters: Clusters) -> Clusters:
    return clusters._replace(totals=-clusters.totals)


def lower_bound(clusters: Clusters, error_rate: float) -> float:
    """Returns the largest gain that can be rejected at an error rate; -1 if none can.

    It is above 0 if and only if the round is promoted.

    Args:
        clusters: differences of scores, after minus before.
        error_rate: 1 minus the confidence level.
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
    """Returns the smallest gain in accuracy that can be promoted, in a round without losses.

    Such a gain has most weight if it is spread evenly over contexts.

    Args:
        contexts: number of contexts.
        per_context: questions about each.
        error_rate: what the round may spend.

    Returns:
        The gain; None if not even a change from always wrong to always right could be promoted.
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
    """True gain that is promoted with 80 % power if contexts vary as much as these do.

    Uses the large-sample wealth, which depends on the sum of gains and of their squares.
    """
    from scipy import special  # takes half a second to import, and pages may not need it

    error = float(paired_difference(clusters).error)
    spread = error * float(clusters.items / clusters.sizes.max())  # standard error of summed gains
    low, high = 0.0, 100.0  # standard errors
    for _ in range(40):
        middle = (low + high) / 2
        wealth = _mean_exp(STAKES * middle * spread - (STAKES * spread) ** 2 / 2)
        low, high = (low, middle) if wealth >= -np.log(error_rate) else (middle, high)
    return float((high + special.ndtri(POWER)) * error)


def _reason(found: Verdict, worthwhile: float, full: bool) -> str:
    """The reason of a verdict, in words that the numbers support."""
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
    if (
        found.verdict != "promoted"
        and found.agreement is not None
        and found.agreement < MIN_AGREEMENT
    ):
        said = (
            f"did not learn what it was given: reproduces {100 * found.agreement:.0f} % of its"
            f" training answers (more steps?); {said}"
        )
    return said


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"
