"""Draws measures by round: a PNG file by matplotlib, and an interactive chart for pages by altair.

Each class of questions has a panel. Measures differ by colour, dashes and markers, so that nothing
depends on colour alone. The shaded step leads to the first round that is as good as the class's
best one by the gate's measure. Only measures that are fractions are drawn, since they share one
scale.
"""

import functools
import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from amplify.evaluation import figures
from amplify.evaluation.items import ALL
from amplify.evaluation.measures import Measure, in_order
from amplify.report import formats, ticks
from amplify.report.results import Results, Score

# matplotlib and altair are imported where they draw: importing either takes longer than running
# most commands, which draw nothing.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SHADED = "first as good as its best"
"""Legend entry of the shaded step: the round that it leads to."""

COLUMNS = 5
"""Panels per row."""
MARGIN = 0.25
"""Rounds between the first or the last round and the edge of a panel."""


class Style(NamedTuple):
    """How a measure is drawn."""

    colour: str
    dashes: tuple[float, ...]  # on, off, ..., in line widths; empty: solid
    marker: str  # of matplotlib
    shape: str  # of Vega
    filled: bool


STYLES = (
    Style("#0072B2", (), "o", "circle", filled=True),
    Style("#D55E00", (3, 2), "o", "circle", filled=False),
    Style("#009E73", (1, 1.2), "s", "square", filled=False),
    Style("#AA4499", (5, 1.5, 1, 1.5), "^", "triangle-up", filled=False),
    Style("#6B6B6B", (1.5, 3), "D", "diamond", filled=False),
    Style("#8A6100", (7, 2), "v", "triangle-down", filled=False),
    Style("#4B3FB5", (4, 1, 1, 1, 1, 1), "P", "cross", filled=False),
)
"""Styles in the order of measures, used cyclically. Blue, vermilion and green are from Okabe and
Ito's palette, which people with any colour vision can distinguish.
"""

STEP: dict[str, Any] = {"color": STYLES[0].colour, "alpha": 0.13, "linewidth": 0}
INK, FAINT, GRID = "#1a1a1a", "#6b6b6b", "#d9d9d9"


def styles(experiments: Sequence[Results]) -> dict[Measure, Style]:
    """Assigns a style to each measure, in order: the same in all panels and experiments.

    Args:
        experiments: results; measures that are not fractions get no style.
    """
    declared = [measure for found in experiments for measure in found.measures]
    names = [measure.name for measure in declared if measure.share]
    return dict(zip(in_order(names, declared), itertools.cycle(STYLES), strict=False))


def panels(found: Results) -> dict[str, list[Score]]:
    """Returns the classes that have items, with the rounds in which they do."""
    return {
        label: there
        for label, row in found.scores.items()
        if label != ALL and (there := [score for score in row if score.items])
    }


def last_step(row: list[Score], measure: Measure) -> tuple[Score, Score] | None:
    """Returns the first round that did as well as the class's best one, and the round before it.

    As well means that its interval reaches that of the best round.

    Args:
        row: the scores of a class by round.
        measure: the one to compare.

    Returns:
        The two rounds, earlier first; None if the first round did as well, so nothing was learned,
        or if there is only one step.
    """
    if len(row) < 3:
        return None
    means = [score.means.get(measure.name) for score in row]
    intervals = [mean.interval if mean else None for mean in means]
    best = max((interval[0] for interval in intervals if interval), default=0.0)
    reached = [interval is not None and interval[1] >= best for interval in intervals]
    steps = zip(itertools.pairwise(row), itertools.pairwise(reached), strict=True)
    return next((step for step, (was, now) in steps if now), None) if not reached[0] else None


def is_shaded(found: Results) -> bool:
    """Whether a step is shaded in the panel of any class."""
    return any(last_step(row, found.judged) for row in panels(found).values())


