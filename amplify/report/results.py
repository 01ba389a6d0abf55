"""Computes the results of an experiment's rounds, as numbers.

All tables, figures and pages start here. This module reads a `Store`; it knows nothing about
terminals, figures or HTML, and no measure by name: the records of rounds declare the measures, and
the gate names the one that it compares.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.errors import AmplifyError, round_command
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
"""Means by name of the measure; measures without a value are absent."""


@dataclasses.dataclass(frozen=True)
class Round:
    """A finished round with its evals."""

    folder: RoundFolder
    items: Items

    @property
    def number(self) -> int:
        return self.folder.number

    @property
    def promoted(self) -> bool:
        """Whether the gate promoted the round."""
        return (self.folder.verdict or {}).get("verdict") == "promoted"


class Score(NamedTuple):
    """Results of one round for one class of questions of the final split."""

    number: int  # the round's
    items: int
    contexts: int  # distinct contexts among them
    means: Means
    change: Difference | None  # of the gate's measure, from the previous finished round


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of an experiment's finished rounds."""

    store: Store
    rounds: Sequence[Round]  # ascending
    measures: Sequence[Measure]  # of any round, in the order of display
    judged: Measure  # the gate's
    scores: Mapping[str, list[Score]]  # by class, easiest first, then ALL; one per round

    @property
    def name(self) -> str:
        return self.store.name

    @property
    def best(self) -> Round:
        """The last promoted round; the untrained assistant if there is none."""
        return best(self.rounds)

    @property
    def others(self) -> list[Measure]:
        """The measures that the gate does not compare."""
        return [measure for measure in self.measures if measure.name != self.judged.name]


def read_results(store: Store, *, changes: bool = True) -> Results:
    """Reads the results of an experiment's finished rounds.

    Args:
        store: the experiment.
        changes: whether to compute changes between rounds, which takes longer; otherwise None.

    Raises:
        AmplifyError: no round is finished, or the evals of one are damaged.
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
    """Returns the measures that rounds have, in the order of their declarations.

    The experiment's declarations come first, then those in the rounds' records. Measures without a
    declaration are last.

    Args:
        store: the experiment.
        rounds: finished ones.
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
    """Returns the gate's measure, and all measures of a round, the gate's first if it has it.

    Args:
        store: the experiment.
        this: the round.
    """
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
    """Returns means by round, split and class, then over ALL, in this order, for JSON.

    Args:
        store: the experiment.

    Returns:
        Rows with a key for each measure of the round, None if the class has no items. "interval" is
        of the gate's measure, "intervals" of every measure by its name. The same in all rows of a
        round: "verdict" ("promoted", "rejected", "inconclusive"; None for round 0), "reason" and
        the round "against" which it was judged; "cost", the round's ledger; and "calls",
        `{stage: {purpose: {part: number}}}`.

    Raises:
        AmplifyError: no round is finished.
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
            "intervals": {
                name: _interval(found.get(name))
                for name in ordered
                if name in round_.items.measures
            },
            **_verdict(round_),
            "cost": round_.folder.record["ledger"],
            "calls": costs.nested(round_.folder.record),
        }
        for round_ in rounds
        for split in dict.fromkeys(round_.items.split.tolist())
        for label in [*classes(store, rounds), ALL]
        for items in [round_.items.only(split, label)]
        for found in [items.means()]
    ]


def _verdict(round_: Round) -> dict[str, Any]:
    verdict = round_.folder.verdict or {}
    return {name: verdict.get(name) for name in ("verdict", "reason", "against")}


def _estimate(mean: Proportion | None) -> float | None:
    return None if mean is None else mean.estimate


def _interval(mean: Proportion | None) -> list[float] | None:
    return None if mean is None or mean.interval is None else list(mean.interval)


def finished_rounds(store: Store) -> list[Round]:
    """Reads all finished rounds with their evals, ascending.

    Args:
        store: the experiment.

    Raises:
        AmplifyError: no round is finished, or the evals of one are damaged.
    """
    folders = [store.round(number) for number in store.rounds()]
    rounds = [read_round(folder) for folder in folders if folder.complete]
    if not rounds:
        raise AmplifyError(
            f"{store.path}: no finished round yet; run: {round_command(store.path, 1)}"
        )
    return rounds


def read_round(folder: RoundFolder) -> Round:
    """Reads a round whose evals are done.

    Args:
        folder: the round's.

    Raises:
        AmplifyError: the evals are not what was written.
    """
    return Round(folder, read_items(folder))


def unfinished_rounds(store: Store) -> list[str]:
    """Returns a message for each unfinished round, with the command that resumes it."""
    folders = [store.round(number) for number in store.rounds()]
    return [
        f"round {folder.number} is half done"
        f" ({', '.join(folder.record['stages']) or 'nothing'} so far);"
        f" to go on: {round_command(store.path, folder.number)}"
        for folder in folders
        if not folder.complete
    ]


def best(rounds: Sequence[Round]) -> Round:
    """Returns the last promoted round; if there is none, the first (the untrained assistant)."""
    return ([round_ for round_ in rounds if round_.promoted] or rounds[:1])[-1]


def classes(store: Store, rounds: Sequence[Round]) -> list[str]:
    """Returns the task's classes, easiest first, then others that occur in evals."""
    named = [label for round_ in rounds for label in np.unique(round_.items.label).tolist()]
    return list(dict.fromkeys([*store.experiment.task.classes, *named]))


class Gain(NamedTuple):
    """One round compared with another, for one class of the final split."""

    label: str
    items: int
    before: Proportion | None  # the gate's measure in the other round; None: no value
    means: Means  # in this round
    better: int | None  # items with a higher value of the gate's measure; None: unknown
    worse: int | None  # items with a lower value


def gains(store: Store, before: Round | None, after: Round) -> list[Gain]:
    """Compares a round with another by class, then over ALL.

    It counts items and computes no intervals of differences, which would take a second per page.

    Args:
        store: the experiment.
        before: the other round; None: there is none.
        after: the round.
    """
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
    """Two experiments, or groups of them, compared for one class."""

    label: str
    one: Proportion | None
    two: Proportion | None
    change: Difference | None  # two minus one
