"""Eval items as columns: the only reader of `evals.jsonl`.

A row is a held-out question. Some keys describe it; every other key with a number or boolean is a
measure, whatever its name. Used by the gate, reports and pages. Knows neither folders nor jax.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from amplify.evaluation.measures import CONDITIONALS
from amplify.evaluation.statistics import (
    Proportion,
    accuracy,
    average,
    compare,
    unpaired_difference,
)

SELECT = "select"
"""The split that the gate uses."""
FINAL = "final"
"""The split that is only reported, so that selection does not bias it."""
ALL = "all classes"

NEEDED = ("split", "problem")
DESCRIBING = (
    *("split", "problem", "context", "question", "class", "truth", "answer", "probability"),
    *("experiment", "round", "n", "contexts", "interval"),
)
"""Keys that are not measures: they describe a row, here or in `compare --json`."""
NUMBERS = {bool, int, float}


@dataclasses.dataclass(frozen=True)
class Items:
    """Held-out questions as columns, with a row for each time that a question was drawn.

    Statistics count a question about the same context once, see `statistics.clusters`.
    """

    split: Shaped[np.ndarray, " rows"]
    label: Shaped[np.ndarray, " rows"]  # the question's class
    problem: Shaped[np.ndarray, " rows"]  # the seed of the problem
    context: Shaped[np.ndarray, " rows"]  # digest of its content; "" in old evals
    question: Shaped[np.ndarray, " rows"]
    values: Mapping[str, Float[np.ndarray, " rows"]]  # by measure; NaN: the row has no value

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Items":
        """Reads the rows of an `evals.jsonl`. Keys that older rows lack take their defaults.

        Args:
            rows: JSON objects.

        Raises:
            ValueError: if a row lacks a key that has no default, or a measure is not a finite
                number.
        """
        if lacking := next((k for k in NEEDED for row in rows if k not in row), None):
            raise ValueError(f"a row has no {lacking!r}")

        def text(key: str, default: str | None = None) -> Shaped[np.ndarray, " rows"]:
            found = (row.get(key, n if default is None else default) for n, row in enumerate(rows))
            return np.array([*found], dtype=np.str_)

        return cls(
            split=text("split"),
            label=text("class", ""),
            problem=text("problem"),
            context=text("context", ""),
            question=text("question"),  # without this key, each row is an item of its own
            values=_measures(rows),
        )

    def __len__(self) -> int:
        """Returns the number of distinct questions about distinct contexts."""
        return len(np.unique(np.stack([self.clusters, self.question]), axis=1).T)

    @property
    def measures(self) -> list[str]:
        """Names of the measures with at least one value."""
        return [name for name, column in self.values.items() if not np.isnan(column).all()]

    def only(self, split: str, label: str = ALL) -> "Items":
        """Returns the items of a split and class.

        Args:
            split: SELECT or FINAL.
            label: the class, or ALL.
        """
        return self.where((self.split == split) & ((self.label == label) | (label == ALL)))

    def having(self, measure: str) -> "Items":
        """Returns the items that have a value of a measure."""
        there = ~np.isnan(self.column(measure))
        return self if there.all() else self.where(there)

    def where(self, rows: Bool[np.ndarray, " rows"] | Int[np.ndarray, " some"]) -> "Items":
        """Returns the rows that a mask or indices select."""
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if field.name != "values"
        }
        values = {name: column[rows] for name, column in self.values.items()}
        return Items(**columns, values=values)

    def column(self, measure: str) -> Float[np.ndarray, " rows"]:
        """Returns a measure's values, NaN for rows without one."""
        nothing = np.full(len(self.label), np.nan)
        return self.values.get(measure, nothing)

    @property
    def clusters(self) -> Shaped[np.ndarray, " rows"]:
        """Identifies contexts: by digests or, in old evals without digests, by seeds."""
        return self.context if np.all(self.context != "") else self.problem

    @property
    def contexts(self) -> int:
        """Number of distinct contexts."""
        return len(np.unique(self.clusters))

    def mean(self, measure: str) -> Proportion | None:
        """Returns a measure's mean with its 95 % interval; None if no item has a value."""
        there = self.having(measure)
        values = there.column(measure)
        if not len(values):
            return None
        estimate = accuracy if is_share(values) else average
        return estimate(values, there.clusters, there.question)

    def means(self) -> dict[str, Proportion]:
        """Returns the means of all measures that have values."""
        found = {name: self.mean(name) for name in self.measures}
        return {name: mean for name, mean in found.items() if mean is not None}


