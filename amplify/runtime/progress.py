"""Progress reports: `with watch("distillation", 100) as advance: advance(5)`."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Advance(Protocol):
    def __call__(self, done: int, row: Mapping[str, Any] | None = None, /) -> object:
        """Reports progress.

        Args:
            done: how much was done since the last report.
            row: of the training log, where it was training: "loss", "seconds", ...
        """


@runtime_checkable
class Watch(Protocol):
    def __call__(self, what: str, total: int, done: int = 0, /) -> AbstractContextManager[Advance]:
        """Begins a piece of work.

        Args:
            what: is done, in a word or two.
            total: how much there is to do.
            done: how much of it was done before, by a process that was stopped.
        """


def say(line: str) -> None:
    """Prints a line to stderr for whoever started the program."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def unwatched(what: str, total: int, done: int = 0, /) -> Iterator[Advance]:
    """A `Watch` that shows nothing."""
    yield lambda done, row=None: None
