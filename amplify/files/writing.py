"""Atomic and private file writes."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from amplify.errors import AmplifyError

FILE, FOLDER = 0o600, 0o700
"""Permissions of private files and folders."""


def write_atomically(path: Path, text: str, *, private: bool = False) -> None:
    """Writes a text file atomically: afterwards it is complete, or as it was before.

    Args:
        path: the file.
        text: its content, written as UTF-8.
        private: whether only the owner may read it.

    Raises:
        OSError: if it cannot be written; names the file.
    """
    with replacing(path, private=private) as file:
        file.write(text)


def check_output(path: Path, suffixes: Sequence[str], what: str) -> None:
    """Checks that a command can write to a file, before it does any work.

    Args:
        path: the file, which may exist.
        suffixes: the formats that the command writes.
        what: is written, in the plural.

    Raises:
        AmplifyError: if the file has another suffix, is a folder, or would be in none.
    """
    if path.suffix not in suffixes:
        raise AmplifyError(f"{path}: {what} are written as {' or '.join(suffixes)}")
    if path.is_dir():
        raise AmplifyError(f"{path}: is a folder; name a new file, or one to replace")
    if not path.parent.is_dir():
        raise AmplifyError(f"{path}: there is no folder {path.parent}")


@contextlib.contextmanager
def replacing(
    path: Path, mode: Literal["w", "wb"] = "w", *, private: bool = False
) -> Iterator[IO[Any]]:
    """Yields an open file that replaces `path` once the block ends and its content is on disk.

    If the block raises, `path` stays as it was.

    Args:
        path: the file.
        mode: "w" for UTF-8 text, "wb" for bytes.
        private: whether only the owner may read it.

    Raises:
        OSError: if it cannot be written; names the file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    encoding, opener = "utf-8" if mode == "w" else None, open_private if private else None
    try:
        with open(temporary, mode, encoding=encoding, opener=opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # errors of write() have no file name
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flushes a file, or a folder's list of entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_private(path: str | Path, flags: int) -> int:
    """An `opener` for `open` that makes a file private, new or not, regardless of the umask.

    Args:
        path: the file.
        flags: as for `os.open`.

    Returns:
        The file descriptor.
    """
    descriptor = os.open(path, flags, mode=FILE)
    with contextlib.suppress(PermissionError):  # another user owns it
        os.fchmod(descriptor, FILE)
    return descriptor


def make_private_folder(path: Path) -> None:
    """Creates a folder if it does not exist, and makes it and the files in it private."""
    path.mkdir(mode=FOLDER, exist_ok=True)
    make_private(path, *(entry for entry in path.iterdir() if entry.is_file()))


def make_private(*paths: Path) -> None:
    """Makes files and folders private. Skips those that do not exist."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = FOLDER if path.is_dir() else FILE
            if mode != wanted and not path.is_symlink():
                path.chmod(wanted)
