"""A round's folder: runs each stage once and records its results.

A stage's files are complete on disk before the record, which is replaced atomically, says that the
stage is done. Partial results of a killed process are discarded. Of several processes, the first
writes while the others wait. Knows files, not models.
"""

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, round_command
from amplify.evaluation.items import Items
from amplify.experiment.sections import Experiment
from amplify.files import writing
from amplify.files.json_lines import read_lines
from amplify.records.provenance import made_by
from amplify.records.record import (
    ASSISTANT,
    CHECKPOINT,
    PhaseFolder,
    Record,
    digest_of,
    main_folder,
    new_record,
    phase_folder,
    read_record,
    stage_named,
    trained_in,
    training_phases,
    write_record,
)
from amplify.runtime import processes
from amplify.runtime.device import compile_seconds

OWNER = "belongs_to.json"
"""File in `training/` that identifies the training that its checkpoints belong to."""


class RoundFolder:
    """A round's folder and its record."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.evals, self.report = path / "evals.jsonl", path / "report.html"
        self.record: Record = read_record(path)

    def phase(self, name: str) -> PhaseFolder:
        """Returns the paths of a phase's results."""
        return phase_folder(self.path, self.record, name)

    @property
    def main(self) -> PhaseFolder:
        """Paths of the phase that last trained the assistant."""
        return main_folder(self.path, self.record)

    def roles(self) -> dict[str, "Handle"]:
        """Returns the checkpoints of the roles that this round has trained so far, by role."""
        return {role: Handle(role, self, phase) for role, phase in trained_in(self.record).items()}

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Creates the folder and its record, unless they exist.

        Of several processes the first decides, because it may create the record at any moment.

        Args:
            facts: what is known before the round begins, see `provenance.describe`.
        """

        def write() -> None:
            if not self.record:
                self.path.mkdir(exist_ok=True)
                write_record(self.path, new_record(self.number, facts))

        processes.first(write)
        self.record = read_record(self.path)

    def done(self, stage: str) -> bool:
        """Returns whether a stage is finished.

        Args:
            stage: its full name, such as "distillation/data".
        """
        return stage in self.record.get("stages", {})

    def has(self, stage: str) -> bool:
        """Returns whether some phase has finished "data", or "checkpoint" of the assistant."""
        if stage == CHECKPOINT:
            return ASSISTANT in trained_in(self.record)
        return any(name.endswith(f"/{stage}") for name in self.record.get("stages", {}))

    @property
    def identity(self) -> dict[str, Any]:
        """The round's number and its assistant's digest, as a child's record names its parent."""
        return {"round": self.number, "digest": digest_of(self.record)}

    @property
    def complete(self) -> bool:
        """Whether all stages are finished."""
        return self.record.get("status") == "done"

    def stage(self, name: str, work: Callable[..., Mapping[str, Any]], *arguments: Any) -> None:
        """Runs a stage and records what it returns, unless the stage is finished.

        Args:
            name: the stage's full name.
            work: writes the stage's files; returns facts for the record.
            arguments: arguments of `work`.

        Raises:
            OSError: if a file cannot be written; names the round's folder if no other file is
                known.
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

    def update_record(self, facts: Mapping[str, Any]) -> None:
        """Adds facts to the record."""
        self._commit({**self.record, **facts})

    def finish(self) -> None:
        """Marks the round as done."""
        self.update_record({"status": "done"})

    @contextlib.contextmanager
    def redo_hint(self, stage: str) -> Iterator[None]:
        """Adds the command that redoes a stage to any AmplifyError raised in the block."""
        try:
            yield
        except AmplifyError as error:
            command = round_command(self.path.parent, self.number, stage)
            raise AmplifyError(f"{error}; to redo the stage: {command}") from error

    def training_curve(self) -> list[dict[str, Any]]:
        """Returns the logs of the phases that trained the assistant, one after the other.

        Raises:
            AmplifyError: if a log is damaged.
        """
        rows: list[dict[str, Any]] = []
        if self.number == 0:  # it initialises the assistant
            return rows
        for phase in training_phases(self.record, ASSISTANT):
            done = rows[-1]["step"] if rows else 0
            with self.redo_hint(f"{phase}/{CHECKPOINT}"):
                found = read_lines(self.phase(phase).metrics)
            rows += [{**row, "step": row["step"] + done} for row in found]
        return rows

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The gate's decision; None if there is none yet."""
        return self.record.get("stages", {}).get("verdict")

    def claim_training(self, experiment: Experiment, phase: str) -> None:
        """Deletes training checkpoints that belong to another training, and claims the folder.

        A training is identified by its experiment, its parent, its round and the stages before it.

        Args:
            experiment: the experiment.
            phase: the phase's name.
        """
        owner = {
            "experiment": experiment.digest,
            "parent": self.record["parent"],
            "round": self.number,
            "before": {
                stage: entry.get("digests", entry.get("digest"))
                for stage, entry in self.record["stages"].items()
            },
        }
        processes.first(lambda: self._claim(self.phase(phase).training, owner))

    def _claim(self, training: Path, owner: Mapping[str, Any]) -> None:
        path = training / OWNER
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            found = None
        if found == owner:
            return
        if training.exists():
            print(
                f"amplify: {training}: belongs to another experiment, parent or data set;"
                " training starts from the beginning",
                file=sys.stderr,
            )
            shutil.rmtree(training)
        training.mkdir(parents=True)
        writing.write_atomically(path, json.dumps(owner, indent=2) + "\n")

    def drop_training(self, phase: str) -> None:
        """Deletes a phase's training checkpoints, which the final checkpoint supersedes."""
        training = self.phase(phase).training
        processes.first(lambda: shutil.rmtree(training, ignore_errors=True))

    def undo(self, stage: str) -> None:
        """Removes a stage and all later ones from the record, so that they are run again.

        Args:
            stage: the stage's full name, or its last part if that is unique.

        Raises:
            AmplifyError: if the round does not exist, or has not finished this stage.
        """
        if not self.record:
            raise AmplifyError(f"{self.path}: there is no round {self.number} to redo")
        done, first = list(self.record["stages"]), stage_named(self.record, stage)
        if first is None:
            raise AmplifyError(
                f"--redo: must be a stage that round {self.number} has done"
                f" ({', '.join(done) or 'none yet'}), got {stage!r}"
            )
        left, undone = done[: done.index(first)], done[done.index(first) :]
        for name in undone:
            if name.endswith(f"/{CHECKPOINT}"):
                self.drop_training(name.removesuffix(f"/{CHECKPOINT}"))
        kept = {key: value for key, value in self.record.items() if key != "ledger"}
        stages = {name: self.record["stages"][name] for name in left}
        self._commit({**kept, "status": "started", "stages": stages})

    def _commit(self, record: Record) -> None:
        processes.first(lambda: write_record(self.path, record))
        self.record = record


