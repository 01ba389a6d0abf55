"""Files of JSON lines, written whole or not at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.files import writing
from amplify.runtime import processes


def write_atomically(path: Path, text: str) -> None:
    """As in `writing`; of several processes that call it together, the first one writes."""
    processes.first(lambda: writing.write_atomically(path, text))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes JSON lines atomically; returns their SHA-256."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_lines(path: Path, digest: str | None = None) -> list[dict[str, Any]]:
    """Reads JSON lines. Raises AmplifyError if they are missing, damaged or not those of the
    digest.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if digest not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise ValueError("not what was written")
        return [json.loads(line) for line in text.splitlines()]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        raise AmplifyError(f"{path}: missing or damaged ({first_line(error)})") from None
