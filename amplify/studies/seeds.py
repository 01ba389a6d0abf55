"""What all reports share: means over seeds, the seeds that all arms have, and criteria."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

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


def seconds_taken(store: Any, number: int, began: float) -> float:
    """Returns the seconds that a cell's rounds took, copied stages left out, and measuring it.

    Args:
        store: the cell, a `Store`.
        number: its last round.
        began: when measuring began, by `time.monotonic`.
    """
    ran = sum(store.round(n).record["ledger"]["seconds"] for n in range(number + 1))
    return round(ran + time.monotonic() - began, 1)


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
    return cell(over_seeds(values), digits)


def cell(found: Proportion, digits: int, scale: float = 1.0) -> str:
    """Formats a mean for a cell of a table, with its interval below it.

    Args:
        found: the mean.
        digits: after the decimal point.
        scale: what all numbers are multiplied by.
    """
    mean, low, high = (None if one is None else scale * one for one in found)
    if low is None or high is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f}\n{low:.{digits}f} to {high:.{digits}f}"
