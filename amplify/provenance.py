"""What a record says so that it can be understood on its own: code, versions, device, parent, and
what it cost.
"""

import dataclasses
import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from amplify import processes
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
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "processes": processes.count(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "mesh": dataclasses.asdict(experiment.mesh),
    }


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


def compile_seconds() -> float:
    """Seconds that JAX has spent so far in this process on tracing, lowering, compiling and loading
    compiled code.
    """
    return _compile_clock()[0]


@functools.cache
def _compile_clock() -> list[float]:
    """Starts listening at the first call."""
    total = [0.0]

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            total[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    return total


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
