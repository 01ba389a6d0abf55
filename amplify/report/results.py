"""What the rounds of an experiment got right, as numbers.

Every table, plot and page of this package starts here. Reads what a Store gives and counts it;
knows nothing of terminals, pictures or HTML.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from amplify.comparison import Proportion, compare, proportion_interval
from amplify.errors import AmplifyError
from amplify.store import STAGES, RoundFolder, Store, read_evals
from amplify.types import SearchedTask

FINAL = "final"
"""The split that is reported: it decides nothing, so that choosing rounds cannot flatter it."""

ALL = "all classes"

MEASURES = ("alone", "amplified", "ceiling")


@dataclasses.dataclass(frozen=True)
class Items:
    """Held-out items as columns, in the order that every round of an experiment has them."""

    split: Shaped[np.ndarray, " items"]
    label: Shaped[np.ndarray, " items"]  # the question's class
    problem: Shaped[np.ndarray, " items"]
    question: Shaped[np.ndarray, " items"]
    alone: Bool[np.ndarray, " items"]  # True: right
    amplified: Bool[np.ndarray, " items"]
    ceiling: Bool[np.ndarray, " items"]
    found: Bool[np.ndarray, " items"]  # what the answer rests on was there to be read

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> "Items":
        """The rows of an evals.jsonl. Raises KeyError naming what a row lacks."""

        def text(key: str) -> Shaped[np.ndarray, " items"]:
            return np.array([row[key] for row in rows], dtype=np.str_)

        right = {by: np.array([row[by] for row in rows], dtype=bool) for by in MEASURES}
        right["found"] = np.array([row.get("found", True) for row in rows], dtype=bool)
        return cls(text("split"), text("class"), text("problem"), text("question"), **right)

    def __len__(self) -> int:
        return len(self.label)

    def only(self, split: str, label: str = ALL) -> "Items":
        """The items of one split, and of one class unless it is ALL."""
        return self._where((self.split == split) & ((self.label == label) | (label == ALL)))

    def if_found(self) -> "Items":
        """Those items whose passages a search found; all where nothing is searched."""
        return self._where(self.found)

    def _where(self, where: Bool[np.ndarray, " items"]) -> "Items":
        return Items(*(getattr(self, field.name)[where] for field in dataclasses.fields(self)))

    def same_as(self, other: "Items") -> bool:
        """Whether these are the same questions about the same problems, in the same order."""
        columns = (self.problem, other.problem), (self.question, other.question)
        return all(np.array_equal(mine, theirs) for mine, theirs in columns)

    def clusters(self) -> Int[np.ndarray, " items"]:
        """Which problem each item belongs to, as a number."""
        return np.unique(self.problem, return_inverse=True)[1]

    def accuracy(self, by: str) -> Proportion | None:
        """The share answered rightly, with its 95% interval; None where there are no items."""
        return proportion_interval(getattr(self, by), self.clusters()) if len(self) else None


class Difference(NamedTuple):
    """Accuracy after minus before, as fractions."""

    delta: float
    interval: tuple[float, float] | None  # 95%; None where a single problem leaves it undefined
    paired: bool  # taken item by item, because both answered the same items


@dataclasses.dataclass(frozen=True)
class Round:
    """A finished round."""

    folder: RoundFolder
    items: Items

    @property
    def number(self) -> int:
        return self.folder.number

    @property
    def promoted(self) -> bool:
        return (self.folder.verdict or {}).get("verdict") == "promoted"


class Score(NamedTuple):
    """How one round did on one class of `final`; None where the class has no items."""

    number: int  # the round's
    items: int
    alone: Proportion | None
    amplified: Proportion | None
    ceiling: Proportion | None
    change: Difference | None  # of `alone`, to the finished round before; None in the first
    found: Proportion | None = None  # of passages, by a search; None where nothing is searched
    alone_if_found: Proportion | None = None


def results(store: Store) -> list[dict[str, Any]]:
    """Accuracies by round, split and class, in this order; None where a class has no items.

    Raises AmplifyError if no round is finished.
    """
    rounds = finished_rounds(store)
    return [
        {
            "experiment": store.name,
            "round": round_.number,
            "split": split,
            "class": label,
            **{by: float(getattr(items, by).mean()) if len(items) else None for by in MEASURES},
            "n": len(items),
            **(_retrieval(items) if is_searched(store) else {}),
        }
        for round_ in rounds
        for split in dict.fromkeys(round_.items.split.tolist())
        for label in classes(store, rounds)
        for items in [round_.items.only(split, label)]
    ]


def is_searched(store: Store) -> bool:
    """Whether what the assistant reads is found by a search, and may be missed."""
    return isinstance(store.experiment.task, SearchedTask)


def _retrieval(items: Items) -> dict[str, float | None]:
    found = items.if_found()
    return {
        "found": float(items.found.mean()) if len(items) else None,
        "alone_if_found": float(found.alone.mean()) if len(found) else None,
    }


def finished_rounds(store: Store) -> list[Round]:
    """All finished rounds with their evals, ascending. Raises AmplifyError if there is none."""
    folders = [store.round(number) for number in store.rounds()]
    rounds = [read_round(folder) for folder in folders if folder.complete]
    if not rounds:
        raise AmplifyError(
            f"{store.path}: no finished round yet; run: amplify round {store.path} --n 1"
        )
    return rounds


def read_round(folder: RoundFolder) -> Round:
    """A round whose evals are done. Raises AmplifyError if they are not what was written."""
    try:
        return Round(folder, Items.of(read_evals(folder)))
    except KeyError as error:
        again = f"amplify round {folder.path.parent} --n {folder.number} --redo evals"
        raise AmplifyError(
            f"{folder.evals}: a row has no {error}; to do it again: {again}"
        ) from None


def half_done(store: Store) -> list[str]:
    """A line for each round that was begun and not finished."""
    folders = [store.round(number) for number in store.rounds()]
    return [
        f"round {folder.number} is half done"
        f" ({', '.join(filter(folder.done, STAGES)) or 'nothing'} so far);"
        f" to go on: amplify round {store.path} --n {folder.number}"
        for folder in folders
        if not folder.complete
    ]


def best(rounds: list[Round]) -> Round:
    """The last promoted round; the first there is (the untrained assistant) if none was."""
    return ([round_ for round_ in rounds if round_.promoted] or rounds[:1])[-1]


def classes(store: Store, rounds: list[Round]) -> list[str]:
    """The task's classes, easiest first, and whatever else the evals name."""
    named = [label for round_ in rounds for label in np.unique(round_.items.label).tolist()]
    return list(dict.fromkeys([*store.experiment.task.classes, *named]))


