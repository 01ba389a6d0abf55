"""An experiment's folder: its rounds, the best of them, and each one's parent.

`Store` reads the experiment file and checks that the rounds in the folder belong to it. A lock
keeps a second process from running the same experiment.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from amplify.errors import AmplifyError
from amplify.experiment import identity
from amplify.experiment.sections import Experiment
from amplify.files.locks import ProcessLock
from amplify.reading.experiment_file import read_experiment, read_prices, runs_own_code
from amplify.records import lineage
from amplify.records.record import ASSISTANT, round_folders, trained_in
from amplify.records.recorded import recorded_experiment
from amplify.records.round_folder import Handle, RoundFolder
from amplify.runtime import processes


class Store:
    """An experiment's folder and the rounds in it."""

    def __init__(self, path: Path, *, runs_code: bool = True) -> None:
        """Reads the experiment file and checks the rounds against it.

        Args:
            path: the experiment's folder.
            runs_code: False: code in the folder is not run. An experiment with such code is then
                known from its records only, which is enough to compare its rounds.

        Raises:
            AmplifyError: if there is no experiment file, if something that belongs to the
                experiment's identity has changed since its rounds were run, or if a round's parent
                is missing.
        """
        if path.is_file():
            raise AmplifyError(f"{path}: a file; name the experiment's folder: {path.parent}")
        if not path.is_dir():
            raise AmplifyError(
                f"{path}: no such folder; an experiment is a folder with an experiment.toml"
            )
        self.path = path
        rounds = [self.round(number) for number in self.rounds()]
        if runs_code or not runs_own_code(path / "experiment.toml"):
            self.experiment: Experiment = read_experiment(path / "experiment.toml")
            for this in rounds:
                identity.check_unchanged(self.path, this.number, this.record, self.experiment)
        else:
            prices = read_prices(path / "experiment.toml")
            self.experiment = recorded_experiment([this.record for this in rounds], prices)
        lineage.check_parents(path, {this.number: this.record for this in rounds})

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def rounds(self) -> list[int]:
        """Returns the numbers of all rounds that have a folder, ascending."""
        return [*round_folders(self.path)]

    def round(self, number: int) -> "RoundFolder":
        """Returns a round by its number, whether or not it exists yet."""
        return RoundFolder(self.path / f"{number:03d}", number)

    def finished(self, number: int, stage: str) -> "RoundFolder":
        """Returns a round in which some phase has finished a stage.

        Args:
            number: the round's number.
            stage: "data" or "checkpoint".

        Raises:
            AmplifyError: if the stage is not finished; lists the rounds where it is.
        """
        this = self.round(number)
        if number < 0 or not this.has(stage):
            there = ", ".join(str(n) for n in self.rounds() if self.round(n).has(stage)) or "none"
            raise AmplifyError(
                f"{self.path}: round {number} has no {stage}; rounds that have: {there}"
            )
        return this

    def parent_of(self, this: "RoundFolder") -> "RoundFolder":
        """Returns the round that a round was trained from.

        Raises:
            AmplifyError: if the parent is missing, or its checkpoint is not the one in the round's
                record.
        """
        records = {number: self.round(number).record for number in self.rounds()}
        lineage.check_parent(self.path, records, this.number)
        return self.round(this.record["parent"]["round"])

    def roles(self, this: "RoundFolder") -> dict[str, "Handle"]:
        """Returns the latest checkpoint of every role at the end of a round, by role.

        Roles that the round has not trained come from its parent.
        """
        parent = this.record.get("parent")
        before = self.roles(self.round(parent["round"])) if parent else {}
        return before | this.roles()

    def roles_of_signal(self, this: "RoundFolder") -> dict[str, "Handle"]:
        """Returns the checkpoints that made a round's stored signal, by role.

        These are the parent's, and those of other roles that the round trained before it.
        """
        own = {role: handle for role, handle in this.roles().items() if role != ASSISTANT}
        return self.roles(self.parent_of(this)) | own

    def roles_before(self, this: "RoundFolder", stage: str) -> dict[str, "Handle"]:
        """Returns the checkpoints that a stage of a round began with, by role.

        Args:
            this: the round.
            stage: full name of one that is finished.
        """
        stages = itertools.takewhile(lambda done: done[0] != stage, this.record["stages"].items())
        trained = trained_in({"stages": dict(stages)})
        own = {role: Handle(role, this, phase) for role, phase in trained.items()}
        return self.roles(self.parent_of(this)) | own

    def check_current(self) -> None:
        """Raises AmplifyError if a round was run by a version whose records are incomplete.

        Such rounds do not record the contents of the experiment's files. They can be compared, but
        not continued.
        """
        for number in self.rounds():
            record = self.round(number).record
            identity.check_current(self.path, number, record, self.experiment)

    def best_before(self, number: int) -> "RoundFolder":
        """Returns the last promoted round before round `number`; round 0 if none was promoted.

        Raises:
            AmplifyError: if a round in between has no verdict.
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
        """Returns whether none of the last `patience` rounds, up to `number`, was promoted."""
        last = range(number - self.experiment.gate.patience + 1, number + 1)
        verdicts = [self.round(n).verdict for n in last if n >= 1]
        unpromoted = [
            verdict for verdict in verdicts if verdict and verdict["verdict"] != "promoted"
        ]
        return len(unpromoted) == self.experiment.gate.patience

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the experiment's lock for this process until the block ends.

        Raises:
            AmplifyError: if another process holds the lock; names its process id.
        """
        with ProcessLock(self.path / ".lock") as lock:
            processes.first(lambda: self._take(lock))
            yield

    def _take(self, lock: ProcessLock) -> None:
        if not lock.take(str(os.getpid())):
            raise AmplifyError(
                f"{self.path}: another process (pid {lock.holder() or 'unknown'}) is running this"
                " experiment"
            )
