"""Finds the helper that a judge names: another experiment, and the best of its rounds.

Reads records only; its weights are loaded when a round needs them. Called by `experiment_file`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.experiment.validation import subtable
from amplify.overseers.helper import Helper
from amplify.reading.tables import FILE, is_there, read_table, without_detours
from amplify.records.record import is_round, round_folders
from amplify.records.round_folder import RoundFolder

KEY = "helper"
"""The key of an experiment file that names a helper."""


def open_helper(where: str, named_by: str, read: Callable[[Path], Experiment]) -> Helper | None:
    """Returns the assistant at the end of a helper's best round; None if no round was promoted yet.

    Args:
        where: the experiment's folder, or that of one of its rounds.
        named_by: the file and the key, for errors.
        read: reads the experiment.

    Raises:
        AmplifyError: if there is no such experiment or round.
    """
    best = helper_round(where, named_by)
    if best is None:
        return None
    experiment = read(best.path.parent / FILE)
    handle = best.roles()["assistant"]
    return Helper(experiment.task, experiment.assistant, handle.checkpoint, handle.digest)


def helper_round(where: str, named_by: str) -> RoundFolder | None:
    """Returns the round that helps: the one that is named, or the best of an experiment; None if no
    round was promoted yet.

    Args:
        where: the experiment's folder, or that of one of its rounds.
        named_by: the file and the key, for errors.

    Raises:
        AmplifyError: if there is no such folder or round.
    """
    path = Path(where)
    if not path.is_dir():
        raise AmplifyError(
            f"{named_by}: {path}: no such folder; it must be another experiment's, or one of its"
            " rounds'"
        )
    if is_round(path):
        this = RoundFolder(path, int(path.name))
        if "assistant" not in this.roles():
            raise AmplifyError(f"{named_by}: {path}: a round without a trained assistant")
        return this
    return best_round(path)


def best_round(folder: Path) -> RoundFolder | None:
    """Returns the last promoted round of an experiment; None if there is none.

    Args:
        folder: the experiment's.
    """
    for number, path in reversed(round_folders(folder).items()):
        this = RoundFolder(path, number)
        if this.verdict is not None and this.verdict["verdict"] == "promoted":
            return this
    return None


def untrained_helper(path: Path) -> Path | None:
    """Returns the folder of an experiment's helper, if none of its rounds was promoted.

    Args:
        path: the experiment file.

    Returns:
        The folder; None if there is no helper, a round of it is named, or it has a promoted one. If
        there is no such file, whoever reads the experiment says so.

    Raises:
        AmplifyError: if the file cannot be read.
    """
    if not is_there(path):
        return None
    helper = helper_of(*read_table(path), path)
    if helper is None or not is_there(helper / FILE):
        return None
    return None if best_round(helper) is not None else helper


def helper_of(table: Mapping[str, Any], folders: Sequence[Path], path: Path) -> Path | None:
    """Returns the folder of the helper that a file names, an experiment's or a round's, if it is
    there.

    Args:
        table: the parsed file.
        folders: where files that it names may be, nearest first.
        path: the file.
    """
    named = subtable(table, "overseer", path).get(KEY)
    if not named or not isinstance(named, str):
        return None
    there = (without_detours(folder / named) for folder in folders)
    return next((at for at in there if is_there(at)), None)