def scores(store: Store, rounds: list[Round], *, changes: bool = True) -> dict[str, list[Score]]:
    """Every class, and ALL at the end, in every round; `changes` take longer, and may be None."""
    return {
        label: [
            _score(label, before if changes else None, after, is_searched(store))
            for before, after in zip([None, *rounds], rounds, strict=False)
        ]
        for label in [*classes(store, rounds), ALL]
    }


def _score(label: str, before: Round | None, after: Round, searched: bool) -> Score:
    items = after.items.only(FINAL, label)
    return Score(
        number=after.number,
        items=len(items),
        alone=items.accuracy("alone"),
        amplified=items.accuracy("amplified"),
        ceiling=items.accuracy("ceiling"),
        found=items.accuracy("found") if searched else None,
        alone_if_found=items.if_found().accuracy("alone") if searched else None,
        change=None if before is None else difference(before.items.only(FINAL, label), items),
    )


def difference(before: Items, after: Items) -> Difference | None:
    """What `after` gets right alone that `before` did not, net; None where either has no items.

    Item by item where both answered the same ones. Otherwise the accuracies are taken as
    independent, with Newcombe's hybrid interval from their own two (1998, "Interval estimation for
    the difference between independent proportions", method 10).
    """
    one, two = before.accuracy("alone"), after.accuracy("alone")
    if one is None or two is None:
        return None
    if before.same_as(after):
        return _paired(before.alone.tobytes(), after.alone.tobytes(), after.clusters().tobytes())
    delta = two.estimate - one.estimate
    low = delta - np.hypot(two.estimate - two.low, one.high - one.estimate)
    high = delta + np.hypot(two.high - two.estimate, one.estimate - one.low)
    return Difference(delta, (float(low), float(high)), paired=False)


@functools.lru_cache(maxsize=4096)
def _paired(before: bytes, after: bytes, problem: bytes) -> Difference:
    """Cached: terminal and page show the same differences, and each resamples for some 50 ms."""
    comparison = compare(
        np.frombuffer(before, bool), np.frombuffer(after, bool), np.frombuffer(problem, np.intp)
    )
    return Difference(comparison.delta, comparison.interval, paired=True)


class Gain(NamedTuple):
    """What one round made of one class of `final`, against another; None if there is nothing."""

    label: str
    items: int
    before: Proportion | None  # the other round, alone
    alone: Proportion | None
    newly_right: int | None  # items
    newly_wrong: int | None
    amplified: Proportion | None
    ceiling: Proportion | None
    found: Proportion | None  # as in `Score`
    alone_if_found: Proportion | None


def gains(store: Store, before: Round | None, after: Round) -> list[Gain]:
    """By class, and ALL at the end. Has counts, for which no one need wait, and no intervals of
    the difference, for which each round's page would take a second."""
    labels, searched = [*classes(store, [after]), ALL], is_searched(store)
    return [_gain(label, before, after, searched) for label in labels]


def _gain(label: str, before: Round | None, after: Round, searched: bool) -> Gain:
    now = after.items.only(FINAL, label)
    was = None if before is None else before.items.only(FINAL, label)
    same = was is not None and was.same_as(now)
    return Gain(
        label=label,
        items=len(now),
        before=was.accuracy("alone") if was else None,
        alone=now.accuracy("alone"),
        newly_right=int(np.sum(now.alone & ~was.alone)) if was and same else None,
        newly_wrong=int(np.sum(was.alone & ~now.alone)) if was and same else None,
        amplified=now.accuracy("amplified"),
        ceiling=now.accuracy("ceiling"),
        found=now.accuracy("found") if searched else None,
        alone_if_found=now.if_found().accuracy("alone") if searched else None,
    )


class Across(NamedTuple):
    """One class in the best rounds of two experiments."""

    label: str
    one: Proportion | None
    two: Proportion | None
    change: Difference | None  # two minus one


def across(one: Store, two: Store) -> list[Across]:
    """The classes that both experiments have; ALL only if neither has others."""
    rounds = finished_rounds(one), finished_rounds(two)
    labels = classes(one, rounds[0]), classes(two, rounds[1])
    shared = [label for label in labels[0] if label in labels[1]]
    if set(labels[0]) == set(labels[1]):
        shared.append(ALL)
    tops = best(rounds[0]).items, best(rounds[1]).items
    return [_across(label, *(top.only(FINAL, label) for top in tops)) for label in shared]


def _across(label: str, one: Items, two: Items) -> Across:
    return Across(label, one.accuracy("alone"), two.accuracy("alone"), difference(one, two))
