"""Keeps a copy of an experiment's folder elsewhere, such as on a drive that outlives the machine.

The copy is made while the experiment runs, and a round can be resumed from it at any time: its
records say no more than the files beside them hold.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from amplify.errors import AmplifyError
from amplify.files.writing import open_private, replacing

RECORD = "record.json"
NOT_COPIED = ("events.sqlite-wal", "events.sqlite-shm")
"""Files that belong to running processes, as those do whose names begin with a dot."""
SAME_TIME = 2.0
"""Seconds by which the times of two equal files may differ; some drives round them."""


def keep_copy(experiment: Path, folder: Path, seconds: float = 60.0) -> Callable[[], None]:
    """Copies an experiment's folder now and then, after restoring it from an earlier copy.

    The experiment is restored if it has no rounds but the copy has. Files that are deleted stay in
    the copy, except for training checkpoints.

    Args:
        experiment: the experiment's folder, which need not exist if there is a copy.
        folder: the copy.
        seconds: time between two copies.

    Returns:
        A function that makes the last copy and stops making others.

    Raises:
        AmplifyError: if the copy has rounds that the experiment does not have.
    """
    if not _rounds(experiment) and _rounds(folder):
        copy(folder, experiment)
    if more := sorted(_rounds(folder) - _rounds(experiment)):
        raise AmplifyError(
            f"{folder}: has round {', '.join(more)}, which {experiment} does not have: rename one"
            " of them, or delete the experiment's rounds to restore them from the copy"
        )
    stopped = threading.Event()

    def copy_now_and_then() -> None:
        while not stopped.wait(seconds):
            try:
                copy(experiment, folder)
            except OSError as error:  # tried again, and raised by the last copy
                print(f"amplify: {folder}: not copied: {error}", file=sys.stderr)

    thread = threading.Thread(target=copy_now_and_then, daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join()
        copy(experiment, folder)

    return stop


def copy(source: Path, target: Path) -> None:
    """Brings the copy of an experiment's folder up to date.

    Args:
        source: the experiment's folder.
        target: the copy, which is created.

    Raises:
        OSError: if a file cannot be written.
    """
    # A stage's files are complete before the record says so. What the records say now is therefore
    # in the files that are copied after reading and before writing them.
    records = {path: path.read_bytes() for path in source.glob(f"*/{RECORD}")}
    there = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for name in sorted(there):
        if name.name not in (RECORD, *NOT_COPIED) and not name.name.startswith("."):
            _copy_file(source / name, target / name)
    for path, content in records.items():
        record = target / path.relative_to(source)
        record.parent.mkdir(parents=True, exist_ok=True)
        with replacing(record, "wb") as file:
            file.write(content)
    for training in target.glob("*/*/training"):
        for path in [path for path in training.rglob("*") if path.is_file()]:
            if path.relative_to(target) not in there:
                path.unlink()


def _rounds(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob(f"*/{RECORD}")}


def _copy_file(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
        if source.suffix == ".sqlite":
            _replace(target, lambda new: _back_up(source, new))
        elif not _same(source, target):
            _replace(target, lambda new: shutil.copy2(source, new))


def _same(source: Path, target: Path) -> bool:
    if not target.exists():
        return False
    one, two = source.stat(), target.stat()
    return one.st_size == two.st_size and abs(one.st_mtime - two.st_mtime) <= SAME_TIME


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    write(new)
    new.replace(target)


def _back_up(source: Path, target: Path) -> None:
    """Copies a database that other processes may be writing to."""
    target.unlink(missing_ok=True)
    os.close(open_private(target, os.O_RDWR | os.O_CREAT))
    there = f"{source.resolve().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(there, uri=True)) as log,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        log.backup(new)
