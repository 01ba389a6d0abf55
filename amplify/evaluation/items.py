"""Evals rows as columns: the one reader of `evals.jsonl`, for the gate, reports and pages.

A row is a held-out question. Some keys describe it; every other key with a number or a boolean is a
measure (see `measures`), whatever its name. Rows in, numbers out: knows neither folders nor jax.
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
"""The split on which the gate decides."""
FINAL = "final"
"""The split that is reported: it decides nothing, so that choosing rounds cannot flatter it."""
ALL = "all classes"

NEEDED = ("split", "problem")
DESCRIBING = (
    *("split", "problem", "context", "question", "class", "truth", "answer", "probability"),
    *("experiment", "round", "n", "contexts", "interval"),
)
"""Keys that are no measures: they describe a row, or `compare --json` has them for something else.
"""
NUMBERS = {bool, int, float}


@dataclasses.dataclass(frozen=True)
class Items:
    """Held-out questions as columns, a row for each time that one was drawn. The same question
    about the same context counts once, whatever is counted: see `statistics.clusters`.
    """

    split: Shaped[np.ndarray, " rows"]
    label: Shaped[np.ndarray, " rows"]  # the question's class
    problem: Shaped[np.ndarray, " rows"]  # seed that drew it
    context: Shaped[np.ndarray, " rows"]  # digest of what it says; "" in evals that have none
    question: Shaped[np.ndarray, " rows"]
    values: Mapping[str, Float[np.ndarray, " rows"]]  # by measure; NaN, here only: has none

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Items":
        """The rows of an evals.jsonl. What an older row lacks takes its default.

        Raises:
            ValueError: naming what a row lacks that has no default, or a measure that is no finite
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
            question=text("question"),  # a row that does not say is an item of its own
            values=_measures(rows),
        )

    def __len__(self) -> int:
        """Number of different questions about different contexts."""
        return len(np.unique(np.stack([self.clusters, self.question]), axis=1).T)

    @property
    def measures(self) -> list[str]:
        """Names of the measures that some row has."""
        return [name for name, column in self.values.items() if not np.isnan(column).all()]

    def only(self, split: str, label: str = ALL) -> "Items":
        """The items of one split, and of one class unless it is ALL."""
        return self.where((self.split == split) & ((self.label == label) | (label == ALL)))

    def having(self, measure: str) -> "Items":
        """The items that have a value of a measure."""
        there = ~np.isnan(self.column(measure))
        return self if there.all() else self.where(there)

    def where(self, rows: Bool[np.ndarray, " rows"] | Int[np.ndarray, " some"]) -> "Items":
        """The rows that a mask or indices choose."""
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if field.name != "values"
        }
        values = {name: column[rows] for name, column in self.values.items()}
        return Items(**columns, values=values)

    def column(self, measure: str) -> Float[np.ndarray, " rows"]:
        """A measure's values, NaN where a row has none."""
        nothing = np.full(len(self.label), np.nan)
        return self.values.get(measure, nothing)

    @property
    def clusters(self) -> Shaped[np.ndarray, " rows"]:
        """What tells contexts apart: their digests, or seeds in evals that were written before
        there were digests.
        """
        return self.context if np.all(self.context != "") else self.problem

    @property
    def contexts(self) -> int:
        """Number of different contexts."""
        return len(np.unique(self.clusters))

    def mean(self, measure: str) -> Proportion | None:
        """A measure's mean with its 95% interval; None where no item has a value."""
        there = self.having(measure)
        values = there.column(measure)
        if not len(values):
            return None
        estimate = accuracy if is_share(values) else average
        return estimate(values, there.clusters, there.question)

    def means(self) -> dict[str, Proportion]:
        """The mean of each measure that some item has a value of."""
        found = {name: self.mean(name) for name in self.measures}
        return {name: mean for name, mean in found.items() if mean is not None}


def is_share(values: Float[np.ndarray, " rows"]) -> bool:
    """Whether all values that there are lie in 0..1."""
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
    """A measure's values, NaN in place of None. Raises ValueError for any that is not finite."""
    with contextlib.suppress(OverflowError):  # a number of many digits
        if {*map(type, found)} <= NUMBERS | {type(None)}:
            column = np.array(found, dtype=np.float64)
            if np.isfinite(column).sum() == len(found) - found.count(None):
                return column
    raise ValueError(f"{name} must be a finite number, and left out where it is missing")


def in_pairs(before: Items, after: Items) -> tuple[Items, Items] | None:
    """Both in the same order, row by row the same question about the same context; None if they
    are not about the same ones, each drawn as often.
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
    """Pairs in which both have a value of a measure; None if the two are not about the same items,
    or no pair has.
    """
    pairs = in_pairs(before, after)
    if pairs is None:
        return None
    there = ~np.isnan(pairs[0].column(measure)) & ~np.isnan(pairs[1].column(measure))
    return (pairs[0].where(there), pairs[1].where(there)) if there.any() else None


class Difference(NamedTuple):
    """A measure's mean after minus before, as fractions."""

    delta: float
    interval: tuple[float, float] | None  # 95%; None: too few contexts to tell
    paired: bool  # taken item by item, because both answered the same items


def difference(before: Items, after: Items, measure: str) -> Difference | None:
    """What a share gained from `before` to `after`; None where either has no value of it, or where
    it is no share.

    Item by item where both answered the same ones; otherwise the means are taken as independent.
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
