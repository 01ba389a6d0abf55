"""Answers of experiments that differ in their seeds, whose true mean is known.

A question is answered correctly with probability Φ(level + seed + context + seed x context), whose
terms are normal. The truth is the mean over all seeds and all contexts.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from amplify.evaluation.statistics.clusters import Between, Clusters, clustered_variance
from amplify.evaluation.statistics.intervals import paired_difference, proportion_bounds
from amplify.evaluation.statistics.seeds import (
    between_of_difference,
    between_seeds,
    cell_variance,
    difference_bounds,
)
from tests.statistics.simulation import coverage

QUESTIONS = 4
CONTEXT, TOGETHER = 0.7, 0.3
"""Standard deviations of the terms of contexts, and of seeds and contexts together."""


GAIN = 0.02
"""The true difference of two experiments."""


class Cell(NamedTuple):
    seeds: int
    contexts: int
    spread: float  # standard deviation of the term of seeds
    accuracy: float
    crossed: bool = True  # all seeds have the same contexts

    @property
    def total(self):
        return np.sqrt(1 + self.spread**2 + CONTEXT**2 + TOGETHER**2)

    def level(self, accuracy):
        return special.ndtri(accuracy) * self.total


def grid(seeds=(2, 3, 5), contexts=(20, 100, 512)):
    spreads, accuracies = (0.0, 0.1, 0.5), (0.5, 0.9, 0.98)
    sides = itertools.product(seeds, contexts, spreads, accuracies, (True, False))
    return [Cell(*side) for side in sides]


class Drawn(NamedTuple):
    totals: np.ndarray  # (runs, seeds, contexts)
    items: np.ndarray  # (runs, contexts, questions): mean over seeds

    def clusters(self):
        sizes = np.full(self.items.shape[-2], float(QUESTIONS))
        return Clusters(self.items.sum(-1), (self.items**2).sum(-1), sizes)

    def between(self):
        sizes = np.full(self.items.shape[-2], float(QUESTIONS))
        means = self.totals.sum(-1) / sizes.sum()
        return between_seeds(means, cell_variance(self.totals, sizes))


def draw(random, runs, cell, accuracy=None, of_context=None):
    """Answers in which all seeds have the same contexts."""
    shape = (runs, cell.seeds, cell.contexts)
    if of_context is None:
        of_context = context_terms(random, runs, cell)
    latent = cell.level(accuracy or cell.accuracy) + of_context
    latent = latent + cell.spread * random.standard_normal((*shape[:2], 1), np.float32)
    latent = latent + TOGETHER * random.standard_normal(shape, np.float32)
    chance = special.ndtr(latent).astype(np.float32)
    right = random.random((*shape, QUESTIONS), np.float32) < chance[..., None]
    return Drawn(right.sum(-1).astype(float), right.mean(1))


def context_terms(random, runs, cell):
    return CONTEXT * random.standard_normal((runs, 1, cell.contexts), np.float32)


def draw_apart(random, runs, cell):
    """Clusters and `Between` of seeds that have contexts of their own."""
    alone = [draw(random, runs, cell._replace(seeds=1)) for _ in range(cell.seeds)]
    totals = np.concatenate([one.totals[:, 0] for one in alone], axis=-1)
    sizes = np.full(totals.shape[-1], float(QUESTIONS))
    means = np.stack([one.totals.sum((-1, -2)) for one in alone], axis=-1)
    means = means / (cell.contexts * QUESTIONS)
    return Clusters(totals, totals, sizes), between_seeds(means, None)


def sample(random, runs, cell):
    if not cell.crossed:
        return draw_apart(random, runs, cell)
    drawn = draw(random, runs, cell)
    return drawn.clusters(), drawn.between()


def sample_difference(random, runs, cell, gain=GAIN):
    """Two experiments whose seeds all have the same contexts; the second is better by `gain`."""
    terms = context_terms(random, runs, cell)
    level = cell.accuracy
    pair = [draw(random, runs, cell, one, terms) for one in (level - gain / 2, level + gain / 2)]
    items = pair[1].items - pair[0].items
    sizes = np.full(cell.contexts, float(QUESTIONS))
    clusters = Clusters(items.sum(-1), (items**2).sum(-1), sizes)
    return clusters, *(
        between_of_difference(pair[0].totals, pair[1].totals, sizes, same) for same in (False, True)
    )


def satterthwaite(clusters, between):
    """The same variance with a moderate number of degrees of freedom."""
    found = clustered_variance(clusters, np.zeros_like(np.asarray(clusters.mean)))
    total = between.widen(found).variance
    parts = between.variance**2 / between.freedom + found.variance**2 / found.freedom
    return between._replace(freedom=np.maximum(total**2 / np.maximum(parts, 1e-300), 1))


def student_over_seeds(clusters, between: Between):
    half = special.stdtrit(between.freedom, 0.975) * np.sqrt(between.variance)
    return clusters.mean - half, clusters.mean + half


def two_way_t(clusters, between):
    """A plain t interval with the variance that our interval uses."""
    mean = clusters.mean
    found = clustered_variance(clusters, (2 * mean - 1) ** 2 * (mean**2 + (1 - mean) ** 2))
    found = between.widen(found)
    half = special.stdtrit(found.freedom, 0.975) * np.sqrt(found.variance)
    return np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)


MEAN: dict[str, Callable[..., Any]] = {
    "ours": lambda clusters, between: proportion_bounds(clusters, between=between),
    "contexts only": lambda clusters, between: proportion_bounds(clusters),
    "t over seeds": student_over_seeds,
    "two-way t": two_way_t,
    "Satterthwaite": lambda clusters, between: proportion_bounds(
        clusters, between=satterthwaite(clusters, between)
    ),
}
DIFFERENCE: dict[str, Callable[..., Any]] = {
    "ours": lambda clusters, apart, _: difference_bounds(clusters, apart),
    "ours, seeds paired": lambda clusters, _, same: difference_bounds(clusters, same),
    "contexts only": lambda clusters, *_: paired_difference(clusters)[:2],
}


def in_parts(draw_some, methods, truth, runs, at_once=250):
    """Coverage and mean width of each method; answers are drawn in parts, to save memory."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for _ in range(runs // at_once):
        drawn = draw_some(runs=at_once)
        for name, method in methods.items():
            found[name].append(coverage(method(*drawn), truth))
    return {name: tuple(np.mean(each, axis=0)) for name, each in found.items()}
