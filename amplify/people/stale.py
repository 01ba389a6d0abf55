"""Finds the training rows and rounds that rest on answers changed after their stage was closed.

A stage's data set is made of the answers that counted when the stage was last closed (it is closed
again when its data is made again). If an answer is corrected or adjudicated afterwards, or its item
withdrawn, the row made of it is stale, and so are the rounds trained on that row and their
descendants. A corrected sub-answer affects everybody who was given it: the same answer to the same
question by the same checkpoint. Rows that nobody made are not in the log, and not considered.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amplify.answers import AnswerRule, collapse_spaces
from amplify.errors import command, round_command
from amplify.people.events import Event
from amplify.people.items import (
    Assignment,
    Exchange,
    Item,
    RoundStage,
    answer_of,
    chosen,
    same,
)
from amplify.people.log import Log
from amplify.people.records import Record, descendants, read_records
from amplify.people.rules import Queue

CLOSED, WITHDRAWN, ADJUDICATED, CORRECTED = "closed", "withdrawn", "adjudicated", "corrected"

DECIDES = (CLOSED, WITHDRAWN, ADJUDICATED, CORRECTED)
"""Kinds of events that can make something stale, or fresh again."""


class Row(NamedTuple):
    """A question in the data set of a stage."""

    round: int
    row: int
    column: int
    stage: str = "data"  # full name; "data": the round's only one with a data set, in an older log


@dataclasses.dataclass(frozen=True)
class Stale:
    """A changed answer, and what rests on the old one."""

    event: int  # the last change
    at: float
    kind: str
    round: int
    item: str
    person: str | None  # whose answer it was; None: the answer that counts
    number: int | None  # of a sub-answer, within the assignment; None: a final answer
    question: str
    was: str | None
    now: str | None
    answers: tuple[tuple[str, str], ...]  # final answers: (item, person)
    rows: tuple[Row, ...]
    rounds: tuple[int, ...]  # trained on the rows, and their descendants


def stale(log: Log, experiment: Path) -> list[Stale]:
    """Returns what is stale, in the order of the changes.

    Args:
        log: of the experiment.
        experiment: its folder, with the records of its rounds.

    Raises:
        AmplifyError: a record is damaged.
    """
    return stale_in(log.since(), read_records(experiment))


def summary(found: Sequence[Stale], experiment: Path) -> str | None:
    """Returns one line for whoever runs the next round; None if nothing is stale."""
    if not found:
        return None
    rows = sorted({row for one in found for row in one.rows})
    rounds = sorted({number for one in found for number in one.rounds})
    changes = "an answer was" if len(found) == 1 else f"{len(found)} answers were"
    line = f"{experiment}: {changes} changed after the round was closed"
    see = command("serve", experiment)
    if not rows:
        return f"{line}; no training row rests on that; see /admin/stale of: {see}"
    resting = f"{len(rows)} training row{'s rest' if len(rows) > 1 else ' rests'} on that"
    return (
        f"{line}; {resting}, and with them round{'s' if len(rounds) > 1 else ''}"
        f" {_and(rounds)}; see /admin/stale of: {see}; to make the data again:"
        f" {round_command(experiment, rows[0].round, rows[0].stage)}"
    )


def decided_since_closing(events: Iterable[Event], stage: RoundStage) -> int | None:
    """Returns the id of the last decision about a stage's final answers since it was last closed.

    With that decision, the stage's data would be different. None if there is none, or if the stage
    was never closed.
    """
    queue, closed, decision = Queue(), False, None
    for event in events:
        queue.apply(event)
        if queue.stage_of(event) != stage:
            continue
        if event.kind == CLOSED:
            closed, decision = True, None
        elif event.kind in DECIDES and closed:
            # Correcting a sub-answer does not change what somebody answered after seeing it.
            decision = event.id if event.body.get("number") is None else decision
    return decision


def stale_in(events: Iterable[Event], records: Sequence[Record]) -> list[Stale]:
    """As `stale`, given the whole log and the records of all rounds."""
    history = _History(events)
    found = []
    for event in history.changes.values():
        item = history.queue.items[event.item or ""]
        if event.body.get("number") is not None:
            one = _of_sub_answer(history, event, item)
        else:
            one = _of_final_answer(history, event, item)
        if one is not None:
            direct = {row.round for row in one.rows}
            later = {number for old in direct for number in descendants(records, old)}
            found.append(dataclasses.replace(one, rounds=tuple(sorted(direct | later))))
    return sorted(found, key=lambda one: one.event)


class _Closing(NamedTuple):
    """The answers that counted when a stage was closed."""

    event: int
    answers: Mapping[str, str | None]  # by item
    people: Mapping[str, str | None]  # whose answer it was
    given: Mapping[tuple[str, str], str | None]  # final answers by item and person


class _History:
    """The state now, the answers when each stage was closed, and the last change of each answer."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.queue = Queue()
        self.closings: dict[RoundStage, _Closing] = {}
        self.changes: dict[tuple[Any, ...], Event] = {}  # by what was changed
        self._told: dict[int, Event] = {}
        for event in events:
            self.queue.apply(event)
            if not self.queue.is_used(event):
                continue
            if event.kind == CLOSED:
                self.closings[self.queue.stage_of(event)] = _closing(self.queue, event)
            elif event.kind == "told":
                self._told[event.id] = event
            elif event.kind in (WITHDRAWN, ADJUDICATED):
                self.changes[event.item, None] = event
            elif event.kind == CORRECTED:
                body = event.body
                self.changes[event.item, body.get("person"), body.get("number")] = event

    def closed_before(self, event: Event, stage: RoundStage) -> _Closing | None:
        closing = self.closings.get(stage)
        return closing if closing is not None and closing.event < event.id else None

    def said(
        self, exchange: Exchange, rule: AnswerRule
    ) -> Iterator[tuple[str, str, str, str | None]]:
        """Yields (question, answer, by, checkpoint) of an answer and of every step behind it."""
        told = self._told.get(exchange.told or 0)
        if told is None or exchange.answer is None:
            return
        by = told.body.get("by", "assistant")
        yield _said(rule, exchange.text, exchange.answer, by, told.checkpoint)
        nodes = list(exchange.steps)
        while nodes:
            node = nodes.pop()
            yield _said(rule, node["question"], node["answer"], node.get("by", ""), told.checkpoint)
            nodes += node.get("steps", ())


