"""Progress reports: `with watch("distillation", 100) as advance: advance(5)`."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[int], object]
Watch = Callable[[str, int], AbstractContextManager[Advance]]


def say(line: str) -> None:
    """Prints a line to stderr for whoever started the program."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def unwatched(what: str, total: int) -> Iterator[Advance]:
    """A `Watch` that shows nothing; its arguments are a description and the total work."""
    yield lambda done: None
