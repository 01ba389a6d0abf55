"""The commands of `amplify`: argument parsing and printing.

A user error is printed as one line; the exit code is 2.
"""

import json as json_format
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from amplify.cli import variants
from amplify.cli.arguments import Folder, Json
from amplify.cli.failures import explained, ignore_orphans
from amplify.cli.parsing import parse
from amplify.cli.running import round_, rounds, study
from amplify.errors import AmplifyError
from amplify.terminal import (
    messages,
    output,
    progress_bars,
    show_comparison,
    show_links,
    show_set_aside,
)

# No module that imports jax is imported here, so that `--help` stays fast.


def compare(
    experiment: Folder,
    others: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[OTHER ...]", help="more experiments, for example variants"),
    ] = (),
    seeds: Annotated[
        str | None,
        tyro.conf.arg(metavar="0,1,2", help="these seeds of each experiment, as `round` ran them"),
    ] = None,
    json: Json = False,
) -> None:
    """Compare rounds by class of question and measure. Writes compare.html and compare.png.

    Experiments that differ only in their seed are shown as one. Code in the experiments' folders is
    not run.
    """
    from amplify import report
    from amplify.store import Store

    paths = variants.with_seeds((experiment, *others), seeds)
    stores = [Store(path, runs_code=False) for path in paths]
    show_comparison(stores, json)
    if seeds is None and (line := report.seeds_beside(stores)):
        messages.print(line, markup=False, highlight=False, soft_wrap=True)
    if not json:
        with messages.status("drawing the figures"):
            written = report.write_comparison(stores)
        for path in written:
            output.print(f"wrote {path}", soft_wrap=True)


def ask(
    experiment: Folder,
    round: Annotated[
        int | None, tyro.conf.arg(help="whose assistant; the best one if not given")
    ] = None,
    amplify: Annotated[bool, tyro.conf.arg(help="also show the overseer's tree")] = False,
    depth: Annotated[int, tyro.conf.arg(help="levels of the tree")] = 1,
    problem: Annotated[int, tyro.conf.arg(help="which held-out problem to ask about")] = 0,
) -> None:
    """Ask a checkpoint questions interactively."""
    from amplify import inspection
    from amplify.store import Store

    if depth < 1:
        raise AmplifyError(f"--depth: must be 1 or more, got {depth}")
    with messages.status("loading the assistant"):
        session = inspection.Session(Store(experiment), round, problem, depth if amplify else 0)
    output.print(session.introduction())
    while True:
        try:
            text = output.input("[bold]question[/] (empty to leave): ").strip()
        except EOFError:
            break
        if not text:
            break
        try:
            output.print(session.ask(text))
        except AmplifyError as error:
            messages.print(str(error), style="red", markup=False, highlight=False)


def tree(
    experiment: Folder,
    round: Annotated[int, tyro.conf.arg(help="the round whose data set contains the row")],
    row: Annotated[int, tyro.conf.arg(help="index of the row")],
    question: Annotated[int, tyro.conf.arg(help="index of the question in the row")] = 0,
    depth: Annotated[
        int, tyro.conf.arg(help="1: the tree behind the training data; more: a deeper one")
    ] = 1,
    json: Json = False,
) -> None:
    """Show the decomposition tree behind a training row, recomputed. Writes it as HTML, too."""
    from amplify import inspection
    from amplify.store import Store

    with messages.status("loading the assistant and recomputing the tree"):
        found = inspection.training_tree(Store(experiment), round, row, question, depth)
    if json:
        print(json_format.dumps(found.tree, indent=1))
        return
    output.print(found.render())
    output.print(f"wrote {found.write_html()}")


def cross_play(
    experiment: Folder,
    round: Annotated[int, tyro.conf.arg(help="the round whose score is printed")],
    against: Annotated[int, tyro.conf.arg(help="the other round")],
    json: Json = False,
) -> None:
    """Let the assistants of two rounds debate about held-out questions: who convinces the judge?"""
    from amplify import cross_play as matches
    from amplify import report
    from amplify.store import Store

    store = Store(experiment)
    with messages.status("debating"):
        found = matches.cross_play(store, round, against)
    rows = [result.as_row() for result in found]
    if json:
        print(json_format.dumps(rows, indent=1))
        return
    title = f"{store.name}: round {round} against round {against}"
    output.print(report.cross_played(title, rows))


def export(
    experiment: Folder,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a new folder")],
    round: Annotated[
        int | None, tyro.conf.arg(help="whose assistant; the best one if not given")
    ] = None,
) -> None:
    """Export the weights of a language model to a folder that transformers can load."""
    from amplify import inspection
    from amplify.store import Store

    number = inspection.export_weights(Store(experiment), round, out)
    output.print(f"wrote {out}, the assistant of round {number}")


def data(
    experiment: Folder,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a .parquet or .jsonl file")],
    round: Annotated[int, tyro.conf.arg(help="the round whose signal is exported")],
    phase: Annotated[
        str | None,
        tyro.conf.arg(
            help="the phase whose signal it is; by default, the one that trains the assistant"
        ),
    ] = None,
) -> None:
    """Export a round's signal with texts: a row for each question."""
    from amplify import signals
    from amplify.store import Store

    store = Store(experiment)
    signal = signals.find_signal(store, round, phase)
    count = signals.export(store, signal, out)
    output.print(f"wrote {out}, {count} questions of round {round}", soft_wrap=True)


