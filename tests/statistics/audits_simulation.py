"""Audited answers whose mean value is known, for tests and tables of coverage."""

import functools
from typing import NamedTuple

import numpy as np
from scipy import special

from amplify.evaluation.statistics.audits import estimate, sampling_probabilities
from amplify.evaluation.statistics.intervals import LEVEL

ITEMS = 512
NOISE = 0.5
LOOKS = 20


class Population(NamedTuple):
    """Values have variance 1.25: 1 of gold, .25 of the review."""

    name: str
    mean: float
    correlation: float  # of the proxy with gold
    skewed: bool = False  # exponential gold, skewness 2; otherwise normal


POPULATIONS = (
    Population("base, good proxy", 0.0, 0.8),
    Population("base, weak proxy", 0.0, 0.3),
    Population("base, skewed", 0.0, 0.3, True),
    Population("hacked", -2.0, -0.46),
    Population("hacked, skewed", -2.0, -0.46, True),
)


def audit(random, population, budget, active, items=ITEMS):
    """One look, with draws that depend on `random` and not on keys, which takes less time."""
    shape, other = random.normal(size=(2, items))
    gold = -np.log(special.ndtr(-shape)) - 1 if population.skewed else shape
    proxy = population.correlation * shape + np.sqrt(1 - population.correlation**2) * other
    values = population.mean + gold + NOISE * random.normal(size=items)
    probabilities = sampled(items, budget, active)
    return estimate(3 + 2 * proxy, values, random.random(items) < probabilities, probabilities)


@functools.cache
def sampled(items, budget, active):
    """Sampling probabilities; uncertainties are log-normal, in no relation to values."""
    uncertainty = np.exp(0.5 * special.ndtri((np.arange(items) + 0.5) / items))
    return sampling_probabilities(items, budget, uncertainty if active else None)


class Coverage(NamedTuple):
    one_look: float  # share of all looks' intervals that cover
    over_looks: float  # share of runs of 20 looks in which all intervals cover
    students: float  # the same, with t quantiles instead of the mixture
    width: float  # mean, of one look
    wider: float  # mean ratio of the widths
    bias: float  # mean error, in standard errors of this mean


def covered(random, population, budget, active, repeats):
    """Of `repeats` runs of 20 independent looks."""
    found = [
        [audit(random, population, budget, active) for _ in range(LOOKS)] for _ in range(repeats)
    ]

    def inside(interval):
        return interval.low <= population.mean <= interval.high

    every = [one.one_look() for run in found for one in run]
    wide = [one.over_looks(LOOKS) for run in found for one in run]
    errors = np.array([one.value - population.mean for run in found for one in run])
    widths = np.array([one.high - one.low for one in every])
    return Coverage(
        float(np.mean([inside(one) for one in every])),
        float(np.mean([all(inside(one.over_looks(LOOKS)) for one in run) for run in found])),
        float(np.mean([all(inside(one.one_look(LEVEL / LOOKS)) for one in run) for run in found])),
        float(widths.mean()),
        float(np.mean([one.high - one.low for one in wide] / widths)),
        float(errors.mean() / errors.std() * np.sqrt(errors.size)),
    )
