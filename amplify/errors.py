"""The one exception that is meant for the user."""

import textwrap


class AmplifyError(Exception):
    """A user's error: what is wrong, where, and what is allowed. The commands show it as one line,
    exit code 2.
    """


def first_line(error: BaseException) -> str:
    """What a library's exception says, in one line that fits a screen."""
    return textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
