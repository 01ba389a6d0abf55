"""The study of reviews needed as tables for the terminal, as rows for JSON, and as a figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amplify.report.plots import FAINT, STYLES
from amplify.studies.figures import as_png, begin, finish
from amplify.studies.reviews_needed import (
    ARMS,
    AUDITED,
    COMPARISONS,
    JUDGED,
    MODEL,
    TARGETS,
    Needed,
    Run,
    measure,
    needed,
    ratio,
    read,
)
from amplify.studies.seeds import FEWEST, complete, empty_table, mean_cell, say
from amplify.studies.study import Report

TITLES = {
    JUDGED: "a judge who scores every attempt",
    MODEL: "a reward model, with a KL penalty",
    AUDITED: "a reward model without a penalty, with audits",
}
NOTE = (
    "Gold, in standard deviations of drafts, is that of the policy that training ends with: the"
    " last one, or the one that audits choose. A comparison of two attempts is one review, and so"
    " is a score of one attempt. Reviews needed are those at which mean gold over seeds reaches the"
    " target, interpolated. Intervals of ratios are Student's on jackknife pseudo-values of their"
    " logarithms."
)
Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm, by seed."""


def table(runs: Runs) -> RenderableType:
    """Returns the tables of a study: gold of each cell, and the reviews needed.

    Args:
        runs: seeds that are not done in all arms are shown, but left out of means.
    """
    seeds, done = complete(runs)
    parts: list[RenderableType] = [_cells(runs, done)]
    if len(seeds) < FEWEST:
        return Group(*parts, Text(NOTE), Text(f"Reviews needed take {FEWEST} seeds or more."))
    return Group(*parts, _needed(done), Text(NOTE))


def _cells(runs: Runs, done: Mapping[str, Sequence[Run]]) -> Table:
    found = empty_table("Gold by reviews", ["arm", "seed", "reviews", "gold", "seconds"])
    for arm, of in runs.items():
        for seed, run in of.items():
            reviews = run.reviews or run.path[-1][0]
            found.add_row(arm, str(seed), f"{reviews:,}", f"{run.gold:.2f}", f"{run.seconds:.0f}")
        if len(done[arm]) >= FEWEST:
            mean = mean_cell([run.gold for run in done[arm]], 2)
            found.add_row(arm, "mean", "", mean, "", style="bold", end_section=True)
    return found


def _needed(done: Mapping[str, Sequence[Run]]) -> Table:
    columns = ["method", *(f"reviews to reach {target:g} sd" for target in TARGETS)]
    columns += [f"times fewer, {target:g} sd" for target in TARGETS]
    found = empty_table("Reviews needed", columns)
    for method, title in TITLES.items():
        reviews = [_say(needed(done, method, target)) for target in TARGETS]
        ratios = [
            "" if method == JUDGED else _say_ratio(done, method, target) for target in TARGETS
        ]
        found.add_row(title, *reviews, *ratios)
    return found


def _say(found: Needed | None) -> str:
    if found is None:
        return "not reached"
    return f"{found.reviews:,.0f}{' or fewer' if found.at_most else ''}"


def _say_ratio(done: Mapping[str, Sequence[Run]], method: str, target: float) -> str:
    found, one = ratio(done, method, target), needed(done, method, target)
    if found is None or one is None:
        return "unknown"
    return f"{say(found)}{' or more' if one.at_most else ''}"


def rows(runs: Runs) -> list[dict[str, Any]]:
    """Returns a row for each cell, for JSON, and one for each method and target if there are seeds
    enough.

    Args:
        runs: as in `table`.
    """
    cells = [
        {"arm": arm, "seed": seed, **run._asdict()}
        for arm, of in runs.items()
        for seed, run in of.items()
    ]
    seeds, done = complete(runs)
    return [*cells, *(_totals(done) if len(seeds) >= FEWEST else ())]


def _totals(done: Mapping[str, Sequence[Run]]) -> Iterator[dict[str, Any]]:
    for method in TITLES:
        for target in TARGETS:
            found = needed(done, method, target)
            times = None if method == JUDGED else ratio(done, method, target)
            yield {
                "method": method,
                "target": target,
                "needed": found._asdict() if found else None,
                "ratio": times._asdict() if times else None,
            }


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws gold against reviews, a line for each method.

    Args:
        runs: of each arm, for the same seeds.

    Returns:
        The bytes of a PNG file.
    """
    said = f"Gold, in standard deviations of drafts, by reviews; {len(runs[JUDGED])} seeds."
    said += " Thin: each seed."
    figure = begin("Reviews needed", said, 7.0, 4.6)
    axes = figure.subplots()
    figure.subplots_adjust(0.07, 0.12, 0.98, 0.83)
    for style, (method, title) in zip(STYLES, TITLES.items(), strict=False):
        lines = _lines(runs, method)
        for reviews, gold in lines:
            axes.plot(reviews, gold, color=style.colour, linewidth=0.7, alpha=0.35)
        reviews, gold = np.mean(lines, axis=0)
        axes.plot(reviews, gold, color=style.colour, linewidth=1.7, label=title)
    for target in TARGETS:
        axes.axhline(target, color=FAINT, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=FAINT)
    finish(axes, "reviews")
    return as_png(figure)


def _lines(runs: Mapping[str, Sequence[Run]], method: str) -> list[tuple[list[float], list[float]]]:
    """Reviews and gold of each seed."""
    if method == JUDGED:
        return [([float(n) for n, _ in run.path], [g for _, g in run.path]) for run in runs[JUDGED]]
    arms = zip(*(runs[f"{method}-{n}"] for n in COMPARISONS), strict=True)
    return [([float(run.reviews) for run in of], [run.gold for run in of]) for of in arms]


REPORT = Report(ARMS, measure, read, table, rows, png)
