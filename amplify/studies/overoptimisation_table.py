"""The over-optimisation study as tables for the terminal, and as rows for JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.evaluation.statistics import Proportion
from amplify.evaluation.statistics.intervals import LEVEL
from amplify.studies.overoptimisation import (
    ENSEMBLE,
    FREE,
    NS,
    PENALTY,
    PREDICTED,
    Run,
    best_of_n_law,
    criteria,
    over_seeds,
    predicted,
    reinforcement_law,
    say,
)

FEWEST = 3
"""Seeds that intervals take."""
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


def complete(runs: Runs) -> tuple[list[int], dict[str, list[Run]]]:
    """Returns the seeds for which all arms are done, and the runs of each arm in their order."""
    seeds = [seed for seed in runs[FREE] if all(seed in of for of in runs.values())]
    return seeds, {arm: [of[seed] for seed in seeds] for arm, of in runs.items()}


def table(runs: Runs) -> RenderableType:
    """Returns the tables of a study: along reinforcement learning, best-of-n, and the criteria.

    Args:
        runs: seeds that are not done in all arms are shown, but left out of means.
    """
    seeds, done = complete(runs)
    parts: list[RenderableType] = [_reinforcement(runs, done), _best_of_n(runs, done)]
    if len(seeds) < FEWEST:
        return Group(*parts, Text(f"Intervals and criteria take {FEWEST} seeds or more."))
    parts += [Text(line) for line in (*_laws(done), *_gains(done), "")]
    for one in criteria(done):
        style = "green" if one.met else "red"
        met = "met    " if one.met else "not met"
        parts.append(Text.assemble((met, style), f"  {one.said}: {one.found}"))
    return Group(*parts)


def _reinforcement(runs: Runs, done: Mapping[str, Sequence[Run]]) -> Table:
    found = _empty("Gold along reinforcement learning", ["arm", "seed", *COLUMNS, "seconds"])
    for arm, of in runs.items():
        for seed, run in of.items():
            values = [f"{get(run):.{DIGITS.get(name, 2)}f}" for name, get in COLUMNS.items()]
            found.add_row(arm, str(seed), *values, f"{run.seconds:.0f}")
        if len(done[arm]) >= FEWEST:
            means = [_mean(done[arm], get, DIGITS.get(name, 2)) for name, get in COLUMNS.items()]
            found.add_row(arm, "mean", *means, "", style="bold", end_section=True)
    return found


def _best_of_n(runs: Runs, done: Mapping[str, Sequence[Run]]) -> Table:
    found = _empty("Gold of best-of-n", ["reward models", "seed", *(f"n = {n:,}" for n in SHOWN)])
    for arm in (FREE, ENSEMBLE):
        for seed, run in runs[arm].items():
            found.add_row(arm, str(seed), *(f"{run.best_of(n):.2f}" for n in SHOWN))
        if len(done[arm]) >= FEWEST:
            means = [_mean(done[arm], _best_of(n), 2) for n in SHOWN]
            found.add_row(arm, "mean", *means, style="bold", end_section=True)
    return found


def _empty(title: str, columns: Sequence[str]) -> Table:
    found = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in columns:
        found.add_column(name, justify="left" if name == columns[0] else "right")
    return found


def _mean(runs: Sequence[Run], get: Callable[[Run], float], digits: int) -> str:
    found = over_seeds([get(run) for run in runs])
    if found.low is None or found.high is None:
        return f"{found.estimate:.{digits}f}"
    return f"{found.estimate:.{digits}f}\n{found.low:.{digits}f} to {found.high:.{digits}f}"


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
            "seconds": run.seconds,
        }
        for arm, of in runs.items()
        for seed, run in of.items()
    ]
    seeds, done = complete(runs)
    enough = len(seeds) >= FEWEST
    return [*cells, *(one._asdict() for one in (criteria(done) if enough else []))]
