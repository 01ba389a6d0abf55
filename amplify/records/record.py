"""Reads and writes `record.json`, and knows where a round's folder keeps each phase.

    {"layout": 2, "round": 3, "status": "started" or "done", "parent": {"round", "digest"}, ...,
     "stages": {"distillation/data": {"digest", ...},
                "distillation/checkpoint": {"digests": {"assistant": ...}, ...},
                "evals": ..., "verdict": ...}}

Stages are in the order in which they were done. Layout 1 had a single, unnamed phase; its records
are read as if they had layout 2, while its files stay where they are. No other module reads or
writes this file. Imports no jax, because the people's pages read records, too.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line, quote, round_command
from amplify.files import writing

LAYOUT = 2
FILE = "record.json"
DATA, CHECKPOINT = "data", "checkpoint"
"""The stages of a phase are named `PHASE/data` and `PHASE/checkpoint`."""
ASSISTANT = "assistant"

Record = dict[str, Any]


def round_folders(experiment: Path) -> dict[int, Path]:
    """Returns the folders of an experiment's rounds by number, ascending.

    Args:
        experiment: its folder.
    """
    found = (entry for entry in experiment.iterdir() if entry.is_dir() and is_round(entry))
    return {int(entry.name): entry for entry in sorted(found, key=lambda entry: int(entry.name))}


def is_round(folder: Path) -> bool:
    """Returns whether a folder has the name of a round's."""
    return re.fullmatch(r"\d{3,}", folder.name) is not None


def read_record(folder: Path) -> Record:
    """Returns the record in a round's folder; an empty one if there is none.

    Raises:
        AmplifyError: if the record is damaged.
    """
    path = folder / FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        parent = record.get("parent")
        checked = {
            **record,
            "round": int(record.get("round", folder.name)),
            "stages": {name: dict(entry) for name, entry in record.get("stages", {}).items()},
            "experiment": dict(record.get("experiment", {})),
            "parent": parent and {"round": int(parent["round"]), "digest": parent["digest"]},
        }
        return checked if checked.get("layout") == LAYOUT else _upgrade_layout_1(checked)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        number = int(folder.name) if folder.name.isdecimal() else 0
        raise AmplifyError(
            f"{path}: damaged record ({first_line(error)}); to rerun the round:"
            f" rm {quote(path)} && {round_command(folder.parent, number or 1)}"
        ) from None


def write_record(folder: Path, record: Record) -> None:
    """Writes the record of a round atomically into its folder."""
    writing.write_atomically(folder / FILE, json.dumps(record, indent=2) + "\n")


def new_record(number: int, facts: Mapping[str, Any]) -> Record:
    """Returns the record of a round that has no finished stages.

    Args:
        number: the round's number.
        facts: what is known before the round begins, see `provenance.describe`.
    """
    return {"layout": LAYOUT, "round": number, "status": "started", **facts, "stages": {}}


def phases(record: Record) -> list[str]:
    """Returns the names of the phases in a record, in order."""
    names = [stage.rpartition("/")[0] for stage in record.get("stages", {})]
    return list(dict.fromkeys(name for name in names if name))


def trained_in(record: Record) -> dict[str, str]:
    """Returns the phase that last trained each role, by role."""
    return {
        role: stage.rpartition("/")[0]
        for stage, entry in record.get("stages", {}).items()
        for role in entry.get("digests", {})
    }


def training_phases(record: Record, role: str) -> list[str]:
    """Returns the names of the phases that trained a role, in order."""
    return [
        stage.rpartition("/")[0]
        for stage, entry in record.get("stages", {}).items()
        if role in entry.get("digests", {})
    ]


def signals(record: Record) -> dict[str, str]:
    """Returns the digest of each data set that a round has stored, by phase, in order.

    A phase that makes its signal while it trains stores a sample of it.
    """
    found = {}
    for stage, entry in record.get("stages", {}).items():
        phase, _, last = stage.rpartition("/")
        digest = entry.get("digest") if last == DATA else entry.get("data_digest")
        if digest is not None:
            found[phase] = digest
    return found


