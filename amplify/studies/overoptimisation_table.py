"""The over-optimisation study as tables for the terminal, and as rows for JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.evaluation.statistics import Proportion
from amplify.evaluation.statistics.intervals import LEVEL
from amplify.studies import search_table
from amplify.studies.overoptimisation import (
    ARMS,
    ENSEMBLE,
    FREE,
    NS,
    PENALTY,
    PREDICTED,
    Run,
    best_of_n_law,
    criteria,
    measure,
    predicted,
    read,
    reinforcement_law,
)
from amplify.studies.overoptimisation_figure import png
from amplify.studies.seeds import (
    FEWEST,
    Criterion,
    complete,
    empty_table,
    mean_cell,
    over_seeds,
    say,
)
from amplify.studies.study import Report

COLUMNS: Mapping[str, Callable[[Run], float]] = {
    "oracle peak": lambda run: run.peak.gold,
    "at step": lambda run: float(run.peak.step),
    "at KL": lambda run: run.peak.kl,
    "end": lambda run: run.end.gold,
    "end KL": lambda run: run.end.kl,
    "end proxy": lambda run: run.end.proxy,
}
DIGITS = {"at step": 0, "at KL": 1, "end KL": 1}
SHOWN = (16, 256, 1024, 8192)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by seed."""


def table(runs: Runs) -> RenderableType:
    """Returns the tables of a study: along reinforcement learning, best-of-n, the two at equal
    samples, and the criteria.

    Args:
        runs: seeds that are not done in all arms are shown, but left out of means.
    """
    seeds, done = complete(runs)
    parts: list[RenderableType] = [_reinforcement(runs, done), _best_of_n(runs, done)]
    parts.append(search_table.by_seed(runs))
    if len(seeds) < FEWEST:
        return Group(*parts, Text(f"Intervals and criteria take {FEWEST} seeds or more."))
    parts.append(search_table.at_equal_samples(done))
    said = (*search_table.lines(done), *_laws(done), *_gains(done), "")
    parts += [Text(line) for line in said]
    return Group(*parts, *(one.line() for one in _criteria(done)))


def _criteria(done: Mapping[str, Sequence[Run]]) -> list[Criterion]:
    return [*criteria(done), *search_table.criteria(done)]


def _reinforcement(runs: Runs, done: Mapping[str, Sequence[Run]]) -> Table:
    found = empty_table("Gold along reinforcement learning", ["arm", "seed", *COLUMNS, "seconds"])
    for arm, of in runs.items():
        for seed, run in of.items():
            values = [f"{get(run):.{DIGITS.get(name, 2)}f}" for name, get in COLUMNS.items()]
            found.add_row(arm, str(seed), *values, f"{run.seconds:.0f}")
        if len(done[arm]) >= FEWEST:
            means = [
                mean_cell([get(run) for run in done[arm]], DIGITS.get(name, 2))
                for name, get in COLUMNS.items()
            ]
            found.add_row(arm, "mean", *means, "", style="bold", end_section=True)
    return found


def _best_of_n(runs: Runs, done: Mapping[str, Sequence[Run]]) -> Table:
    found = empty_table(
        "Gold of best-of-n", ["reward models", "seed", *(f"n = {n:,}" for n in SHOWN)]
    )
    for arm in (FREE, ENSEMBLE):
        for seed, run in runs[arm].items():
            found.add_row(arm, str(seed), *(f"{run.best_of(n):.2f}" for n in SHOWN))
        if len(done[arm]) >= FEWEST:
            means = [mean_cell([run.best_of(n) for run in done[arm]], 2) for n in SHOWN]
            found.add_row(arm, "mean", *means, style="bold", end_section=True)
    return found


def _best_of(n: int) -> Callable[[Run], float]:
    return lambda run: run.best_of(n)


def _laws(done: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Lines about fits of Gao's form."""
    for arm in (FREE, ENSEMBLE):
        law, base = best_of_n_law(done[arm])
        text = "; ".join(
            f"best of {n:,}: {predicted(law, base, n):.2f} predicted,"
            f" {over_seeds([run.best_of(n) for run in done[arm]]).estimate:.2f} found"
            for n in PREDICTED
        )
        yield f"Gao's form for best-of-n, {arm}: R² {_share(law.r_squared)}; {text}"
    for arm, of in done.items():
        shares = [reinforcement_law(run.looks, run.gold[0])[0].r_squared or 0.0 for run in of]
        yield (
            f"Gao's form for reinforcement, {arm}: R² {np.mean(shares):.2f} a seed,"
            f" {min(shares):.2f} to {max(shares):.2f}"
        )


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _gains(done: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Lines about differences to the first arm, paired by seed."""

    def paired(arm: str, get: Callable[[Run], float]) -> Proportion:
        pairs = zip(done[FREE], done[arm], strict=True)
        return over_seeds([get(two) - get(one) for one, two in pairs])

    for arm in (PENALTY, ENSEMBLE):
        peak, end = (paired(arm, COLUMNS[name]) for name in ("oracle peak", "end"))
        yield f"{arm} minus {FREE}, paired by seed: oracle peak {say(peak)}, end {say(end)}"
    gains = "; ".join(f"best of {n:,}: {say(paired(ENSEMBLE, _best_of(n)))}" for n in SHOWN)
    yield f"{ENSEMBLE} minus {FREE}, paired by seed: {gains}"
    yield f"Intervals are Student's, over seeds, of {100 * (1 - LEVEL):.0f} %."


def rows(runs: Runs) -> list[dict[str, Any]]:
    """Returns a row for each cell, for JSON, and one for each criterion if there are seeds enough.

    Args:
        runs: as in `table`.
    """
    cells = [
        {
            "arm": arm,
            "seed": seed,
            **{name.replace(" ", "_"): get(run) for name, get in COLUMNS.items()},
            "best_of_n": dict(zip(map(str, NS), run.gold, strict=True)),
            **search_table.row(run),
            "seconds": run.seconds,
        }
        for arm, of in runs.items()
        for seed, run in of.items()
    ]
    seeds, done = complete(runs)
    enough = len(seeds) >= FEWEST
    return [*cells, *(one._asdict() for one in (_criteria(done) if enough else []))]


REPORT = Report(ARMS, measure, read, table, rows, png, version=2)
