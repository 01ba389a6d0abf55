"""Experiments side by side, as `amplify.compare` returns them."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplify.report import results, write_comparison
from amplify.report.group_rows import difference_rows, group_rows
from amplify.report.groups import groups_of
from amplify.report.pages import comparison_png
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
        return results_frame(self._stores)

    @functools.cached_property
    def seeds(self) -> "pandas.DataFrame":
        """Means over seeds by group, round, split and class.

        Intervals are over seeds and contexts. Experiments that differ only in their seed are a
        group. "round" is a number, or "best" for the best round of each.
        """
        return data_frame([*group_rows(self._groups)])

    @functools.cached_property
    def differences(self) -> "pandas.DataFrame":
        """Differences to the first experiment or group, by round and class.

        "round" is the number of a round of both, or "best" for the best round of each.
        """
        return data_frame([*difference_rows(self._groups)])

    def _repr_png_(self) -> bytes:
        return comparison_png(self._results, self._groups)

    def save(self) -> list[Path]:
        """Writes `compare.html`, `compare.png` and `compare.cost.png` to the first experiment.

        Returns:
            Their paths.
        """
        return list(write_comparison(self._stores))


def results_frame(stores: Sequence[Store]) -> "pandas.DataFrame":
    """Returns the results of experiments as a data frame, see `report.results`."""
    rows = [row for store in stores for row in results(store)]
    # Calls by stage, purpose and part have columns of their own.
    return data_frame([{**row, "cost": {**row["cost"], "calls": {}}} for row in rows])


def data_frame(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """Returns rows as a data frame of plain columns.

    What is nested has a column for each value, such as `cost.seconds`. The ends of the interval of
    the measure `alone` are `alone.low` and `alone.high`.

    Args:
        rows: as for JSON.
    """
    import pandas  # slow to import

    return pandas.DataFrame([dict(_flat(row)) for row in rows])


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if key == "intervals":
            for measure, interval in value.items():
                yield from _ends(measure, interval)
        elif key == "interval":
            yield from _ends(name, value)
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _ends(name: str, interval: Sequence[float] | None) -> Iterator[tuple[str, float | None]]:
    low, high = interval or (None, None)
    yield f"{name}.low", low
    yield f"{name}.high", high
