"""The commands: argument parsing and printing, nothing else. A user's error is one line and exit
code 2.
"""

import contextlib
import functools
import io
import json as json_format
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from amplify.cli.failures import explained, ignore_orphans
from amplify.errors import AmplifyError
from amplify.launch import running
from amplify.report.terminal import (
    messages,
    output,
    progress_bars,
    show_links,
    show_rounds,
    show_set_aside,
)

# Nothing that imports jax is imported here: `--help` and bad arguments answer at once.

Folder = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help="its folder")
]
Json = Annotated[bool, tyro.conf.arg(help="print JSON for programs")]
Cluster = Annotated[
    bool,
    tyro.conf.arg(help="this is one of several processes of a Slurm, Open MPI or TPU cluster"),
]


def round_(
    experiment: Folder,
    n: Annotated[
        int, tyro.conf.arg(help="the round that shall exist: 1 or more, or with --redo also 0")
    ],
    redo: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="STAGE",
            help="do this stage of round N again, and those after it, such as distillation/data",
        ),
    ] = None,
    cluster: Cluster = False,
    json: Json = False,
) -> None:
    """Make sure round N exists: run the missing earlier rounds, resume a half-done one, print the
    table.
    """
    if n < (redo is None):
        least = "1 or more" if redo is None else "0 or more with --redo"
        raise AmplifyError(f"--n: a round number is {least}, got {n}")
    with running(experiment, cluster) as (store, go):
        if redo is not None:
            store.round(n).undo(redo)
        for number in range(n + 1):
            go(number)
        show_rounds(store, json)


def rounds(
    experiment: Folder,
    at_most: Annotated[int, tyro.conf.arg(help="stop after this round in any case")] = 100,
    cluster: Cluster = False,
    json: Json = False,
) -> None:
    """Run round after round until the gate says that the assistant no longer improves."""
    with running(experiment, cluster) as (store, go):
        for number in range(at_most + 1):
            go(number)
            if store.no_longer_improves(number):
                messages.print(
                    f"round {number} was {store.round(number).verdict['verdict']}: stopping",
                    style="bold",
                )
                break
        show_rounds(store, json)


def compare(
    experiment: Folder,
    other: Annotated[
        Path | None, tyro.conf.Positional, tyro.conf.arg(help="a second experiment")
    ] = None,
    json: Json = False,
) -> None:
    """Compare rounds, class by class, alone and amplified; writes compare.html and compare.png.
    Code that lies in an experiment's folder is not run.
    """
    from amplify import report
    from amplify.store import Store

    paths = [path for path in (experiment, other) if path is not None]
    stores = [Store(path, runs_code=False) for path in paths]
    if json:
        print(
            json_format.dumps([row for store in stores for row in report.results(store)], indent=1)
        )
        return
    output.print(report.comparison(stores))
    for path in report.write_comparison(stores):
        output.print(f"wrote {path}")


def ask(
    experiment: Folder,
    round: Annotated[
        int | None, tyro.conf.arg(help="whose assistant; the best one if not given")
    ] = None,
    amplify: Annotated[bool, tyro.conf.arg(help="show the overseer's tree too")] = False,
    depth: Annotated[int, tyro.conf.arg(help="levels of the tree")] = 1,
    problem: Annotated[int, tyro.conf.arg(help="which held-out problem to ask about")] = 0,
) -> None:
    """Ask a checkpoint questions by hand, one prompt after another."""
    from amplify import inspection
    from amplify.store import Store

    if depth < 1:
        raise AmplifyError(f"--depth: a tree has 1 level or more, got {depth}")
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
    round: Annotated[int, tyro.conf.arg(help="the round whose data the row is in")],
    row: Annotated[int, tyro.conf.arg(help="row of the round's data set")],
    question: Annotated[int, tyro.conf.arg(help="which of the row's questions")] = 0,
    depth: Annotated[
        int, tyro.conf.arg(help="1 is the tree that was trained on; more to look deeper")
    ] = 1,
    json: Json = False,
) -> None:
    """Show the decomposition tree behind a training row, recomputed; also writes it as HTML."""
    from amplify import inspection
    from amplify.store import Store

    found = inspection.training_tree(Store(experiment), round, row, question, depth)
    if json:
        print(json_format.dumps(found.tree, indent=1))
        return
    output.print(found.render())
    output.print(f"wrote {found.write_html()}")


def export(
    experiment: Folder,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a new folder")],
    round: Annotated[
        int | None, tyro.conf.arg(help="whose assistant; the best one if not given")
    ] = None,
) -> None:
    """Write the weights of an assistant that began with a checkpoint, as a folder that transformers
    opens.
    """
    from amplify import inspection
    from amplify.store import Store

    number = inspection.export_weights(Store(experiment), round, out)
    output.print(f"wrote {out}, the assistant of round {number}")


