"""Terminal output of commands: tables and links on stdout, progress and warnings on stderr."""

import json as json_format
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from amplify import progress
from amplify.runtime.progress import Watch

# Modules that import jax are imported in functions, so that `--help` and bad arguments are fast.

output, messages = Console(), Console(stderr=True)


def progress_bars(prefix: str, later: progress.Later = lambda: None) -> Watch:
    """A `Watch` that shows progress on stderr: a bar in a terminal or notebook, lines elsewhere.

    Args:
        prefix: of every line.
        later: called as work begins; see `progress.Later`.
    """
    seen = messages.is_interactive or messages.is_jupyter
    return (progress.bars if seen else progress.lines)(messages, prefix, later)


def show_rounds(store: Any, json: bool) -> None:
    """Prints the table of rounds, or their results as JSON.

    Args:
        store: the experiment.
        json: whether to print JSON.

    Raises:
        AmplifyError: no round is finished.
    """
    from amplify import report

    if json and not output.quiet:
        print(json_format.dumps(report.results(store), indent=1))
    elif not json:
        output.print(report.rounds_table(store), crop=False)  # a command stays whole


def warn_once(line: str | None, warned: set[str]) -> None:
    """Prints a warning, if there is one and it was not printed before.

    Args:
        line: the warning.
        warned: those that were printed; this one is added.
    """
    if line is not None and line not in warned:
        warned.add(line)
        messages.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_comparison(stores: Sequence[Any], json: bool) -> None:
    """Prints the comparison of experiments, or their results as JSON.

    Args:
        stores: the experiments.
        json: whether to print JSON.

    Raises:
        AmplifyError: an experiment has no finished round.
    """
    from amplify import report

    if json and not output.quiet:
        print(json_format.dumps(report.compared(stores), indent=1))
    elif not json:
        output.print(report.comparison(stores), crop=False)


def stale_line(experiment: Path) -> str | None:
    """Returns a warning if people's answers were corrected after a round used them; else None."""
    from amplify.people import stale
    from amplify.people.log import EVENTS, Log

    if not (experiment / EVENTS).is_file():
        return None
    log = Log(experiment / EVENTS)
    try:
        return stale.summary(stale.stale(log, experiment), experiment)
    finally:
        log.close()


def show_links(experiment: Path, address: str) -> None:
    """Prints everybody's link to the pages.

    Args:
        experiment: its folder.
        address: of the pages, without a slash at the end.
    """
    from amplify.people.roster import Roster

    roster = Roster(experiment)
    roster.admin()
    for member in roster.members():
        expired = member.expires is not None and member.expires <= time.time()
        if not member.simulated:
            link = "link no longer works" if expired else f"{address}/in/{member.token}"
            print(f"{member.person}: {link}")


def show_set_aside(experiment: Path) -> None:
    """Prints people's answers that could not be used, with the reasons."""
    from amplify.people.log import EVENTS, Log
    from amplify.people.rules import Queue

    if not (experiment / EVENTS).is_file():
        return
    log = Log(experiment / EVENTS)
    try:
        found = Queue(log.since()).set_aside.values()
    finally:
        log.close()
    for one in found:
        about = [f"round {one.round}"] if one.round >= 0 else []
        about += [f"question {one.item}"] if one.item else []
        about += [one.person] if one.person else []
        line = f"set aside: {', '.join([*about, f'event {one.event}'])}: {one.reason}"
        messages.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
