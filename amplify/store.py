"""The folders of an experiment: stages done, atomic commits, resume, and which round is best.

Knows files and nothing of models. A stage's results are complete on disk before the record says
that it is done, and the record is replaced in one rename; whatever else a killed process left
behind is made again. Of several processes the first writes, and the others wait until it has.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from amplify import files, identity, lineage, processes
from amplify.advice import again, quote
from amplify.device import compile_seconds
from amplify.errors import AmplifyError, first_line
from amplify.experiment import Experiment
from amplify.experiment_file import has_own_code, read_experiment
from amplify.items import Items
from amplify.provenance import made_by
from amplify.recorded import recorded_experiment

OWNER = "belongs_to.json"
"""In `training/`: which training its checkpoints are of."""
STAGES = ("overseer", "data", "checkpoint", "evals", "verdict")
"""In the order in which they are done; not every experiment has all."""


class Store:
    """An experiment's folder."""

    def __init__(self, path: Path, *, runs_code: bool = True) -> None:
        """Reads the experiment file.

        Args:
            runs_code: False: code in the folder is not run, and an experiment that has such code is
                known from its records only, which is enough to compare its rounds.

        Raises:
            AmplifyError: if there is no experiment file, if something that belongs to the
                experiment's identity changed after rounds were run, or if the parent of a round is
                no longer there.
        """
        if not path.is_dir():
            raise AmplifyError(
                f"{path}: no such folder; an experiment is a folder with an experiment.toml"
            )
        self.path = path
        rounds = [self.round(number) for number in self.rounds()]
        if runs_code or not has_own_code(path / "experiment.toml"):
            self.experiment: Experiment = read_experiment(path / "experiment.toml")
            for this in rounds:
                identity.check_unchanged(self.path, this.number, this.record, self.experiment)
        else:
            self.experiment = recorded_experiment([this.record for this in rounds])
        lineage.check_parents(path, {this.number: this.record for this in rounds})

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def rounds(self) -> list[int]:
        """Numbers of the rounds that were begun, ascending."""
        names = (entry.name for entry in self.path.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if re.fullmatch(r"\d{3,}", name))

    def round(self, number: int) -> "RoundFolder":
        return RoundFolder(self.path / f"{number:03d}", number)

    def finished(self, number: int, stage: str) -> "RoundFolder":
        """A round that has done a stage. Raises AmplifyError naming those that have."""
        this = self.round(number)
        if number < 0 or not this.done(stage):
            there = ", ".join(str(n) for n in self.rounds() if self.round(n).done(stage)) or "none"
            raise AmplifyError(
                f"{self.path}: round {number} has no {stage}; rounds that have: {there}"
            )
        return this

    def parent_of(self, this: "RoundFolder") -> "RoundFolder":
        """The round that a round was trained from. Raises AmplifyError if it is not there any more,
        or has another checkpoint than the round's record names.
        """
        records = {number: self.round(number).record for number in self.rounds()}
        lineage.check_parent(self.path, records, this.number)
        return self.round(this.record["parent"]["round"])

    def check_current(self) -> None:
        """Raises AmplifyError if rounds were run by a version that did not record what the
        experiment's files contain: they can be compared, and no round can follow them.
        """
        for number in self.rounds():
            record = self.round(number).record
            identity.check_current(self.path, number, record, self.experiment)

    def best_before(self, number: int) -> "RoundFolder":
        """The last promoted round before round `number`; round 0, the untrained assistant, if none
        was.
        """
        for earlier in range(number - 1, 0, -1):
            verdict = self.round(earlier).verdict
            if verdict is None:
                raise AmplifyError(
                    f"{self.round(earlier).path}: round {earlier} has no verdict yet; run it first"
                )
            if verdict["verdict"] == "promoted":
                return self.round(earlier)
        return self.round(0)

    def no_longer_improves(self, number: int) -> bool:
        """Whether the last `patience` rounds up to `number` were all not promoted."""
        last = range(number - self.experiment.gate.patience + 1, number + 1)
        verdicts = [self.round(n).verdict for n in last if n >= 1]
        unpromoted = [
            verdict for verdict in verdicts if verdict and verdict["verdict"] != "promoted"
        ]
        return len(unpromoted) == self.experiment.gate.patience

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the experiment for this process. The kernel frees it with the process, so it cannot
        go stale.

        Raises AmplifyError naming the process that holds it.
        """
        with (self.path / ".lock").open("a+", encoding="utf-8") as file:
            processes.first(lambda: self._take(file))
            yield

    def _take(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise AmplifyError(
                f"{self.path}: another process (pid {holder}) is running this experiment"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()


class RoundFolder:
    """A round's folder and its record."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.data, self.checkpoint, self.training = (
            path / "data",
            path / "checkpoint",
            path / "training",
        )
        self.overseer = path / "overseer"
        self.evals, self.metrics = path / "evals.jsonl", path / "metrics.jsonl"
        self.interactions, self.report = path / "interactions.jsonl", path / "report.html"
        self.record: dict[str, Any] = self._read_record()

    def _read_record(self) -> dict[str, Any]:
        path = self.path / "record.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            parent = record.get("parent")
            return {
                **record,
                "stages": {name: dict(entry) for name, entry in record["stages"].items()},
                "experiment": dict(record["experiment"]),
                "parent": parent and {"round": int(parent["round"]), "digest": parent["digest"]},
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AmplifyError(
                f"{path}: damaged record ({first_line(error)}); to do the round again:"
                f" rm {quote(path)} && {again(self.path.parent, self.number or 1)}"
            ) from None

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Makes the folder and a record that says "started", unless there is one.

        The first of several processes decides: another may find the record that it wrote just now.
        """

        def write() -> None:
            if not self.record:
                self.path.mkdir(exist_ok=True)
                record = {"round": self.number, "status": "started", **facts, "stages": {}}
                files.write_atomically(
                    self.path / "record.json", json.dumps(record, indent=2) + "\n"
                )

        processes.first(write)
        self.record = self._read_record()

    def done(self, stage: str) -> bool:
        return stage in self.record.get("stages", {})

    @property
    def identity(self) -> dict[str, Any]:
        """Round and checkpoint digest: what a child's record says of its parent."""
        return {"round": self.number, "digest": self.record["stages"]["checkpoint"]["digest"]}

    @property
    def complete(self) -> bool:
        return self.record.get("status") == "done"

    def stage(self, name: str, work: Callable[..., Mapping[str, Any]], *arguments: Any) -> None:
        """Does one stage, unless it is done: `work` leaves complete files behind and returns what
        to record.
        """
        if self.done(name):
            return
        began, compiled = time.monotonic(), compile_seconds()
        try:
            facts = work(*arguments)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        entry = {
            **made_by(),
            "seconds": round(time.monotonic() - began, 3),
            "compile_seconds": round(compile_seconds() - compiled, 3),
            **facts,
        }
        self._commit({**self.record, "stages": {**self.record["stages"], name: entry}})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Adds to the record."""
        self._commit({**self.record, **facts})

    def finish(self) -> None:
        """Marks the round done."""
        self.note({"status": "done"})

    @contextlib.contextmanager
    def intact(self, stage: str) -> Iterator[None]:
        """While the results of a stage are read: an error about them says how to do the stage
        again.
        """
        try:
            yield
        except AmplifyError as error:
            command = again(self.path.parent, self.number, stage)
            raise AmplifyError(f"{error}; to do it again: {command}") from error

    def training_curve(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`."""
        with self.intact("checkpoint"):
            return read_lines(self.metrics)

    @property
    def verdict(self) -> dict[str, Any] | None:
        return self.record.get("stages", {}).get("verdict")

    def claim_training(self, experiment: Experiment) -> None:
        """Before a training: what another training left behind goes. A training belongs to the
        experiment, the parent, the round, and the data that it reads.
        """
        owner = {
            "experiment": experiment.digest,
            "parent": self.record["parent"],
            "round": self.number,
            "data": self.record["stages"].get("data", {}).get("digest"),
        }
        processes.first(lambda: self._claim(owner))

    def _claim(self, owner: Mapping[str, Any]) -> None:
        path = self.training / OWNER
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            found = None
        if found == owner:
            return
        if self.training.exists():
            print(
                f"amplify: {self.training}: belongs to another experiment, parent or data set:"
                " training starts anew",
                file=sys.stderr,
            )
            shutil.rmtree(self.training)
        self.training.mkdir(parents=True)
        files.write_atomically(path, json.dumps(owner, indent=2) + "\n")

    def drop_training(self) -> None:
        """The training's own checkpoints, once its last is the round's."""
        processes.first(lambda: shutil.rmtree(self.training, ignore_errors=True))

    def undo(self, stage: str) -> None:
        """Forgets a stage and those after it, so that they are done again."""
        if not self.record:
            raise AmplifyError(f"{self.path}: there is no round {self.number} to redo")
        left = STAGES[: STAGES.index(stage)]
        stages = {name: entry for name, entry in self.record["stages"].items() if name in left}
        kept = {key: value for key, value in self.record.items() if key != "ledger"}
        if "checkpoint" not in left:
            self.drop_training()
        self._commit({**kept, "status": "started", "stages": stages})

    def _commit(self, record: dict[str, Any]) -> None:
        write_atomically(self.path / "record.json", json.dumps(record, indent=2) + "\n")
        self.record = record


def write_atomically(path: Path, text: str) -> None:
    """As in `files`; where several processes call it together, the text of the first is written."""
    processes.first(lambda: files.write_atomically(path, text))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes JSON lines atomically; returns their SHA-256."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_lines(path: Path, digest: str | None = None) -> list[dict[str, Any]]:
    """Reads JSON lines. Raises AmplifyError if they are missing, damaged or not those of the
    digest.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if digest not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise ValueError("not what was written")
        return [json.loads(line) for line in text.splitlines()]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        raise AmplifyError(f"{path}: missing or damaged ({first_line(error)})") from None


def read_evals(round_: RoundFolder) -> list[dict[str, Any]]:
    """A round's eval items, in the order that every round of an experiment has them."""
    if not round_.done("evals"):
        raise AmplifyError(f"{round_.path}: round {round_.number} has no evals yet")
    with round_.intact("evals"):
        return read_lines(round_.evals, round_.record["stages"]["evals"]["digest"])


def read_items(round_: RoundFolder) -> Items:
    """A round's eval items as columns. Raises AmplifyError if they are not what was written."""
    rows = read_evals(round_)
    with round_.intact("evals"):
        try:
            return Items.of(rows)
        except ValueError as error:
            raise AmplifyError(f"{round_.evals}: {error}") from None