def png(experiments: Sequence[Results]) -> bytes:
    """Draws measures by round: a panel per class, one experiment below the other.

    Args:
        experiments: results, from top to bottom.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.figure import Figure

    rows = [max(1, math.ceil(len(panels(found)) / COLUMNS)) for found in experiments]
    heights = [0.85 + 2.35 * count for count in rows]
    figure = Figure(figsize=(11, sum(heights)), facecolor="white", dpi=180)
    parts = figure.subfigures(len(experiments), 1, height_ratios=heights, squeeze=False)[:, 0]
    drawn = styles(experiments)
    for part, found, height, count in zip(parts, experiments, heights, rows, strict=True):
        _draw(part, found, drawn, height, count)
    _draw_legend(parts[0], drawn, any(map(is_shaded, experiments)), heights[0])
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw(
    part: "SubFigure", found: Results, drawn: dict[Measure, Style], height: float, rows: int
) -> None:
    """Draws one experiment; `height` is in inches."""
    shown = panels(found)
    columns = min(COLUMNS, max(len(shown), 3))
    name = plain(figures.short(found.name, 32))
    said = plain(formats.headline(found))
    part.text(0.03, 1 - 0.14 / height, name, size=15, weight="bold", color=INK, va="top")
    part.text(0.03, 1 - 0.47 / height, said, size=10, color=FAINT, va="top")
    grid = part.add_gridspec(
        rows, columns, left=0.055, right=0.985, top=1 - 1.05 / height, bottom=0.42 / height,
        wspace=0.13, hspace=0.62,
    )  # fmt: skip
    for index, (label, row) in enumerate(shown.items()):
        axes = part.add_subplot(grid[divmod(index, columns)])
        step = last_step(row, found.judged)
        if step is not None:
            axes.axvspan(step[0].number, step[1].number, **STEP)
        _draw_class(axes, label, row, drawn)
        axes.tick_params(labelleft=index % columns == 0)


def _draw_legend(
    part: "SubFigure", drawn: dict[Measure, Style], shaded: bool, height: float
) -> None:
    """Draws the legend at the top right."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [
        Line2D([], [], label=plain(figures.short(measure.title, 24)), **stroke(style))
        for measure, style in drawn.items()
    ]
    part.legend(
        handles=[*lines, *[Patch(label=SHADED, **STEP)] * shaded],
        loc="upper right", bbox_to_anchor=(0.99, 1 - 0.06 / height), ncols=min(4, len(lines) + 1),
        borderpad=0, frameon=False, fontsize=9, labelcolor=FAINT, handlelength=2.6,
        columnspacing=1.6, labelspacing=0.3,
    )  # fmt: skip


def plain(text: str) -> str:
    """Escapes text that matplotlib would parse as mathematics, or omit from a legend because it
    starts with an underscore.
    """
    return f" {text}".replace("$", r"\$") if text.startswith("_") else text.replace("$", r"\$")


def stroke(style: Style) -> dict[str, Any]:
    """Returns matplotlib's arguments for a line of a style."""
    return {
        "color": style.colour,
        "linestyle": (0, style.dashes) if style.dashes else "-",
        "linewidth": 1.7,
        "marker": style.marker,
        "markersize": 5.5,
        "markerfacecolor": style.colour if style.filled else "white",
    }


def _draw_class(axes: "Axes", label: str, row: list[Score], drawn: dict[Measure, Style]) -> None:
    for measure, style in reversed(drawn.items()):  # the first is drawn on top
        there = [score for score in row if measure.name in score.means]
        means = [score.means[measure.name] for score in there]
        intervals = [mean.interval or (mean.estimate, mean.estimate) for mean in means]
        below = [100 * (m.estimate - low) for m, (low, _) in zip(means, intervals, strict=True)]
        above = [100 * (high - m.estimate) for m, (_, high) in zip(means, intervals, strict=True)]
        axes.errorbar(
            [score.number for score in there], [100 * mean.estimate for mean in means],
            (below, above), elinewidth=1.1, clip_on=False, zorder=3, **stroke(style),
        )  # fmt: skip
    prepare_axes(axes, label, float(row[0].number), float(row[-1].number), "round", integer=True)


def prepare_axes(
    axes: "Axes", title: str, first: float, last: float, across: str, integer: bool
) -> None:
    """Formats a panel of shares.

    Args:
        axes: the panel.
        title: above it; may be "".
        first: the smallest value on the horizontal axis.
        last: the largest.
        across: title of the horizontal axis.
        integer: whether its ticks are whole numbers.
    """
    from matplotlib.ticker import PercentFormatter

    title = plain(figures.short(title, 22))
    axes.set_title(title, loc="left", size=10.5, weight="bold", color=INK, pad=9)
    margin = MARGIN if integer else 0.05 * (last - first) or 1
    axes.set(xlim=(first - margin, last + margin), ylim=(0, 100))
    axes.set_yticks([100 * share for share in ticks.SHARES])
    if integer:
        axes.set_xticks(ticks.of_rounds(round(first), round(last)))
    else:
        costs = ticks.of_costs(first, last)
        axes.set_xticks(costs, [ticks.cost(value) for value in costs])
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.set_xlabel(plain(across), size=8.5, color=FAINT, labelpad=2)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[:].set_visible(False)


