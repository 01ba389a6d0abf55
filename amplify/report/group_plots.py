"""Draws experiments on one axis, a line for each group: by round, and against their costs.

The measure is the one that the first experiment's gate compares. Lines differ by colour, dashes and
markers. Thin lines are the seeds of a group.
"""

import io
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from amplify.evaluation import figures
from amplify.evaluation.items import ALL
from amplify.evaluation.statistics import Proportion
from amplify.report import formats, ticks
from amplify.report.efforts import Axis, compute, effort
from amplify.report.groups import Group, interval_words, judged_measure
from amplify.report.keys import changed_keys
from amplify.report.plots import (
    COLUMNS,
    FAINT,
    INK,
    STYLES,
    Style,
    plain,
    prepare_axes,
    round_axis,
    round_scale,
    share_axis,
    stroke,
)
from amplify.report.results import Score

if TYPE_CHECKING:  # importing them takes longer than running most commands, see `plots`
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COST_SCALE: Mapping[str, Any] = MappingProxyType({"nice": False, "zero": True})
"""Scale of costs on a page. It goes from 0 to the largest one, so that Vega's ticks are those of
`ticks.of_costs`: padding would change them, or add a negative one.
"""
APART = 0.07
"""Distance between the points of two groups in the same round, so that intervals do not overlap."""


THIN = "Thin lines are single seeds."


def has_seeds(groups: Sequence[Group]) -> bool:
    """Whether any group has several seeds, each of which has a line by round."""
    return any(len(group.members) > 1 for group in groups)


class Panel(NamedTuple):
    """A plot with a line for each group."""

    title: str
    axis: str  # title of the horizontal axis
    lines: Sequence[Sequence[tuple[float, Score]]]  # of each group: position and score
    seeds: Sequence[Sequence[Sequence[tuple[float, Score]]]]  # of each group and member
    integer: bool = False


