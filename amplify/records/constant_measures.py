"""Measures that no round can change, copied from the round that took them.

What an overseer that learns nothing makes of true sub-answers is the same in every round: the
questions are the same, and neither the assistant nor anything else that training changes has a part
in it. Asking again would cost a server's or a model's time, and tell nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.errors import AmplifyError
from amplify.evaluation.judging import OVERSEEN
from amplify.evaluation.measuring import Item
from amplify.experiment.sections import IDENTITY, Experiment
from amplify.records.provenance import made_by
from amplify.records.round_folder import RoundFolder, read_evals
from amplify.runtime import processes

SOURCES = "measured_in"
"""In the record of evals: the round in which each constant measure was taken."""
NONE = -1
SAME_CODE = ("commit", "versions", "python", "device")
"""What must be the same of two processes for one to take over the other's measures."""


class Known(NamedTuple):
    """Constant measures that an earlier round has."""

    names: tuple[str, ...] = ()
    round: int = 0  # that took them
    rows: Sequence[Mapping[str, Any]] = ()  # of its evals
    order: tuple[str, ...] = ()  # of all measures

    def fill_in(self, items: Sequence[Item]) -> list[Item]:
        """Items of the same questions with these measures.

        Args:
            items: of this round, in the order that every round has.

        Raises:
            AmplifyError: if the earlier round was about other questions.
        """
        if not self.names:
            return list(items)
        if [_question(item.as_row()) for item in items] != [_question(row) for row in self.rows]:
            raise AmplifyError(
                f"evals of round {self.round} are not about the questions of this round:"
                " do them again with --redo evals"
            )
        return [
            dataclasses.replace(item, measures=self._in_order(item, row))
            for item, row in zip(items, self.rows, strict=True)
        ]

    def _in_order(self, item: Item, row: Mapping[str, Any]) -> dict[str, bool | float]:
        found = {**item.measures, **{name: row[name] for name in self.names if name in row}}
        return {name: found[name] for name in self.order if name in found}


def find(experiment: Experiment, this: RoundFolder) -> Known:
    """The constant measures that an earlier round took, of the same experiment with the same code.

    Nothing is known where code may have been edited in between: the check-out is not clean.

    Raises:
        AmplifyError: if that round's evals are damaged.
    """
    number = _source(experiment, this)
    if number is None:
        return Known()
    rows = read_evals(_round(this, number))
    order = tuple(measure.name for measure in experiment.measures)
    return Known(tuple(constant_names(experiment)), number, rows, order)


def _source(experiment: Experiment, this: RoundFolder) -> int | None:
    """The first round whose measures can be taken over. Of several processes the first decides."""
    now = made_by()
    fitting = [] if now["dirty"] else range(this.number)
    found = [n for n in fitting if _fits(experiment, _round(this, n).record, n, now)]
    [number] = processes.gather(np.array([*found, NONE][:1]))[0].tolist()
    return None if number == NONE else number


def _fits(
    experiment: Experiment, record: Mapping[str, Any], number: int, now: Mapping[str, Any]
) -> bool:
    """Whether a round of the same experiment took the measures itself, with the same code."""
    entry, names = record.get("stages", {}).get("evals", {}), constant_names(experiment)
    return (
        bool(names)
        and record.get("experiment_digest") == experiment.digest
        and record.get("identity") == IDENTITY
        and entry.get(SOURCES) == dict.fromkeys(names, number)
        and not entry.get("dirty")
        and all(entry.get(key) == now[key] for key in SAME_CODE)
    )


def _round(this: RoundFolder, number: int) -> RoundFolder:
    return RoundFolder(this.path.parent / f"{number:03d}", number)


def constant_names(experiment: Experiment) -> list[str]:
    """Names of the constant measures for which the overseer is asked."""
    return [one.name for one in experiment.measures if one.constant and one.name in OVERSEEN]


def sources(
    experiment: Experiment, this: RoundFolder, known: Known, failed: int
) -> dict[str, dict[str, int]]:
    """What the record of evals says of where constant measures come from.

    Args:
        known: what was copied.
        failed: questions to which the overseer gave no answer while these measures were taken.
            Then nothing is said, and the next round asks again.
    """
    names = constant_names(experiment)
    if not names or failed:
        return {}
    return {SOURCES: dict.fromkeys(names, known.round if known.names else this.number)}


def _question(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["split"], row["problem"], row["question"]
