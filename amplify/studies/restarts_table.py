"""The study of restarts as tables for the terminal, as rows for JSON, and as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.report.plots import STYLES
from amplify.studies.figures import as_png, begin, finish
from amplify.studies.restarts import (
    ARMS,
    BETAS,
    METHODS,
    RESTARTS,
    Arms,
    Pair,
    Run,
    arm_of,
    best_arm,
    criteria,
    gain,
    measure,
    pairs,
    read,
    tuned_on,
    wanted,
)
from amplify.studies.seeds import FEWEST, empty_table, mean_cell, over_seeds, say
from amplify.studies.study import Report

TITLES = {METHODS[0]: "reviews at each restart", METHODS[1]: "all reviews at once"}
NOTE = (
    "Gold, in standard deviations of drafts, is that of the policy that audits choose among all"
    " attempts; in brackets: of each attempt. Reviews are comparisons and the scores of audits."
)


def table(runs: Arms) -> RenderableType:
    """Returns the tables of a study: how beta was chosen, the pairs, and the criteria.

    Args:
        runs: of each arm, by seed.
    """
    found = pairs(runs)
    parts: list[RenderableType] = [_tuning(runs), _pairs(found), Text(NOTE)]
    if len(found) < FEWEST:
        return Group(*parts, Text(f"Intervals and criteria take {FEWEST} new seeds or more."))
    alone = over_seeds([pair.restarts.golds[-1] - pair.at_once.golds[0] for pair in found])
    parts.append(Text(f"restarts minus at once, paired by seed: {say(gain(found))}"))
    parts.append(Text(f"the last restart minus the first attempt at once: {say(alone)}"))
    return Group(*parts, *(one.line() for one in criteria(found)))


def _tuning(runs: Arms) -> Table:
    """Gold by beta, of the seeds on which it is chosen."""
    seeds = tuned_on(runs)
    best = {best_arm(runs, method) for method in METHODS} if seeds else set()
    columns = ["arm", "beta", *(f"seed {seed}" for seed in seeds), "mean", ""]
    found = empty_table("Seeds for tuning: gold", columns)
    for method in METHODS:
        for beta in BETAS:
            arm = arm_of(method, beta)
            golds = [runs[arm][seed].gold for seed in seeds]
            mean = f"{np.mean(golds):.2f}" if golds else ""
            said = "chosen" if arm in best else ""
            found.add_row(method, f"{beta:g}", *(f"{one:.2f}" for one in golds), mean, said)
    return found


def _pairs(of: Sequence[Pair]) -> Table:
    """All pairs, and their means."""
    columns = ["seed", *METHODS, "difference"]
    columns += ["reviews, restarts", "at once", "steps", "seconds"]
    found = empty_table("New seeds: gold", columns)
    for seed, one, two in of:
        reviews = (f"{run.comparisons:,} + {run.audited:,}" for run in (one, two))
        steps = f"{one.steps}" if one.steps == two.steps else f"{one.steps}, {two.steps}"
        gold = (_gold(one), _gold(two), f"{one.gold - two.gold:+.2f}")
        found.add_row(str(seed), *gold, *reviews, steps, f"{one.seconds + two.seconds:.0f}")
    if len(of) >= FEWEST:
        values = ([p.restarts.gold for p in of], [p.at_once.gold for p in of], [p.gain for p in of])
        found.add_row("mean", *(mean_cell(one, 2) for one in values), *[""] * 4, style="bold")
    return found


def _gold(run: Run) -> str:
    return f"{run.gold:.2f} ({', '.join(f'{one:.2f}' for one in run.golds)})"


def rows(runs: Arms) -> list[dict[str, Any]]:
    """Returns a row for each cell, for JSON, and one for each criterion if there are pairs enough.

    Args:
        runs: as in `table`.
    """
    cells = [
        {"arm": arm, "seed": seed, **run._asdict(), "gold": run.gold, "reviews": run.reviews}
        for arm, of in runs.items()
        for seed, run in of.items()
    ]
    found = pairs(runs)
    return [*cells, *(one._asdict() for one in (criteria(found) if len(found) >= FEWEST else ()))]


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws gold by beta, which is how it is chosen.

    Args:
        runs: of each arm, for the same seeds, which are those for tuning.

    Returns:
        The bytes of a PNG file.
    """
    seeds = len(runs[arm_of(RESTARTS, BETAS[0])])
    said = f"Gold, in standard deviations of drafts, of {seeds} seeds for tuning. Thin: each seed."
    figure = begin("Penalties of both methods", said, 7.0, 4.6)
    axes = figure.subplots()
    figure.subplots_adjust(0.07, 0.12, 0.98, 0.83)
    for style, method in zip(STYLES, METHODS, strict=False):
        golds = np.array([[run.gold for run in runs[arm_of(method, beta)]] for beta in BETAS])
        axes.plot(BETAS, golds, color=style.colour, linewidth=0.7, alpha=0.35)
        mean = golds.mean(axis=1)
        axes.plot(BETAS, mean, color=style.colour, linewidth=1.7, label=TITLES[method])
    axes.set_xscale("log")
    axes.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    finish(axes, "beta")
    return as_png(figure)


REPORT = Report(ARMS, measure, read, table, rows, png, wanted)
