"""Copies stages between rounds whose experiments differ in nothing that has an effect on them.

Arms of a study often begin alike: the same reviews, for example, and then different ways to train
on them. What is copied is what the stage would have written, bit for bit, only sooner.
"""

import shutil
from typing import Any

from amplify.errors import AmplifyError
from amplify.records.record import CHECKPOINT
from amplify.records.round_folder import RoundFolder

OWN = ("commit", "dirty", "python", "versions", "processes", "device", "seconds", "compile_seconds")
"""What a record says about the process that ran a stage."""


def copy_stage(other: RoundFolder, this: RoundFolder, stage: str) -> dict[str, Any]:
    """Copies the files of a finished stage; called by `RoundFolder.stage`.

    Args:
        other: the round that has run the stage.
        this: the round in progress.
        stage: its full name, such as "reviews/data".

    Returns:
        What the other round's record says about the stage, and where it was copied from.

    Raises:
        AmplifyError: if the other round has not finished the stage.
    """
    if not other.done(stage):
        there = ", ".join(other.record.get("stages", {})) or "none"
        raise AmplifyError(f"{other.path}: no finished stage {stage} to share; finished: {there}")
    phase, _, last = stage.rpartition("/")
    source, target = other.phase(phase), this.phase(phase)
    names = ("roles", "carried", "metrics") if last == CHECKPOINT else ("data", "interactions")
    for name in names:
        _replace(getattr(source, name), getattr(target, name))
    entry = other.record["stages"][stage]
    kept = {key: value for key, value in entry.items() if key not in OWN}
    return {**kept, "copied_from": str(other.path)}


def _replace(source: Any, target: Any) -> None:
    """Copies a file or folder over what a killed process may have left."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
