"""The commands that run rounds: `round` and `rounds`, of one experiment or of several."""

import json as json_format
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.text import Text

from amplify.cli import variants
from amplify.cli.arguments import Cluster, Folder, Json
from amplify.cli.variants import read_seeds
from amplify.errors import AmplifyError, command, round_command
from amplify.launch import join_processes, launch, share_programs
from amplify.terminal import (
    messages,
    output,
    show_comparison,
    show_rounds,
    stale_line,
    warn_once,
)

Settings = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        metavar="KEY=VALUE",
        help="run a derived experiment in which this key differs, such as training.steps=500; may"
        " be repeated; needs --as",
    ),
]
DerivedFolder = Annotated[
    Path | None,
    tyro.conf.arg(name="as", metavar="FOLDER", help="where the derived experiment is written"),
]
Seeds = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="0,1,2",
        help="run an experiment for each seed, with the same held-out questions, and compare them",
    ),
]
RunRound = Callable[[int], None]
"""Runs a round, given its number."""


def round_(
    experiment: Folder,
    n: Annotated[
        int, tyro.conf.arg(help="number of the round: 1 or more; 0 is allowed with --redo")
    ],
    redo: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="STAGE",
            help="redo this stage of round N, such as distillation/data, and all later ones",
        ),
    ] = None,
    set: Settings = (),
    as_: DerivedFolder = None,
    seeds: Seeds = None,
    cluster: Cluster = False,
    json: Json = False,
) -> None:
    """Run round N after any missing earlier rounds, or resume it, and print a table."""
    if n < (redo is None):
        least = "1 or more" if redo is None else "0 or more with --redo"
        raise AmplifyError(f"--n: a round number is {least}, got {n}")
    if redo is not None and seeds is not None:
        raise AmplifyError("--redo: works on one experiment; leave out --seeds and name it")

    def run(store: Any, run_round: RunRound) -> None:
        if redo is not None:
            store.round(n).undo(redo)
        for number in range(n + 1):
            run_round(number)

    run_all(experiments(experiment, set, as_, seeds, cluster), cluster, json, run, last=n)


def rounds(
    experiment: Folder,
    at_most: Annotated[int, tyro.conf.arg(help="stop after this round at the latest")] = 100,
    set: Settings = (),
    as_: DerivedFolder = None,
    seeds: Seeds = None,
    cluster: Cluster = False,
    json: Json = False,
) -> None:
    """Run rounds until the gate finds that the assistant no longer improves."""

    def run(store: Any, run_round: RunRound) -> None:
        run_while_improving(store, run_round, at_most)

    run_all(experiments(experiment, set, as_, seeds, cluster), cluster, json, run)


def experiments(
    experiment: Path, settings: Sequence[str], folder: Path | None, seeds: str | None, cluster: bool
) -> list[Path]:
    """Returns the experiments that a command runs, see `variants.experiments`."""
    with messages.status("reading the experiment"):  # importing jax takes seconds
        join_processes(cluster)  # before the experiment is read
        return variants.experiments(experiment, settings, folder, seeds)


def study(
    experiment: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="EXPERIMENT", help="the folder of an experiment and its study.toml"),
    ],
    seeds: Annotated[
        str | None,
        tyro.conf.arg(metavar="0,1,2", help="seeds of each arm, instead of those of the file"),
    ] = None,
    json: Json = False,
) -> None:
    """Run or resume the cells of a study, each arm with each seed, and print its table."""
    if follows_seed(experiment):
        share_programs()
    from amplify.studies import running

    join_processes(cluster=False)
    wanted = None if seeds is None else read_seeds(seeds)
    found, report = running.open_study(experiment)

    def begin(cell: Any, number: int, of: int) -> None:
        messages.print(f"cell {number} of {of}: {cell.path}", style="bold", soft_wrap=True)

    runs = running.run_study(experiment, found, report, wanted, begin)
    if json:
        print(json_format.dumps(report.rows(runs), indent=1))
        return
    output.print(report.table(runs))
    if (path := running.write_figure(experiment, report, runs)) is not None:
        output.print(f"wrote {path}", soft_wrap=True)


