"""What a record contains besides results: code, versions, device, parent, speed and cost."""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amplify.experiment.sections import IDENTITY, Experiment
from amplify.records.record import ASSISTANT
from amplify.runtime import calls, device, effort, processes

PACKAGES = (
    "amplify",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
)

LISTED = 100
"""Largest number of files that a record lists individually for one folder."""

PACKAGE = Path(__file__).parents[1]
"""The folder of this package's code."""


def describe(experiment: Experiment, parent: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the facts that a record contains from the beginning.

    Each stage later records its own code, which may have changed by then.

    Args:
        experiment: the experiment.
        parent: the parent's round and checkpoint digest; None for round 0.
    """
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "parent": parent,
        "experiment": experiment.values,
        "experiment_digest": experiment.digest,
        "identity": IDENTITY,
        "files": {key: files for key, files in experiment.files.items() if len(files) <= LISTED},
        "task": {"classes": list(experiment.task.classes)},
        "measures": [dataclasses.asdict(measure) for measure in experiment.measures],
        **made_by(),
        "mesh": dataclasses.asdict(experiment.mesh),
    }


def made_by() -> dict[str, Any]:
    """Returns the code, versions and devices of this process, as each stage records them."""
    return {
        **commit(PACKAGE),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "processes": processes.count(),
        "device": device.describe(),
    }


@functools.cache
def commit(package: Path) -> dict[str, Any]:
    """Returns the commit of a package's code, and whether the work tree had changes.

    Both are None unless the package is at the top of this project's git work tree, because an
    installed package may lie in an unrelated repository. Cached, so that later edits make no
    difference.

    Args:
        package: the package's folder.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.resolve().parent or not _is_ours(Path(top)):
        return {"commit": None, "dirty": None}
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    added = _git(package, "ls-files", "--others", "--exclude-standard", ".")
    return {"commit": _git(package, "rev-parse", "HEAD"), "dirty": bool(changed or added)}


def _is_ours(checkout: Path) -> bool:
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return project.get("project", {}).get("name") == "amplify"


def performance(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns training speed and memory.

    Args:
        rows: the training curve, `metrics.jsonl`.

    Returns:
        Under "performance": "peak_memory_gib" of the process that finished the round,
        "pairs_per_second" (questions with answers), "tokens_per_second" (of a language model,
        without padding) and "mfu", model FLOP/s as a share of the devices' dense bf16 peak
        (Chowdhery et al. 2022, arXiv:2204.02311, appendix B). Compilation time is excluded.
        Values that are unknown are left out.
    """
    seconds = sum(row["seconds"] for row in rows)

    def rate(count: str) -> float:
        return sum(row.get(count, 0) for row in rows) / seconds if seconds else 0.0

    peak = device.peak_flops()
    found = {
        "pairs_per_second": round(rate("answered"), 1),
        "tokens_per_second": round(rate("tokens"), 1),
        "mfu": round(rate("flops") / peak, 4) if peak else 0.0,
    }
    memory = {"peak_memory_gib": round(device.peak_memory() / 2**30, 3)}
    return {"performance": memory | {name: value for name, value in found.items() if value}}


def ledger(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the cost of a round.

    Args:
        record: of a round whose stages are finished.

    Returns:
        Under "ledger": sums over stages, with the seconds of the process that finished each stage;
        "effort", what people did or would have done for whoever is simulated, see `effort`; and
        "calls" by stage, purpose and part, see `calls`.
    """
    stages = record["stages"].values()

    def total(key: str) -> Any:
        return sum(stage.get(key, 0) for stage in stages)

    return {
        "ledger": {
            "human_seconds": total("human_seconds"),
            "human_answers": total("human_answers"),
            "demonstrations": total("demonstrations"),
            "overseer_answers": total("overseer_answers"),
            "assistant_answers": total("assistant_answers"),
            "overseer_requests": total("overseer_requests"),
            "overseer_tokens": total("overseer_tokens"),
            "training_steps": sum(
                stage.get("steps", 0) for stage in stages if ASSISTANT in stage.get("digests", {})
            ),
            "seconds": round(total("seconds"), 3),
            "compile_seconds": round(total("compile_seconds"), 3),
            "effort": effort.of_record(record),
            "calls": [call.as_row() for call in calls.of_record(record)],
        }
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str | None:
    """Runs git in a folder; returns None if it fails or is not installed."""
    # Variables such as GIT_DIR, which git sets for hooks, may refer to another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
