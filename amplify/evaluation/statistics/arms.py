"""Differences between two arms of a trial: people who answer with help, and without.

Answers of the same person are dependent, so people are the clusters. Everyone answers in both arms,
which cancels part of the differences between people; so the variance is the delete-one-person
jackknife of the difference itself (CR3: Cameron and Miller 2015, "A Practitioner's Guide to
Cluster-Robust Inference", section VI).
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from amplify.evaluation.statistics.clusters import FEWEST
from amplify.evaluation.statistics.intervals import LEVEL, Interval

PRIOR = 0.5
"""Weight of pseudo-people where answers hardly vary, as in `clusters.clustered_variance`."""
LEAST_DESIGN_EFFECT = 0.5
"""Lower limit of the design effect, because a small estimate may be due to chance."""


def difference_of_means(
    values: Float[np.ndarray, " n"],
    helped: Bool[np.ndarray, " n"],
    person: Int[np.ndarray, " n"],
    error_rate: float = LEVEL,
) -> Interval | None:
    """Returns an interval of the mean with help minus the mean without, for values on any scale.

    Args:
        values: one an answer.
        helped: True: with help.
        person: who answered.
        error_rate: 1 minus the confidence level.

    Returns:
        The bounds; None if there are fewer than three effective people, one person gave all answers
        in an arm, or nothing varies.
    """
    found = _jackknife(values, helped, person)
    if found is None or found[0] < 1e-24:
        return None
    from scipy import special  # takes half a second to import, and pages may not need it

    variance, freedom = found
    difference = values[helped].mean() - values[~helped].mean()
    half = special.stdtrit(freedom, 1 - error_rate / 2) * np.sqrt(variance)
    return float(difference - half), float(difference + half)


def difference_of_shares(
    right: Float[np.ndarray, " n"],
    helped: Bool[np.ndarray, " n"],
    person: Int[np.ndarray, " n"],
    error_rate: float = LEVEL,
) -> Interval | None:
    """Returns an interval of the share with help minus the share without; never a single point.

    This is the interval of Agresti and Caffo (2000, "Simple and Effective Confidence Intervals for
    Proportions and Differences of Proportions Result from Adding Two Successes and Two Failures")
    for the effective number of answers.

    Args:
        right: 0 to 1 for each answer.
        helped: True: with help.
        person: who answered.
        error_rate: 1 minus the confidence level.

    Returns:
        The bounds, within -1..1; None if there are fewer than three effective people, or one person
        gave all answers in an arm.
    """
    found = _jackknife(right, helped, person)
    if found is None:
        return None
    from scipy import special  # as above

    variance, freedom = found
    independent, rates, sizes = 0.0, [], []
    for arm in (helped, ~helped):
        answers = np.bincount(person[arm])
        rate, size = float(right[arm].mean()), float(answers.sum())
        typical = float((answers**2).sum()) / size
        prior = PRIOR * typical * (2 * rate - 1) ** 2 * (rate**2 + (1 - rate) ** 2)
        independent += (rate * (1 - rate) * size + prior) / size**2
        variance += prior * typical / size**2
        rates.append(rate)
        sizes.append(size)
    effect = max(variance / independent, LEAST_DESIGN_EFFECT)
    centre, error = 0.0, 0.0
    for sign, rate, size in zip((1, -1), rates, sizes, strict=True):
        worth = size / effect
        share = (rate * worth + 1) / (worth + 2)
        centre += sign * share
        error += share * (1 - share) / (worth + 2)
    half = float(special.stdtrit(freedom, 1 - error_rate / 2)) * float(np.sqrt(error))
    difference = rates[0] - rates[1]
    return max(-1.0, min(centre - half, difference)), min(1.0, max(centre + half, difference))


def _jackknife(
    values: Float[np.ndarray, " n"],
    helped: Bool[np.ndarray, " n"],
    person: Int[np.ndarray, " n"],
) -> tuple[float, float] | None:
    """Delete-one-person variance of the difference, and its degrees of freedom; None: too few
    people.
    """
    _, person = np.unique(person, return_inverse=True)
    people = int(person.max(initial=-1)) + 1
    changes, parts = np.zeros(people), np.zeros(people)
    for sign, arm in ((1, helped), (-1, ~helped)):
        if not arm.any():
            return None
        answers = np.bincount(person[arm], minlength=people)
        sums = np.bincount(person[arm], weights=values[arm], minlength=people)
        left = answers.sum() - answers
        if not left.all():
            return None
        changes += sign * (sums - values[arm].mean() * answers) / left
        parts += answers / answers.sum() / 2
    effective = 1 / float((parts**2).sum())
    if effective < FEWEST - 1e-9:
        return None
    return (people - 1) / people * float((changes**2).sum()), effective - 1
