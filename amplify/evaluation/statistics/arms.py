"""The difference between two arms of a trial in which people answer: with help, and without.

Answers of one person are not independent, so people are the clusters. Everybody answers some items
in either arm, so what is special to a person cancels in part; the variance is therefore that of
leaving out a person at a time, of the difference itself (the jackknife, or CR3: Cameron and Miller
2015, "A Practitioner's Guide to Cluster-Robust Inference", section VI).
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from amplify.evaluation.statistics.clusters import FEWEST
from amplify.evaluation.statistics.intervals import LEVEL, Interval

PRIOR = 0.5
"""Weight of imaginary people where answers hardly vary, as in `clusters.spread`."""
LEAST_DESIGN_EFFECT = 0.5
"""An answer counts for two independent ones at most: people can be as even as that by chance."""


def difference_of_means(
    values: Float[np.ndarray, " n"],
    helped: Bool[np.ndarray, " n"],
    person: Int[np.ndarray, " n"],
    error_rate: float = LEVEL,
) -> Interval | None:
    """Interval of the mean of those helped minus the mean of the others, of any values.

    None where there are too few people: where they amount to fewer than three, one gave all answers
    of an arm, or nothing is seen to vary.
    """
    found = _left_out(values, helped, person)
    if found is None or found[0] < 1e-24:
        return None
    from scipy import special  # half a second to load, which pages that need none do not wait for

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
    """The same of values in 0..1, and so within -1..1 and never a point.

    Agresti and Caffo's interval (2000, "Simple and Effective Confidence Intervals for Proportions
    and Differences of Proportions Result from Adding Two Successes and Two Failures"), for as many
    answers as the clustered ones are worth. None where there are too few people.
    """
    found = _left_out(right, helped, person)
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


def _left_out(
    values: Float[np.ndarray, " n"],
    helped: Bool[np.ndarray, " n"],
    person: Int[np.ndarray, " n"],
) -> tuple[float, float] | None:
    """Variance of the difference by leaving out a person at a time, and its degrees of freedom."""
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
