"""How long work reports its progress: `with watch("distillation", 100) as advance: advance(5)`."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[int], object]
Watch = Callable[[str, int], AbstractContextManager[Advance]]


def say(line: str) -> None:
    """Tells whoever started the program what they need to know while it runs."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def unwatched(what: str, total: int) -> Iterator[Advance]:
    """A `Watch` that shows nothing."""
    yield lambda done: None
