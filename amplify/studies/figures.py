"""What the figures of studies have in common."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from amplify.report.plots import FAINT, GRID, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def begin(title: str, said: str, width: float = 11.0, height: float = 6.6) -> "Figure":
    """Returns a figure with its title, and a paragraph below it.

    Args:
        title: in bold.
        said: what is drawn.
        width, height: in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", dpi=180)
    top = 1 - 0.099 / height
    figure.text(0.03, top, title, size=15, weight="bold", color=INK, va="top")
    figure.text(0.03, top - 0.33 / height, said, size=10, color=FAINT, va="top")
    return figure


def finish(axes: "Axes", label: str, title: str = "") -> None:
    """Gives a panel its labels, and the look of all other figures.

    Args:
        axes: the panel, after everything is drawn.
        label: of the horizontal axis.
        title: above it.
    """
    if title:
        axes.set_title(title, loc="left", size=10.5, weight="bold", color=INK, pad=9)
    axes.set_xlabel(label, size=8.5, color=FAINT, labelpad=2)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[:].set_visible(False)


def six_panels(figure: "Figure") -> np.ndarray:
    """Returns the panels of a figure, in two rows of three."""
    panels: np.ndarray = figure.subplots(2, 3)
    figure.subplots_adjust(0.055, 0.075, 0.985, 0.81, wspace=0.16, hspace=0.42)
    return panels


def legend(axes: "Axes", handles: "Sequence[Line2D]") -> None:
    """Shows the meaning of lines in place of a panel."""
    axes.axis("off")
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=10, labelcolor=FAINT)


def as_png(figure: "Figure") -> bytes:
    """Returns the bytes of a PNG file, which are the same whenever it is drawn."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
