"""Turns errors of the operating system into one line: the path, the reason, and what to do.

Libraries report a full disk in different ways: Orbax and ArrayRecord as text in another type of
exception, SQLite in its own words. Called by `commands`.
"""

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

AGAIN = "then run the same command again to resume"
WHAT_TO_DO = {
    errno.ENOSPC: f"make room on the disk, {AGAIN}",
    errno.EDQUOT: f"make room in your quota, {AGAIN}",
    errno.EFBIG: f"raise the limit on a file's size (ulimit -f), {AGAIN}",
    errno.EROFS: "copy the experiment to a writable folder",
    errno.EACCES: "change its permissions, or copy the experiment to a folder of your own",
    errno.EPERM: "change its permissions, or copy the experiment to a folder of your own",
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {AGAIN}",
    errno.ENFILE: f"close other programs, {AGAIN}",
    errno.EIO: "the disk may be damaged",
}
"""Advice by errno. Other errors may be bugs of Amplify and keep their traceback."""
OTHER_WORDS = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "RESOURCE_EXHAUSTED: Disk": errno.ENOSPC,
}
"""Messages of libraries that stand for an errno."""


def ignore_orphans() -> None:
    """Silences messages of writes that were pending when another write failed.

    Orbax writes files concurrently in one event loop. When one write fails, the loop is closed, and
    each pending write then reports that the loop is closed.
    """
    sys.unraisablehook = _unraisable
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


def _unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def explained(error: BaseException) -> str | None:
    """Returns the error line for an exception caused by the operating system; None for any other.

    Args:
        error: the exception; its causes, contexts and grouped exceptions are searched, too.
    """
    for one in _chain(error, set()):
        if isinstance(one, OSError) and one.errno in WHAT_TO_DO:
            return _line(one.errno, str(one.filename or "") or _path_in(str(error)))
    for one in _chain(error, set()):
        for number, words in _words():
            if words in str(one):
                return _line(number, _path_in(str(one)))
    return None


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from _chain(other, seen)


def _words() -> Iterator[tuple[int, str]]:
    yield from ((number, os.strerror(number)) for number in WHAT_TO_DO if number != errno.EPERM)
    yield from ((number, words) for words, number in OTHER_WORDS.items())


def _path_in(text: str) -> str:
    found = re.search(r"(?<![\w/])/[^\s'\":;,()\[\]]+", text)
    return found.group().rstrip(".") if found else ""


def _line(number: int, path: str) -> str:
    return f"{path or 'input or output'}: {os.strerror(number)}; {WHAT_TO_DO[number]}"
