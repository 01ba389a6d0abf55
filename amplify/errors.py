"""The exception for user errors, and the commands that its messages suggest."""

import contextlib
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path


class AmplifyError(Exception):
    """A user error: what is wrong, where, and what is allowed.

    Commands print it as one line and exit with code 2.
    """


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, shortened to fit a screen."""
    return textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 200)


@contextlib.contextmanager
def prefix_errors(path: Path) -> Iterator[None]:
    """Turns errors raised in the block into AmplifyErrors that begin with a file's path.

    Args:
        path: the experiment file whose contents are being built.

    Raises:
        AmplifyError: for an AmplifyError, OSError, ValueError, OverflowError or MemoryError.
    """
    try:
        yield
    except OSError as error:
        raise AmplifyError(f"{path}: {error.filename}: {error.strerror}") from None
    except (AmplifyError, ValueError, OverflowError, MemoryError) as error:
        said = str(error) or "needs more memory than there is"
        raise AmplifyError(f"{path}: {said}") from None


def quote(*paths: Path | str) -> str:
    """Returns paths, quoted for a shell and separated by spaces."""
    return " ".join(shlex.quote(str(path)) for path in paths)


def command(name: str, *words: Path | str | int) -> str:
    """Returns a command of Amplify to paste into this shell.

    In an environment that is not activated, such as the one that `make` sets up, the program is
    named by its path.

    Args:
        name: of the command, such as "compare".
        words: its arguments; quoted.
    """
    program = Path(sys.executable).with_name("amplify")
    if shutil.which("amplify") == str(program):
        start = "amplify"
    elif program.exists():
        start = quote(min(str(program), os.path.relpath(program), key=len))
    else:
        start = f"{quote(sys.executable)} -m amplify"
    return " ".join([start, name, *(quote(str(word)) for word in words)])


def round_command(experiment: Path, number: int, redo: str | None = None) -> str:
    """Returns the command that runs a round, or that redoes one of its stages.

    Args:
        experiment: the experiment's folder.
        number: the round's number.
        redo: the stage to redo; None: the round is resumed.
    """
    return command("round", experiment, "--n", number, *(["--redo", redo] if redo else []))
