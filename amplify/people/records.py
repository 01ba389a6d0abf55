"""Reads what an experiment's rounds recorded, for processes that never import jax.

These are record.json and evals.jsonl. `store` writes them, and checks them for whoever continues a
round; here they are only shown, so a round that has none yet is no error.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amplify.errors import AmplifyError, first_line
from amplify.evaluation.items import FINAL, Items
from amplify.evaluation.measures import Measure, gate_measure, in_order, recorded_measures
from amplify.evaluation.statistics import Proportion
from amplify.records.record import digest_of, read_record, round_folders


class Record(NamedTuple):
    """One round's record.json."""

    number: int
    folder: Path
    facts: Mapping[str, Any]

    @property
    def parent(self) -> int | None:
        """The round whose checkpoint it began from."""
        parent = self.facts.get("parent")
        return None if parent is None else int(parent["round"])

    @property
    def stages(self) -> Mapping[str, Any]:
        """What each stage that is done recorded."""
        return self.facts.get("stages", {})

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The gate's verdict; None if there is none yet."""
        return self.stages.get("verdict")

    @property
    def ledger(self) -> Mapping[str, Any]:
        """What the round counted."""
        return self.facts.get("ledger", {})

    @property
    def complete(self) -> bool:
        """Whether all stages are done."""
        return self.facts.get("status") == "done"

    @property
    def digest(self) -> str | None:
        """Digest of the assistant that it trained."""
        return digest_of(dict(self.facts))

    @property
    def judged(self) -> str:
        """Name of the measure that the gate compares."""
        return gate_measure(self.facts.get("experiment", {}))

    @property
    def means(self) -> Mapping[str, Proportion]:
        """Mean of each measure over held-out questions; empty before the round has evals.

        Raises:
            AmplifyError: they are damaged.
        """
        path = self.folder / "evals.jsonl"
        if "evals" not in self.stages or not path.exists():
            return {}
        return _means(path, path.stat().st_mtime_ns)


def read_records(experiment: Path) -> list[Record]:
    """Returns the records of all rounds that were started, in order.

    Raises:
        AmplifyError: one is damaged.
    """
    return [
        Record(number, folder, read_record(folder))
        for number, folder in round_folders(experiment).items()
        if (folder / "record.json").is_file()
    ]


def measures_of(records: Sequence[Record]) -> list[Measure]:
    """Returns the measures of the rounds, in the order in which the latest round declares them.

    Raises:
        AmplifyError: evals are damaged.
    """
    declared = [
        measure for record in reversed(records) for measure in recorded_measures(record.facts)
    ]
    found = [(name, mean) for record in records for name, mean in record.means.items()]
    large = {name for name, mean in found if not 0 <= mean.estimate <= 1}
    return [
        dataclasses.replace(measure, share=measure.share and measure.name not in large)
        for measure in in_order([name for name, _ in found], declared)
    ]


def descendants(records: Sequence[Record], number: int) -> list[int]:
    """Returns the rounds that descend from a round's checkpoint, in order."""
    found = {number}
    for record in sorted(records):  # a parent has a lower number
        if record.parent in found:
            found.add(record.number)
    return sorted(found - {number})


@functools.lru_cache(maxsize=1024)
def _means(path: Path, _written: int) -> Mapping[str, Proportion]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # text may have other line breaks
        items = Items.of([json.loads(line) for line in lines if line]).only(FINAL)
    except (OSError, ValueError, TypeError) as error:
        raise AmplifyError(f"{path}: damaged ({first_line(error)})") from None
    return items.means()
