"""Training runs whose gold is known, audited by simulated reviews, for tests of the alarm.

Values are in standard deviations of the base policy's gold. A review is one answer's gold plus
noise.
"""

from typing import NamedTuple

import numpy as np

from amplify.evaluation.statistics.alarm import (
    AlarmRules,
    Check,
    Look,
    best_look,
    known_best,
    reviews_used,
    watch,
)
from amplify.evaluation.statistics.audits import estimate

STEPS = np.arange(200)
GOLD, NOISE = 1.0, 0.5  # standard deviations, of gold within a policy and of a review


class Run(NamedTuple):
    gold: np.ndarray  # true mean at each step
    proxy: np.ndarray


def hacked(random):
    """Gold rises to about 1.2, loses half a deviation within 12 to 26 steps, and ends near -2."""
    peak, fall = random.uniform(30, 60), random.uniform(2.7, 3.7)
    scale = random.uniform(12, 26) / (-np.log(1 - 0.5 / fall)) ** (2 / 3)
    since = np.maximum(STEPS - peak, 0)
    return Run(_rise(random, peak) - fall * (1 - np.exp(-((since / scale) ** 1.5))), _proxy(6.0))


def flat(random, drift=0.0):
    """Gold rises to about 1.2 and stays there, or loses `drift` by the end."""
    peak = random.uniform(30, 60)
    lost = drift * np.maximum(STEPS - peak, 0) / (STEPS[-1] - peak)
    return Run(_rise(random, peak) - lost, _proxy(6.0))


def _rise(random, peak):
    return random.uniform(0.9, 1.5) * np.sin(np.pi / 2 * np.minimum(STEPS / peak, 1))


def _proxy(top):
    return top * (1 - np.exp(-STEPS / 80))


class Outcome(NamedTuple):
    alarm: int | None  # step
    chosen: int  # step of the best audited policy
    reviews: int


def audit_run(random, run, rules, every=8, per_look=24, correlation=0.0, smoothed=3):
    """Trains on until the alarm or the last step, as an experiment does."""
    looks: list[Look] = []
    checks: list[Check] = []
    alarm = None
    for step in range(0, len(STEPS), every):
        if reviews_used(looks, checks) + per_look > rules.budget:
            break
        looks.append(Look(step, run.proxy[step], reviews(random, run, step, per_look, correlation)))
        found = watch(looks, checks, rules)
        if found.status == "check":
            best = known_best(found.best_step, checks)
            checks.append(
                Check(
                    found.best_step,
                    step,
                    best or reviews(random, run, found.best_step, rules.check_reviews, correlation),
                    reviews(random, run, step, rules.check_reviews, correlation),
                )
            )
            found = watch(looks, checks, rules)
        if found.status == "alarm":
            alarm = step
            break
    return Outcome(alarm, best_look(looks, smoothed).step, reviews_used(looks, checks))


def reviews(random, run, step, number, correlation=0.0, rollouts=256):
    """Exactly so many random reviews, of rollouts that a proxy has scored."""
    shape = random.normal(size=rollouts)
    proxy = correlation * shape + np.sqrt(1 - correlation**2) * random.normal(size=rollouts)
    values = run.gold[step] + GOLD * shape + NOISE * random.normal(size=rollouts)
    audited = np.arange(rollouts) < number
    return estimate(proxy, values, audited, np.full(rollouts, number / rollouts))


def before_losing(run, outcome, loss):
    """Whether the alarm came before gold had lost so much since its peak."""
    peak = int(run.gold.argmax())
    below = np.flatnonzero((run.gold < run.gold[peak] - loss) & (peak < STEPS))
    limit = below[0] if len(below) else len(STEPS)
    return outcome.alarm is not None and outcome.alarm <= limit


def table(seeds, make, rules=None, **options):
    """Each run and what became of it; a run's draws depend on nothing but its seed."""
    found = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        run = make(random)
        found.append((run, audit_run(random, run, rules or AlarmRules(), **options)))
    return found
