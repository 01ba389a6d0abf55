"""Pictures of accuracy by round: one for a file, by matplotlib, and one for a page, by altair.

A panel a class, so that nothing depends on telling colours apart: solid and filled is the assistant
alone, dashed and hollow the assistant amplified, and the shaded step is the one that brought the
class to its best.
"""

import functools
import io
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from amplify.report import formats
from amplify.report.results import ALL, Score

# matplotlib and altair are imported where they draw: either takes longer to import than most
# commands, which draw nothing, take to run.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLUMNS = 5
"""Panels in a row."""

COLOURS = {"alone": "#0072B2", "amplified": "#D55E00"}
"""Two of Okabe and Ito's, which people with any colour vision tell apart."""

STROKES: dict[str, dict[str, Any]] = {
    "alone": {"linestyle": "-", "markerfacecolor": COLOURS["alone"]},
    "amplified": {"linestyle": (0, (3, 2)), "markerfacecolor": "white"},
}
STEP: dict[str, Any] = {"color": COLOURS["alone"], "alpha": 0.13, "linewidth": 0}
INK, FAINT, GRID = "#1a1a1a", "#6b6b6b", "#d9d9d9"


class Drawn(NamedTuple):
    """An experiment as it is drawn."""

    name: str
    scores: Mapping[str, list[Score]]
    best: int  # number of its best round

    def panels(self) -> dict[str, list[Score]]:
        """The classes that have items, and the rounds in which they have."""
        return {
            label: found
            for label, row in self.scores.items()
            if label != ALL and (found := [score for score in row if score.items])
        }


def last_step(row: list[Score]) -> tuple[Score, Score] | None:
    """The round that first did as well as the class's best one, and the round before it.

    As well: their intervals meet. None if the first round did, for then nothing was learned.
    """
    intervals = [score.alone.interval if score.alone else None for score in row]
    best = max((interval[0] for interval in intervals if interval), default=0.0)
    reached = [interval is not None and interval[1] >= best for interval in intervals]
    steps = zip(itertools.pairwise(row), itertools.pairwise(reached), strict=True)
    return next((step for step, (was, now) in steps if now), None) if not reached[0] else None


