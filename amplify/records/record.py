"""A round's record, `record.json`, and where in the round's folder its phases are: read and written
here alone.

    {"layout": 2, "round": 3, "status": "started" or "done", "parent": {"round", "digest"}, ...,
     "stages": {"distillation/data": {"digest", ...},
                "distillation/checkpoint": {"digests": {"assistant": ...}, ...},
                "evals": ..., "verdict": ...}}

Stages stand in the order in which they were done. A record of layout 1, which had one phase and no
name for it, is read as if it were of layout 2; its files stay where they are. Knows nothing of what
stages do, and imports no jax: people's pages read records too.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line, quote, round_command
from amplify.files import writing

LAYOUT = 2
FILE = "record.json"
DATA, CHECKPOINT = "data", "checkpoint"
"""The stages of a phase: `PHASE/data` and `PHASE/checkpoint`."""
ASSISTANT = "assistant"

Record = dict[str, Any]


def read_record(folder: Path) -> Record:
    """The record of a round's folder; empty if there is none.

    Raises:
        AmplifyError: if it is damaged.
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
        return checked if checked.get("layout") == LAYOUT else _of_layout_1(checked)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        number = int(folder.name) if folder.name.isdecimal() else 0
        raise AmplifyError(
            f"{path}: damaged record ({first_line(error)}); to do the round again:"
            f" rm {quote(path)} && {round_command(folder.parent, number or 1)}"
        ) from None


def write_record(folder: Path, record: Record) -> None:
    writing.write_atomically(folder / FILE, json.dumps(record, indent=2) + "\n")


def new_record(number: int, facts: Mapping[str, Any]) -> Record:
    """Of a round in which nothing was done yet."""
    return {"layout": LAYOUT, "round": number, "status": "started", **facts, "stages": {}}


def phases(record: Record) -> list[str]:
    """The phases that the record knows of, in order."""
    names = [stage.rpartition("/")[0] for stage in record.get("stages", {})]
    return list(dict.fromkeys(name for name in names if name))


def trained_in(record: Record) -> dict[str, str]:
    """The last phase that trained each role."""
    return {
        role: stage.rpartition("/")[0]
        for stage, entry in record.get("stages", {}).items()
        for role in entry.get("digests", {})
    }


def stage_named(record: Record, name: str) -> str | None:
    """The stage of that name, or the only one that has it as its last part; None if none has."""
    stages = record.get("stages", {})
    found = [stage for stage in stages if name in (stage, stage.rpartition("/")[2])]
    return name if name in stages else found[0] if len(found) == 1 else None


def digest_of(record: Record, role: str = ASSISTANT) -> str | None:
    """Of a role's weights as the round left them; None if it has not trained them."""
    digest: str | None = None
    for entry in record.get("stages", {}).values():
        digest = entry.get("digests", {}).get(role, digest)
    return digest


@dataclasses.dataclass(frozen=True)
class PhaseFolder:
    """Where the results of a phase are."""

    data: Path
    """The stored signal, a data set."""
    training: Path
    """Checkpoints of a training under way."""
    metrics: Path
    interactions: Path
    roles: Path
    carried: Path

    def checkpoint(self, role: str) -> Path:
        """Of a role, once training has ended."""
        return self.roles / role

    def carry(self, role: str) -> Path:
        """What the source of the signal keeps for the next round beside a role's checkpoint."""
        return self.carried / role


@dataclasses.dataclass(frozen=True)
class FolderOfLayout1(PhaseFolder):
    def checkpoint(self, role: str) -> Path:
        return self.roles / ("checkpoint" if role == ASSISTANT else role)


def phase_folder(folder: Path, record: Record, phase: str) -> PhaseFolder:
    """Where a phase's results are in a round's folder."""
    is_old = record.get("layout", LAYOUT) != LAYOUT
    base = folder if is_old else folder / phase
    return (FolderOfLayout1 if is_old else PhaseFolder)(
        base / "data",
        base / "training",
        base / "metrics.jsonl",
        base / "interactions.jsonl",
        folder if is_old else base / "checkpoint",
        base / "carried",
    )


def main_folder(folder: Path, record: Record) -> PhaseFolder:
    """Of the phase that trained the assistant last; until one has, of the last there is."""
    last = (phases(record) or ["distillation"])[-1]
    return phase_folder(folder, record, trained_in(record).get(ASSISTANT, last))


def _of_layout_1(record: Record) -> Record:
    """The same record with the names of layout 2."""
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
