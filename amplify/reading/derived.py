"""Derived experiments: a folder whose file consists of a `base` and the keys that differ.

Called by the commands and the Python interface. A derived experiment is checked as a whole before
anything is written.
"""

import contextlib
import dataclasses
import os
import shutil
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError
from amplify.experiment.validation import check_plain
from amplify.files import toml
from amplify.files.writing import write_atomically
from amplify.reading.experiment_file import parse_experiment, read_experiment
from amplify.reading.ready import check_ready
from amplify.reading.tables import FILE, merge_tables, read_table

HEADING = "# Derived from "
"""How the files of derived experiments begin."""
PREPARED = {"task", "assistant", "overseer"}
"""Sections whose values may pass when they are read and fail in the checks before round 0."""


@dataclasses.dataclass(frozen=True)
class Derived:
    """A derived experiment that may not be on disk yet."""

    path: Path
    base: Path
    table: Mapping[str, Any]
    """The contents of its file."""

    @property
    def text(self) -> str:
        """The file: a comment that says what it is, then the table."""
        keys = [
            f"{section}.{key}" if isinstance(value, Mapping) else section
            for section, value in self.table.items()
            for key in (value if isinstance(value, Mapping) else [""])
            if section != "base"
        ]
        name = self.base.resolve().name
        said = name if name.isprintable() else repr(name)
        return f"{HEADING}{said}; differs in: {', '.join(keys)}\n{toml.dumps(self.table)}"

    def check_free(self) -> None:
        """Checks that the folder is missing, empty, or already this experiment.

        Raises:
            AmplifyError: if there is anything else.
        """
        file = self.path / FILE
        if file.is_file():
            with contextlib.suppress(ValueError, OSError, RecursionError):
                if tomllib.loads(file.read_text(encoding="utf-8")) == self.table:
                    return
            raise AmplifyError(
                f"{self.path}: is already there with other contents: choose another folder, or run"
                " it as it is"
            )
        is_there = self.path.is_symlink() or self.path.exists()
        if is_there and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise AmplifyError(
                f"{self.path}: is already there and is no experiment: choose another folder"
            )

    def write(self) -> Path:
        """Writes the folder with its file in one step, unless it is there; returns its path.

        Raises:
            AmplifyError: as in `check_free`.
        """
        self.check_free()
        if (self.path / FILE).is_file():
            return self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name[:100]}.{uuid.uuid4().hex}")
        try:
            new.mkdir()
            write_atomically(new / FILE, self.text)
            with contextlib.suppress(FileExistsError):
                new.rename(self.path)
        except OSError:
            if not (self.path / FILE).is_file():  # another process may have been faster
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        self.check_free()
        return self.path

    def remove(self) -> None:
        """Removes what `write` wrote, if no round has been run."""
        (self.path / FILE).unlink()
        self.path.rmdir()


def derive(base: Path, path: Path, changes: Mapping[str, Any], named: str = "changes") -> Derived:
    """Returns the experiment that differs from another one in some keys, checked as a whole.

    Nothing is written. Code in the base's folder is run.

    Args:
        base: the other experiment's folder.
        path: the folder of the derived experiment.
        changes: new values by full key: `{"training.steps": 500}`.
        named: what errors name as the origin of a wrong key or value.

    Raises:
        AmplifyError: if the base cannot be read, a key or value is not allowed, or the folder is
            already there with other contents.
    """
    read_experiment(base / FILE)
    below, folders = read_table(base / FILE)
    if path.resolve() == base.resolve():
        raise AmplifyError(f"{path}: a derived experiment needs a folder of its own")
    changed = nest(changes, named)
    origin = Path(named)
    check_plain(changed, origin)
    experiment = parse_experiment(merge_tables(below, changed), origin, (path, *folders))
    found = Derived(path, base, {"base": _relative(base, path), **changed})
    found.check_free()
    if not PREPARED.isdisjoint(changed):
        check_ready(experiment, origin)
    return found


def with_seeds(base: Path, seeds: Sequence[int], named: str = "seeds") -> list[Derived | Path]:
    """Returns experiments that differ in their seeds and have the same held-out questions.

    Args:
        base: the experiment; it stands for its own seed.
        seeds: the seeds.
        named: as in `derive`.

    Returns:
        For each seed, an experiment beside the base, or the base's own path.

    Raises:
        AmplifyError: as in `derive`, or if a seed occurs twice.
    """
    if len(set(seeds)) != len(seeds) or not seeds:
        raise AmplifyError(f"{named}: must be different seeds, got {', '.join(map(str, seeds))}")
    experiment = read_experiment(base / FILE)
    return [
        base
        if seed == experiment.seed
        else derive(
            base,
            seed_folder(base, seed),
            {"seed": seed, "evals.seed": experiment.evals_seed},
            named,
        )
        for seed in seeds
    ]


def seed_folder(base: Path, seed: int) -> Path:
    """Returns the folder of the experiment that differs from a base in its seed."""
    here = base if base.name not in ("", "..") else base.resolve()
    return here.with_name(f"{here.name}-seed-{seed}")


def seed_folders(base: Path, seeds: Sequence[int]) -> list[Path]:
    """Returns the folder of each seed, as `with_seeds` names them, without running any code.

    Args:
        base: the experiment; it stands for its own seed.
        seeds: the seeds.

    Raises:
        AmplifyError: if the base's file cannot be read.
    """
    own = read_table(base / FILE)[0].get("seed", 0)
    return [base if seed == own else seed_folder(base, seed) for seed in seeds]


def nest(changes: Mapping[str, Any], named: str) -> dict[str, Any]:
    """Returns values by full key as tables: `{"training": {"steps": 500}}`.

    Args:
        changes: values by full key.
        named: what errors name.

    Raises:
        AmplifyError: if one key is inside the value of another.
    """
    table: dict[str, Any] = {}
    for key, value in changes.items():
        *outer, last = key.split(".")
        inner = table
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                break
        if not isinstance(inner, dict) or last in inner:
            raise AmplifyError(f"{named}: {key} is given twice")
        inner[last] = value
    return table


def _relative(base: Path, path: Path) -> str:
    return os.path.relpath(base.resolve(), path.parent.resolve() / path.name)
