"""Clustered right-or-wrong answers whose truth is known, for tests of coverage and of the gate."""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special

from amplify.evaluation.statistics.clusters import FEWEST, Clusters
from amplify.evaluation.statistics.gate import log_wealth_from_counts, spent_error_rate

CLUSTERS = (5, 20, 100, 500)
CORRELATIONS = (0.0, 0.3, 0.8)
ACCURACIES = (0.02, 0.5, 0.98)


def sizes_of(number):
    """Clusters of equal size, moderately and very unequal ones, and one that holds half of all."""
    quantiles = special.ndtri((np.arange(number) + 0.5) / number)
    giant = np.full(number, 4.0)
    giant[-1] = 4 * number
    few = np.full(number, 2.0)
    few[-max(1, number // 10) :] = 30
    return {
        "one item each": np.ones(number),
        "equal": np.full(number, 4.0),
        "unequal": np.maximum(1, np.round(4 * np.exp(0.7 * quantiles))),
        "very unequal": np.maximum(1, np.round(4 * np.exp(1.5 * quantiles))),
        "a tenth has most": few,
        "one has half": giant,
    }


class Cell(NamedTuple):
    clusters: int
    kind: str
    correlation: float  # within clusters
    accuracy: float

    @property
    def sizes(self):
        return sizes_of(self.clusters)[self.kind]

    @property
    def tells(self):
        return self.sizes.sum() ** 2 / (self.sizes**2).sum() >= FEWEST

    @property
    def ordinary(self):
        largest = self.sizes.max() / self.sizes.mean()
        usual = self.accuracy == 0.5 and self.correlation <= 0.3
        return self.clusters >= 100 and largest <= 5 and usual


def grid(clusters=CLUSTERS):
    cells = (
        Cell(number, kind, correlation, accuracy)
        for number in clusters
        for kind in sizes_of(number)
        for correlation, accuracy in itertools.product(CORRELATIONS, ACCURACIES)
    )
    return [cell for cell in cells if cell.tells]


def chances(random, runs, cell):
    """Of a right answer in each cluster: beta-distributed, with this intra-cluster correlation."""
    shape = (runs, cell.clusters)
    if not cell.correlation:
        return np.full(shape, cell.accuracy)
    rest = (1 - cell.correlation) / cell.correlation
    return random.beta(cell.accuracy * rest, (1 - cell.accuracy) * rest, shape)


def right(random, runs, cell):
    """Clusters of one round's answers."""
    count = random.binomial(cell.sizes.astype(int), chances(random, runs, cell)).astype(float)
    return Clusters(count, count, cell.sizes)


def changed(random, runs, cell, gain, kept):
    """Clusters of the differences of two rounds, of which the second is better by `gain`.

    Of the items, a share `kept` has the answer it had; the others are answered anew. With kept =
    None, the second round finds other contexts difficult than the first.
    """
    sizes, first = cell.sizes.astype(int), chances(random, runs, cell)
    second = chances(random, runs, cell) if kept is None else first
    anew = 1 - (kept or 0)
    flipped = gain / (1 - cell.accuracy)
    before = random.binomial(sizes, first)
    lost = random.binomial(before, anew * (1 - second) * (1 - flipped))
    won = random.binomial(sizes - before, 1 - (1 - anew * second) * (1 - flipped))
    moved = (won + lost).astype(float)
    return Clusters((won - lost).astype(float), moved, cell.sizes)


def coverage(bounds, truth):
    """Share of the intervals that hold the truth, and their mean width."""
    low, high = bounds
    held = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    return float(held.mean()), float((high - low).mean())


class Null(NamedTuple):
    """Contexts of which some gain and some lose, so that the mean is 0 exactly."""

    contexts: int
    share: float  # of the contexts that gain
    gain: float  # of a context
    loss: float

    @property
    def losing(self):
        return self.share * self.gain / self.loss

    def logs(self, random, runs):
        """Logarithms of the final wealth in so many independent looks."""
        shares = [self.share, self.losing, 1 - self.share - self.losing]
        counts = random.multinomial(self.contexts, shares, size=runs)
        return log_wealth_from_counts(np.array([self.gain, -self.loss, 0.0]), counts)


def nulls(contexts=(20, 64, 512, 2048)):
    shares = (0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
    cells = itertools.product(contexts, shares, (1 / 64, 1 / 12, 1 / 4, 1.0), (0.5, 1.0))
    found = (Null(*cell) for cell in cells)
    return [null for null in found if null.share + null.losing <= 0.99]


def ten_looks(logs, error_rate=0.05):
    """Chance of any promotion in ten looks at fresh data, each with its share of the error rate."""
    rates = [np.mean(logs >= -np.log(spent_error_rate(n, error_rate))) for n in range(1, 11)]
    return float(1 - np.prod(1 - np.array(rates)))


def assistants(random, runs, contexts, per_context, accuracy=0.9, correlation=0.3):
    """What each context's difficulty is, and one assistant's answers: (runs, contexts, items)."""
    rest = (1 - correlation) / correlation
    chance = random.beta(accuracy * rest, (1 - accuracy) * rest, (runs, contexts))
    answers = random.random((runs, contexts, per_context)) < chance[..., None]
    return chance, answers


def successor(random, chance, before, gain, accuracy=0.9, kept=0.5):
    """The answers of an assistant that is better by `gain`, and keeps some of the old answers."""
    flipped = gain / (1 - accuracy)
    better = chance + (1 - chance) * flipped
    anew = random.random(before.shape) < better[..., None]
    same = before | (random.random(before.shape) < flipped)
    return np.where(random.random(before.shape) < kept, same, anew)


def log_wealths(before, after):
    """Of many pairs of rounds with equally large contexts."""
    size = before.shape[-1]
    gained = after.sum(-1) - before.sum(-1)
    values = np.arange(-size, size + 1)
    counts = np.stack([(gained == value).sum(-1) for value in values], axis=-1)
    return log_wealth_from_counts(values / size, counts)


def falsely_promoted(random, runs, contexts, accuracy, policy, *, passes=True):
    """Chance of ever promoting a candidate that is no better, in ten looks at the same contexts.

    Candidates are chosen with all verdicts known. A better one puts right 30 % of what the best
    one's difficulty leaves wrong; the others are as good as the best is, luck apart.

    Args:
        policy: (look, who was promoted last) -> which runs try a better candidate next.
        passes: whether promoted rounds pass on what they could spend.
    """
    chance, best = assistants(random, runs, contexts, 4, accuracy)
    carried, wrongly, last = np.zeros(runs), np.zeros(runs, bool), np.ones(runs, bool)
    for look in range(1, 11):
        better = policy(look, last)
        child_chance = np.where(better[:, None], chance + 0.3 * (1 - chance), chance)
        anew = random.random(best.shape) < child_chance[..., None]
        keeps = (random.random(best.shape) < 0.5) & ~better[:, None, None]
        child = np.where(keeps, best, anew)
        spent = np.minimum(spent_error_rate(look, 0.05) + carried, 0.05)
        last = log_wealths(best, child) >= -np.log(spent)
        carried = np.where(last & passes, spent, 0)
        wrongly |= last & ~better
        best = np.where(last[:, None, None], child, best)
        chance = np.where(last[:, None], child_chance, chance)
    return float(wrongly.mean())


POLICIES = {
    "none is better": lambda look, last: np.zeros(len(last), bool),
    "the first is better": lambda look, last: np.full(len(last), look == 1),
    "the first three are better": lambda look, last: np.full(len(last), look <= 3),
    "the first nine are better": lambda look, last: np.full(len(last), look <= 9),
    "every other is better": lambda look, last: np.full(len(last), look % 2 == 1),
    "a better one after each that failed": lambda look, last: ~last | (look == 1),
}
