"""What the intervals cover and what the gate promotes, simulated: `make coverage` prints the tables
of docs/statistics.md, with the methods that were not taken beside those that were.
"""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import special

from amplify.evaluation.statistics import smallest_gain
from amplify.evaluation.statistics.gate import STAKES, spent_error_rate
from amplify.evaluation.statistics.intervals import paired_difference, proportion_bounds
from tests.statistics import seeded, simulation

RUNS, SEEDED_RUNS = 3000, 1000
LOOKS = range(1, 11)
Z = special.ndtri(0.975)


def clustered_error(clusters):
    number = clusters.sizes.shape[-1]
    residuals = clusters.totals - clusters.mean[..., None] * clusters.sizes
    return np.sqrt(number / (number - 1) * (residuals**2).sum(-1)) / clusters.items


def cluster_t(clusters):
    half = special.stdtrit(clusters.sizes.shape[-1] - 1, 0.975) * clustered_error(clusters)
    return clusters.mean - half, clusters.mean + half


def wilson(clusters):
    """For as many items as the clustered ones are worth, with a normal quantile."""
    mean, error = clusters.mean, clustered_error(clusters)
    worth = np.where(error > 0, mean * (1 - mean) / np.maximum(error, 1e-9) ** 2, 0)
    worth = np.clip(np.where(error > 0, worth, clusters.sizes.shape[-1]), 1, clusters.items)
    centre = (mean + Z**2 / (2 * worth)) / (1 + Z**2 / worth)
    half = np.sqrt(mean * (1 - mean) / worth + Z**2 / (4 * worth**2)) * Z / (1 + Z**2 / worth)
    return centre - half, centre + half


ACCURACY: dict[str, Callable[..., Any]] = {
    "ours": proportion_bounds,
    "Wilson, z": wilson,
    "cluster t": cluster_t,
}
DIFFERENCE: dict[str, Callable[..., Any]] = {
    "ours": lambda clusters: paired_difference(clusters)[:2],
    "cluster t": cluster_t,
}


def covered(console: Console) -> None:
    random = np.random.default_rng(0)
    for title, methods, gains in (
        ("accuracy", ACCURACY, [None]),
        ("paired difference", DIFFERENCE, [(0.0, 0.5), (0.3, None)]),
    ):
        table = Table("contexts", "sizes", "correlation", "accuracy", *methods, title=title)
        worst: dict[str, list[float]] = {name: [] for name in methods}
        ordinary: dict[str, list[float]] = {name: [] for name in methods}
        for cell, change in itertools.product(simulation.grid(), gains):
            if change is None:
                drawn, truth = simulation.right(random, RUNS, cell), cell.accuracy
            else:
                truth = change[0] * (1 - cell.accuracy)
                drawn = simulation.changed(random, RUNS, cell, truth, change[1])
            found = {
                name: simulation.coverage(method(drawn), truth) for name, method in methods.items()
            }
            for name, (held, _) in found.items():
                worst[name].append(held)
                if cell.ordinary:
                    ordinary[name].append(held)
            table.add_row(
                f"{cell.clusters}", cell.kind, f"{cell.correlation}", f"{cell.accuracy}",
                *(f"{held:.3f} / {width:.3f}" for held, width in found.values()),
            )  # fmt: skip
        console.print(table)
        for name in methods:
            console.print(
                f"{title}, {name}: lowest {min(worst[name]):.3f}, ordinary cells"
                f" {min(ordinary[name]):.3f} to {max(ordinary[name]):.3f}"
            )


def over_seeds(console: Console) -> None:
    """Intervals of means over seeds, and of their differences."""
    random = np.random.default_rng(4)
    for title, crossed, methods in (
        ("mean, seeds share contexts", True, seeded.MEAN),
        ("mean, seeds have their own contexts", False, seeded.MEAN),
        ("difference, seeds share contexts", None, seeded.DIFFERENCE),
    ):
        table = Table("seeds", "contexts", "spread", "accuracy", *methods, title=title)
        found: dict[tuple[int, str], list[float]] = {}
        for cell in seeded.grid():
            if cell.crossed != (crossed is not False):
                continue
            sample = seeded.sample_difference if crossed is None else seeded.sample
            truth = seeded.GAIN if crossed is None else cell.accuracy
            each = seeded.in_parts(
                functools.partial(sample, random, cell=cell), methods, truth, SEEDED_RUNS
            )
            for name, (held, _) in each.items():
                found.setdefault((cell.seeds, name), []).append(held)
            table.add_row(
                f"{cell.seeds}", f"{cell.contexts}", f"{cell.spread}", f"{cell.accuracy}",
                *(f"{held:.3f} / {width:.3f}" for held, width in each.values()),
            )  # fmt: skip
        console.print(table)
        for (seeds, name), held in found.items():
            console.print(f"{title}, {seeds} seeds, {name}: {min(held):.3f} to {max(held):.3f}")


def student(sums, squares, contexts, alpha, lost=0):
    """Whether a one-sided t test promotes, with so many imaginary contexts that lose everything."""
    n = contexts + lost
    mean = (sums - lost) / n
    error = np.sqrt(np.maximum((squares + lost - n * mean**2) / (n - 1), 0) / n)
    return (mean > 0) & (mean > special.stdtrit(contexts - 1, 1 - alpha) * error)


def sign_flips(sums, squares, alpha):
    """For many contexts, where the sum over flipped signs is normal."""
    return sums > special.ndtri(1 - alpha) * np.sqrt(np.maximum(squares, 1e-12))