def replay(
    experiment: Folder,
    round: Annotated[int, tyro.conf.arg(help="whose data set is made again")],
    checkpoint: Annotated[
        int | None, tyro.conf.arg(help="with the assistant of this round in place of the parent")
    ] = None,
    overseer: Annotated[
        Literal["simulated", "nobody"] | None,
        tyro.conf.arg(help="with this overseer in place of who answered; nobody: no overseer"),
    ] = None,
    json: Json = False,
) -> None:
    """Make a round's data set again from what was recorded, or show what another checkpoint or
    overseer would change.
    """
    from amplify import replay as replaying
    from amplify import report
    from amplify.store import Store

    store, watch = Store(experiment), progress_bars(f"round {round}")
    if checkpoint is None and overseer is None:
        replayed = replaying.replay(store, round, watch).as_row()
        if json:
            print(json_format.dumps(replayed, indent=1))
        else:
            output.print(report.replayed(replayed))
        if not replayed["same"]:
            raise AmplifyError(f"{experiment}: round {round} cannot be replayed: see above")
        return
    swapped = replaying.swap(store, round, checkpoint, overseer, watch)
    changes = [change.as_row() for change in swapped]
    if json:
        print(json_format.dumps(changes, indent=1))
    else:
        output.print(report.changes(changes))


def serve(
    experiment: Folder,
    host: Annotated[str, tyro.conf.arg(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, tyro.conf.arg(help="0: any that is free")] = 8765,
    share: Annotated[bool, tyro.conf.arg(help="for a proxy's iframe, as in Colab")] = False,
) -> None:
    """Keep people's pages up, also between rounds; a round that waits for people uses them."""
    from amplify.people import serving
    from amplify.people.serving import check_people

    check_people(experiment)
    if not 0 <= port <= 65535:
        raise AmplifyError(f"--port: must be 0 to 65535, got {port}")
    serving.checked_host(host, "--host")
    try:
        with serving.serving(experiment, serving.Where(host, port, share)) as served:
            if isinstance(served, serving.Borrowed):
                raise AmplifyError(f"{experiment}: its pages are up already, at {served.address}")
            show_links(experiment, served.address)
            served.run()
    except KeyboardInterrupt:
        messages.print("stopped; what people said is kept")


def people(
    experiment: Folder,
    invite: Annotated[int, tyro.conf.arg(help="so many more people")] = 0,
    name: Annotated[
        tuple[str, ...], tyro.conf.arg(help="more people, by name; kept in people/names.csv only")
    ] = (),
    days: Annotated[float, tyro.conf.arg(help="that new links work")] = 30.0,
    revoke: Annotated[str | None, tyro.conf.arg(help="whose link shall no longer work")] = None,
    address: Annotated[
        str, tyro.conf.arg(help="where the pages are, seen from outside")
    ] = "http://127.0.0.1:8765",
) -> None:
    """Show everybody's link, and what of their work could not be used; invite people, or take a
    link back.
    """
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
    """Write all that people said and did as a table."""
    from amplify.people.log import EVENTS, Log, export_events
    from amplify.people.serving import check_people

    check_people(experiment)
    if not (experiment / EVENTS).is_file():
        raise AmplifyError(f"{experiment / EVENTS}: not there; nobody has been asked anything yet")
    count = export_events(Log(experiment / EVENTS), out)
    output.print(f"wrote {out}, {count} events", soft_wrap=True)


COMMANDS = {
    "round": round_,
    "rounds": rounds,
    "compare": compare,
    "ask": ask,
    "tree": tree,
    "export": export,
    "replay": replay,
    "serve": serve,
    "people": people,
    "events": events,
}
DESCRIPTION = (
    "Iterated amplification, round after round. An experiment is a folder with an experiment.toml."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command. Exits with 0, or with 2 after one line on stderr that says what was wrong."""
    for library in ("absl", "jax._src.callback"):  # which log what they also raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    ignore_orphans()
    try:
        call = parse(sys.argv[1:] if argv is None else argv)
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


def parse(argv: Sequence[str]) -> Callable[[], None]:
    """The command to run. Raises AmplifyError with the parser's complaint in one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                {name: deferred(command) for name, command in COMMANDS.items()},
                prog="amplify",
                description=DESCRIPTION,
                args=list(argv),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise AmplifyError(f"{in_one_line(complaint.getvalue())}; see amplify --help") from None


def in_one_line(box: str) -> str:
    """The parser's complaint, drawn as a heading, then text above a rule, framed or not."""
    lines = [line.strip(" │╰╯") for line in box.splitlines()[1:]]
    is_rule = [not line.strip("─-") for line in lines]
    begin = is_rule.index(False)
    end = [*is_rule, True].index(True, begin)
    line = " ".join(lines[begin:end])
    no_number = r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)"
    return re.sub(no_number, r"\1: must be a whole number, got \2", line)


def deferred(command: Any) -> Callable[..., Callable[[], None]]:
    """The command's signature for the parser, which then hands back what is to be called."""

    @functools.wraps(command)
    def bind(**arguments: Any) -> Callable[[], None]:
        return functools.partial(command, **arguments)

    return bind


def in_own_code(error: Exception) -> str | None:
    """The line for an error that was raised in code of an experiment's own; None for any other."""
    from amplify.reading.own_code import place_of, told  # imports jax

    place = place_of(error)
    return f"{place}: {told(error)}" if place else None


def fail(line: str) -> None:
    print(f"amplify: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(2)
