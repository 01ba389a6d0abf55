"""Folds the log of events into a state: which items there are, who has them, what people said.

`apply` takes events in order, and the same events give the same state in every process. Items and
assignments are defined in `items`; what people may do next in `rules`.

A person holds an assignment on a lease, which each of their acts renews. Once it runs out, the item
may go to somebody else; the draft is kept.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from amplify.answers import rule_from_row
from amplify.people import events as ev
from amplify.people.events import Event
from amplify.people.items import (
    ACTIVE,
    SKIPPED,
    SUBMITTED,
    Assignment,
    Counts,
    Exchange,
    Item,
    RoundStage,
    SetAside,
    StageState,
)
from amplify.people.references import why_not
from amplify.people.text import REPLACEMENT

CHANGES = {"adjudicated", "corrected", "withdrawn", "set_aside"}
"""Kinds of events that change which answer counts, also after the stage was closed."""
LONGEST_ATTENTION = 24 * 60 * 60.0
"""Maximum seconds of attention that are counted for one act."""
LATE = {"draft", "seen", "closed", *CHANGES}
"""Kinds of events that are applied once their stage is closed. It is closed again when its data is
made again."""

UNREAD = "an answer with characters that could not be read"


class State:
    """The state after some events of the log."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.items: dict[str, Item] = {}
        self.stages: dict[RoundStage, StageState] = {}  # in the order in which they began
        self.last = 0  # id of the last event applied
        self.set_aside: dict[int, SetAside] = {}  # by event: what could not be used, and why
        self._unused: set[int] = set()  # events that are as if they had not happened
        self._unfinished: dict[RoundStage, dict[str, None]] = {}  # of each stage: items that may
        # need somebody, in order
        self._returned: dict[str, list[str]] = {}  # to each person: what they had before
        self._submitted_by: collections.Counter[tuple[str, RoundStage]] = collections.Counter()
        self._acts: dict[str, list[Event]] = {}  # of each person: what could be undone, in order
        self._current: dict[str, str] = {}  # of each person: the item taken last
        for event in events:
            self.apply(event)

    # What happened

    def apply(self, event: Event) -> None:
        """Applies the next event of the log. One that cannot be used is noted in `set_aside`."""
        assert event.id > self.last, (event.id, self.last)
        self.last = event.id
        there = self.stages.get(self.stage_of(event))
        if there is not None and there.closed is not None and event.kind not in LATE:
            return
        try:
            said = ev.read_event(event)
            reason = "" if said is None else why_not(event, said, self.items, self._acts)
        except ev.DamagedEventError as error:
            said, reason = None, str(error)
        if reason:
            self._note(event, f"an event that {reason}")
            self._unused.add(event.id)
        elif said is not None:  # another version may have had kinds that mean nothing here
            _HAPPENED[type(said)](self, event, said)

    def is_used(self, event: Event) -> bool:
        """Whether an event that was applied had an effect, rather than being set aside."""
        return event.id not in self._unused

    def _note(self, event: Event, reason: str) -> None:
        about = event.round, event.item, event.person
        self.set_aside[event.id] = SetAside(event.id, event.kind, *about, reason)

    def _opened(self, event: Event, said: ev.Opened) -> None:
        state = self._stage(event)
        state.lease, state.title, state.guide = said.lease, said.title, said.guide

    def _closed(self, event: Event, said: ev.Closed) -> None:
        self._stage(event).closed = event.id
        self._unfinished[self.stage_of(event)] = {}

    def _put(self, event: Event, said: ev.Put) -> None:
        assert event.item is not None
        if event.item in self.items:
            return
        asked_in = self.stage_of(event)
        self.items[event.item] = Item(
            id=event.item,
            asked_in=asked_in,
            question=said.question,
            label=said.label,
            choices=tuple(said.choices or ()),
            rule=rule_from_row(said.rule),
            budget=said.budget,
            overlap=said.overlap,
            withheld=said.withheld,
            gold=said.gold,
            also_right=tuple(said.also_right or ()),
            review_of=None if said.review_of is None else (said.review_of[0], said.review_of[1]),
            row=said.row,
            column=said.column,
            checkpoint=event.checkpoint,
        )
        self.stages.setdefault(asked_in, StageState()).items.append(event.item)
        self._unfinished.setdefault(asked_in, {})[event.item] = None
        if self.items[event.item].review_of is not None:
            self._withdraw_stale(self.items[event.item])

    def _withdrawn(self, event: Event, said: ev.Withdrawn) -> None:
        self._withdraw(self.items[event.item or ""], said.reason)

    def _taken(self, event: Event, said: ev.Taken) -> None:
        item, person = self._whose(event)
        known = item.assignments.get(person)
        if known is None:
            item.assignments[person] = Assignment(item.id, person, event.at, renewed=event.at)
        else:
            known.state, known.renewed = ACTIVE, event.at
        self._current[person] = item.id

    def _released(self, event: Event, said: ev.Released) -> None:
        assignment = self._assignment(event)
        assignment.renewed = float("-inf")
        self._returned.setdefault(assignment.person, []).append(assignment.item)

    def _draft(self, event: Event, said: ev.Draft) -> None:
        """Renews the lease only of the item in hand: a late draft must not take an item back from
        whoever has it now.
        """
        assignment = self._assignment(event)
        renewed = assignment.renewed
        in_hand = self.current(assignment.person, event.at)
        self._act(event).draft = said.text
        if in_hand is None or in_hand.id != event.item:
            assignment.renewed = renewed

    def _asked(self, event: Event, said: ev.Asked) -> None:
        exchanges = self._act(event).exchanges
        exchanges.append(Exchange(len(exchanges) + 1, said.text, event.id, said.about))
        self._undoable(event)

    def _told(self, event: Event, said: ev.Told) -> None:
        exchange = self._assignment(event).exchanges[said.number - 1]
        if not exchange.pending:  # an answer that was shown, or a question undone before, stays
            return
        exchange.told = event.id
        exchange.problem, exchange.answer = said.problem, said.text
        exchange.confidence = said.confidence
        exchange.text = said.question or exchange.text
        exchange.steps, exchange.passages = tuple(said.steps), tuple(said.passages)
        exchange.by, exchange.tokens = said.by, said.tokens

    def _submitted(self, event: Event, said: ev.Submitted) -> None:
        assignment = self._act(event)
        assignment.state = SUBMITTED
        assignment.answer = assignment.said = said.answer
        assignment.submitted, assignment.at = event.id, event.at
        assignment.problem = None
        if REPLACEMENT in said.answer:
            self._note(event, UNREAD)
        item = self.items[assignment.item]
        self._submitted_by[assignment.person, item.asked_in] += 1
        self._undoable(event)
        self._settle(item)

    def _refused(self, event: Event, said: ev.Refused) -> None:
        """The item goes back to whoever submitted the answer, who gets it first; undo skips it."""
        assignment = self._assignment(event)
        if assignment.state != SUBMITTED:  # it was undone meanwhile
            return
        acts = self._acts[assignment.person]
        acts[:] = [act for act in acts if act.id != assignment.submitted]
        self._reopen(event).problem = said.problem
        self._returned.setdefault(assignment.person, []).append(assignment.item)

    def _skipped(self, event: Event, said: ev.Skipped) -> None:
        assignment = self._act(event)
        assignment.state, assignment.reason = SKIPPED, said.reason
        self._undoable(event)

    def _undone(self, event: Event, said: ev.Undone) -> None:
        what = said.event
        acts = self._acts[event.person or ""]
        undone = next(act for act in acts if act.id == what)
        acts.remove(undone)
        if undone.kind == "asked":
            for exchange in self._act(event).exchanges:
                exchange.undone |= exchange.event == what
        else:
            self._reopen(event)
        self._current[event.person or ""] = event.item or ""

    def _seen(self, event: Event, said: ev.Seen) -> None:
        self._assignment(event).seen = True

    def _adjudicated(self, event: Event, said: ev.Adjudicated) -> None:
        item = self.items[event.item or ""]
        item.adjudicated = said.answer
        self._use_again(item)

    def _set_aside(self, event: Event, said: ev.PutAside) -> None:
        """No answer to the item counts until somebody decides on another one."""
        self.items[event.item or ""].set_aside = said.reason
        self._note(event, said.reason)

    def _corrected(self, event: Event, said: ev.Corrected) -> None:
        """Corrects a final answer. The correction of a sub-answer only matters to `stale`."""
        if said.number is None and said.person:
            item = self.items[event.item or ""]
            item.assignments[said.person].answer = said.answer
            self._use_again(item)

    def _use_again(self, item: Item) -> None:
        item.set_aside = None
        for noted in [*self.set_aside.values()]:
            if (noted.kind, noted.item) == ("set_aside", item.id):
                del self.set_aside[noted.event]

    def _reopen(self, event: Event) -> Assignment:
        item, assignment = self.items[event.item or ""], self._assignment(event)
        if assignment.state == SUBMITTED:
            self._submitted_by[assignment.person, item.asked_in] -= 1
        assignment.draft = assignment.answer or assignment.draft
        assignment.state, assignment.renewed = ACTIVE, event.at
        assignment.answer = assignment.said = assignment.submitted = assignment.at = None
        if not self.is_closed(item) and not item.complete:
            self._unfinished[item.asked_in][item.id] = None
        for review in self._reviews(assignment):
            self._withdraw_stale(review)
        return assignment

    def _reviews(self, assignment: Assignment) -> list[Item]:
        together = self.stages[self.items[assignment.item].asked_in].items
        of = (assignment.item, assignment.person)
        return [item for item in map(self.items.__getitem__, together) if item.review_of == of]

    def _withdraw_stale(self, review: Item) -> None:
        """Withdraws a check of an answer that was taken back, unless somebody has begun it."""
        item, person = review.review_of or ("", "")
        if self.items[item].assignments[person].state != SUBMITTED and not review.assignments:
            self._withdraw(review, "the answer that it checks was taken back")

    def _withdraw(self, item: Item, reason: str) -> None:
        item.withdrawn = reason
        self._settle(item)

    def _settle(self, item: Item) -> None:
        if item.complete:
            self._unfinished[item.asked_in].pop(item.id, None)

    def _stage(self, event: Event) -> StageState:
        return self.stages.setdefault(self.stage_of(event), StageState())

    def _whose(self, event: Event) -> tuple[Item, str]:
        assert event.person is not None
        return self.items[event.item or ""], event.person

    def _assignment(self, event: Event) -> Assignment:
        item, person = self._whose(event)
        return item.assignments[person]

    def _act(self, event: Event) -> Assignment:
        """The assignment of a person's act, which renews the lease and counts their attention."""
        assignment = self._assignment(event)
        assignment.renewed = event.at
        seconds = event.seconds or 0.0
        assignment.seconds += min(max(0.0, seconds), LONGEST_ATTENTION)
        return assignment

    def _undoable(self, event: Event) -> None:
        self._acts.setdefault(event.person or "", []).append(event)

    # What is so

    def stage_of(self, event: Event) -> RoundStage:
        """The stage that an event is about: its item's, or the one that it opens or closes."""
        item = self.items.get(event.item or "")
        if item is not None:
            return item.asked_in
        stage = event.body.get("stage", "")
        return RoundStage(event.round, stage if isinstance(stage, str) else "")

    def known_as(self, round: int, stage: str) -> RoundStage:
        """How the log knows a stage: without a name in rounds that an older version began, whose
        only stage that asks people this is.
        """
        unnamed = RoundStage(round)
        asked = unnamed in self.stages and self.stages[unnamed].items
        return unnamed if asked else RoundStage(round, stage)

    @property
    def rounds(self) -> list[int]:
        """Numbers of the rounds that asked people, ascending."""
        return sorted({stage.round for stage in self.stages})

    @property
    def latest(self) -> RoundStage | None:
        """The stage of the last round that began last; None if there is none."""
        return max(reversed(self.stages), key=lambda stage: stage.round, default=None)

    def is_closed(self, item: Item) -> bool:
        """Whether the stage that asks about an item was closed."""
        return self.stages[item.asked_in].closed is not None

    def is_held(self, assignment: Assignment, now: float) -> bool:
        """Whether an assignment is active and its lease has not run out."""
        lease = self.stages[self.items[assignment.item].asked_in].lease
        return assignment.state == ACTIVE and now < assignment.renewed + lease

    def needs(self, item: Item, now: float) -> int:
        """How many more people may take an item now."""
        if item.withdrawn is not None or self.is_closed(item):
            return 0
        busy = sum(self.is_held(a, now) for a in item.assignments.values())
        return item.overlap - len(item.submissions) - busy

    def open_items(self, stage: RoundStage) -> int:
        """Number of items of a stage that are not complete."""
        return len(self._unfinished.get(stage, ()))

    def counts(self, stage: RoundStage) -> Counts:
        """How many questions and checks a stage has, and how many of them are complete."""
        there = [self.items[name].review_of is not None for name in self.stages[stage].items]
        left = [self.items[name].review_of is not None for name in self._unfinished.get(stage, ())]
        checks, questions = sum(there), len(there) - sum(there)
        return Counts(questions, questions - left.count(False), checks, checks - sum(left))

    def current(self, person: str, now: float) -> Item | None:
        """The item in a person's hands: the one taken last, if they may still answer it."""
        item = self.items.get(self._current.get(person, ""))
        if item is None or item.withdrawn is not None:
            return None
        assignment = item.assignments[person]
        if self.is_closed(item) or assignment.state != ACTIVE:
            return None
        if self.is_held(assignment, now) or self.needs(item, now) > 0:
            return item
        return None

    def may_open(self, person: str, item: str) -> bool:
        """Whether a person may see an item: only those that they were given."""
        return item in self.items and person in self.items[item].assignments

    def last_act(self, person: str) -> Event | None:
        """The act that `undo` would take back."""
        acts = self._acts.get(person)
        return acts[-1] if acts else None

    def submitted_by(self, person: str, stage: RoundStage) -> int:
        """Number of items of a stage that a person has answered."""
        return self._submitted_by[person, stage]

    def pending(self, stage: RoundStage) -> list[tuple[Item, Assignment, Exchange]]:
        """Sub-questions of a stage that wait for an answer."""
        return [
            (self.items[item], assignment, exchange)
            for item in self._unfinished.get(stage, ())
            for assignment in self.items[item].assignments.values()
            for exchange in assignment.exchanges
            if exchange.pending
        ]


_HAPPENED: Mapping[type[ev.Body], Callable[[State, Event, Any], None]] = {
    ev.Opened: State._opened,
    ev.Put: State._put,
    ev.Taken: State._taken,
    ev.Released: State._released,
    ev.Draft: State._draft,
    ev.Asked: State._asked,
    ev.Told: State._told,
    ev.Submitted: State._submitted,
    ev.Refused: State._refused,
    ev.Skipped: State._skipped,
    ev.Undone: State._undone,
    ev.Seen: State._seen,
    ev.Withdrawn: State._withdrawn,
    ev.Adjudicated: State._adjudicated,
    ev.Corrected: State._corrected,
    ev.PutAside: State._set_aside,
    ev.Closed: State._closed,
}
