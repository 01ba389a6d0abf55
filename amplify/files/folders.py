"""Folders that are written as a whole or not at all, by one process or by several together."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from amplify.files import writing
from amplify.runtime import processes


@contextlib.contextmanager
def atomic_folder(directory: Path) -> Iterator[Path]:
    """Yields the path of a new folder, which becomes `directory` when the block succeeds.

    Until then `directory` is unchanged, whatever happens. What a killed process leaves behind is
    removed by the next one that writes to the same `directory`. Several processes may fill the
    folder together; the first makes and renames it.

    Args:
        directory: replaced if it exists.
    """
    staging = staging_folder(directory)
    processes.first(lambda: make_empty(staging))
    try:
        yield staging / "new"
        processes.barrier()
        processes.first(lambda: move_into_place(staging, directory))
    finally:
        if processes.is_first():
            shutil.rmtree(staging)


def staging_folder(directory: Path) -> Path:
    """Returns the folder in which `directory` is prepared."""
    return directory.with_name(f".{directory.name}.tmp")


def make_empty(staging: Path) -> None:
    """Makes an empty folder, and removes an existing one."""
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)


def move_into_place(staging: Path, directory: Path) -> None:
    """Renames `staging / "new"` to `directory`, once all its files are on disk.

    Args:
        staging: the folder that `staging_folder` names.
        directory: replaced if it exists.
    """
    for path in staging.rglob("*"):
        writing.sync(path)
    if directory.exists():
        directory.rename(staging / "old")
    try:
        (staging / "new").rename(directory)
    except OSError:
        if (staging / "old").exists():
            (staging / "old").rename(directory)
        raise
    writing.sync(directory.parent)