def follows_seed(experiment: Path) -> bool:
    """Whether seeds of a study differ in more than draws, such as in their worlds, so that equal
    programs must be arranged. What is wrong with its file is said when it is read as a whole.

    Args:
        experiment: the folder of its `study.toml`.
    """
    try:
        table = tomllib.loads((experiment / "study.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(table.get("follow_seed"))


def run_all(
    paths: Sequence[Path],
    cluster: bool,
    json: bool,
    run: Callable[[Any, RunRound], None],
    last: int | None = None,
) -> None:
    """Runs rounds of experiments, one after the other, and prints the table.

    Args:
        paths: the experiments.
        cluster: as in `launch`.
        json: whether to print JSON.
        run: takes what `launch` yields.
        last: the last round that is run; None: not known.
    """
    stores: list[Any] = []
    warned: set[str] = set()
    for number, path in enumerate(paths, 1):
        if len(paths) > 1:
            said = f"experiment {number} of {len(paths)}: {path}"
            messages.print(said, style="bold", markup=False, highlight=False, soft_wrap=True)
        train_helpers(path, cluster)
        with launch(path, cluster, last) as (store, run_round):
            run(store, _warning_first(store, run_round, warned))
            stores.append(store)
    if len(stores) == 1:
        show_rounds(stores[0], json)
    else:
        show_comparison(stores, json)
    for store in stores:
        warn_once(stale_line(store.path), warned)
    if not json:
        show_next(stores)


def train_helpers(path: Path, cluster: bool, helps: tuple[Path, ...] = ()) -> None:
    """Runs rounds of an experiment's helper if it has no promoted one, its own helper's first.

    Args:
        path: the experiment's folder.
        cluster: as in `launch`.
        helps: experiments that this one helps, directly or through others.
    """
    with messages.status("reading the experiment"):  # importing its kinds takes seconds
        from amplify.reading.helpers import untrained_helper

        helper = untrained_helper(path / "experiment.toml")
    if helper is None or helper.resolve() in helps:  # a circle is an error when the file is read
        return
    train_helpers(helper, cluster, (*helps, path.resolve()))
    said = f"{path} needs the help of {helper}, which has no promoted round yet: running its rounds"
    messages.print(said, style="bold", markup=False, highlight=False, soft_wrap=True)
    with launch(helper, cluster) as (store, run_round):
        run_while_improving(store, run_round)


def run_while_improving(store: Any, run_round: RunRound, at_most: int = 100) -> None:
    """Runs rounds until the gate finds that the assistant no longer improves.

    Args:
        store: of the experiment.
        run_round: runs a round.
        at_most: the last round that may be run.
    """
    for number in range(at_most + 1):
        run_round(number)
        if store.no_longer_improves(number):
            verdict = store.round(number).verdict["verdict"]
            messages.print(f"round {number} was {verdict}: stopping", style="bold")
            break


def _warning_first(store: Any, run_round: RunRound, warned: set[str]) -> RunRound:
    """Warns before the first round is run: not before an error about the command itself."""

    def warn_and_run(number: int) -> None:
        warn_once(store.experiment.gate_warning(), warned)
        run_round(number)

    return warn_and_run


def show_next(stores: Sequence[Any]) -> None:
    """Prints where the last round's page is, and the commands that look closer or go on."""
    paths = [store.path for store in stores]
    hints = [("Figures", command("compare", *paths))]
    last = max(n for n in stores[0].rounds() if stores[0].round(n).complete)
    if len(stores) == 1 and last:
        page = stores[0].round(last).report
        hints = [("Page", str(page)), *hints]
        if stores[0].round(last).verdict["verdict"] != "rejected":
            hints.append(("Next", round_command(paths[0], last + 1)))
    for name, what in hints:
        output.print(Text.assemble(f"{name}: ", (what, "bold")), soft_wrap=True)
