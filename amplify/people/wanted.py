"""Checks that people oversee an experiment, for commands that need nothing else of its file. Never
imports jax.
"""

import tomllib
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.people.log import EVENTS, Log

MOST_BASES = 100


def check_people(experiment: Path) -> None:
    """Checks that people oversee an experiment, or did so before. Writes nothing.

    Raises:
        AmplifyError: nobody does, or the folder has no readable experiment file.
    """
    kind = _overseer_kind(experiment)
    if kind == "human" or kind.partition(":")[0].endswith(".py") or _has_events(experiment):
        return
    raise AmplifyError(
        f"{experiment}: no people oversee this experiment: its overseer.kind is {kind!r}, and this"
        ' command needs "human"'
    )


def _overseer_kind(experiment: Path) -> str:
    """As its file says, or the file of its base."""
    folder = experiment
    for _ in range(MOST_BASES):
        path = folder / "experiment.toml"
        try:
            table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AmplifyError(
                f"{path}: no such file; an experiment is a folder with an experiment.toml"
            ) from None
        except (ValueError, OSError) as error:
            raise AmplifyError(f"{path}: cannot be read as TOML: {first_line(error)}") from None
        overseer, base = table.get("overseer"), table.get("base")
        kind = overseer.get("kind") if isinstance(overseer, dict) else None
        if isinstance(kind, str) or not isinstance(base, str) or "\0" in base:
            return str(kind or "")
        folder = folder / base
    raise AmplifyError(f"{experiment}: base leads back to this experiment")


def _has_events(experiment: Path) -> bool:
    if not (experiment / EVENTS).is_file():
        return False
    log = Log(experiment / EVENTS)
    try:
        return next(log.since(), None) is not None
    finally:
        log.close()
