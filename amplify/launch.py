"""Runs rounds of an experiment: locks its folder, joins other processes and handles Ctrl-C.

Called by the commands and the Python interface.
"""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from amplify.errors import AmplifyError
from amplify.runtime.progress import Advance, Watch
from amplify.terminal import messages, output, progress_bars

# Modules that import jax are imported where needed, so that `--help` stays fast.


@contextlib.contextmanager
def launch(
    experiment: Path, cluster: bool, last: int | None = None
) -> Iterator[tuple[Any, Callable[[int], None]]]:
    """Locks an experiment and yields its store and a function that runs or resumes one round.

    The function takes a round's number and does nothing to a finished round except to write a
    missing report. Of several processes, only the first prints anything but errors.

    Args:
        experiment: the experiment's folder.
        cluster: whether this is one of several processes of a cluster that jax detects.
        last: the last round that will be run; None: not known.

    Raises:
        AmplifyError: if the experiment cannot be run, is locked, or is interrupted by Ctrl-C.
    """
    from amplify import round as page
    from amplify import sinks
    from amplify.runtime import processes

    join_processes(cluster)
    with processes.exit_on_failure(), (store := _open_store(experiment)).lock():
        store.check_current()
        sinks.check(store.experiment.log)
        store.experiment.mesh.check_devices()
        if processes.are_several():
            store.experiment.check_shared(processes.count(), processes.devices())
        number = 0
        interrupts: list[int] = []

        def run_round(n: int) -> None:
            nonlocal number
            number = n
            runs = not store.round(n).complete
            if not runs and n:
                store.parent_of(store.round(n))
            if runs:
                if done := [*store.round(n).record.get("stages", {})]:
                    messages.print(f"round {n} resumes after {done[-1]}", highlight=False)
                shown = progress_bars(f"round {n}", lambda: _later(store, n))
                watch = sinks.logged(shown, store, n)
                page.run(store, n, stop_if_interrupted(watch, interrupts))
                sinks.log_rounds(store)
            _write_report(store, n, only_if_missing=not runs)
            if runs and n:
                _say_finished(store.round(n), last)

        with record_interrupts(interrupts):
            try:
                yield store, run_round
            except (Exception, KeyboardInterrupt) as error:
                if not (interrupts or isinstance(error, KeyboardInterrupt)):
                    raise
                raise AmplifyError(
                    f"stopped in round {number}; run the same command again to resume"
                ) from None


def join_processes(cluster: bool) -> None:
    """Joins the other processes, if there are any, before jax is used; all but the first are quiet.

    Args:
        cluster: whether this is one of several processes of a cluster that jax detects.

    Raises:
        AmplifyError: if they cannot be joined.
    """
    from amplify.runtime import processes

    enable_compilation_cache()
    processes.join(cluster)
    output.quiet = messages.quiet = not processes.is_first()


def _later(store: Any, number: int) -> float | None:
    """Returns the seconds that a round's later stages took in the round before; None: that is no
    trained round.
    """
    before = store.round(number - 1)
    if number < 2 or not before.complete:
        return None
    done = store.round(number).record.get("stages", {})
    entries = [entry for name, entry in before.record["stages"].items() if name not in done]
    later = entries[1:]  # the first is being done; compiled code is kept
    return sum(entry.get("seconds", 0) - entry.get("compile_seconds", 0) for entry in later)


def _open_store(experiment: Path) -> Any:
    """Opens an experiment; before round 0, checks that rounds can be run at all."""
    from amplify.reading.ready import check_ready
    from amplify.store import Store

    with messages.status("reading and checking the experiment"):
        store = Store(experiment)
        if not store.round(0).complete:
            check_ready(store.experiment, experiment / "experiment.toml")
    return store


@contextlib.contextmanager
def record_interrupts(interrupts: list[int]) -> Iterator[None]:
    """Appends to a list whenever Ctrl-C is pressed in the block, and raises KeyboardInterrupt.

    A library may swallow the KeyboardInterrupt and fail later for that reason; the list tells
    whether it was raised.

    Args:
        interrupts: the list; signal numbers are appended to it.
    """
    if threading.current_thread() is not threading.main_thread():  # only it receives signals
        yield
        return

    def handle(number: int, frame: Any) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop_if_interrupted(watch: Watch, interrupts: list[int]) -> Watch:
    """Wraps a `Watch` so that its next progress report raises KeyboardInterrupt after Ctrl-C.

    Args:
        watch: reports progress.
        interrupts: the list that `record_interrupts` appends to.
    """

    @contextlib.contextmanager
    def watched(what: str, total: int, done: int = 0, /) -> Iterator[Advance]:
        with watch(what, total, done) as advance:

            def advance_or_stop(done: int, row: Mapping[str, Any] | None = None, /) -> None:
                if interrupts:
                    raise KeyboardInterrupt
                advance(done, row)

            yield advance_or_stop

    return watched


def _write_report(store: Any, number: int, only_if_missing: bool) -> None:
    """Writes the HTML page of a finished round; round 0 has none."""
    from amplify import report
    from amplify.runtime import processes

    this = store.round(number)
    # All processes must decide alike, but the first may already have written the page.
    is_there = bool(processes.gather(np.array([this.report.exists()]))[0])
    if number and not (only_if_missing and is_there):
        report.write_round_page(store, this)


def _say_finished(this: Any, last: int | None) -> None:
    """Prints a round's verdict, and about how long the rounds after it will take."""
    from amplify.evaluation import figures
    from amplify.report import formats

    ledger = this.record["ledger"]
    seconds, again = ledger["seconds"], ledger["seconds"] - ledger.get("compile_seconds", 0)
    verdict = f"{formats.verdict_words(this.verdict)}, took {figures.duration(seconds)}"
    said = [f"round {this.number}: {verdict}", formats.reason(this.verdict)]
    if last is not None and (more := last - this.number) > 0:
        said.append(
            f"about {figures.duration(more * again)} for {figures.count(more, 'more round')}"
        )
    messages.print("; ".join(said), markup=False, highlight=False, soft_wrap=True)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that later processes need not compile them again."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(home / "amplify" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # If the cache cannot be written, as on a full disk, programs are compiled again.
    warnings.filterwarnings("ignore", message="Error .* persistent compilation cache")


def share_programs() -> None:
    """Lets experiments that differ only in arrays, such as their worlds, share compiled programs:
    arrays that functions close over become arguments of a program instead of constants in it.

    Does nothing once jax is imported, which reads the environment only then: it would change only
    the processes that this one starts later. A constant that a traced function makes of Python
    numbers, as by `jnp.array([1, 2])`, becomes an argument too, and would be sent to the device in
    every step, which training does not allow.
    """
    if "jax" in sys.modules:
        return
    os.environ.setdefault("JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS", "1")
    os.environ.setdefault("JAX_EMBEDDED_CONSTANTS_MAX_BYTES", "0")
