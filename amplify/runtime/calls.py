"""Who was asked how often, and what for: the counts behind a round's ledger.

A *call* is one answer of one part: of the overseer, the assistant, the environment, a person. Of a
language model it is one prompt that was sent. While a stage runs, a tally is open; code that asks
somebody calls `count`, which adds to the innermost tally and does nothing where none is open, as in
a replay. Whatever makes a signal inside a compiled training step returns a metric under the name
that `metric` gives it, since nothing can be counted there.

A tally is state of the process because every function between a stage and those whom it asks would
have to hand it on. Knows neither jax nor files.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

SIGNAL, EVALS, LOOKS = "signal", "evals", "looks"
"""Purposes: making what is trained on, evaluating a round, and evaluating while it trains."""

OVERSEER, ASSISTANT, ENVIRONMENT = "overseer", "assistant", "environment"
DEMONSTRATOR, PEOPLE = "demonstrator", "people"
SERVER, LANGUAGE_MODEL = "server", "language model"
"""Parts. Prompts of a language model that oversees count for the last two: for the server that it
is behind, or for the model itself if it runs in this process.
"""

METRIC = "calls/"
"""How the names of metrics begin that count calls."""

STATED = {"overseer_answers": OVERSEER, "assistant_answers": ASSISTANT, "human_answers": PEOPLE}
"""Facts of a stage that say how often a part was called in making a signal."""


class Call(NamedTuple):
    """How often one part was called in one stage, for one purpose."""

    stage: str
    purpose: str
    part: str
    calls: int
    reused: int = 0  # answers that were taken from the log of exchanges in place of a call
    tokens: int = 0  # that a server counted, of prompts and replies

    def as_row(self) -> dict[str, Any]:
        """For JSON, without what is 0."""
        fields = self._asdict()
        extra = {key: fields[key] for key in ("reused", "tokens") if fields[key]}
        return {key: fields[key] for key in ("stage", "purpose", "part", "calls")} | extra


class Tally:
    """Counts of one purpose, open between `with counting(purpose) as tally:` and its end."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self.parts: Counter[str] = Counter()

    def __enter__(self) -> "Tally":
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)

    def calls(self, stage: str) -> list[Call]:
        """What was counted, in the order in which parts were first called."""
        return [Call(stage, self.purpose, part, n) for part, n in self.parts.items() if n]


_open: list[Tally] = []


def counting(purpose: str) -> Tally:
    """A tally for what is asked while it is open; the innermost one counts.

    Args:
        purpose: SIGNAL, EVALS or LOOKS.
    """
    return Tally(purpose)


def count(part: str, calls: int) -> None:
    """Adds calls of a part to the stage that runs; outside of stages does nothing.

    Args:
        part: who was called; one of the parts above, or any other name.
        calls: 0 or more.
    """
    if _open:
        _open[-1].parts[part] += int(calls)


def count_all(calls: Mapping[str, Any]) -> None:
    """`count` for several parts. Each value is a number, or an array of numbers that are added."""
    for part, numbers in calls.items():
        count(part, numbers if isinstance(numbers, int) else int(numbers.sum()))


def current_purpose() -> str | None:
    """What is asked for at the moment; None outside of stages."""
    return _open[-1].purpose if _open else None


def purpose_of(stage: str) -> str:
    """What a stage asks for where nothing else is said, as in files of earlier versions."""
    last = stage.rpartition("/")[2]
    return {"evals": EVALS, "checkpoint": LOOKS}.get(last, SIGNAL)


def metric(part: str) -> str:
    """Name of the metric by which a training step says how often it called a part.

    Values are integers, and are added up over steps.
    """
    return METRIC + part


def as_metrics(calls: Mapping[str, Any]) -> dict[str, Any]:
    """Calls by part as metrics of a training step."""
    return {metric(part): number for part, number in calls.items()}


def of_training(stage: str, log: Iterable[Mapping[str, Any]]) -> list[Call]:
    """Calls that the rows of a training log count: by the steps, for the signal, and by looks.

    The log is restored with the training state, so the calls of steps that a killed process took
    and that had to be taken again count once.
    """
    signal, looks = Tally(SIGNAL), Tally(LOOKS)
    for row in log:
        for name, number in row.items():
            if name.startswith(METRIC):
                signal.parts[name.removeprefix(METRIC)] += number
        looks.parts.update(row.get("look_calls", {}))
    return signal.calls(stage) + looks.calls(stage)


def added_up(calls: Iterable[Call]) -> list[Call]:
    """One entry for each stage, purpose and part, in the order in which they first appear."""
    found: dict[tuple[str, str, str], Call] = {}
    for call in calls:
        before = found.get(call[:3], Call(*call[:3], 0))
        sums = (was + now for was, now in zip(before[3:], call[3:], strict=True))
        found[call[:3]] = Call(*call[:3], *sums)
    return list(found.values())


def of_record(record: Mapping[str, Any]) -> list[Call]:
    """All calls of a round, by stage, purpose and part.

    Where a stage's `calls` do not mention a part, as in records of earlier versions and for kinds
    of oversight that count by themselves, what its other facts state is taken.
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
    """What the record's entry of a stage says: `{"calls": [...]}`, without the stage."""
    rows = [call.as_row() for call in added_up(calls)]
    return {"calls": [{k: v for k, v in row.items() if k != "stage"} for row in rows]}
