"""The exception for user errors, and the commands that its messages suggest."""

import contextlib
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

MAKE = "AMPLIFY_MAKE"
"""The environment variable that the Makefile sets for the commands that it starts."""

MAKE_VARIABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "round": {"--n": "N", "--seeds": "SEEDS", "--set": "SET", "--as": "AS"},
        "rounds": {"--seeds": "SEEDS", "--set": "SET", "--as": "AS"},
        "compare": {"--seeds": "SEEDS"},
        "ask": {"--round": "ROUND"},
        "tree": {"--round": "ROUND", "--row": "ROW", "--question": "QUESTION"},
        "people": {"--invite": "INVITE"},
        "serve": {},
    }
)
"""The Makefile's variables for the options of a command."""


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

    If `make` started this one, it is a `make` command too, where the Makefile has one that does
    the same. In an environment that is not activated, the program is named by its path.

    Args:
        name: of the command, such as "compare".
        words: its arguments: experiments, then options with their values; quoted.
    """
    if os.environ.get(MAKE) and (made := _make_command(name, [*map(str, words)])):
        return made
    program = Path(sys.executable).with_name("amplify")
    if shutil.which("amplify") == str(program):
        start = "amplify"
    elif program.exists():
        start = quote(min(str(program), os.path.relpath(program), key=len))
    else:
        start = f"{quote(sys.executable)} -m amplify"
    return " ".join([start, name, *(quote(str(word)) for word in words)])


def _make_command(name: str, words: Sequence[str]) -> str | None:
    """Returns the `make` command that does the same; None if the Makefile has none."""
    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    experiments, options = words[:first], words[first:]
    known = MAKE_VARIABLES.get(name, {})
    if name not in MAKE_VARIABLES or not {*options[::2]} <= {*known}:
        return None
    given = [*zip(options[::2], options[1::2], strict=True)]
    lists = [*experiments[1:], *(value for option, value in given if option == "--set")]
    if not experiments or any(len(one.split()) != 1 for one in lists):
        return None  # make splits WITH and SET at spaces
    named = [("EXPERIMENT", experiments[0]), *(("WITH", other) for other in experiments[1:])]
    values: dict[str, list[str]] = {}
    for variable, value in [*((known[option], value) for option, value in given), *named]:
        values.setdefault(variable, []).append(value)
    said = [f"{key}={quote(' '.join(of).replace('$', '$$'))}" for key, of in values.items()]
    return " ".join(["make", name, *said])


def round_command(experiment: Path, number: int, redo: str | None = None) -> str:
    """Returns the command that runs a round, or that redoes one of its stages.

    Args:
        experiment: the experiment's folder.
        number: the round's number.
        redo: the stage to redo; None: the round is resumed.
    """
    return command("round", experiment, "--n", number, *(["--redo", redo] if redo else []))
