"""Files with people's data, readable by their owner alone: whatever the umask, and also where an
earlier version left them readable by others.
"""

import contextlib
import os
import stat
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


def open_private(path: str | Path, flags: int) -> int:
    """An `opener` for `open` that makes the file private, whether it is new or not."""
    descriptor = os.open(path, flags, mode=FILE)
    with contextlib.suppress(PermissionError):  # another user owns it
        os.fchmod(descriptor, FILE)
    return descriptor


def make_private_folder(path: Path) -> None:
    """Creates a folder if need be, and makes it and the files in it private."""
    path.mkdir(mode=FOLDER, exist_ok=True)
    make_private(path, *(entry for entry in path.iterdir() if entry.is_file()))


def make_private(*paths: Path) -> None:
    """Makes files and folders private; those that do not exist are skipped."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = FOLDER if path.is_dir() else FILE
            if mode != wanted and not path.is_symlink():
                path.chmod(wanted)
