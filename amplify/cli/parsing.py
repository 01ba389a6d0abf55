"""Parses the command line. A complaint of the parser becomes one line."""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from amplify.errors import AmplifyError


def parse(commands: Mapping[str, Any], description: str, argv: Sequence[str]) -> Callable[[], None]:
    """Returns a function that runs the command which the arguments describe.

    Args:
        commands: functions by name, whose signatures tyro reads.
        description: of the program, for its help.
        argv: the command's name and its arguments.

    Raises:
        AmplifyError: if the arguments are invalid.
        SystemExit: with code 0, after printing help.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                {name: deferred(command) for name, command in commands.items()},
                prog="amplify",
                description=description,
                args=list(argv),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise AmplifyError(f"{in_one_line(complaint.getvalue())}; see amplify --help") from None


def in_one_line(box: str) -> str:
    """Returns the text of tyro's error box, a heading and text above a rule, as one line."""
    lines = [line.strip(" │╰╯") for line in box.splitlines()[1:]]
    is_rule = [not line.strip("─-") for line in lines]
    begin = is_rule.index(False)
    end = [*is_rule, True].index(True, begin)
    line = " ".join(lines[begin:end])
    no_number = r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)"
    return re.sub(no_number, r"\1: must be a whole number, got \2", line)


def deferred(command: Any) -> Callable[..., Callable[[], None]]:
    """Wraps a command so that tyro, which reads its signature, does not run it.

    Returns:
        A function of the command's arguments that returns the call to make.
    """

    @functools.wraps(command)
    def bind(**arguments: Any) -> Callable[[], None]:
        return functools.partial(command, **arguments)

    return bind
