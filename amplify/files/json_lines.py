"""JSON Lines files, written atomically."""

import hashlib
import json
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.files import writing
from amplify.runtime import processes


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file atomically; of several processes that call this, only the first writes.

    Args:
        path: the file.
        text: its content.

    Raises:
        OSError: if it cannot be written.
    """
    processes.first(lambda: writing.write_atomically(path, text))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes rows as JSON Lines, atomically.

    Args:
        path: the file.
        rows: one JSON object a line.

    Returns:
        The SHA-256 of the file.
    """
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_lines(path: Path, digest: str | None = None) -> list[dict[str, Any]]:
    """Reads a JSON Lines file.

    Args:
        path: the file.
        digest: the expected SHA-256; None: it is not checked.

    Raises:
        AmplifyError: if the file is missing or damaged, or has another digest.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if digest not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise ValueError("not what was written")
        return [json.loads(line) for line in text.splitlines()]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        raise AmplifyError(f"{path}: missing or damaged ({first_line(error)})") from None
