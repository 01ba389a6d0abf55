"""A round's folder: its stages, each done once, and what they left.

Knows files and nothing of models. A stage's results are complete on disk before the record says
that it is done, and the record is replaced in one rename; whatever else a killed process left
behind is made again. Of several processes the first writes, and the others wait until it has.
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
    write_record,
)
from amplify.runtime import processes
from amplify.runtime.device import compile_seconds

OWNER = "belongs_to.json"
"""In `training/`: which training its checkpoints are of."""


class RoundFolder:
    """A round's folder and its record."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.evals, self.report = path / "evals.jsonl", path / "report.html"
        self.record: Record = read_record(path)

    def phase(self, name: str) -> PhaseFolder:
        """Where a phase's results are."""
        return phase_folder(self.path, self.record, name)

    @property
    def main(self) -> PhaseFolder:
        """Where the results are of the phase that trained the assistant last."""
        return main_folder(self.path, self.record)

    def roles(self) -> dict[str, "Handle"]:
        """The roles that this round trained so far, as its last phases left them."""
        return {role: Handle(role, self, phase) for role, phase in trained_in(self.record).items()}

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Makes the folder and a record that says "started", unless there is one.

        The first of several processes decides: another may find the record that it wrote just now.
        """

        def write() -> None:
            if not self.record:
                self.path.mkdir(exist_ok=True)
                write_record(self.path, new_record(self.number, facts))

        processes.first(write)
        self.record = read_record(self.path)

    def done(self, stage: str) -> bool:
        return stage in self.record.get("stages", {})

    def has(self, stage: str) -> bool:
        """Whether the last phase, which trains the assistant, has done a stage."""
        if stage == CHECKPOINT:
            return ASSISTANT in trained_in(self.record)
        return any(name.endswith(f"/{stage}") for name in self.record.get("stages", {}))

    @property
    def identity(self) -> dict[str, Any]:
        """Round and digest of the assistant: what a child's record says of its parent."""
        return {"round": self.number, "digest": digest_of(self.record)}

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

    def update_record(self, facts: Mapping[str, Any]) -> None:
        """Adds to the record."""
        self._commit({**self.record, **facts})

    def finish(self) -> None:
        """Marks the round done."""
        self.update_record({"status": "done"})

    @contextlib.contextmanager
    def redo_hint(self, stage: str) -> Iterator[None]:
        """While the results of a stage are read: an error about them says how to do the stage
        again.
        """
        try:
            yield
        except AmplifyError as error:
            command = round_command(self.path.parent, self.number, stage)
            raise AmplifyError(f"{error}; to do it again: {command}") from error

    def training_curve(self) -> list[dict[str, Any]]:
        """The rows of the assistant's `metrics.jsonl`; none if the round has not trained it."""
        phase = trained_in(self.record).get(ASSISTANT)
        if phase is None:
            return []
        with self.redo_hint(f"{phase}/{CHECKPOINT}"):
            return read_lines(self.phase(phase).metrics)

    @property
    def verdict(self) -> dict[str, Any] | None:
        return self.record.get("stages", {}).get("verdict")

    def claim_training(self, experiment: Experiment, phase: str) -> None:
        """Before a phase's training: what another training left behind goes. A training belongs to
        the experiment, the parent, the round, and what the phases before it left.
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
                f"amplify: {training}: belongs to another experiment, parent or data set:"
                " training starts anew",
                file=sys.stderr,
            )
            shutil.rmtree(training)
        training.mkdir(parents=True)
        writing.write_atomically(path, json.dumps(owner, indent=2) + "\n")

    def drop_training(self, phase: str) -> None:
        """A training's own checkpoints, once its last is the round's."""
        training = self.phase(phase).training
        processes.first(lambda: shutil.rmtree(training, ignore_errors=True))

    def undo(self, stage: str) -> None:
        """Forgets a stage and those after it, so that they are done again."""
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
    """A role as a phase of a round left it. Nothing is read until it is needed."""

    role: str
    round_: RoundFolder
    phase: str

    @property
    def stage(self) -> str:
        return f"{self.phase}/{CHECKPOINT}"

    @property
    def digest(self) -> str:
        """Of the weights that answer."""
        digest: str = self.round_.record["stages"][self.stage]["digests"][self.role]
        return digest

    @property
    def checkpoint(self) -> Path:
        return self.round_.phase(self.phase).checkpoint(self.role)

    @property
    def carried(self) -> Path:
        return self.round_.phase(self.phase).carry(self.role)


def read_evals(round_: RoundFolder) -> list[dict[str, Any]]:
    """A round's eval items, in the order that every round of an experiment has them."""
    if not round_.done("evals"):
        raise AmplifyError(f"{round_.path}: round {round_.number} has no evals yet")
    with round_.redo_hint("evals"):
        return read_lines(round_.evals, round_.record["stages"]["evals"]["digest"])


def read_items(round_: RoundFolder) -> Items:
    """A round's eval items as columns. Raises AmplifyError if they are not what was written."""
    rows = read_evals(round_)
    with round_.redo_hint("evals"):
        try:
            return Items.of(rows)
        except ValueError as error:
            raise AmplifyError(f"{round_.evals}: {error}") from None
