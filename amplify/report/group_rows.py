"""Comparisons of several experiments as rows, for JSON and data frames."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from amplify.evaluation.items import FINAL, SELECT, Difference, Items
from amplify.report.groups import Group, differences, equal_rounds, groups_of, judged_measure, score
from amplify.report.results import Score, read_results, results
from amplify.store import Store


def compared(stores: Sequence[Store]) -> list[dict[str, Any]]:
    """Returns the results of several experiments, for JSON.

    Args:
        stores: the experiments.

    Returns:
        Rows as from `results`, then means over seeds (with "seeds"), then differences between
        groups (with "minus").

    Raises:
        AmplifyError: an experiment has no finished round.
    """
    rows = [row for store in stores for row in results(store)]
    if len(stores) == 1:
        return rows
    groups = read_groups(stores)
    return [*rows, *group_rows(groups), *difference_rows(groups)]


def read_groups(stores: Sequence[Store]) -> list[Group]:
    """Reads the results of experiments, without changes between rounds, and groups them.

    Args:
        stores: the experiments.

    Raises:
        AmplifyError: an experiment has no finished round.
    """
    return groups_of([read_results(store, changes=False) for store in stores])


def group_rows(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Yields the means over seeds by group, round, split and class.

    "round" is a number, or "best" for the best round of each seed.

    Args:
        groups: those with a single seed are left out, since they are in `results`.
    """
    for group in groups:
        if len(group.members) == 1:
            continue
        rounds = [{one.number: one.items for one in found.rounds} for found in group.members]
        chosen: list[tuple[int | str, list[Items]]] = [
            *((number, [of[number] for of in rounds]) for number in group.numbers),
            ("best", [found.best.items for found in group.members]),
        ]
        for number, items in chosen:
            for split, label in itertools.product((SELECT, FINAL), group.scores):
                about = {"round": number, "split": split, "class": label}
                yield {**_names(group), **about, **_means(score(0, items, split, label))}


def _names(group: Group) -> dict[str, Any]:
    return {
        "experiment": group.name,
        "experiments": [member.name for member in group.members],
        "seeds": group.seeds,
    }


def _means(found: Score) -> dict[str, Any]:
    means = found.means.items()
    return {
        **{name: one.estimate for name, one in means},
        "n": found.items,
        "contexts": found.contexts,
        "intervals": {
            name: None if one.interval is None else list(one.interval) for name, one in means
        },
    }


def difference_rows(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Yields the differences of all groups to the first one, by round and class.

    "round" is a number, or "best" for the best round of each seed.

    Args:
        groups: the first one is subtracted from each other one.
    """
    first = groups[0]
    for other in groups[1:]:
        for number in (*equal_rounds(first, other), None):
            for row in differences(first, other, number):
                yield {
                    "experiment": other.name,
                    "minus": first.name,
                    "round": "best" if number is None else number,
                    "split": FINAL,
                    "class": row.label,
                    "measure": judged_measure(groups).name,
                    **_change(row.change),
                }


def _change(change: Difference | None) -> dict[str, Any]:
    if change is None:
        return {"difference": None, "interval": None, "paired": None}
    interval = None if change.interval is None else list(change.interval)
    return {"difference": change.delta, "interval": interval, "paired": change.paired}