def replay(
    experiment: Folder,
    round: Annotated[int, tyro.conf.arg(help="the round whose data set is rebuilt")],
    phase: Annotated[
        str | None, tyro.conf.arg(help="the phase whose data set it is, such as audit_40")
    ] = None,
    checkpoint: Annotated[
        int | None, tyro.conf.arg(help="use the assistant of this round, not the parent's")
    ] = None,
    overseer: Annotated[
        Literal["simulated", "nobody"] | None,
        tyro.conf.arg(help="use this overseer, not the recorded one; nobody: no overseer"),
    ] = None,
    json: Json = False,
) -> None:
    """Rebuild a round's data set from its records, or show what another overseer would change."""
    from amplify import replay as replays
    from amplify import report
    from amplify.store import Store

    store, watch = Store(experiment), progress_bars(f"round {round}")
    if checkpoint is None and overseer is None:
        replayed = replays.replay(store, round, watch, phase).as_row()
        if json:
            print(json_format.dumps(replayed, indent=1))
        else:
            output.print(report.replayed(replayed))
        if not replayed["same"]:
            raise AmplifyError(f"{experiment}: round {round} was not reproduced: see above")
        return
    if phase is not None:
        raise AmplifyError("--phase: only a data set is made again by phase; leave it out here")
    swapped = replays.swap(store, round, checkpoint, overseer, watch)
    changes = [change.as_row() for change in swapped]
    if json:
        print(json_format.dumps(changes, indent=1))
    else:
        output.print(report.changes(changes))


def serve(
    experiment: Folder,
    host: Annotated[str, tyro.conf.arg(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, tyro.conf.arg(help="port to listen on; 0: any free port")] = 8765,
    share: Annotated[bool, tyro.conf.arg(help="allow a proxy's iframe, as in Colab")] = False,
) -> None:
    """Serve the pages on which people answer, also between rounds. A waiting round uses them."""
    from amplify.people import serving
    from amplify.people.serving import check_people

    check_people(experiment)
    if not 0 <= port <= 65535:
        raise AmplifyError(f"--port: must be 0 to 65535, got {port}")
    serving.checked_host(host, "--host")
    try:
        with serving.serving(experiment, serving.Where(host, port, share)) as served:
            if isinstance(served, serving.Borrowed):
                raise AmplifyError(f"{experiment}: already served at {served.address}")
            show_links(experiment, served.address)
            served.run()
    except KeyboardInterrupt:
        messages.print("stopped; all answers are saved")


def people(
    experiment: Folder,
    invite: Annotated[int, tyro.conf.arg(help="number of people to invite")] = 0,
    name: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="names of people to invite; stored in people/names.csv only"),
    ] = (),
    days: Annotated[float, tyro.conf.arg(help="days until new links expire")] = 30.0,
    revoke: Annotated[str | None, tyro.conf.arg(help="the person whose link is revoked")] = None,
    address: Annotated[
        str, tyro.conf.arg(help="public address of the pages")
    ] = "http://127.0.0.1:8765",
) -> None:
    """List everyone's link and answers that could not be used; invite people or revoke links."""
    import time

    from amplify.people.roster import MOST_DAYS, MOST_PEOPLE, Roster, check_names
    from amplify.people.serving import check_people

    check_people(experiment)
    if not 0 <= invite <= MOST_PEOPLE:
        raise AmplifyError(f"--invite: must be 0 to {MOST_PEOPLE}, got {invite}")
    if not 0 < days <= MOST_DAYS:
        raise AmplifyError(f"--days: must be more than 0, at most {MOST_DAYS:.0f}, got {days}")
    check_names([*name, *[""] * invite])
    roster = Roster(experiment)
    if revoke is not None:
        roster.revoke(revoke)
    if invite or name:
        roster.invite([*name, *[""] * invite], time.time(), days)
    show_links(experiment, address)
    show_set_aside(experiment)


def events(
    experiment: Folder,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a .jsonl or .parquet file")],
) -> None:
    """Export the log of everything that people said and did."""
    from amplify.people.log import EVENTS, Log, export_events
    from amplify.people.serving import check_people

    check_people(experiment)
    if not (experiment / EVENTS).is_file():
        raise AmplifyError(f"{experiment / EVENTS}: no such file; nobody has been asked yet")
    count = export_events(Log(experiment / EVENTS), out)
    output.print(f"wrote {out}, {count} events", soft_wrap=True)


COMMANDS = {
    "round": round_,
    "rounds": rounds,
    "study": study,
    "compare": compare,
    "ask": ask,
    "tree": tree,
    "cross-play": cross_play,
    "export": export,
    "data": data,
    "replay": replay,
    "serve": serve,
    "people": people,
    "events": events,
}
DESCRIPTION = (
    "Iterated amplification, round after round. An experiment is a folder with an experiment.toml."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; exits with code 2 after printing one line for a user error.

    Args:
        argv: the command's name and its arguments; None: those of the process.
    """
    for library in ("absl", "jax._src.callback"):  # these log the errors that they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # XLA reports slow compilation as an error, with advice to file a bug. Progress says it better.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ignore_orphans()
    try:
        call = parse(COMMANDS, DESCRIPTION, sys.argv[1:] if argv is None else argv)
        call()
    except AmplifyError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped")
    except Exception as error:
        if line := explained(error) or in_own_code(error):
            fail(line)
        if not isinstance(error, OSError):
            raise
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}")


def in_own_code(error: Exception) -> str | None:
    """Returns the error line for an exception in an experiment's own code; None for any other."""
    from amplify.reading.own_code import describe_error, error_location  # imports jax

    place = error_location(error)
    return f"{place}: {describe_error(error)}" if place else None


def fail(line: str) -> None:
    """Prints an error line to stderr and exits with code 2."""
    print(f"amplify: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(2)
