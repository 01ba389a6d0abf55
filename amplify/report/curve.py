"""A training curve as plain geometry, which a template draws as SVG.

Every round has a page with two of these, and to import matplotlib alone takes longer than a round
may spend on its page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amplify.evaluation.measures import RENAMED

WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 26

LOG_FROM = 30
"""A curve whose largest value is this many times its smallest is drawn on a logarithmic scale."""


class Tick(NamedTuple):
    at: float  # pixels
    text: str


class Line(NamedTuple):
    style: int  # number of the style that it is drawn in
    points: list[tuple[float, float]]  # pixels, y downwards


class Curve(NamedTuple):
    title: str
    lines: list[Line]  # the most important one last, over the others
    steps: list[Tick]
    values: list[Tick]

    @property
    def points(self) -> list[tuple[float, float]]:
        return self.lines[-1].points


def looked(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows in which something was measured: `{"step", "accuracy": {measure: {class: mean}}}`,
    with measures under the names that they have now.
    """
    return [
        {
            "step": int(row["step"]),
            "accuracy": {RENAMED.get(by, by): means for by, means in row["accuracy"].items()},
        }
        for row in metrics
        if "accuracy" in row
    ]


def measured(
    label: str, metrics: Sequence[Mapping[str, Any]], measures: Sequence[str]
) -> Curve | None:
    """Measures of one class of questions over training; None if nobody looked.

    Args:
        measures: their names; a line has the number of its measure as its style, and the first is
            drawn over the others.
    """
    rows = looked(metrics)
    lines = {
        number: [
            (row["step"], float(row["accuracy"][name][label]))
            for row in rows
            if label in row["accuracy"].get(name, {})
        ]
        for number, name in reversed([*enumerate(measures)])
    }
    return _draw(label, lines, share=True) if any(lines.values()) else None


def curve(title: str, metrics: Sequence[dict[str, Any]], key: str, *, share: bool) -> Curve | None:
    """One metric over training steps; a `share` is drawn from 0 to 100%. None if there is none."""
    measured = [row for row in metrics if math.isfinite(row.get(key, math.nan))]
    rows = [(int(row["step"]), float(row[key])) for row in measured]
    return _draw(title, {0: rows}, share=share) if rows else None


def _draw(title: str, lines: dict[int, list[tuple[int, float]]], *, share: bool) -> Curve:
    lines = {style: line for style, line in lines.items() if line}
    rows = [row for line in lines.values() for row in line]
    values = [value for _, value in rows]
    last = max(step for step, _ in rows)
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
        lines=[
            Line(style, [(x(step), y(value)) for step, value in line])
            for style, line in lines.items()
        ],
        steps=[Tick(x(step), f"{step:,}") for step in (0, last)],
        values=[Tick(y(tick), f"{100 * tick:.0f}%" if share else f"{tick:g}") for tick in ticks],
    )


def _decades(values: list[float]) -> list[float]:
    """Powers of ten around the values, every other one or fewer where they are many."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    stride = math.ceil((high - low) / 4)
    return [10.0**power for power in range(low, high + stride, stride)]


def _round_ticks(values: list[float]) -> list[float]:
    """0 (or lower) and a round number above the values."""
    low, high = min(0.0, min(values)), max(0.0, max(values))
    size = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    return [math.floor(low / size) * size, max(math.ceil(high / size), 1) * size]
