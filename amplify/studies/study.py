"""A study: arms that differ in some keys, each with several seeds, and a report about all of them.

A *cell* is one arm with one seed: a derived experiment in a folder of its own, and the results that
the report measures when its rounds are done. A cell that has results is not run again, so a killed
study continues where it stopped. Knows nothing of what is measured: a `Report` does.
"""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
from pydantic import Field
from rich.console import RenderableType

from amplify.errors import AmplifyError, first_line
from amplify.experiment.validation import check_plain, read_section
from amplify.files.writing import write_atomically
from amplify.launch import launch
from amplify.reading import derived
from amplify.records import provenance
from amplify.store import Store
from amplify.studies.sharing import copy_stage

FILE, CELLS, RESULT = "study.toml", "study", "result.json"
Results = dict[str, Any]
"""What a report measured in a cell, as it is written to its folder."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


Runs = Mapping[str, Mapping[int, Any]]
"""What was measured for each arm, by seed, as the report reads it."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a study measures in each cell, and what it shows of all of them."""

    arms: tuple[str, ...]
    """The arms that a study must have, in this order."""
    measure: Callable[[Store, int], Results]
    """Measures a cell whose rounds up to a number are done; returns what JSON can hold."""
    read: Callable[[Results], Any]
    """Makes one of the `Runs` of what `measure` returned."""
    table: Callable[[Runs], RenderableType]
    """For the terminal; seeds that are not done in all arms are left out of means."""
    rows: Callable[[Runs], list[dict[str, Any]]]
    """The same for programs: what JSON can hold."""
    figure: Callable[[Mapping[str, Sequence[Any]]], bytes]
    """A PNG file of the runs of each arm, for the same seeds, `seeds.FEWEST` or more."""
    wanted: Callable[[Runs, int], Sequence[str]] | None = None
    """Which arms a seed needs, of what is measured so far and the seed; None: all. A report that
    chooses between arms on some seeds needs only the chosen ones on others."""
    version: int = 1
    """Of what `measure` returns. If it has risen, finished cells are measured again, without
    running their rounds."""


@dataclasses.dataclass(frozen=True)
class Study:
    """`study.toml`, beside the `experiment.toml` that all cells derive from."""

    report: str
    """Name of the report."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """Seeds of every arm."""
    arms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """The keys in which each arm differs from the experiment, as in `--set`; may be empty."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds of a cell."""
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The keys in which all arms differ from the experiment."""
    follow_seed: tuple[str, ...] = ()
    """Keys that get the value of the cell's seed, such as `task.world`."""
    shares: dict[Name, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Stages of round 1 that an arm copies from the first one instead of running them, because no
    key in which they differ has an effect on them. The first one is that of the arms that a seed
    needs, see `Report.wanted`."""

    def __post_init__(self) -> None:
        """Checks that names fit together.

        Raises:
            ValueError: if they do not.
        """
        if unknown := [name for name in self.shares if name not in [*self.arms][1:]]:
            raise ValueError(f"shares: {unknown[0]} is no arm after the first")
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError("seeds must be different numbers")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    base: Path
    arm: str
    seed: int
    changes: Mapping[str, Any]
    """The keys in which it differs from the base, by full key."""

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.base / CELLS / f"{self.arm}-{self.seed}"

    def derive(self) -> derived.Derived:
        """Checks its experiment file, without writing it.

        Raises:
            AmplifyError: if a key or value is not allowed, or the folder has other contents.
        """
        named = f"{self.base / FILE}: {self.arm}"
        return derived.derive(self.base, self.path, self.changes, named)

    def write(self) -> Path:
        """Writes its experiment file, unless it is there; returns its folder.

        Raises:
            AmplifyError: as in `derive`.
        """
        return self.derive().write()

    def results(self, rounds: int, version: int = 1) -> Results | None:
        """Returns what was measured; None: nothing yet, another version, or weights that are gone.

        Args:
            rounds: number of the cell's last round.
            version: of the report.

        Raises:
            AmplifyError: if the file is damaged.
        """
        file = self.path / RESULT
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            of, results = found["of"], dict(found["results"])
            measured = found.get("version", 1)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise AmplifyError(
                f"{file}: damaged ({first_line(error)}); delete it to measure the cell again"
            ) from None
        store = Store(self.path, runs_code=False)
        current = measured == version and of == store.round(rounds).identity
        return results if current else None


def read_study(experiment: Path) -> Study:
    """Reads the `study.toml` in an experiment's folder.

    Args:
        experiment: the folder.

    Raises:
        AmplifyError: naming the file, the key and what is allowed.
    """
    path = experiment / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AmplifyError(f"{path}: no such file; it says which cells a study has") from None
    except (ValueError, OSError, RecursionError) as error:
        raise AmplifyError(f"{path}: cannot be read as TOML: {first_line(error)}") from None
    check_plain(table, path)
    study: Study = read_section(Study, table, "study", path)
    return study


def cells(study: Study, experiment: Path, seeds: Sequence[int] | None = None) -> list[Cell]:
    """Returns the cells of a study: of each seed, all arms.

    Args:
        study: the study.
        experiment: the folder that cells derive from.
        seeds: instead of the study's own.
    """

    def changes(seed: int, arm: Mapping[str, Any]) -> dict[str, Any]:
        followed = dict.fromkeys(study.follow_seed, seed)
        return {"seed": seed, **followed, **study.changes, **arm}

    return [
        Cell(experiment, name, seed, changes(seed, arm))
        for seed in (study.seeds if seeds is None else seeds)
        for name, arm in study.arms.items()
    ]


def run_cell(study: Study, cell: Cell, report: Report, first: str | None = None) -> Results:
    """Runs or resumes a cell, unless it is done, and measures it.

    Args:
        study: the study.
        cell: one of its cells.
        report: measures it.
        first: the arm from which others copy the stages that they share, whose cell with the same
            seed is done; None: the study's first one.

    Returns:
        What the report measured.

    Raises:
        AmplifyError: if the cell cannot be run, or is interrupted.
    """
    path = cell.write()
    if (found := cell.results(study.rounds, report.version)) is not None:
        return found
    with launch(path, False) as (store, run_round):
        run_round(0)
        source = dataclasses.replace(cell, arm=first or next(iter(study.arms)))
        if cell.arm != source.arm and not store.round(1).complete:
            _copy_stages(study.shares.get(cell.arm, ()), source, store)
        for number in range(1, study.rounds + 1):
            run_round(number)
        results = report.measure(store, study.rounds)
        of = store.round(study.rounds).identity
        written = {"of": of, "version": report.version, "results": results}
        write_atomically(path / RESULT, json.dumps(written, indent=1) + "\n")
    # The programs of a cell belong to its experiment, so no other cell finds them in memory. What
    # equal ones need to be compiled again is on disk.
    jax.clear_caches()
    return results


def _copy_stages(stages: Sequence[str], source: Cell, store: Store) -> None:
    """Begins round 1 with the stages that a cell shares with another one."""
    if not stages:
        return
    other = Store(source.path).round(1)
    this, best = store.round(1), store.best_before(1)
    this.begin(provenance.describe(store.experiment, parent=best.identity))
    for stage in stages:
        this.stage(stage, copy_stage, other, this, stage)
