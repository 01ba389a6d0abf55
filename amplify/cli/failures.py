"""Errors of the operating system, as one line: which path, why, and what can be done about it.

Libraries that write for us report a full disk in their own ways: Orbax and ArrayRecord as text
inside an error of another type, SQLite in words of its own. Called by `commands`.
"""

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

AGAIN = "then give the same command again: it goes on from there"
WHAT_TO_DO = {
    errno.ENOSPC: f"make room on the disk, {AGAIN}",
    errno.EDQUOT: f"make room in your quota, {AGAIN}",
    errno.EFBIG: f"raise the limit on a file's size (ulimit -f), {AGAIN}",
    errno.EROFS: "copy the experiment to a folder that can be written",
    errno.EACCES: "change its permissions, or copy the experiment to a folder of your own",
    errno.EPERM: "change its permissions, or copy the experiment to a folder of your own",
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {AGAIN}",
    errno.ENFILE: f"close other programs, {AGAIN}",
    errno.EIO: "the disk may be damaged",
}
"""By the error's number; an error of another kind may be a mistake of ours."""
OTHER_WORDS = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "RESOURCE_EXHAUSTED: Disk": errno.ENOSPC,
}


def ignore_orphans() -> None:
    """From now on, nothing is said of writes that were under way when another write failed.

    Orbax writes many files at a time, from one event loop. The first that fails ends the loop, and
    each of the others then reports that it cannot tell the loop how it went.
    """
    sys.unraisablehook = _unraisable
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


def _unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def explained(error: BaseException) -> str | None:
    """The line for an error that the operating system is at the bottom of; None for any other.

    Follows what the error was raised from, and the errors of a group.
    """
    for one in _behind(error, set()):
        if isinstance(one, OSError) and one.errno in WHAT_TO_DO:
            return _line(one.errno, str(one.filename or "") or _path_in(str(error)))
    for one in _behind(error, set()):
        for number, words in _words():
            if words in str(one):
                return _line(number, _path_in(str(one)))
    return None


def _behind(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from _behind(other, seen)


def _words() -> Iterator[tuple[int, str]]:
    yield from ((number, os.strerror(number)) for number in WHAT_TO_DO if number != errno.EPERM)
    yield from ((number, words) for words, number in OTHER_WORDS.items())


def _path_in(text: str) -> str:
    found = re.search(r"(?<![\w/])/[^\s'\":;,()\[\]]+", text)
    return found.group().rstrip(".") if found else ""


def _line(number: int, path: str) -> str:
    return f"{path or 'input or output'}: {os.strerror(number)}; {WHAT_TO_DO[number]}"