def group_styles(groups: Sequence[Group]) -> list[Style]:
    """Returns a style for each group. After seven, colours repeat with other dashes and markers."""
    count = len(STYLES)
    found = []
    for index in range(len(groups)):
        other = STYLES[(index + index // count) % count]
        found.append(other._replace(colour=STYLES[index % count].colour))
    return found


def class_panels(groups: Sequence[Group]) -> list[Panel]:
    """Returns a panel for each class by round and, if there are several, one for all classes."""
    labels = list(dict.fromkeys(label for group in groups for label in group.labels))
    return [
        Panel(label, "round", *_by_round(groups, label), integer=True)
        for label in ([*labels, ALL] if len(labels) > 1 else labels or [ALL])
    ]


def _by_round(groups: Sequence[Group], label: str) -> tuple[list[Any], list[Any]]:
    """Positions of lines, and of their seeds. The points of a round are centred on it."""
    there = [[score for score in group.scores.get(label, []) if score.items] for group in groups]
    rounds = [[score.number for score in line] for line in there]

    def place(index: int, number: int) -> float:
        """Beside the other groups that have the round."""
        having = [other for other, numbers in enumerate(rounds) if number in numbers]
        rank = having.index(index) if index in having else (len(having) - 1) / 2
        return number + APART * (rank - (len(having) - 1) / 2)

    lines = [
        [(place(index, score.number), score) for score in line] for index, line in enumerate(there)
    ]
    seeds = [
        [
            [(place(index, one.number), one) for one in found.scores.get(label, []) if one.items]
            for found in (group.members if len(group.members) > 1 else [])
        ]
        for index, group in enumerate(groups)
    ]
    return lines, seeds


def cost_panels(groups: Sequence[Group]) -> tuple[list[Panel], list[str]]:
    """Returns panels of all classes against human effort and against compute, and notes on them.

    Args:
        groups: a line each.
    """
    panels, notes = [], []
    for found in (effort(groups), compute(groups)):
        if isinstance(found, str):
            notes.append(found)
            continue
        panels.append(
            Panel(found.title, found.title, _against(groups, found), [[] for _ in groups])
        )
        if found.note:
            notes.append(found.note)
    return panels, notes


def _against(groups: Sequence[Group], axis: Axis) -> list[list[tuple[float, Score]]]:
    return [
        [
            (at, score)
            for at, number in zip(line, group.numbers, strict=True)
            for score in group.scores[ALL]
            if score.number == number
        ]
        for group, line in zip(groups, axis.lines, strict=True)
    ]


def png(groups: Sequence[Group]) -> bytes:
    """Draws a measure by round, a panel for each class.

    Args:
        groups: a line each.

    Returns:
        The bytes of a PNG file.
    """
    measure = judged_measure(groups)
    said = f"{measure.title[:1].upper()}{measure.title[1:]}, by round. {interval_words(groups)}"
    if has_seeds(groups):
        said = f"{said} {THIN}"
    said = "\n".join([*changed_keys(groups, " on the page"), said])
    return _png(groups, class_panels(groups), said, COLUMNS, 2.35)


def costs_png(groups: Sequence[Group]) -> bytes | None:
    """Draws a measure over all classes against human effort and against compute.

    Args:
        groups: a line each.

    Returns:
        The bytes of a PNG file; None if nothing is known to draw it against.
    """
    panels, notes = cost_panels(groups)
    if not panels:
        return None
    measure = judged_measure(groups)
    said = f"{measure.title[:1].upper()}{measure.title[1:]}, {ALL}, a point each round."
    return _png(groups, panels, " ".join([said, *notes]), 2, 3.6)


def _png(
    groups: Sequence[Group], panels: Sequence[Panel], said: str, most: int, each: float
) -> bytes:
    """Draws panels below a heading; `each` is the height of a row in inches."""
    import textwrap

    from matplotlib.figure import Figure

    columns = min(most, max(len(panels), 2 if most == 2 else 3))
    rows = math.ceil(len(panels) / columns)
    words = [row for line in said.split("\n") for row in textwrap.wrap(plain(line), 150)]
    legend = math.ceil(len(groups) / 3)
    top = 0.55 + 0.2 * len(words) + 0.24 * legend
    height = top + each * rows + 0.25
    figure = Figure(figsize=(11, height), facecolor="white", dpi=180)
    names = " and ".join(group.name for group in groups)
    figure.text(
        0.03, 1 - 0.12 / height, plain(figures.short(names, 90)), size=14, weight="bold", color=INK,
        va="top",
    )  # fmt: skip
    figure.text(0.03, 1 - 0.45 / height, "\n".join(words), size=9.5, color=FAINT, va="top")
    drawn = group_styles(groups)
    _legend(figure, groups, drawn, 1 - (0.46 + 0.2 * len(words)) / height)
    grid = figure.add_gridspec(
        rows, columns, left=0.055, right=0.985, top=1 - (top + 0.3) / height, bottom=0.5 / height,
        wspace=0.13, hspace=0.62,
    )  # fmt: skip
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(grid[divmod(index, columns)])
        _draw(axes, panel, drawn, judged_measure(groups).name)
        axes.tick_params(labelleft=index % columns == 0)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _legend(figure: "Figure", groups: Sequence[Group], drawn: Sequence[Style], top: float) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=plain(figures.short(group.name, 44)), **stroke(style))
        for group, style in zip(groups, drawn, strict=True)
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.025, top), ncols=3, borderpad=0,
        frameon=False, fontsize=9, labelcolor=FAINT, handlelength=2.6, columnspacing=1.6,
        labelspacing=0.3,
    )  # fmt: skip


def _draw(axes: "Axes", panel: Panel, drawn: Sequence[Style], measure: str) -> None:
    for style, line, seeds in reversed(list(zip(drawn, panel.lines, panel.seeds, strict=True))):
        for one in seeds:
            points = _points(one, measure)
            axes.plot(
                [at for at, _ in points], [100 * mean.estimate for _, mean in points],
                color=style.colour, linewidth=0.8, alpha=0.4, clip_on=False,
            )  # fmt: skip
        points = _points(line, measure)
        bounds = [mean.interval or (mean.estimate, mean.estimate) for _, mean in points]
        estimates = [mean.estimate for _, mean in points]
        below = [100 * (one - low) for one, (low, _) in zip(estimates, bounds, strict=True)]
        above = [100 * (high - one) for one, (_, high) in zip(estimates, bounds, strict=True)]
        axes.errorbar(
            [at for at, _ in points], [100 * one for one in estimates], (below, above),
            elinewidth=1.1, clip_on=False, zorder=3, **stroke(style),
        )  # fmt: skip
    positions = [at for line in panel.lines for at, _ in line]
    title = "" if panel.title == panel.axis else panel.title
    first = min(positions) if panel.integer else 0.0
    prepare_axes(axes, title, first, max(positions), panel.axis, panel.integer)


