"""What all reports share: means over seeds, the seeds that all arms have, and criteria."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from amplify.evaluation.statistics import Proportion, average

FEWEST = 3
"""Seeds that intervals take."""
Run = TypeVar("Run")


class Criterion(NamedTuple):
    """What is expected of a study, and whether it is so."""

    said: str
    found: str
    met: bool

    def line(self) -> Text:
        """Says it in a line of text."""
        style = "green" if self.met else "red"
        met = "met    " if self.met else "not met"
        return Text.assemble((met, style), f"  {self.said}: {self.found}")


def over_seeds(values: Sequence[float]) -> Proportion:
    """Returns a mean over seeds with its t interval, which takes three seeds."""
    return average(np.array(values, float), np.arange(len(values)))


def complete(runs: Mapping[str, Mapping[int, Run]]) -> tuple[list[int], dict[str, list[Run]]]:
    """Returns the seeds for which all arms are done, and the runs of each arm in their order.

    Args:
        runs: of each arm, by seed.
    """
    first = next(iter(runs.values()))
    seeds = [seed for seed in first if all(seed in of for of in runs.values())]
    return seeds, {arm: [of[seed] for seed in seeds] for arm, of in runs.items()}


def say(found: Proportion) -> str:
    """Formats a mean with its interval, to two decimals."""
    if found.low is None or found.high is None:
        return f"{found.estimate:.2f}"
    return f"{found.estimate:.2f} ({found.low:.2f} to {found.high:.2f})"


def empty_table(title: str, columns: Sequence[str]) -> Table:
    """Returns a table without rows; all columns but the first are aligned to the right.

    Args:
        title: above it.
        columns: their names.
    """
    found = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in columns:
        found.add_column(name, justify="left" if name == columns[0] else "right")
    return found


def mean_cell(values: Sequence[float], digits: int) -> str:
    """Formats a mean over seeds for a cell of a table, with its interval below it.

    Args:
        values: one for each seed.
        digits: after the decimal point.
    """
    found = over_seeds(values)
    if found.low is None or found.high is None:
        return f"{found.estimate:.{digits}f}"
    return f"{found.estimate:.{digits}f}\n{found.low:.{digits}f} to {found.high:.{digits}f}"
