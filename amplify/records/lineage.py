"""Checks that the parents of an experiment's rounds still exist and have not changed.

A record names its parent by the round's number and the digest of its checkpoint. Called by `store`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, quote, round_command
from amplify.records.record import digest_of

Records = Mapping[int, Mapping[str, Any]]


def check_parents(folder: Path, records: Records) -> None:
    """Checks the parents of all rounds. A parent that is being redone passes.

    Args:
        folder: the experiment's folder.
        records: of all rounds, by number.

    Raises:
        AmplifyError: for the first round whose parent is missing or has another checkpoint.
    """
    for number in sorted(records):
        if problem := _parent_problem(records, number):
            raise AmplifyError(_message(folder, records, number, problem))


def check_parent(folder: Path, records: Records, number: int) -> None:
    """Checks the parent of one round, which must have a checkpoint.

    Args:
        folder: the experiment's folder.
        records: of all rounds, by number.
        number: the round's number.

    Raises:
        AmplifyError: if the parent is missing, or its checkpoint is missing or not the recorded
            one.
    """
    parent = records[number].get("parent")
    if problem := _parent_problem(records, number):
        raise AmplifyError(_message(folder, records, number, problem))
    if parent and _checkpoint(records, parent["round"]) is None:
        raise AmplifyError(
            f"{folder}: round {number} was trained from round {parent['round']}, which has no"
            f" checkpoint; to rerun it: {round_command(folder, max(1, parent['round']))}"
        )


def _parent_problem(records: Records, number: int) -> str | None:
    parent = records[number].get("parent")
    if not parent:
        return None
    if parent["round"] not in records:
        return "which is missing"
    if _checkpoint(records, parent["round"]) not in (None, parent["digest"]):
        return "which has a different checkpoint now"
    return None


def _message(folder: Path, records: Records, number: int, problem: str) -> str:
    affected = [number]
    for other in sorted(records):
        parent = records[other].get("parent")
        if parent and parent["round"] in affected:
            affected.append(other)
    rounds = quote(*(folder / f"{one:03d}" for one in affected))
    return (
        f"{folder}: round {number} was trained from round {records[number]['parent']['round']},"
        f" {problem}; restore it, or rerun what descends from it: rm -r {rounds} &&"
        f" {round_command(folder, max(affected))}"
    )


def _checkpoint(records: Records, number: int) -> str | None:
    return digest_of(dict(records[number]))
