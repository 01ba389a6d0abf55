"""Eval items added up: accuracy by round, split and class, with intervals and paired changes."""

import dataclasses
from typing import Any

import numpy as np

from amplify.comparison import Comparison, Proportion, compare, proportion_interval
from amplify.errors import AmplifyError
from amplify.store import RoundFolder, Store, read_evals

SPLITS = ("select", "final")
Items = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Score:
    """How one round does on one class of one split; accuracies are fractions."""

    experiment: str
    round: int
    split: str
    label: str  # the class
    n: int  # items
    alone: Proportion
    amplified: Proportion
    ceiling: Proportion
    change: Comparison | None  # alone, against the round before, item by item


def results(store: Store) -> list[dict[str, Any]]:
    """`{"experiment", "round", "split", "class", "alone", "amplified", "ceiling", "n"}`, by round,
    split and class.
    """
    rows = []
    for round_ in judged_rounds(store):
        items = read_evals(round_)
        for split in SPLITS:
            for label in store.experiment.task.classes:
                here = _of_class(_of_split(items, split), label)
                if here:
                    means = {
                        by: float(np.mean(_right(here, by)))
                        for by in ("alone", "amplified", "ceiling")
                    }
                    rows.append(
                        {
                            "experiment": store.name,
                            "round": round_.number,
                            "split": split,
                            "class": label,
                        }
                        | means
                        | {"n": len(here)}
                    )
    return rows


def scores(store: Store, split: str) -> list[Score]:
    """Every round's scores on a split, with intervals, by class and then by round."""
    by_round = {
        round_.number: _of_split(read_evals(round_), split) for round_ in judged_rounds(store)
    }
    return [
        _score(store.name, number, split, label, _of_class(items, label), by_round.get(number - 1))
        for label in store.experiment.task.classes
        for number, items in by_round.items()
        if _of_class(items, label)
    ]


def _score(
    name: str, number: int, split: str, label: str, items: Items, before: Items | None
) -> Score:
    problem = problems_of(items)
    return Score(
        experiment=name,
        round=number,
        split=split,
        label=label,
        n=len(items),
        **{
            by: proportion_interval(_right(items, by), problem)
            for by in ("alone", "amplified", "ceiling")
        },
        change=None if before is None else paired(_of_class(before, label), items),
    )


def paired(before: Items, after: Items) -> Comparison | None:
    """The paired difference, alone; None unless both answered the same items."""
    if not after or [_identity(item) for item in before] != [_identity(item) for item in after]:
        return None
    return compare(_right(before, "alone"), _right(after, "alone"), problems_of(after))


def latest_against(ours: Store, theirs: Store, split: str) -> Comparison | None:
    """The best round of `theirs` against the best of `ours`, paired; None if they did not answer
    the same items.
    """
    items = []
    for store in (ours, theirs):
        last = judged_rounds(store)[-1].number
        items.append(_of_split(read_evals(store.best_before(last + 1)), split))
    return paired(*items)


def judged_rounds(store: Store) -> list[RoundFolder]:
    """The rounds that have evals, ascending. Raises AmplifyError if there is none."""
    rounds = [store.round(number) for number in store.rounds()]
    judged = [round_ for round_ in rounds if round_.done("evals")]
    if not judged:
        raise AmplifyError(
            f"{store.path}: no round has been evaluated yet; amplify round {store.path} --n 1"
        )
    return judged


def problems_of(items: Items) -> Any:
    """Which problem each item belongs to, as integers."""
    return np.unique([item["problem"] for item in items], return_inverse=True)[1]


def _right(items: Items, by: str) -> Any:
    return np.array([item[by] for item in items], bool)


def _of_split(items: Items, split: str) -> Items:
    return [item for item in items if item["split"] == split]


def _of_class(items: Items, label: str) -> Items:
    return [item for item in items if item["class"] == label]


def _identity(item: dict[str, Any]) -> tuple[str, str]:
    return item["problem"], item["question"]
