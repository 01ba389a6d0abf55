"""Files with people's data: their owner alone may read them, whatever the umask, also those that an
earlier version left open to others. Knows nothing of what is in them.
"""

import contextlib
import os
import stat
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


def open_private(path: str | Path, flags: int) -> int:
    """An `opener` for `open`: a file that is made is its owner's alone, and so is one that was
    there.
    """
    descriptor = os.open(path, flags, mode=FILE)
    with contextlib.suppress(PermissionError):  # somebody else's, who decides on it
        os.fchmod(descriptor, FILE)
    return descriptor


def make_private_folder(path: Path) -> None:
    """The folder is there, and its owner's alone with all files in it."""
    path.mkdir(mode=FOLDER, exist_ok=True)
    make_private(path, *(entry for entry in path.iterdir() if entry.is_file()))


def make_private(*paths: Path) -> None:
    """Nobody but the owner may read these, as far as they are there."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = FOLDER if path.is_dir() else FILE
            if mode != wanted and not path.is_symlink():
                path.chmod(wanted)
