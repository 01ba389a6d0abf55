"""Commands that error messages suggest, as they can be pasted into a shell."""

import shlex
from pathlib import Path


def quote(*paths: Path | str) -> str:
    """Paths as a shell reads them."""
    return " ".join(shlex.quote(str(path)) for path in paths)


def again(experiment: Path, number: int, redo: str | None = None) -> str:
    """The command that runs a round, or does one of its stages again."""
    command = f"amplify round {quote(experiment)} --n {number}"
    return command if redo is None else f"{command} --redo {redo}"
