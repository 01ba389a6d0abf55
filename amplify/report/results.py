"""What the rounds of an experiment measured, as numbers.

Every table, plot and page of this package starts here. Reads what a Store gives and counts it;
knows nothing of terminals, pictures or HTML, and no measure by its name: which there are is said by
the rounds, and which one matters by the gate.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.errors import AmplifyError
from amplify.evaluation.items import (
    ALL,
    FINAL,
    Difference,
    Items,
    both_measured,
    difference,
    is_share,
)
from amplify.evaluation.measures import (
    Measure,
    gate_measure,
    in_order,
    recorded_measures,
    undeclared,
)
from amplify.evaluation.statistics import Proportion, compare
from amplify.records.round_folder import RoundFolder, read_items
from amplify.report import costs
from amplify.store import Store

Means = Mapping[str, Proportion]
"""By the measure's name; measures without a value are absent."""


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
    """How one round did on one class of `final`."""

    number: int  # the round's
    items: int
    contexts: int  # that the items are about
    means: Means
    change: Difference | None  # of the gate's measure, to the finished round before


@dataclasses.dataclass(frozen=True)
class Results:
    """The finished rounds of an experiment, as they are reported."""

    store: Store
    rounds: Sequence[Round]  # ascending
    measures: Sequence[Measure]  # that some round has, in the order in which they are shown
    judged: Measure  # what the gate compares
    scores: Mapping[str, list[Score]]  # by class, easiest first, and ALL at the end; a round each

    @property
    def name(self) -> str:
        return self.store.name

    @property
    def best(self) -> Round:
        return best(self.rounds)

    @property
    def others(self) -> list[Measure]:
        """The measures that the gate does not compare."""
        return [measure for measure in self.measures if measure.name != self.judged.name]


def read_results(store: Store, *, changes: bool = True) -> Results:
    """Of an experiment's finished rounds. Without `changes`, which take longer, each is None.

    Raises AmplifyError if no round is finished.
    """
    rounds = finished_rounds(store)
    judged = gate_measure(store.experiment.values)
    measures = measures_in(store, rounds)
    scores = {
        label: [
            _score(label, judged, before if changes else None, after)
            for before, after in zip([None, *rounds], rounds, strict=False)
        ]
        for label in [*classes(store, rounds), ALL]
    }
    return Results(
        store, rounds, measures, _named(judged, [*measures, *store.experiment.measures]), scores
    )


def measures_in(store: Store, rounds: Sequence[Round]) -> list[Measure]:
    """What the rounds measured, in the order of declarations: those of the experiment as it is,
    then those that rounds recorded. Measures that nobody declared come last.
    """
    told = [one for round_ in rounds for one in recorded_measures(round_.folder.record)]
    names = [name for round_ in rounds for name in round_.items.measures]
    columns = {
        name: np.concatenate([round_.items.column(name) for round_ in rounds]) for name in names
    }
    return [
        dataclasses.replace(measure, share=measure.share and is_share(columns[measure.name]))
        for measure in in_order(names, [*store.experiment.measures, *told])
    ]


def measures_of_round(store: Store, this: Round) -> tuple[Measure, list[Measure]]:
    """What the gate compares, and all that a round measured: the former first, if it did."""
    found = measures_in(store, [this])
    name = gate_measure(store.experiment.values)
    judged = _named(name, [*found, *store.experiment.measures])
    return judged, [*(m for m in found if m == judged), *(m for m in found if m != judged)]


def _named(name: str, measures: Sequence[Measure]) -> Measure:
    return next((measure for measure in measures if measure.name == name), undeclared(name))


def _score(label: str, judged: str, before: Round | None, after: Round) -> Score:
    items = after.items.only(FINAL, label)
    was = None if before is None else before.items.only(FINAL, label)
    return Score(
        number=after.number,
        items=len(items),
        contexts=items.contexts,
        means=items.means(),
        change=None if was is None else difference(was, items, judged),
    )


