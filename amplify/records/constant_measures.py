"""Copies measures that cannot change from round to round, instead of taking them again.

With true sub-answers, the accuracy of an overseer that learns nothing is the same in every round:
neither the questions nor anything else it depends on changes. Copying it saves calls to a server or
a language model.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.errors import AmplifyError
from amplify.evaluation.measuring import Item
from amplify.evaluation.scoring import overseer_measures
from amplify.experiment.sections import IDENTITY, Experiment
from amplify.records.provenance import made_by
from amplify.records.round_folder import RoundFolder, read_evals
from amplify.runtime import processes

SOURCES = "measured_in"
"""Key in the record of evals: the round in which each constant measure was taken."""
NONE = -1
SAME_CODE = ("commit", "versions", "python", "device")
"""Facts of a process that must be equal before its measures are copied."""


class CopiedMeasures(NamedTuple):
    """Constant measures of an earlier round."""

    names: tuple[str, ...] = ()
    round: int = 0  # the round that took them
    rows: Sequence[Mapping[str, Any]] = ()  # its evals
    order: tuple[str, ...] = ()  # names of all measures, in order

    def fill_in(self, items: Sequence[Item]) -> list[Item]:
        """Adds the copied measures to this round's items.

        Args:
            items: in the order that all rounds have.

        Raises:
            AmplifyError: if the earlier round has items for other questions.
        """
        if not self.names:
            return list(items)
        if [_question(item.as_row()) for item in items] != [_question(row) for row in self.rows]:
            raise AmplifyError(
                f"evals of round {self.round} have other questions than this round:"
                " redo them with --redo evals"
            )
        return [
            dataclasses.replace(item, measures=self._in_order(item, row))
            for item, row in zip(items, self.rows, strict=True)
        ]

    def _in_order(self, item: Item, row: Mapping[str, Any]) -> dict[str, bool | float]:
        found = {**item.measures, **{name: row[name] for name in self.names if name in row}}
        return {name: found[name] for name in self.order if name in found}


def find(experiment: Experiment, this: RoundFolder) -> CopiedMeasures:
    """Finds an earlier round of the same experiment, run by the same code, with constant measures.

    Args:
        experiment: the experiment.
        this: the round in progress.

    Returns:
        The measures to copy; none if there is no such round or the code has uncommitted changes.

    Raises:
        AmplifyError: if the earlier round's evals are damaged.
    """
    number = _source(experiment, this)
    if number is None:
        return CopiedMeasures()
    rows = read_evals(_round(this, number))
    order = tuple(measure.name for measure in experiment.measures)
    return CopiedMeasures(tuple(constant_names(experiment)), number, rows, order)


def _source(experiment: Experiment, this: RoundFolder) -> int | None:
    """The first round to copy from. Of several processes the first decides."""
    now = made_by()
    fitting = [] if now["dirty"] else range(this.number)
    found = [n for n in fitting if _is_compatible(experiment, _round(this, n).record, n, now)]
    [number] = processes.gather(np.array([*found, NONE][:1]))[0].tolist()
    return None if number == NONE else number


def _is_compatible(
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
    """Returns the names of the constant measures that take calls to the overseer."""
    asked = overseer_measures(experiment.task, experiment.overseer)
    return [one.name for one in experiment.measures if one.constant and one.name in asked]


def sources(
    experiment: Experiment, this: RoundFolder, copied: CopiedMeasures, failed: int
) -> dict[str, dict[str, int]]:
    """Returns where this round's constant measures come from, for the record of evals.

    Args:
        experiment: the experiment.
        this: the round in progress.
        copied: the measures that were copied.
        failed: number of questions without an answer of the overseer. If it is not 0, nothing is
            recorded and the next round takes the measures again.
    """
    names = constant_names(experiment)
    if not names or failed:
        return {}
    return {SOURCES: dict.fromkeys(names, copied.round if copied.names else this.number)}


def _question(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["split"], row["problem"], row["question"]