@dataclasses.dataclass(frozen=True)
class Handle:
    """A role's checkpoint at the end of a phase. Files are read when needed."""

    role: str
    round_: RoundFolder
    phase: str

    @property
    def stage(self) -> str:
        """The stage that wrote the checkpoint."""
        return f"{self.phase}/{CHECKPOINT}"

    @property
    def digest(self) -> str:
        """Digest of the weights that answer: the target network, if there is one."""
        digest: str = self.round_.record["stages"][self.stage]["digests"][self.role]
        return digest

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.round_.phase(self.phase).checkpoint(self.role)

    @property
    def carried(self) -> Path:
        """Path of the source state that is saved with the role."""
        return self.round_.phase(self.phase).carry(self.role)


def read_evals(round_: RoundFolder) -> list[dict[str, Any]]:
    """Returns a round's eval items; all rounds of an experiment have them in the same order.

    Raises:
        AmplifyError: if the round has no evals, or they are damaged.
    """
    if not round_.done("evals"):
        raise AmplifyError(f"{round_.path}: round {round_.number} has no evals yet")
    with round_.redo_hint("evals"):
        return read_lines(round_.evals, round_.record["stages"]["evals"]["digest"])


def read_items(round_: RoundFolder) -> Items:
    """Returns a round's eval items as columns.

    Raises:
        AmplifyError: if the round has no evals, or they are damaged.
    """
    rows = read_evals(round_)
    with round_.redo_hint("evals"):
        try:
            return Items.of(rows)
        except ValueError as error:
            raise AmplifyError(f"{round_.evals}: {error}") from None