def results(store: Store) -> list[dict[str, Any]]:
    """Means by round, split and class, in this order, for programs: a key for each measure that a
    round has, None where a class has no items; `interval` is of what the gate compares, and `calls`
    says whom the round asked how often: `{stage: {purpose: {part: number}}}`.

    Raises AmplifyError if no round is finished.
    """
    rounds = finished_rounds(store)
    judged = gate_measure(store.experiment.values)
    ordered = [measure.name for measure in measures_in(store, rounds)]
    return [
        {
            "experiment": store.name,
            "round": round_.number,
            "split": split,
            "class": label,
            **{
                name: _estimate(found.get(name))
                for name in ordered
                if name in round_.items.measures
            },
            "n": len(items),
            "contexts": items.contexts,
            "interval": _interval(found.get(judged)),
            "calls": costs.nested(round_.folder.record),
        }
        for round_ in rounds
        for split in dict.fromkeys(round_.items.split.tolist())
        for label in classes(store, rounds)
        for items in [round_.items.only(split, label)]
        for found in [items.means()]
    ]


def _estimate(mean: Proportion | None) -> float | None:
    return None if mean is None else mean.estimate


def _interval(mean: Proportion | None) -> list[float] | None:
    """As JSON has it."""
    return None if mean is None or mean.interval is None else list(mean.interval)


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
    return Round(folder, read_items(folder))


def half_done(store: Store) -> list[str]:
    """A line for each round that was begun and not finished."""
    folders = [store.round(number) for number in store.rounds()]
    return [
        f"round {folder.number} is half done"
        f" ({', '.join(folder.record['stages']) or 'nothing'} so far);"
        f" to go on: amplify round {store.path} --n {folder.number}"
        for folder in folders
        if not folder.complete
    ]


def best(rounds: Sequence[Round]) -> Round:
    """The last promoted round; the first there is (the untrained assistant) if none was."""
    return ([round_ for round_ in rounds if round_.promoted] or rounds[:1])[-1]


def classes(store: Store, rounds: Sequence[Round]) -> list[str]:
    """The task's classes, easiest first, and whatever else the evals name."""
    named = [label for round_ in rounds for label in np.unique(round_.items.label).tolist()]
    return list(dict.fromkeys([*store.experiment.task.classes, *named]))


class Gain(NamedTuple):
    """What one round made of one class of `final`, against another; None if there is nothing."""

    label: str
    items: int
    before: Proportion | None  # the gate's measure, in the other round
    means: Means  # in this one
    better: int | None  # items that did better than in the other round, by the gate's measure
    worse: int | None


def gains(store: Store, before: Round | None, after: Round) -> list[Gain]:
    """By class, and ALL at the end. Has counts, for which no one need wait, and no intervals of
    the difference, for which each round's page would take a second."""
    judged = gate_measure(store.experiment.values)
    return [_gain(label, judged, before, after) for label in [*classes(store, [after]), ALL]]


def _gain(label: str, judged: str, before: Round | None, after: Round) -> Gain:
    now = after.items.only(FINAL, label)
    was = None if before is None else before.items.only(FINAL, label)
    pairs = None if was is None else both_measured(was, now, judged)
    changed = None
    if pairs is not None:
        one, two = pairs
        columns = one.column(judged), two.column(judged)
        changed = compare(*columns, two.clusters, two.question)
    return Gain(
        label=label,
        items=len(now),
        before=was.mean(judged) if was else None,
        means=now.means(),
        better=None if changed is None else changed.wins,
        worse=None if changed is None else changed.losses,
    )


class Across(NamedTuple):
    """One class in the best rounds of two experiments."""

    label: str
    one: Proportion | None
    two: Proportion | None
    change: Difference | None  # two minus one


def across(one: Results, two: Results) -> list[Across]:
    """What the first experiment's gate compares, in the best rounds of both: the classes that both
    have, and ALL only if neither has others.
    """
    labels = [[label for label in found.scores if label != ALL] for found in (one, two)]
    shared = [label for label in labels[0] if label in labels[1]]
    if set(labels[0]) == set(labels[1]):
        shared.append(ALL)
    tops = one.best.items, two.best.items
    return [
        _across(label, one.judged.name, *(top.only(FINAL, label) for top in tops))
        for label in shared
    ]


def _across(label: str, judged: str, one: Items, two: Items) -> Across:
    return Across(label, one.mean(judged), two.mean(judged), difference(one, two, judged))