def is_share(values: Float[np.ndarray, " rows"]) -> bool:
    """Returns whether all values, except NaN, are in 0..1."""
    there = values[~np.isnan(values)]
    return bool(np.all((there >= 0) & (there <= 1)))


def _measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, " rows"]]:
    columns = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        if name not in DESCRIBING:
            found = [row.get(name) for row in rows]
            if NUMBERS & {*map(type, found)}:
                columns[name] = _column(name, found)
    for derived in CONDITIONALS:
        if derived.measure.name not in columns and {derived.value, derived.condition} <= {*columns}:
            holds = columns[derived.condition] == 1
            columns[derived.measure.name] = np.where(holds, columns[derived.value], np.nan)
    return columns


def _column(name: str, found: list[Any]) -> Float[np.ndarray, " rows"]:
    """Converts a measure's values to floats, None to NaN; raises ValueError for other values."""
    with contextlib.suppress(OverflowError):  # an integer with too many digits
        if {*map(type, found)} <= NUMBERS | {type(None)}:
            column = np.array(found, dtype=np.float64)
            if np.isfinite(column).sum() == len(found) - found.count(None):
                return column
    raise ValueError(f"{name} must be a finite number, or left out if it is missing")


def in_pairs(before: Items, after: Items) -> tuple[Items, Items] | None:
    """Sorts the items of two rounds so that row i of both is the same question and context.

    Args:
        before: the items of one round.
        after: the items of another.

    Returns:
        Both, sorted; None if they do not have the same questions, each equally often.
    """
    digests = bool(np.all(before.context != "") and np.all(after.context != ""))
    if not _same(before, after, digests):
        before, after = (items.where(_order(items, digests)) for items in (before, after))
    return (before, after) if _same(before, after, digests) else None


def _same(one: Items, two: Items, digests: bool) -> bool:
    there = np.array_equal(_about(one, digests), _about(two, digests))
    return there and np.array_equal(one.question, two.question)


def _order(items: Items, digests: bool) -> Int[np.ndarray, " rows"]:
    return np.lexsort([items.question, _about(items, digests)])


def _about(items: Items, digests: bool) -> Shaped[np.ndarray, " rows"]:
    return items.context if digests else items.problem


def both_measured(before: Items, after: Items, measure: str) -> tuple[Items, Items] | None:
    """Returns the pairs of items in which both have a value of a measure.

    Args:
        before: the items of one round.
        after: the items of another.
        measure: its name.

    Returns:
        The items of both, as from `in_pairs`; None if they cannot be paired or no pair has values.
    """
    pairs = in_pairs(before, after)
    if pairs is None:
        return None
    there = ~np.isnan(pairs[0].column(measure)) & ~np.isnan(pairs[1].column(measure))
    return (pairs[0].where(there), pairs[1].where(there)) if there.any() else None


class Difference(NamedTuple):
    """Difference of a measure's means, after minus before, as a fraction."""

    delta: float
    interval: tuple[float, float] | None  # 95 %; None: too few contexts
    paired: bool  # both have the same items


def difference(before: Items, after: Items, measure: str) -> Difference | None:
    """Returns the gain in a measure from `before` to `after`.

    Differences are paired if both have the same items; otherwise the means are treated as
    independent.

    Args:
        before: the items of one round.
        after: the items of another.
        measure: its name.

    Returns:
        The difference; None if one of them has no values, or some are outside 0..1.
    """
    one, two = before.mean(measure), after.mean(measure)
    if one is None or two is None or not all(is_share(i.column(measure)) for i in (before, after)):
        return None
    if (pairs := both_measured(before, after, measure)) is not None:
        was, now = pairs
        found = compare(was.column(measure), now.column(measure), now.clusters, now.question)
        return Difference(found.delta, found.interval, paired=True)
    interval = unpaired_difference(one, two)
    return Difference(two.estimate - one.estimate, interval, paired=False)
