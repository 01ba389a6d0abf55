"""The over-optimisation study as a figure: gold and proxy against the distance from the reference
policy, by reinforcement learning and by best-of-n, with fits of Gao's form.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amplify.evaluation.statistics.scaling_laws import ScalingLaw, best_of_n_kl_bound
from amplify.report.plots import FAINT, INK, STYLES
from amplify.studies.figures import as_png, begin, finish, legend, six_panels
from amplify.studies.overoptimisation import (
    ENSEMBLE,
    FITTED,
    FREE,
    NS,
    PENALTY,
    Run,
    best_of_n_law,
    reinforcement_law,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOLD, PROXY = STYLES[0], STYLES[1]
TITLES = {FREE: "one reward model", PENALTY: "with a KL penalty", ENSEMBLE: "five reward models"}


def png(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Draws the figure.

    Args:
        runs: of each arm, for the same seeds.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.lines import Line2D

    figure = begin(
        "Over-optimisation",
        "Gold and the reward (proxy), in standard deviations of the reference policy, against √KL"
        f" from it, in √nats; {len(runs[FREE])} seeds.\nThin: each seed. Dotted: Gao's form,"
        " fitted.",
    )
    panels = six_panels(figure)
    for axes, arm in zip(panels[0], (FREE, PENALTY, ENSEMBLE), strict=True):
        _reinforcement(axes, runs[arm])
        _finish(axes, f"reinforcement, {TITLES[arm]}")
    for axes, arm in zip(panels[1], (FREE, ENSEMBLE), strict=False):
        _best_of_n(axes, runs[arm])
        _finish(axes, f"best-of-n, {TITLES[arm]}")
    handles = [
        Line2D([], [], color=style.colour, linewidth=1.7, label=name)
        for style, name in ((GOLD, "gold"), (PROXY, "proxy"))
    ]
    handles += [
        Line2D([], [], color=INK, linestyle=":", label="Gao's form"),
        Line2D([], [], color=FAINT, linestyle="--", label=f"fitted up to n = {FITTED}"),
    ]
    legend(panels[1][2], handles)
    return as_png(figure)


def _reinforcement(axes: "Axes", runs: Sequence[Run]) -> None:
    """Draws each seed's path, and the laws fitted to the looks of all seeds."""
    looks = [look for run in runs for look in run.looks]
    shares = []
    for style, of in ((PROXY, "proxy"), (GOLD, "gold")):
        for run in runs:
            axes.plot(
                [max(look.kl, 0) ** 0.5 for look in run.looks],
                [getattr(look, of) for look in run.looks],
                color=style.colour, linewidth=0.9, alpha=0.55,
            )  # fmt: skip
        base = float(np.mean([getattr(run, of)[0] for run in runs]))
        law, kl = reinforcement_law(looks, base, of)
        _draw_law(axes, law, float(kl.max()), base)
        shares.append(_share(of, law))
    _note(axes, shares)


def _best_of_n(axes: "Axes", runs: Sequence[Run]) -> None:
    """Draws each seed, the mean over seeds, and the law of gold beyond what it is fitted to."""
    distance = [best_of_n_kl_bound(n) ** 0.5 for n in NS]
    for style, of in ((PROXY, "proxy"), (GOLD, "gold")):
        each = [getattr(run, of) for run in runs]
        for one in each:
            axes.plot(distance, one, color=style.colour, linewidth=0.7, alpha=0.35)
        axes.plot(
            distance, np.mean(each, axis=0), color=style.colour, linewidth=1.7, marker="o",
            markersize=4,
        )  # fmt: skip
    law, base = best_of_n_law(runs)
    _draw_law(axes, law, distance[-1] ** 2, base)
    axes.axvline(best_of_n_kl_bound(FITTED) ** 0.5, color=FAINT, linewidth=0.8, linestyle="--")
    _note(axes, [_share("gold", law)])


def _draw_law(axes: "Axes", law: ScalingLaw, furthest: float, base: float) -> None:
    distance = np.linspace(0.0, furthest**0.5, 200)
    axes.plot(distance, base + law.predict(distance**2), color=INK, linewidth=1.2, linestyle=":")


def _share(of: str, law: ScalingLaw) -> str:
    return f"{of} {'unknown' if law.r_squared is None else f'{law.r_squared:.2f}'}"


def _note(axes: "Axes", shares: Sequence[str]) -> None:
    axes.text(
        0.02, 0.97, f"R²: {', '.join(shares)}", transform=axes.transAxes, size=8.5, color=INK,
        va="top",
    )  # fmt: skip


def _finish(axes: "Axes", title: str) -> None:
    axes.axhline(0, color=FAINT, linewidth=0.7)
    axes.set_xlim(left=0)
    finish(axes, "√KL", title)
