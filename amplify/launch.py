"""Runs rounds of an experiment: with its folder locked, alone or as one of several processes, and
with compiled code kept.
"""

import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amplify.errors import AmplifyError
from amplify.report.terminal import messages, output, progress_bars
from amplify.runtime.progress import Advance, Watch

# What imports jax is imported where it is needed: `--help` and bad arguments answer at once.


@contextlib.contextmanager
def running(experiment: Path, cluster: bool) -> Iterator[tuple[Any, Callable[[int], None]]]:
    """An experiment, locked, and what runs a round of it unless it is done. Of several processes
    only the first says anything but what is wrong.
    """
    from amplify import round as page
    from amplify.runtime import processes

    keep_compiled_code()
    processes.join(cluster)
    output.quiet = messages.quiet = not processes.is_first()
    with processes.exit_on_failure(), (store := _opened(experiment)).lock():
        store.check_current()
        if processes.are_several():
            store.experiment.check_shared(processes.count(), processes.devices())
        number = 0
        pressed: list[int] = []

        def go(n: int) -> None:
            nonlocal number
            number = n
            runs = not store.round(n).complete
            if not runs and n:
                store.parent_of(store.round(n))
            if runs:
                page.run(store, n, stopping(progress_bars(f"round {n}"), pressed))
            _write_report(store, n, only_if_missing=not runs)

        with interrupts(pressed):
            try:
                yield store, go
            except (Exception, KeyboardInterrupt) as error:
                if not (pressed or isinstance(error, KeyboardInterrupt)):
                    raise
                raise AmplifyError(
                    f"stopped in round {number}; the same command goes on from there"
                ) from None


def _opened(experiment: Path) -> Any:
    """The experiment's folder. Before its first round, and before anything is written, it is found
    out whether rounds can be run at all.
    """
    from amplify.reading.ready import check_ready
    from amplify.store import Store

    store = Store(experiment)
    if not store.round(0).complete:
        check_ready(store.experiment, experiment / "experiment.toml")
    return store


@contextlib.contextmanager
def interrupts(pressed: list[int]) -> Iterator[None]:
    """Notes in a list that Ctrl-C was pressed. A library may swallow the KeyboardInterrupt, and go
    on with half of what it was reading: what fails after it failed because of it.
    """
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stopping(watch: Watch, pressed: list[int]) -> Watch:
    """The same, but that work ends at its next report of progress once Ctrl-C was pressed."""

    @contextlib.contextmanager
    def watched(what: str, total: int) -> Iterator[Advance]:
        with watch(what, total) as advance:

            def advance_or_stop(done: int) -> None:
                if pressed:
                    raise KeyboardInterrupt
                advance(done)

            yield advance_or_stop

    return watched


def _write_report(store: Any, number: int, only_if_missing: bool) -> None:
    """The page of a finished round; the untrained assistant has none."""
    from amplify import report
    from amplify.runtime import processes

    this = store.round(number)
    # All processes must decide alike, and the first may have written the page by now.
    is_there = bool(processes.gather(np.array([this.report.exists()]))[0])
    if number and not (only_if_missing and is_there):
        report.write_round_page(store, this)


def keep_compiled_code() -> None:
    """Compiled code outlives the process: a later round, or the same one resumed, need not compile
    again.
    """
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(home / "amplify" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Where it cannot be written, as on a full disk, code is compiled again, and that is all.
    warnings.filterwarnings("ignore", message="Error .* persistent compilation cache")
