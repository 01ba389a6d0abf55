"""Counts the calls and times of rounds as lines of a table: by stage, purpose and part.

Stages whose phases differ only in a number, such as `audit_20` and `audit_40`, are added up.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from amplify.evaluation import figures
from amplify.runtime import calls
from amplify.runtime.calls import Call

EXTRA = ("reused", "tokens")
"""Other counts of a part's calls."""


class Line(NamedTuple):
    """The calls of one part in one stage, by round."""

    group: str  # stage, and purpose unless the stage implies it
    label: str  # part, and what is counted if not calls
    numbers: dict[int, int]  # by round; rounds without such calls are absent

    @property
    def total(self) -> int:
        """Sum over rounds."""
        return sum(self.numbers.values())


def groups(records: Mapping[int, Mapping[str, Any]]) -> dict[str, list[Line]]:
    """Returns the calls of rounds by group, in the order of the latest round's stages.

    Args:
        records: of the rounds, by number, ascending; of any version.
    """
    found: dict[str, dict[str, Line]] = {}
    for number, record in reversed([*records.items()]):
        for call in calls.of_record(record):
            group = _group(call)
            for label, counted in _counts(call):
                parts = found.setdefault(group, {})
                line = parts.setdefault(label, Line(group, label, {}))
                line.numbers[number] = line.numbers.get(number, 0) + counted
    return {group: list(parts.values()) for group, parts in found.items()}


def nested(record: Mapping[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """Returns the calls of one round as `{stage: {purpose: {part: number}}}`, for JSON."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for call in calls.of_record(record):
        parts = found.setdefault(call.stage, {}).setdefault(call.purpose, {})
        for label, counted in _counts(call):
            parts[label] = parts.get(label, 0) + counted
    return found


class Times(NamedTuple):
    """How long stages took."""

    stages: int
    seconds: float
    compile_seconds: float


def times(record: Mapping[str, Any]) -> dict[str, Times]:
    """Returns the times of a round's stages, by name, in order.

    Args:
        record: of the round.
    """
    found: dict[str, Times] = {}
    for stage, entry in record["stages"].items():
        before = found.get(_unnumbered(stage), Times(0, 0.0, 0.0))
        found[_unnumbered(stage)] = Times(
            before.stages + 1,
            before.seconds + entry["seconds"],
            before.compile_seconds + entry["compile_seconds"],
        )
    return found


def _unnumbered(stage: str) -> str:
    return re.sub(r"_\d+(?=/)", "", stage)


def shown(number: int | None) -> str:
    """Formats a count; None is shown as missing."""
    return figures.MISSING if number is None else f"{number:,}"


def _counts(call: Call) -> Iterator[tuple[str, int]]:
    if call.calls:
        yield call.part, call.calls
    for extra in EXTRA:
        if number := getattr(call, extra):
            yield f"{call.part}, {extra}", number


def _group(call: Call) -> str:
    same = call.purpose == call.stage.rpartition("/")[2]
    stage = _unnumbered(call.stage)
    return stage if same else f"{stage}, {call.purpose}"