def bootstrap(gains, counts, alpha, random, resamples=4000):
    """The percentile bootstrap over contexts, an exact interval where fewer than 10 changed."""
    found = []
    for row in counts:
        drawn = random.multinomial(row.sum(), row / row.sum(), size=resamples) @ gains
        changed = row[gains != 0].sum()
        found.append(changed >= 10 and np.quantile(drawn, alpha) > 0)
    return np.array(found)


def rivals(gains, counts, alpha):
    """By method, whether it promotes at this one-sided level."""
    sums, squares, contexts = counts @ gains, counts @ gains**2, counts[0].sum()
    logs = simulation.log_wealth_from_counts(gains, counts)
    return {
        "bet": logs >= -np.log(alpha),
        "cluster t": student(sums, squares, contexts, alpha),
        "t, 2 contexts lost": student(sums, squares, contexts, alpha, lost=2),
        "sign flips": sign_flips(sums, squares, alpha),
    }


def promoted_by_chance(console: Console) -> None:
    random = np.random.default_rng(1)
    table = Table("contexts", "method", "worst chance in ten looks", "there: share, gain, loss")
    for contexts in (20, 64, 512, 2048):
        worst: dict[str, tuple[float, Any]] = {}
        for null in simulation.nulls([contexts]):
            shares = [null.share, null.losing, max(0, 1 - null.share - null.losing)]
            gains = np.array([null.gain, -null.loss, 0.0])
            counts = random.multinomial(contexts, shares, size=RUNS)
            rates: dict[str, list[float]] = {}
            for look in LOOKS:
                for name, hits in rivals(gains, counts, spent_error_rate(look, 0.05)).items():
                    rates.setdefault(name, []).append(float(hits.mean()))
            for name, each in rates.items():
                ever = float(1 - np.prod(1 - np.array(each)))
                worst[name] = max(worst.get(name, (-1.0, None)), (ever, null), key=lambda w: w[0])
        for name, (ever, null) in worst.items():
            at = f"{null.share}, {null.gain:.3g}, {null.loss}"
            table.add_row(f"{contexts}", name, f"{ever:.4f}", at)
    console.print(table)
    gains, shares = np.array([1 / 12, -11 / 12, 0]), [0.05, 0.05 / 11, 0.95 - 0.05 / 11]
    counts = random.multinomial(512, shares, size=500)
    for look in (1, 3):
        rate = bootstrap(gains, counts, spent_error_rate(look, 0.05) / 2, random).mean()
        console.print(f"percentile bootstrap, two-sided, 512 contexts, look {look}: {rate:.3f}")


def power(console: Console) -> None:
    random = np.random.default_rng(2)
    table = Table("contexts x questions", "gain", "method", "look 1", "look 3", "look 10")
    for contexts, each in ((512, 4), (1024, 4), (2048, 4), (512, 16)):
        for gain in (0.01, 0.02, 0.03):
            hits: dict[str, list[float]] = {}
            gains, counts = drawn(random, contexts, each, gain)
            for look in (1, 3, 10):
                for name, found in rivals(gains, counts, spent_error_rate(look, 0.05)).items():
                    hits.setdefault(name, []).append(float(found.mean()))
            for name, rates in hits.items():
                table.add_row(
                    f"{contexts} x {each}", f"{100 * gain:.0f} points", name,
                    *(f"{rate:.2f}" for rate in rates),
                )  # fmt: skip
    console.print("accuracy .9, intra-cluster correlation .3", table)
    table = Table("contexts x questions", "look 1", "look 3", "look 10", title="smallest gain")
    for contexts, each in itertools.product((128, 256, 512, 1024, 2048), (4, 8)):
        found = [smallest_gain(contexts, each, spent_error_rate(look, 0.05)) for look in (1, 3, 10)]
        table.add_row(
            f"{contexts} x {each}", *(f"{100 * one:.2f}" if one else "none" for one in found)
        )
    console.print(table)


def drawn(random, contexts, each, gain, runs=1000):
    """How many contexts gained how much, in rounds that are better by `gain`."""
    parts = []
    values = np.arange(-each, each + 1)
    for _ in range(runs // 100):
        chance, before = simulation.assistants(random, 100, contexts, each)
        gained = (simulation.successor(random, chance, before, gain).astype(int) - before).sum(-1)
        parts.append(np.stack([(gained == value).sum(-1) for value in values], axis=-1))
    return values / each, np.concatenate(parts)


def passed_on(console: Console) -> None:
    """The fallback procedure, on the same contexts at each look."""
    random = np.random.default_rng(3)
    table = Table("candidates", "accuracy", "contexts", "ever falsely promoted", "without it")
    sizes = ((0.5, 64), (0.9, 64), (0.5, 256))
    for (name, policy), (accuracy, contexts) in itertools.product(
        simulation.POLICIES.items(), sizes
    ):
        rates = [
            simulation.falsely_promoted(random, 1500, contexts, accuracy, policy, passes=passes)
            for passes in (True, False)
        ]
        table.add_row(name, f"{accuracy}", f"{contexts}", *(f"{rate:.4f}" for rate in rates))
    console.print(table)


def main() -> None:
    console, began = Console(width=120), time.monotonic()
    console.print(f"{len(STAKES)} stakes, {RUNS} runs a cell; coverage / width")
    for table in (promoted_by_chance, power, passed_on, covered, over_seeds):
        table(console)
    console.print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
