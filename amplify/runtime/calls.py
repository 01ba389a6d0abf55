"""Counts of calls to overseers, people and models: the source of a round's ledger.

A *call* is one answer by one part: the overseer, the assistant, the environment or a person. For a
language model, it is one prompt sent. Each stage opens a tally. Code that makes calls reports them
to `count`, which adds to the innermost open tally, and does nothing if none is open, as in a
replay. Calls inside a compiled training step are returned as metrics instead, see `metric`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from amplify.runtime import tallies
from amplify.runtime.tallies import sum_metrics

SIGNAL, EVALS, LOOKS = "signal", "evals", "looks"
"""Purposes of calls: to make a training signal, to evaluate a round, to evaluate during training.
"""

OVERSEER, ASSISTANT, ENVIRONMENT = "overseer", "assistant", "environment"
DEMONSTRATOR, PEOPLE = "demonstrator", "people"
SERVER, LANGUAGE_MODEL = "server", "language model"
"""Parts that stand for the prompts of a language model as overseer: on a server, or in this
process.
"""

METRIC = "calls/"
"""Prefix of the metrics that count calls."""

STATED = {"overseer_answers": OVERSEER, "assistant_answers": ASSISTANT, "human_answers": PEOPLE}
"""Facts of a stage in the record that count calls for its signal, and the parts that were called.
"""


class Call(NamedTuple):
    """Number of calls to one part, in one stage, for one purpose."""

    stage: str
    purpose: str
    part: str
    calls: int
    reused: int = 0  # answers taken from the log of exchanges instead of a call
    tokens: int = 0  # in prompts and replies, as counted by the server

    def as_row(self) -> dict[str, Any]:
        """Returns the fields for JSON, without counts that are 0."""
        fields = self._asdict()
        extra = {key: fields[key] for key in ("reused", "tokens") if fields[key]}
        return {key: fields[key] for key in ("stage", "purpose", "part", "calls")} | extra


class Tally(tallies.Tally):
    """Counts of calls for one purpose, by part."""

    def __init__(self, purpose: str) -> None:
        super().__init__()
        self.purpose = purpose

    def calls(self, stage: str) -> list[Call]:
        """Returns the counts, in the order in which parts were first called.

        Args:
            stage: the stage's name, such as "distillation/data".
        """
        return [Call(stage, self.purpose, part, n) for part, n in self.counts.items() if n]


count, count_all = Tally.count, Tally.count_all
"""Add calls, by the part that was called, to the innermost open tally; see `tallies`."""


def counting(purpose: str) -> Tally:
    """Returns a new tally; while it is the innermost open one, it receives all counts.

    Args:
        purpose: SIGNAL, EVALS or LOOKS.
    """
    return Tally(purpose)


def current_purpose() -> str | None:
    """Returns the purpose of the innermost open tally; None if there is none."""
    tally = Tally.innermost()
    return None if tally is None else tally.purpose


def purpose_of(stage: str) -> str:
    """Returns the default purpose of a stage's calls, for records that do not contain one."""
    last = stage.rpartition("/")[2]
    return {"evals": EVALS, "checkpoint": LOOKS}.get(last, SIGNAL)


def metric(part: str) -> str:
    """Returns the name of the metric that counts calls to a part in a training step.

    Values are integers; they are summed over steps.
    """
    return METRIC + part


def as_metrics(calls: Mapping[str, Any]) -> dict[str, Any]:
    """Returns calls by part as metrics of a training step."""
    return {metric(part): number for part, number in calls.items()}


def of_training(stage: str, log: Iterable[Mapping[str, Any]]) -> list[Call]:
    """Returns the calls that a training log counts, of steps and of evaluations during training.

    The log is restored together with the training state, so steps that are repeated after a kill
    are counted once.

    Args:
        stage: the stage's name.
        log: rows of `metrics.jsonl`.
    """
    signal, looks = Tally(SIGNAL), Tally(LOOKS)
    rows = list(log)
    signal.counts = sum_metrics(rows, METRIC)
    for row in rows:
        looks.counts.update(row.get("look_calls", {}))
    return signal.calls(stage) + looks.calls(stage)


def summed(calls: Iterable[Call]) -> list[Call]:
    """Sums calls by stage, purpose and part, in the order in which these first appear."""
    found: dict[tuple[str, str, str], Call] = {}
    for call in calls:
        before = found.get(call[:3], Call(*call[:3], 0))
        sums = (was + now for was, now in zip(before[3:], call[3:], strict=True))
        found[call[:3]] = Call(*call[:3], *sums)
    return list(found.values())


def of_record(record: Mapping[str, Any]) -> list[Call]:
    """Returns all calls of a round, by stage, purpose and part.

    For parts that a stage's `calls` do not contain, as in records of earlier versions and for
    oversight that counts its own calls, the stage's other facts are used.
    """
    return [
        call
        for stage, entry in record.get("stages", {}).items()
        for call in _of_stage(stage, entry)
    ]


def _of_stage(stage: str, entry: Mapping[str, Any]) -> list[Call]:
    rows = [{key: row[key] for key in Call._fields if key in row} for row in entry.get("calls", ())]
    counted = [Call(**row | {"stage": stage}) for row in rows]
    known = {call.part for call in counted if call.purpose == SIGNAL}
    stated = [
        Call(stage, SIGNAL, part, entry[key])
        for key, part in STATED.items()
        if entry.get(key) and part not in known
    ]
    sent = entry.get("overseer_requests", 0)
    if sent and "calls" not in entry:
        tokens = entry.get("overseer_tokens", 0)
        stated.append(Call(stage, purpose_of(stage), SERVER, sent, tokens=tokens))
    return counted + stated


def facts(calls: Iterable[Call]) -> dict[str, Any]:
    """Returns the summed calls of a stage as its record entry contains them: `{"calls": [...]}`."""
    rows = [call.as_row() for call in summed(calls)]
    return {"calls": [{k: v for k, v in row.items() if k != "stage"} for row in rows]}
