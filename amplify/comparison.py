"""Experiments side by side, as `amplify.compare` returns them."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplify.report import group_plots, plots, results, write_comparison
from amplify.report.group_rows import difference_rows, group_rows
from amplify.report.groups import groups_of
from amplify.report.results import read_results
from amplify.store import Store

if TYPE_CHECKING:
    import pandas


class Comparison:
    """Experiments side by side. Notebooks display it as the figure `compare.png`."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = list(stores)
        self._results = [read_results(store, changes=False) for store in stores]
        self._groups = groups_of(self._results)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(store.name for store in self._stores)})"

    @functools.cached_property
    def table(self) -> "pandas.DataFrame":
        """Means of all measures by experiment, round, split and class."""
        return data_frame([row for store in self._stores for row in results(store)])

    @functools.cached_property
    def seeds(self) -> "pandas.DataFrame":
        """Means over seeds by group, round, split and class.

        Intervals are over seeds and contexts. Experiments that differ only in their seed are a
        group. "round" is a number, or "best" for the best round of each.
        """
        return data_frame([*group_rows(self._groups)])

    @functools.cached_property
    def differences(self) -> "pandas.DataFrame":
        """Differences of the best rounds to the first experiment or group, by class."""
        return data_frame([*difference_rows(self._groups)])

    def _repr_png_(self) -> bytes:
        if len(self._stores) == 1:
            return plots.png(self._results)
        return group_plots.png(self._groups)

    def save(self) -> list[Path]:
        """Writes `compare.html`, `compare.png` and `compare.cost.png` to the first experiment.

        Returns:
            Their paths.
        """
        return list(write_comparison(self._stores))


def data_frame(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """Returns rows as a data frame."""
    import pandas  # slow to import

    return pandas.DataFrame(list(rows))