def interactive(found: Results, drawn: dict[Measure, Style]) -> dict[str, Any]:
    """Returns the chart as a Vega-Lite specification with tooltips; the page sets panel widths.

    Args:
        found: results of the experiment.
        drawn: the style of each measure, from `styles`.
    """
    import altair

    shown, names = panels(found), [measure.title for measure in drawn]
    numbers = [score.number for score in found.scores[ALL]]
    rounds = round_axis(min(numbers), max(numbers))

    def scale(of: list[Any]) -> Any:
        return altair.Scale(domain=names, range=of)

    colours = scale([style.colour for style in drawn.values()])
    dashes = scale([[2 * length for length in style.dashes] or [1, 0] for style in drawn.values()])
    fills = scale([style.colour if style.filled else "transparent" for style in drawn.values()])
    shapes = scale([style.shape for style in drawn.values()])
    tooltip = [
        altair.Tooltip("class:N"),
        altair.Tooltip("round:Q"),
        altair.Tooltip("measure:N"),
        altair.Tooltip("mean:Q", format=".1%"),
        altair.Tooltip("interval:N", title="95 % interval"),
        altair.Tooltip("change:N", title="change from the previous round"),
        altair.Tooltip("questions:Q", format=","),
    ]
    across = round_scale(min(numbers), max(numbers))
    base = altair.Chart().encode(
        x=altair.X("round:Q", axis=rounds, scale=across),
        color=altair.Color("measure:N", scale=colours, legend=None),
    )
    steps = altair.Chart().mark_rect(color=STEP["color"], opacity=STEP["alpha"])
    layers = altair.layer(
        steps.encode(
            x=altair.X("step:Q", axis=rounds, scale=across), x2="round:Q"
        ).transform_filter("isValid(datum.step)"),
        base.mark_rule().encode(y=altair.Y("low:Q", title=None), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(
            y=share_axis(), strokeDash=altair.StrokeDash("measure:N", scale=dashes, legend=None)
        ),
        base.mark_point(size=55, opacity=1).encode(
            y=share_axis(),
            fill=altair.Fill("measure:N", scale=fills, legend=None),
            shape=altair.Shape("measure:N", scale=shapes, legend=None),
            tooltip=tooltip,
        ),
        data=altair.Data(values=_points(found, drawn)),
    )
    facet = altair.Facet("class:N", title=None, sort=list(shown))
    columns = max(1, min(COLUMNS, len(shown)))
    grid = layers.properties(height=150).facet(
        facet,
        columns=columns,
        bounds="flush",
        spacing={"row": 72, "column": 20},  # flush panels leave no room for axes and titles
    )
    # Each panel has its own axis: shared axes would also be drawn below missing panels.
    return grid.resolve_axis(x="independent").to_dict()


def round_axis(first: int, last: int) -> Any:
    """Returns altair's axis of rounds.

    Args:
        first: number of the first round.
        last: of the last one.
    """
    import altair

    values = ticks.of_rounds(first, last)
    return altair.Axis(title="round", format="d", grid=False, values=values, tickCount=len(values))


def round_scale(first: int, last: int) -> Any:
    """Returns altair's scale of rounds, with the margins of `prepare_axes`.

    Args:
        first: number of the first round.
        last: of the last one.
    """
    import altair

    return altair.Scale(domain=[first - MARGIN, last + MARGIN], nice=False, zero=False)


def share_axis() -> Any:
    """Returns altair's encoding of a mean that is a fraction."""
    import altair

    scale = altair.Scale(domain=[ticks.SHARES[0], ticks.SHARES[-1]])
    axis = altair.Axis(format="%", values=list(ticks.SHARES), tickCount=len(ticks.SHARES))
    return altair.Y("mean:Q", title=None, scale=scale, axis=axis)


def _points(found: Results, drawn: dict[Measure, Style]) -> list[dict[str, Any]]:
    return [
        _point(found, label, score, measure, step)
        for label, row in panels(found).items()
        for step in [last_step(row, found.judged)]
        for score in row
        for measure in reversed(drawn)  # the first is drawn over the others
        if measure.name in score.means
    ]


def _point(
    found: Results, label: str, score: Score, measure: Measure, step: tuple[Score, Score] | None
) -> dict[str, Any]:
    mean = score.means[measure.name]
    judged = measure.name == found.judged.name
    return {
        "class": label,
        "round": score.number,
        "measure": measure.title,
        "mean": round(mean.estimate, 5),
        "low": None if mean.low is None else round(mean.low, 5),
        "high": None if mean.high is None else round(mean.high, 5),
        "interval": formats.mean_range(mean, measure) + ("%" if mean.interval else ""),
        "change": formats.points_about(score.change) if judged else figures.MISSING,
        "questions": score.items,
        "step": step[0].number if step and score is step[1] and judged else None,
    }


@functools.cache
def vega() -> str:
    """Returns the JavaScript that draws specifications, 0.9 MB, to be embedded in the page."""
    import altair
    import vl_convert

    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
