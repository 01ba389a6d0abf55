"""What the rounds of an experiment wrote down of themselves, for processes that never import jax.

Reads record.json and evals.jsonl; `store` writes them, and checks them for those who go on with a
round. Here they are shown, so a round that has none yet is no error.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amplify.errors import AmplifyError, first_line
from amplify.statistics import Proportion, accuracy

FINAL = "final"
"""The split of evals that is reported; it decides nothing."""


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
        return self.facts.get("stages", {})

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        return self.stages.get("verdict")

    @property
    def ledger(self) -> Mapping[str, Any]:
        return self.facts.get("ledger", {})

    @property
    def complete(self) -> bool:
        return self.facts.get("status") == "done"

    @property
    def digest(self) -> str | None:
        """Of its checkpoint."""
        return self.stages.get("checkpoint", {}).get("digest")

    def accuracy(self, by: str = "alone") -> Proportion | None:
        """Of held-out questions; None before the round has evals.

        Raises AmplifyError if they are damaged.
        """
        if "evals" not in self.stages:
            return None
        path = self.folder / "evals.jsonl"
        return _accuracy(path, by, path.stat().st_mtime_ns) if path.exists() else None


def read_records(experiment: Path) -> list[Record]:
    """Of the rounds that were begun, ascending. Raises AmplifyError if one is damaged."""
    folders = {
        int(entry.name): entry
        for entry in experiment.iterdir()
        if re.fullmatch(r"\d{3,}", entry.name) and (entry / "record.json").is_file()
    }
    return [Record(number, folders[number], _facts(folders[number])) for number in sorted(folders)]


def descendants(records: Sequence[Record], number: int) -> list[int]:
    """Rounds that began from a round's checkpoint, or from that of one that did; ascending."""
    found = {number}
    for record in sorted(records):  # a parent has a lower number
        if record.parent in found:
            found.add(record.number)
    return sorted(found - {number})


def _facts(folder: Path) -> Mapping[str, Any]:
    path = folder / "record.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError("not a table")
        return facts
    except (OSError, ValueError) as error:
        raise AmplifyError(f"{path}: damaged record ({first_line(error)})") from None


@functools.lru_cache(maxsize=1024)
def _accuracy(path: Path, by: str, _written: int) -> Proportion | None:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # text may have other line breaks
        rows = [row for row in map(json.loads, filter(None, lines)) if row["split"] == FINAL]
        right = np.array([row[by] for row in rows], dtype=bool)
        contexts = np.array([row.get("context", row["problem"]) for row in rows], dtype=np.str_)
        # A row that does not say its question is an item of its own.
        questions = np.array([row.get("question", n) for n, row in enumerate(rows)], dtype=np.str_)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AmplifyError(f"{path}: damaged ({first_line(error)})") from None
    if not rows:
        return None
    return accuracy(right, contexts, questions)
