"""Copies the training log and evals to TensorBoard and Weights & Biases.

`[log]` of an experiment file asks for it. Each phase of a round is a run of its own, such as
`001/distillation`, whose steps are training steps. The run `rounds` has the evals, the verdict and
the cost of every finished round; its steps are the rounds. Rows go to a sink once they are in the
round's own log, so training never waits for one, and a resumed run is first given the rows of that
log: no step is missing or there twice.
"""

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.experiment.sections import Log
from amplify.files.json_lines import read_lines
from amplify.report.results import results
from amplify.runtime import processes
from amplify.runtime.progress import Advance, Watch
from amplify.store import Store

Row = Mapping[str, Any]
Write = Callable[[Row], object]
"""Writes a row, which has a "step" that is larger than that of the row before it."""
Sink = Callable[[Store, str, bool], AbstractContextManager[Write]]
"""Opens a run of an experiment by its name; True: it continues one that was stopped."""


def check(log: Log) -> None:
    """Checks that the sinks which `[log]` asks for can be used.

    Args:
        log: the section.

    Raises:
        AmplifyError: if a package is missing, or nobody is logged in to Weights & Biases.
    """
    for key, wanted, package in (
        ("log.tensorboard", log.tensorboard, "tensorboardX"),
        ("log.wandb", log.wandb, "wandb"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise AmplifyError(
                f"{key} needs the package {package}, which is not installed: pip install {package}"
            )
    if log.wandb:
        _check_login()


def _check_login() -> None:
    import wandb

    with _errors_in_one_line():
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise AmplifyError(
                "log.wandb: nobody is logged in to Weights & Biases: run `wandb login`, or set"
                " WANDB_MODE=offline to write the run to the experiment's folder"
            )


def logged(watch: Watch, store: Store, number: int) -> Watch:
    """Wraps a `Watch` so that rows of a round's training log also go to the experiment's sinks.

    Args:
        watch: shows progress.
        store: the experiment.
        number: the round's.
    """
    if not (sinks := _sinks(store)):
        return watch

    @contextlib.contextmanager
    def watched(what: str, total: int, done: int = 0, /) -> Iterator[Advance]:
        def before() -> list[Row]:
            rows = read_lines(store.round(number).phase(what).metrics) if done else []
            return [row for row in rows if row["step"] <= done]

        with watch(what, total, done) as advance, contextlib.ExitStack() as stack:
            writes: list[Write] = []

            def advance_and_log(taken: int, row: Row | None = None, /) -> None:
                if row and not writes:  # other work has no rows
                    runs = [sink(store, f"{number:03d}/{what}", done > 0) for sink in sinks]
                    writes.extend(stack.enter_context(run) for run in runs)
                    _write_all(writes, before())
                if row:
                    _write_all(writes, [row])
                advance(taken, row)

            yield advance_and_log

    return watched


def log_rounds(store: Store) -> None:
    """Writes evals, verdict and cost of all finished rounds to the experiment's sinks.

    Args:
        store: the experiment.
    """
    for sink in _sinks(store):
        with sink(store, "rounds", False) as write:
            _write_all([write], _rounds(store))


def _write_all(writes: Sequence[Write], rows: Sequence[Row]) -> None:
    for row in rows:
        for write in writes:
            write(row)


def _sinks(store: Store) -> list[Sink]:
    log = store.experiment.log
    if not processes.is_first():
        return []
    return [_tensorboard] * log.tensorboard + [_wandb] * bool(log.wandb)


def _rounds(store: Store) -> list[Row]:
    """A row for each finished round: `{"step", "verdict", "cost", split: {measure: {class}}}`."""
    rows: dict[int, dict[str, Any]] = {}
    for found in results(store):
        row = rows.setdefault(found["round"], {"step": found["round"], "cost": found["cost"]})
        if found["verdict"]:
            row["verdict"] = found["verdict"]
        for measure in found["intervals"]:
            by_class = row.setdefault(found["split"], {}).setdefault(measure, {})
            by_class[found["class"]] = found[measure]
    return list(rows.values())


def _flat(row: Row, prefix: str = "") -> dict[str, float | int | str]:
    """Numbers and texts in a row and in the tables in it, by name: "accuracy/alone/1 hop"."""
    flat: dict[str, float | int | str] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, float | int | str):
            flat[f"{prefix}{name}"] = value
    return flat


@contextlib.contextmanager
def _tensorboard(store: Store, name: str, resumes: bool) -> Iterator[Write]:
    """A `Sink` of event files, which are always written anew."""
    from tensorboardX import SummaryWriter

    folder = store.path / "tensorboard" / name
    shutil.rmtree(folder, ignore_errors=True)
    # A TensorBoard that is running has read the old file: steps from `purge_step` on are dropped.
    with SummaryWriter(str(folder), purge_step=0) as writer:

        def write(row: Row) -> None:
            for key, value in _flat(row).items():
                add = writer.add_text if isinstance(value, str) else writer.add_scalar
                if key != "step":
                    add(key, value, row["step"])
            writer.flush()

        yield write


@contextlib.contextmanager
def _wandb(store: Store, name: str, resumes: bool) -> Iterator[Write]:
    """A `Sink` of runs at Weights & Biases.

    A run that is not resumed replaces the one with its id. Offline, a resumed run is a folder of
    its own with all rows, which replaces the earlier folder's where it is uploaded after it.
    """
    import wandb

    experiment = store.experiment
    entity, _, project = experiment.log.wandb.rpartition("/")
    with _errors_in_one_line():
        run = wandb.init(
            entity=entity or None,
            project=project,
            group=store.name,
            name=f"{store.name}/{name}",
            id=f"{experiment.digest[:16]}-{name.replace('/', '-')}",
            resume="allow" if resumes else None,
            config=dict(experiment.values),
            dir=store.path,
            settings=wandb.Settings(console="off", silent=True),
        )
    known = run.step  # rows before it are there already

    def write(row: Row) -> None:
        flat = _flat(row)
        step = flat.pop("step")
        if step >= known:
            run.log(flat, step=step, commit=True)

    with run:
        yield write


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        raise AmplifyError(f"log.wandb: {first_line(error)}") from None