def _points(line: Sequence[tuple[float, Score]], measure: str) -> list[tuple[float, Proportion]]:
    return [(at, score.means[measure]) for at, score in line if measure in score.means]


def interactive(groups: Sequence[Group], panels: Sequence[Panel]) -> dict[str, Any]:
    """Returns panels as a Vega-Lite specification with tooltips; the page sets panel widths.

    Args:
        groups: a line each.
        panels: from `class_panels` or `cost_panels`; not empty.
    """
    import altair

    names, drawn = [group.name for group in groups], group_styles(groups)

    def scale(of: list[Any]) -> Any:
        return altair.Scale(domain=names, range=of)

    colours = scale([style.colour for style in drawn])
    dashes = scale([[2 * length for length in style.dashes] or [1, 0] for style in drawn])
    fills = scale([style.colour if style.filled else "transparent" for style in drawn])
    shapes = scale([style.shape for style in drawn])
    rounds = panels[0].integer
    numbers = sorted(
        {score.number for panel in panels for line in panel.lines for _, score in line}
    )
    costs = altair.Axis(grid=False, **ticks.VEGA_COSTS)
    axis = round_axis(min(numbers), max(numbers)) if rounds else costs
    across = round_scale(min(numbers), max(numbers)) if rounds else altair.Scale(**COST_SCALE)
    x = altair.X("at:Q", axis=axis, scale=across, title="round" if rounds else None)
    y = share_axis()
    base = altair.Chart().encode(
        x=x, color=altair.Color("experiment:N", scale=colours, legend=None)
    )
    dash = altair.StrokeDash("experiment:N", scale=dashes, legend=None)
    whole = base.transform_filter("!isValid(datum.seed)")
    layers = altair.layer(
        base.mark_line(strokeWidth=1, opacity=0.4)
        .encode(y=y, detail="seed:N")
        .transform_filter("isValid(datum.seed)"),
        whole.mark_rule().encode(y=altair.Y("low:Q", title=None), y2="high:Q"),
        whole.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash, order="at:Q"),
        whole.mark_point(size=55, opacity=1).encode(
            y=y,
            fill=altair.Fill("experiment:N", scale=fills, legend=None),
            shape=altair.Shape("experiment:N", scale=shapes, legend=None),
            tooltip=[
                altair.Tooltip("panel:N", title="class" if rounds else "axis"),
                altair.Tooltip("experiment:N"),
                altair.Tooltip("round:Q"),
                *([] if rounds else [altair.Tooltip("at:Q", title="cost so far", format=",.4~g")]),
                altair.Tooltip("mean:Q", format=".1%"),
                altair.Tooltip("interval:N", title="95 % interval"),
                altair.Tooltip("questions:Q", format=","),
            ],
        ),
        data=altair.Data(values=_rows(groups, panels)),
    )
    facet = altair.Facet("panel:N", title=None, sort=[panel.title for panel in panels])
    grid = layers.properties(height=150 if rounds else 220).facet(
        facet,
        columns=max(1, min(COLUMNS, len(panels))),
        bounds="flush",
        spacing={"row": 72, "column": 20},
    )
    grid = grid.resolve_axis(x="independent")
    return (grid if rounds else grid.resolve_scale(x="independent")).to_dict()


def _rows(groups: Sequence[Group], panels: Sequence[Panel]) -> list[dict[str, Any]]:
    measure = judged_measure(groups)
    rows = []
    for panel in panels:
        for group, line, seeds in zip(groups, panel.lines, panel.seeds, strict=True):
            common = {"panel": panel.title, "experiment": group.name}
            for seed, points in zip(group.seeds, seeds, strict=False):
                rows += [
                    {**common, "seed": seed, "at": at, "mean": round(mean.estimate, 5)}
                    for at, mean in _points(points, measure.name)
                ]
            for at, score in line:
                if (mean := score.means.get(measure.name)) is not None:
                    rows.append(
                        {
                            **common,
                            "round": score.number,
                            "at": round(at, 4),
                            "mean": round(mean.estimate, 5),
                            "low": None if mean.low is None else round(mean.low, 5),
                            "high": None if mean.high is None else round(mean.high, 5),
                            "interval": formats.mean_range(mean, measure)
                            + ("%" if mean.interval else ""),
                            "questions": score.items,
                        }
                    )
    return rows
