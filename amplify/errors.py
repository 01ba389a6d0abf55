"""The one exception that is meant for the user, and the commands that its messages suggest."""

import contextlib
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path


class AmplifyError(Exception):
    """A user's error: what is wrong, where, and what is allowed. The commands show it as one line,
    exit code 2.
    """


def first_line(error: BaseException) -> str:
    """What a library's exception says, in one line that fits a screen."""
    return textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 200)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """While what an experiment file asks for is built: an error's line begins with the file."""
    try:
        yield
    except OSError as error:
        raise AmplifyError(f"{path}: {error.filename}: {error.strerror}") from None
    except (AmplifyError, ValueError, OverflowError, MemoryError) as error:
        said = str(error) or "needs more memory than there is"
        raise AmplifyError(f"{path}: {said}") from None


def quote(*paths: Path | str) -> str:
    """Paths as a shell reads them."""
    return " ".join(shlex.quote(str(path)) for path in paths)


def again(experiment: Path, number: int, redo: str | None = None) -> str:
    """The command that runs a round, or does one of its stages again."""
    command = f"amplify round {quote(experiment)} --n {number}"
    return command if redo is None else f"{command} --redo {redo}"
