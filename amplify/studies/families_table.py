"""The study of families as tables for the terminal, as rows for JSON, and as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.report.plots import FAINT, STYLES
from amplify.studies.families import ARMS, MEASURED, PAIRS, Run, difference, measure, read
from amplify.studies.figures import as_png, begin, finish
from amplify.studies.seeds import FEWEST, cell, complete, empty_table, mean_cell
from amplify.studies.study import Report

TITLES = ("all families reviewed", "some families reviewed")
"""Of the arms of a pair."""
COLUMNS = {
    "kl": "KL",
    "gold": "gold",
    "focus": "gold, reviewed",
    "other": "gold, others",
    "outside": "claims of others",
}
"""Headings of what the tables show of `MEASURED`."""
NOTE = (
    "At the end of training. Gold is in standard deviations of drafts, whose mean is 0 in both"
    " parts: the families that `some` has reviewed, and the others, which also have what a claim of"
    " either is worth together. Claims of others are a share of all claims. Intervals are Student's"
    " over seeds; differences are paired."
)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by seed."""


def table(runs: Runs) -> RenderableType:
    """Returns the tables of a study: each cell with means, and differences between arms.

    Args:
        runs: seeds that are not done in all arms are shown, but left out of means.
    """
    seeds, done = complete(runs)
    parts: list[RenderableType] = [_cells(runs, done), Text(NOTE)]
    if len(seeds) < FEWEST:
        return Group(*parts, Text(f"Differences take {FEWEST} seeds or more."))
    return Group(*parts, _differences(done))


def _cells(runs: Runs, done: Mapping[str, Sequence[Run]]) -> Table:
    columns = ["arm", "seed", *COLUMNS.values(), "seconds"]
    found = empty_table("Gold by the families that are reviewed", columns)
    found.columns[0].no_wrap = True  # else a narrow terminal cuts names of arms off
    for arm, of in runs.items():
        for seed, run in of.items():
            values = (f"{getattr(run.end, name):.2f}" for name in COLUMNS)
            found.add_row(arm, str(seed), *values, f"{run.seconds:.0f}")
        if len(done[arm]) >= FEWEST:
            ends = [run.end for run in done[arm]]
            means = [mean_cell([getattr(end, name) for end in ends], 2) for name in COLUMNS]
            found.add_row(arm, "mean", *means, "", style="bold", end_section=True)
    return found


def _differences(done: Mapping[str, Sequence[Run]]) -> Table:
    columns = ["arms", *COLUMNS.values()]
    found = empty_table("Some families reviewed minus all, paired by seed", columns)
    for pair in PAIRS:
        values = (cell(difference(done, pair, name), 2) for name in COLUMNS)
        found.add_row(f"{pair[1]} - {pair[0]}", *values)
    return found


def rows(runs: Runs) -> list[dict[str, Any]]:
    """Returns a row for each cell, for JSON, and one for each difference if there are seeds enough.

    Args:
        runs: as in `table`.
    """
    cells = [
        {
            "arm": arm,
            "seed": seed,
            **run.end._asdict(),
            "reviews": run.reviews,
            "seconds": run.seconds,
            "looks": [look._asdict() for look in run.looks],
        }
        for arm, of in runs.items()
        for seed, run in of.items()
    ]
    seeds, done = complete(runs)
    differences = [
        {
            "arm": pair[1],
            "minus": pair[0],
            **{name: difference(done, pair, name)._asdict() for name in MEASURED},
        }
        for pair in PAIRS
        if len(seeds) >= FEWEST
    ]
    return [*cells, *differences]


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws both parts of gold along training, with a panel for each pair of arms.

    Args:
        runs: of each arm, for the same seeds.

    Returns:
        The bytes of a PNG file.
    """
    said = (
        f"Gold of the families that some reviews are about (solid) and of the others (dashed),\nin"
        f" standard deviations of drafts; means of {len(runs[ARMS[0]])} seeds. Thin: each seed."
    )
    figure = begin("Families that nobody reviewed", said, 8.6, 4.4)
    panels = figure.subplots(1, len(PAIRS), sharey=True)
    figure.subplots_adjust(0.05, 0.12, 0.985, 0.74, wspace=0.08)
    for axes, pair, title in zip(panels, PAIRS, ("no penalty", "KL penalty"), strict=True):
        for style, arm, label in zip(STYLES, pair, TITLES, strict=False):
            for name, line in (("focus", "-"), ("other", "--")):
                _draw(axes, runs[arm], name, style.colour, line, label if name == "focus" else "")
        axes.axhline(0, color=FAINT, linewidth=0.8)
        finish(axes, "step", title)
    above = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
    panels[-1].legend(**above, fontsize=9, labelcolor=FAINT)
    return as_png(figure)


def _draw(axes: Any, runs: Sequence[Run], name: str, colour: str, line: str, label: str) -> None:
    """Draws one part of gold, of each seed and of their mean."""
    steps = [look.step for look in runs[0].looks]
    values = np.array([[getattr(look, name) for look in run.looks] for run in runs])
    axes.plot(steps, values.T, line, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(steps, values.mean(axis=0), line, color=colour, linewidth=1.8, label=label or None)


REPORT = Report(ARMS, measure, read, table, rows, png)