def png(experiments: list[Drawn]) -> bytes:
    """Accuracy by round, a panel a class, one experiment below the other."""
    from matplotlib.figure import Figure

    rows = [max(1, math.ceil(len(drawn.panels()) / COLUMNS)) for drawn in experiments]
    heights = [0.85 + 2.35 * count for count in rows]
    figure = Figure(figsize=(11, sum(heights)), facecolor="white", dpi=180)
    parts = figure.subfigures(len(experiments), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, drawn, height, count in zip(parts, experiments, heights, rows, strict=True):
        _draw(part, drawn, height, count)
    _name_strokes(parts[0], heights[0])
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw(part: "SubFigure", drawn: Drawn, height: float, rows: int) -> None:
    """`height` in inches."""
    panels = drawn.panels()
    columns = min(COLUMNS, max(len(panels), 3))
    name = formats.short(drawn.name, 32)
    said = formats.headline(drawn.scores[ALL], drawn.best)
    part.text(0.03, 1 - 0.14 / height, name, size=15, weight="bold", color=INK, va="top")
    part.text(0.03, 1 - 0.47 / height, said, size=10, color=FAINT, va="top")
    grid = part.add_gridspec(
        rows, columns, left=0.055, right=0.985, top=1 - 1.05 / height, bottom=0.42 / height,
        wspace=0.13, hspace=0.62,
    )  # fmt: skip
    for index, (label, row) in enumerate(panels.items()):
        axes = part.add_subplot(grid[divmod(index, columns)])
        _draw_class(axes, label, row, first=index % columns == 0)


def _name_strokes(part: "SubFigure", height: float) -> None:
    """At the top right: what is drawn how."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = {"alone": "alone", "amplified": "amplified: the overseer with its help"}
    lines = [Line2D([], [], label=name, **_stroke(by)) for by, name in names.items()]
    part.legend(
        handles=[*lines, Patch(label="step that took it to its best", **STEP)],
        loc="upper right", bbox_to_anchor=(0.99, 1 - 0.1 / height), ncols=3, borderpad=0,
        frameon=False, fontsize=9, labelcolor=FAINT, handlelength=2.6, columnspacing=1.6,
    )  # fmt: skip


def _stroke(by: str) -> dict[str, Any]:
    line = {"color": COLOURS[by], "linewidth": 1.7, "marker": "o", "markersize": 5.5}
    return line | STROKES[by]


def _draw_class(axes: "Axes", label: str, row: list[Score], *, first: bool) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    numbers = [score.number for score in row]
    step = last_step(row)
    if step is not None:
        axes.axvspan(step[0].number, step[1].number, **STEP)
    for by in ("amplified", "alone"):
        shares = [getattr(score, by) for score in row]
        centre = [100 * share.estimate for share in shares]
        intervals = [share.interval or (share.estimate, share.estimate) for share in shares]
        below = [value - 100 * low for value, (low, _) in zip(centre, intervals, strict=True)]
        above = [100 * high - value for value, (_, high) in zip(centre, intervals, strict=True)]
        axes.errorbar(
            numbers, centre, (below, above), elinewidth=1.1, clip_on=False, zorder=3, **_stroke(by)
        )
    axes.set_title(formats.short(label, 22), loc="left", size=10.5, weight="bold", color=INK, pad=9)
    axes.set(xlim=(numbers[0] - 0.25, numbers[-1] + 0.25), ylim=(0, 100), yticks=range(0, 101, 25))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.set_xlabel("round", size=8.5, color=FAINT, labelpad=2)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=FAINT, labelleft=first)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[:].set_visible(False)


def interactive(drawn: Drawn) -> dict[str, Any]:
    """The same as a Vega-Lite specification, with tooltips; the page says how wide panels are."""
    import altair

    shown = drawn.panels()
    numbers = [score.number for score in drawn.scores[ALL]]
    ticks = {"values": numbers} if len(numbers) <= 8 else {"tickMinStep": 1}
    rounds = altair.Axis(title="round", format="d", grid=False, **ticks)
    colours = altair.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    dashes = altair.Scale(domain=list(COLOURS), range=[[1, 0], [5, 3]])
    fills = altair.Scale(domain=list(COLOURS), range=[COLOURS["alone"], "transparent"])
    right = altair.Y("right:Q", title=None, axis=altair.Axis(format="%", tickCount=4))
    tooltip = [
        altair.Tooltip("class:N"),
        altair.Tooltip("round:Q"),
        altair.Tooltip("answered:N"),
        altair.Tooltip("right:Q", format=".1%"),
        altair.Tooltip("interval:N", title="95% interval"),
        altair.Tooltip("change:N", title="to the round before"),
        altair.Tooltip("questions:Q", format=","),
    ]
    base = altair.Chart().encode(
        x=altair.X("round:Q", axis=rounds),
        color=altair.Color("answered:N", scale=colours, legend=None),
    )
    steps = altair.Chart().mark_rect(color=STEP["color"], opacity=STEP["alpha"])
    layers = altair.layer(
        steps.encode(x=altair.X("step:Q", axis=rounds), x2="round:Q").transform_filter(
            "isValid(datum.step)"
        ),
        base.mark_rule().encode(y=altair.Y("low:Q", title=None), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(
            y=right, strokeDash=altair.StrokeDash("answered:N", scale=dashes, legend=None)
        ),
        base.mark_point(size=55, opacity=1).encode(
            y=right, fill=altair.Fill("answered:N", scale=fills, legend=None), tooltip=tooltip
        ),
        data=altair.Data(values=_points(shown)),
    )
    facet = altair.Facet("class:N", title=None, sort=list(shown))
    columns = max(1, min(COLUMNS, len(shown)))
    panels = layers.properties(height=150).facet(
        facet,
        columns=columns,
        bounds="flush",
        spacing={"row": 72, "column": 20},  # flush panels leave no room for axes and titles
    )
    # An axis for each panel: shared ones would also be drawn where the last row has no panel.
    return panels.resolve_axis(x="independent").to_dict()


def _points(panels: Mapping[str, list[Score]]) -> list[dict[str, Any]]:
    return [
        {
            "class": label,
            "round": score.number,
            "answered": by,
            "right": round(accuracy.estimate, 5),
            "low": None if accuracy.low is None else round(accuracy.low, 5),
            "high": None if accuracy.high is None else round(accuracy.high, 5),
            "interval": formats.percent_range(accuracy) + ("%" if accuracy.interval else ""),
            "change": formats.points_about(score.change) if by == "alone" else formats.MISSING,
            "questions": score.items,
            "step": step[0].number if step and score is step[1] and by == "alone" else None,
        }
        for label, row in panels.items()
        for step in [last_step(row)]
        for score in row
        for by in ("amplified", "alone")  # the latter is drawn over the former
        if (accuracy := getattr(score, by))
    ]


@functools.cache
def vega() -> str:
    """The JavaScript that draws such a specification, 0.9 MB, to be put into the page itself."""
    import altair
    import vl_convert

    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
