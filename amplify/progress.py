"""Progress on stderr: a bar where somebody sees it move, lines where they go to a file.

Until the first report of a piece of work, its programs are being compiled. How long the rest of a
round takes is estimated from the round before, whose record has the seconds of every stage.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from amplify.evaluation import figures
from amplify.runtime.progress import Advance, Watch

PAUSE = 30.0
"""Seconds between two lines about work that has no training log."""
COMPILING = "compiling"
MOST_CLASSES = 8
"""Most classes of which each one's accuracy is shown."""

Later = Callable[[], float | None]
"""Seconds that the round will take after the stage that is running; None: not known."""


class Pace:
    """How fast a piece of work goes, and how long it will take."""

    def __init__(
        self,
        total: int,
        done: int = 0,
        later: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.done = total, done
        self._later, self._clock = later, clock
        self._first: tuple[float, int] | None = None  # when the first report came, and all by then
        self._rate: float | None = None

    def advance(self, done: int, row: Mapping[str, Any] | None) -> None:
        """Notes a report. The time before the first one is left out, for it was spent on preparing
        too, unless the log says how long the steps took.
        """
        now = self._clock()
        self.done += done
        if self._first is None:
            self._first = now, self.done
            self._rate = done / row["seconds"] if row and row["seconds"] else None
        elif now > self._first[0]:
            self._rate = (self.done - self._first[1]) / (now - self._first[0])

    @property
    def left(self) -> float | None:
        """Seconds until the work is done; None: not known yet."""
        return (self.total - self.done) / self._rate if self._rate else None

    def describe(self, done: int, row: Mapping[str, Any] | None) -> str:
        """What a report says: loss, accuracy, rate, and time left for the work and the round."""
        said = _measured(row) if row else []
        rate = done / row["seconds"] if row and row["seconds"] else self._rate
        if rate:
            said.append(f"{figures.number(rate)}{' steps' if row else ''}/s")
        if self.left is not None:
            said.append(f"{figures.duration(self.left)} left")
            if self._later is not None:
                said.append(f"about {figures.duration(self.left + self._later)} for the round")
        return ", ".join(said)

    def describe_briefly(self, row: Mapping[str, Any] | None) -> str:
        """The same for a bar: only the loss, and time left for the round, or else for the work."""
        said = [f"loss {row['loss']:.3g}"] if row and "loss" in row else []
        if self.left is not None:
            said.append(f"{figures.duration(self.left + (self._later or 0))} left")
        return ", ".join(said)


def _working_clock() -> Callable[[], float]:
    from amplify.runtime.device import working_seconds  # imports jax

    return working_seconds


def _measured(row: Mapping[str, Any]) -> list[str]:
    said = [f"loss {row['loss']:.4g}"] if "loss" in row else []
    if alone := row.get("accuracy", {}).get("alone"):
        said.append(f"alone {_by_class([*alone.values()])}")
    return said


def _by_class(accuracies: Sequence[float]) -> str:
    """Accuracy in the order of the table: a class that is not trained yet may fall meanwhile."""
    if len(accuracies) == 1:
        return f"{figures.percent(accuracies[0])}%"
    if len(accuracies) <= MOST_CLASSES:
        return f"{' / '.join(map(figures.percent, accuracies))}% by class"
    mean = figures.percent(sum(accuracies) / len(accuracies))
    return f"{mean}% (mean of {len(accuracies)} classes)"


def lines(console: Console, prefix: str, later: Later) -> Watch:
    """A `Watch` that prints a line for every row of a training log, and one now and then for other
    work.
    """

    def say(line: str) -> None:
        console.print(f"{prefix}: {line}", markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def watch(what: str, total: int, done: int = 0, /) -> Iterator[Advance]:
        pace, said = Pace(total, done, later(), _working_clock()), time.monotonic()
        if done:
            say(f"{what} resumes after {done:,} of {total:,}")
        say(f"{what}, {done:,} of {total:,}: {COMPILING}")

        def advance(done: int, row: Mapping[str, Any] | None = None, /) -> None:
            nonlocal said
            pace.advance(done, row)
            if row or time.monotonic() - said > PAUSE:
                said = time.monotonic()
                told = [f"{what}, {pace.done:,} of {total:,}", pace.describe(done, row)]
                say(", ".join(filter(None, told)))

        yield advance

    return watch


def bars(console: Console, prefix: str, later: Later) -> Watch:
    """A `Watch` that draws a bar, and removes it at the end."""

    @contextlib.contextmanager
    def watch(what: str, total: int, done: int = 0, /) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
        )
        pace = Pace(total, done, later(), _working_clock())
        if done:
            console.print(f"{prefix}: {what} resumes after {done:,} of {total:,}", highlight=False)
        with Progress(*columns, console=console, transient=True) as progress:
            described = f"{prefix}: {what}"
            bar = progress.add_task(described, total=total, completed=done, told=COMPILING)

            def advance(done: int, row: Mapping[str, Any] | None = None, /) -> None:
                pace.advance(done, row)
                progress.update(bar, advance=done, told=pace.describe_briefly(row))

            yield advance

    return watch
