"""What a record says so that it can be understood on its own: code, versions, device, parent, and
what it cost.
"""

import dataclasses
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amplify import device, processes
from amplify.experiment import Experiment

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


def describe(experiment: Experiment, parent: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of a record that is known before a round begins; `parent` is its round and
    checkpoint digest.
    """
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "parent": parent,
        "experiment": experiment.values,
        "experiment_digest": experiment.digest,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "processes": processes.count(),
        "device": device.describe(),
        "mesh": dataclasses.asdict(experiment.mesh),
    }


def performance(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How fast a round trained, and how much memory its device took.

    Args:
        rows: the training curve, `metrics.jsonl`; what a row does not count is left out.

    Returns:
        "peak_memory_gib" of the process that finished the round; and, of the time after
        compilation, "pairs_per_second" (questions with their answers), "tokens_per_second" (of a
        language model, padding left out), and "mfu": model FLOP/s as a share of the devices' dense
        bf16 peak, if that is known (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
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
    """What a round cost, added up over its stages. Seconds are those of the process that finished
    each stage.
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
            "training_steps": total("steps"),
            "seconds": round(total("seconds"), 3),
            "compile_seconds": round(total("compile_seconds"), 3),
        }
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str | None:
    """What git says of the code that runs, or None where there is no repository."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
