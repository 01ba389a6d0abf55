"""Rounds that are killed while they train, and resumed."""

import shutil
from pathlib import Path

import pytest

from amplify import stages
from amplify.cli.commands import main
from amplify.training.step import make_step


class KilledError(Exception):
    pass


def killed_and_resumed(
    finished: Path, folder: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Runs round 1 again in a copy of an experiment, and kills it at a training step.

    Args:
        finished: the experiment, with rounds up to 2.
        folder: the copy.
        after: number of the step, from 1, over all phases.
        monkeypatch: for the time until it is killed.
    """
    shutil.copytree(finished, folder)
    for number in (1, 2):
        shutil.rmtree(folder / f"{number:03d}")
    seen = []

    def dying(*arguments):
        step = make_step(*arguments)

        def one(state):
            seen.append(1)
            if len(seen) == after:
                raise KilledError
            return step(state)

        return one

    with monkeypatch.context() as patched:
        patched.setattr(stages, "make_step", dying)
        with pytest.raises(KilledError):
            main(["round", str(folder), "--n", "1"])
    main(["round", str(folder), "--n", "1"])
    return folder
