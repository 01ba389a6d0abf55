"""The alarm study as a figure: gold and audits over steps in each arm, and the curve of reviews."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amplify.report.plots import FAINT, INK, STYLES, Style
from amplify.studies.alarm import FREE, ORACLE, PENALTY, SEEMING, Run, budgets, detection
from amplify.studies.figures import as_png, begin, finish, legend, six_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOLD, PROXY, AUDITED = STYLES[0], STYLES[1], STYLES[2]
TITLES = {
    FREE: "no penalty",
    PENALTY: "with a KL penalty",
    ORACLE: "gold as reward (oracle)",
    SEEMING: "a judge who goes by what seems right",
}


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws the figure.

    Args:
        runs: of each arm, for the same seeds.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.lines import Line2D

    figure = begin(
        "Audits and their alarm",
        "Gold, which no audit sees, and the audited value, in standard deviations of drafts, over"
        f" steps of reinforcement learning; {len(runs[FREE])} seeds.\nThin: gold of each seed."
        " Thick: means over seeds. Crosses: alarms.",
    )
    panels = six_panels(figure)
    places = (panels[0][0], panels[0][1], panels[0][2], panels[1][0])
    for axes, arm in zip(places, (FREE, PENALTY, ORACLE, SEEMING), strict=True):
        _arm(axes, runs[arm])
        finish(axes, "step", TITLES[arm])
    _curve(panels[1][1], runs)
    finish(panels[1][1], "reviews", "share of alarms, by reviews in a run")
    handles = [
        Line2D([], [], color=style.colour, linewidth=1.7, label=name)
        for style, name in (
            (GOLD, "gold"), (AUDITED, "audited value"), (PROXY, "reward model's score")
        )
    ]  # fmt: skip
    handles += [
        Line2D([], [], color=INK, linestyle="", marker="x", label="alarm"),
        Line2D([], [], color=GOLD.colour, marker="o", label=f"{FREE}: alarm in time"),
        Line2D([], [], color=PROXY.colour, marker="o", label="false alarm, penalty or gold"),
        Line2D([], [], color=FAINT, linestyle="--", label="without the reward model's help"),
    ]
    legend(panels[1][2], handles)
    return as_png(figure)


def _arm(axes: "Axes", runs: Sequence[Run]) -> None:
    """Draws gold of each seed with its alarm, and means over seeds."""
    for run in runs:
        axes.plot(*zip(*run.golds, strict=True), color=GOLD.colour, linewidth=0.7, alpha=0.35)
        if run.alarm is not None:
            axes.plot([run.alarm], [run.gold_at(run.alarm)], "x", color=INK, markersize=5)
    looks = [look for run in runs for look in run.looks]
    lines: list[tuple[Style, list[tuple[int, float]]]] = [
        (PROXY, [(look.step, look.proxy) for look in looks]),
        (AUDITED, [(look.step, look.value) for look in looks if look.value is not None]),
        (GOLD, [(at.step, at.gold) for run in runs for at in run.golds]),
    ]
    for style, points in lines:
        axes.plot(*_means(points), color=style.colour, linewidth=1.7)
    axes.axhline(0, color=FAINT, linewidth=0.7)


def _means(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Means over seeds, at all steps at which there is a value."""
    by_step: dict[int, list[float]] = {}
    for step, value in points:
        by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    return steps, [float(np.mean(by_step[step])) for step in steps]


def _curve(axes: "Axes", runs: Mapping[str, Sequence[Run]]) -> None:
    """Draws alarms in time without a penalty, and false ones, by reviews in a run."""
    shown = budgets(runs)
    for help_, line in (("helped", "-"), ("alone", "--")):
        in_time = [detection(runs[FREE], help_, budget)[0] for budget in shown]
        axes.plot(shown, in_time, line, color=GOLD.colour, marker="o", markersize=4)
        both = [*runs[PENALTY], *runs[ORACLE]]
        false = [detection(both, help_, budget)[1] for budget in shown]
        axes.plot(shown, false, line, color=PROXY.colour, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(shown, [f"{budget:,}" for budget in shown])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.axhline(0, color=FAINT, linewidth=0.7)
