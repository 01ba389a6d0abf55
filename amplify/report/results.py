"""What the rounds of an experiment got right, as numbers.

Every table, plot and page of this package starts here. Reads what a Store gives and counts it;
knows nothing of terminals, pictures or HTML.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from amplify.errors import AmplifyError
from amplify.statistics import Proportion, accuracy, compare, unpaired_difference
from amplify.store import STAGES, RoundFolder, Store, read_evals
from amplify.types import SearchedTask

FINAL = "final"
"""The split that is reported: it decides nothing, so that choosing rounds cannot flatter it."""

ALL = "all classes"

MEASURES = ("alone", "amplified", "ceiling")


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
    alone: Bool[np.ndarray, " rows"]  # True: right
    amplified: Bool[np.ndarray, " rows"]
    ceiling: Bool[np.ndarray, " rows"]
    found: Bool[np.ndarray, " rows"]  # what the answer rests on was there to be read

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> "Items":
        """The rows of an evals.jsonl. Raises KeyError naming what a row lacks."""

        def text(key: str) -> Shaped[np.ndarray, " rows"]:
            return np.array([row[key] for row in rows], dtype=np.str_)

        contexts = np.array([row.get("context", "") for row in rows], dtype=np.str_)
        right = {by: np.array([row[by] for row in rows], dtype=bool) for by in MEASURES}
        right["found"] = np.array([row.get("found", True) for row in rows], dtype=bool)
        return cls(
            text("split"), text("class"), text("problem"), contexts, text("question"), **right
        )

    def __len__(self) -> int:
        """Number of different questions about different contexts."""
        return len(np.unique(np.stack([self.clusters, self.question]), axis=1).T)

    def only(self, split: str, label: str = ALL) -> "Items":
        """The items of one split, and of one class unless it is ALL."""
        return self._where((self.split == split) & ((self.label == label) | (label == ALL)))

    def if_found(self) -> "Items":
        """Those items whose passages a search found; all where nothing is searched."""
        return self._where(self.found)

    def _where(self, where: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"]) -> "Items":
        return Items(*(getattr(self, field.name)[where] for field in dataclasses.fields(self)))

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

    def accuracy(self, by: str) -> Proportion | None:
        """The share answered rightly, with its 95% interval; None where there are no items."""
        if not len(self.label):
            return None
        return accuracy(getattr(self, by), self.clusters, self.question)


def in_pairs(before: Items, after: Items) -> tuple[Items, Items] | None:
    """Both in the same order, row by row the same question about the same context; None if they
    are not about the same ones, each drawn as often.
    """
    if not (np.all(before.context != "") and np.all(after.context != "")):
        before, after = (  # at least one is from before there were digests
            dataclasses.replace(items, context=items.problem) for items in (before, after)
        )
    ordered = [
        items._where(np.lexsort([items.question, items.context])) for items in (before, after)
    ]
    one, two = ordered
    same = np.array_equal(one.context, two.context) and np.array_equal(one.question, two.question)
    return (one, two) if same else None


class Difference(NamedTuple):
    """Accuracy after minus before, as fractions."""

    delta: float
    interval: tuple[float, float] | None  # 95%; None: too few contexts to tell
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
    contexts: int = 0  # that the items are about


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
            **{by: _share(items, by) for by in MEASURES},
            "n": len(items),
            "contexts": items.contexts,
            "interval": _interval(items.accuracy("alone")),
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
    return {
        "found": _share(items, "found"),
        "alone_if_found": _share(items.if_found(), "alone"),
    }


def _share(items: Items, by: str) -> float | None:
    found = items.accuracy(by)
    return None if found is None else found.estimate


def _interval(accuracy: Proportion | None) -> list[float] | None:
    """As JSON has it."""
    return None if accuracy is None or accuracy.interval is None else list(accuracy.interval)


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
        contexts=items.contexts,
    )


def difference(before: Items, after: Items) -> Difference | None:
    """What `after` gets right alone that `before` did not, net; None where either has no items.

    Item by item where both answered the same ones; otherwise the accuracies are taken as
    independent.
    """
    one, two = before.accuracy("alone"), after.accuracy("alone")
    if one is None or two is None:
        return None
    if (pairs := in_pairs(before, after)) is not None:
        was, now = pairs
        found = compare(was.alone, now.alone, now.clusters, now.question)
        return Difference(found.delta, found.interval, paired=True)
    interval = unpaired_difference(one, two)
    return Difference(two.estimate - one.estimate, interval, paired=False)


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
    pairs = None if was is None or not len(now) else in_pairs(was, now)
    changed = (
        None
        if pairs is None
        else compare(pairs[0].alone, pairs[1].alone, pairs[1].clusters, pairs[1].question)
    )
    return Gain(
        label=label,
        items=len(now),
        before=was.accuracy("alone") if was else None,
        alone=now.accuracy("alone"),
        newly_right=None if changed is None else changed.wins,
        newly_wrong=None if changed is None else changed.losses,
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