def stage_named(record: Record, name: str) -> str | None:
    """Returns a stage's full name.

    Args:
        record: of the round.
        name: the full name, or the last part of it if only one stage has that.

    Returns:
        The name; None if no stage matches, or several do.
    """
    stages = record.get("stages", {})
    found = [stage for stage in stages if name in (stage, stage.rpartition("/")[2])]
    return name if name in stages else found[0] if len(found) == 1 else None


def digest_of(record: Record, role: str = ASSISTANT) -> str | None:
    """Returns the digest of a role's weights at the end of the round; None if not trained.

    Args:
        record: of the round.
        role: name of the role.
    """
    digest: str | None = None
    for entry in record.get("stages", {}).values():
        digest = entry.get("digests", {}).get(role, digest)
    return digest


@dataclasses.dataclass(frozen=True)
class PhaseFolder:
    """Paths of a phase's results."""

    data: Path
    """The stored signal, a data set."""
    training: Path
    """Checkpoints of unfinished training."""
    metrics: Path
    """The training log."""
    interactions: Path
    """Decomposition trees."""
    roles: Path
    carried: Path

    def checkpoint(self, role: str) -> Path:
        """Returns the path of a role's checkpoint, written at the end of training."""
        return self.roles / role

    def carry(self, role: str) -> Path:
        """Returns the path of the source state that is saved with a role for the next round."""
        return self.carried / role


@dataclasses.dataclass(frozen=True)
class Layout1PhaseFolder(PhaseFolder):
    """The same for rounds of layout 1."""

    def checkpoint(self, role: str) -> Path:
        """Returns the path of a role's checkpoint, written at the end of training."""
        return self.roles / ("checkpoint" if role == ASSISTANT else role)


def phase_folder(folder: Path, record: Record, phase: str) -> PhaseFolder:
    """Returns the paths of a phase's results.

    Args:
        folder: the round's folder.
        record: its record.
        phase: the phase's name.
    """
    is_old = record.get("layout", LAYOUT) != LAYOUT
    base = folder if is_old else folder / phase
    return (Layout1PhaseFolder if is_old else PhaseFolder)(
        base / "data",
        base / "training",
        base / "metrics.jsonl",
        base / "interactions.jsonl",
        folder if is_old else base / "checkpoint",
        base / "carried",
    )


def main_folder(folder: Path, record: Record) -> PhaseFolder:
    """Returns the paths of the phase that last trained the assistant, or else of the last phase.

    Args:
        folder: the round's folder.
        record: its record.
    """
    last = (phases(record) or ["distillation"])[-1]
    return phase_folder(folder, record, trained_in(record).get(ASSISTANT, last))


def _upgrade_layout_1(record: Record) -> Record:
    """Renames the stages of a record of layout 1 as in layout 2."""
    streams = record["experiment"].get("training.targets") == "streaming"
    phase = "streaming" if streams else "distillation"
    phase = phase if record["round"] else "initial"
    names = {
        "overseer": f"imitation/{CHECKPOINT}",
        "data": f"{phase}/{DATA}",
        "checkpoint": f"{phase}/{CHECKPOINT}",
    }
    stages = {
        names.get(name, name): _with_digests(name, entry)
        for name, entry in record["stages"].items()
    }
    return {**record, "layout": 1, "stages": stages}


def _with_digests(stage: str, entry: Record) -> Record:
    if stage not in ("overseer", "checkpoint"):
        return entry
    kept = {key: value for key, value in entry.items() if key not in ("digest", "overseer_digest")}
    digests = {ASSISTANT: entry.get("digest"), "overseer": entry.get("overseer_digest")}
    return kept | {"digests": {role: said for role, said in digests.items() if said is not None}}