def _said(
    rule: AnswerRule, question: str, answer: str, by: str, checkpoint: str | None
) -> tuple[str, str, str, str | None]:
    """The environment's answers do not depend on the checkpoint."""
    question = collapse_spaces(question).casefold()
    return question, rule.canonical(answer), by, None if by == "environment" else checkpoint


def _closing(queue: Queue, event: Event) -> _Closing:
    items = [queue.items[name] for name in queue.stages[queue.stage_of(event)].items]
    behind = {item.id: chosen(item) for item in items}
    return _Closing(
        event.id,
        {item.id: answer_of(item) for item in items},
        {name: None if one is None else one.person for name, one in behind.items()},
        {(item.id, a.person): a.answer for item in items for a in item.submissions},
    )


def _of_final_answer(history: _History, event: Event, item: Item) -> Stale | None:
    closing = history.closed_before(event, item.asked_in)
    if closing is None:
        return None
    before, now = closing.answers[item.id], answer_of(item)
    if same(item, before, now) or item.row < 0:
        return None  # no row was made of it, or the same one would be
    person = event.body.get("person") if event.kind == CORRECTED else None
    if person is not None:
        then, given = closing.given.get((item.id, person)), item.assignments[person].answer
        votes = same(item, then, before) or same(item, given, now)
        if item.adjudicated is not None or same(item, then, given) or not votes:
            return None  # another change made the difference
    behind = person or closing.people[item.id]
    return _stale(
        event, item, person, None, item.question, before, now,
        answers=[(item.id, behind)] if behind else [],
        rows=[_row(item)],
    )  # fmt: skip


def _of_sub_answer(history: _History, event: Event, item: Item) -> Stale | None:
    person, number = event.body["person"], event.body["number"]
    exchange = item.assignments[person].exchanges[number - 1]
    now = event.body["answer"]
    if exchange.answer is None or same(item, exchange.answer, now):
        return None
    [wrong, *_] = history.said(exchange, item.rule)
    answers, rows = [], []
    for other, assignment in _told_it(history, wrong):
        closing = history.closed_before(event, other.asked_in)
        if closing is not None and (other.id, assignment.person) in closing.given:
            answers.append((other.id, assignment.person))
            if other.row >= 0 and closing.people[other.id] == assignment.person:
                rows.append(_row(other))
    if not answers:
        return None
    return _stale(event, item, person, number, exchange.text, exchange.answer, now, answers, rows)


def _told_it(
    history: _History, wrong: tuple[str, str, str, str | None]
) -> Iterator[tuple[Item, Assignment]]:
    """Everybody who saw an answer: they asked for it, or checked somebody who did."""
    items = history.queue.items
    saw = {
        (item.id, assignment.person)
        for item in items.values()
        for assignment in item.assignments.values()
        if any(wrong in history.said(exchange, item.rule) for exchange in assignment.kept)
    }
    for item in items.values():
        for assignment in item.assignments.values():
            if (item.id, assignment.person) in saw or item.review_of in saw:
                yield item, assignment


def _stale(
    event: Event,
    item: Item,
    person: str | None,
    number: int | None,
    question: str,
    was: str | None,
    now: str | None,
    answers: Sequence[tuple[str, str]],
    rows: Sequence[Row],
) -> Stale:
    return Stale(
        event=event.id, at=event.at, kind=event.kind, round=item.round, item=item.id,
        person=person, number=number, question=question, was=was, now=now,
        answers=tuple(answers), rows=tuple(sorted(rows)), rounds=(),
    )  # fmt: skip


def _row(item: Item) -> Row:
    stage = item.asked_in.stage
    return Row(item.round, item.row, item.column, *([stage] if stage else []))


def _and(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
