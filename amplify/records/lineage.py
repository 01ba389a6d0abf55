"""Whether the rounds that a round descends from are still those that its record names.

A record names its parent by the round's number and the digest of its checkpoint. Knows records as
dictionaries; `store` calls it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, quote, round_command
from amplify.records.record import digest_of

Records = Mapping[int, Mapping[str, Any]]


def check_parents(folder: Path, records: Records) -> None:
    """Raises AmplifyError for the first round whose parent is gone, or is another now. A parent
    that is being made again is not there yet, and no error: see `check_parent`.
    """
    for number in sorted(records):
        if trouble := _trouble(records, number):
            raise AmplifyError(_told(folder, records, number, trouble))


def check_parent(folder: Path, records: Records, number: int) -> None:
    """Raises AmplifyError unless the parent of a round is there, with the checkpoint that the
    round's record names.
    """
    parent = records[number].get("parent")
    if trouble := _trouble(records, number):
        raise AmplifyError(_told(folder, records, number, trouble))
    if parent and _checkpoint(records, parent["round"]) is None:
        raise AmplifyError(
            f"{folder}: round {number} was trained from round {parent['round']}, which has no"
            f" checkpoint; to make it again: {round_command(folder, max(1, parent['round']))}"
        )


def _trouble(records: Records, number: int) -> str | None:
    parent = records[number].get("parent")
    if not parent:
        return None
    if parent["round"] not in records:
        return "which is gone"
    if _checkpoint(records, parent["round"]) not in (None, parent["digest"]):
        return "which has another checkpoint now"
    return None


def _told(folder: Path, records: Records, number: int, trouble: str) -> str:
    affected = [number]
    for other in sorted(records):
        parent = records[other].get("parent")
        if parent and parent["round"] in affected:
            affected.append(other)
    rounds = quote(*(folder / f"{one:03d}" for one in affected))
    return (
        f"{folder}: round {number} was trained from round {records[number]['parent']['round']},"
        f" {trouble}; put it back, or make what descends from it again: rm -r {rounds} &&"
        f" {round_command(folder, max(affected))}"
    )


def _checkpoint(records: Records, number: int) -> str | None:
    return digest_of(dict(records[number]))
