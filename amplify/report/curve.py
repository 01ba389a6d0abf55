"""Computes the geometry of training curves, which templates draw as SVG.

Each round has a page with several curves, and just importing matplotlib would take longer than a
round may spend on its page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amplify.evaluation.measures import RENAMED, Measure

WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 26

LOG_FROM = 30
"""Ratio of the largest to the smallest value from which the scale is logarithmic."""


Styled = tuple[int, Sequence[tuple[int, float]]]
"""The index of a line's style in `plots.STYLES`, and its points: step and value."""


class Tick(NamedTuple):
    """A labelled position on an axis."""

    at: float  # pixels
    text: str


class Line(NamedTuple):
    """A line of a curve."""

    style: int  # index of the style in `plots.STYLES`
    points: list[tuple[float, float]]  # pixels, y downwards


class Curve(NamedTuple):
    """Lines over training steps, and ticks of both axes."""

    title: str
    lines: list[Line]  # the most important one last, so that it is on top
    steps: list[Tick]
    values: list[Tick]

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points of the most important line."""
        return self.lines[-1].points


def evaluated_rows(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Selects the rows of evaluations during training.

    Args:
        metrics: rows of the training log.

    Returns:
        For each evaluation `{"step", "accuracy": {measure: {class: mean}}}`, with the current names
        of measures.
    """
    return [
        {
            "step": int(row["step"]),
            "accuracy": {RENAMED.get(by, by): means for by, means in row["accuracy"].items()},
        }
        for row in metrics
        if "accuracy" in row
    ]


def measures_curve(
    label: str, metrics: Sequence[Mapping[str, Any]], measures: Sequence[str]
) -> Curve | None:
    """Returns the curve of measures over training, for one class of questions.

    Args:
        label: the class.
        metrics: rows of the training log.
        measures: names; the index of a measure is the style of its line, and the first is on top.

    Returns:
        The curve; None if none of the measures was evaluated.
    """
    rows = evaluated_rows(metrics)
    lines = {
        number: [
            (row["step"], float(row["accuracy"][name][label]))
            for row in rows
            if label in row["accuracy"].get(name, {})
        ]
        for number, name in reversed([*enumerate(measures)])
    }
    return _draw(label, [*lines.items()], share=True) if any(lines.values()) else None


def value_curve(measure: Measure, metrics: Sequence[Mapping[str, Any]]) -> Curve:
    """Returns the curve of a measure that is not a fraction, over all classes.

    Args:
        measure: evaluated at least once.
        metrics: rows of the training log.
    """
    rows = evaluated_rows(metrics)
    line = [(row["step"], mean) for row in rows if (mean := mean_of(row, measure.name)) is not None]
    return draw_lines(f"{measure.title}, since the first round", [(0, line)])


def mean_of(row: Mapping[str, Any], name: str) -> float | None:
    """Returns the mean over classes of a measure during training; None if it was not evaluated.

    Args:
        row: of `evaluated_rows`.
        name: of the measure.
    """
    means = row["accuracy"].get(name, {}).values()
    return sum(means) / len(means) if means else None


def curve(title: str, metrics: Sequence[dict[str, Any]], key: str, *, share: bool) -> Curve | None:
    """Returns the curve of one metric over training; None if it was not logged.

    Args:
        title: of the curve.
        metrics: rows of the training log.
        key: of the metric.
        share: whether the metric is a fraction, to be drawn from 0 to 100%.
    """
    logged = [row for row in metrics if math.isfinite(row.get(key, math.nan))]
    rows = [(int(row["step"]), float(row[key])) for row in logged]
    return _draw(title, [(0, rows)], share=share) if rows else None


def draw_lines(title: str, lines: Sequence[Styled]) -> Curve:
    """Returns a curve of several lines on one scale.

    Args:
        title: of the curve.
        lines: of which one has a point at least, the most important one last.
    """
    return _draw(title, lines, share=False, logarithmic=False)


def _draw(
    title: str, lines: Sequence[Styled], *, share: bool, logarithmic: bool | None = None
) -> Curve:
    lines = [(style, line) for style, line in lines if line]
    rows = [row for _, line in lines for row in line]
    values = [value for _, value in rows]
    last = max(step for step, _ in rows)
    if logarithmic is None:
        logarithmic = not share and min(values) > 0 and max(values) / min(values) > LOG_FROM
    ticks = _decades(values) if logarithmic else [0.0, 0.5, 1.0] if share else _round_ticks(values)
    low, high = ticks[0], ticks[-1]

    def x(step: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / last, 1)

    def y(value: float) -> float:
        if logarithmic:
            part = math.log(value / low) / math.log(high / low)
        else:
            part = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part, 1)

    return Curve(
        title=f"{title}, on a logarithmic scale" if logarithmic else title,
        lines=[Line(style, [(x(step), y(value)) for step, value in line]) for style, line in lines],
        steps=[Tick(x(step), f"{step:,}") for step in (0, last)],
        values=[Tick(y(tick), f"{100 * tick:.0f}%" if share else f"{tick:g}") for tick in ticks],
    )


def _decades(values: list[float]) -> list[float]:
    """Returns powers of ten around the values; not all of them if there are many."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    stride = math.ceil((high - low) / 4)
    return [10.0**power for power in range(low, high + stride, stride)]


def _round_ticks(values: list[float]) -> list[float]:
    """Returns 0 (or less) and a round number above the values."""
    low, high = min(0.0, min(values)), max(0.0, max(values))
    size = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    return [math.floor(low / size) * size, max(math.ceil(high / size), 1) * size]
