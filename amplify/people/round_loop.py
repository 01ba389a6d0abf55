"""What a stage of a round does while people work: it answers their sub-questions and looks after
their answers until every question has been answered or withdrawn.

Everything is decided from the log, so a round that is killed continues when it is started again.
Knows no models and no tasks: `Helper` has functions for what needs one.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from amplify.people.assignment import WorkRules, chance, identify
from amplify.people.events import Event, New, Put, PutAside, Refused, Withdrawn, new_event
from amplify.people.items import ACTIVE, Assignment, Exchange, Item, RoundStage, answer_of
from amplify.people.log import Log
from amplify.people.roster import Member, Roster
from amplify.people.rules import Queue
from amplify.people.serving import Served, Where, serving
from amplify.runtime.progress import Advance, Watch, say

POLL = 0.02
"""Seconds between two reads of the log while nothing happens."""
KEEP_UP = 0.5
"""Seconds between two checks that the processes are alive."""


class Helper(NamedTuple):
    """What a round needs a model or a task for."""

    answer: Callable[[Sequence[tuple[Item, Assignment, Exchange]]], list[New]]
    """Answers pending sub-questions: returns a `told` event for each, in order."""
    why_unreadable: Callable[[str], str]
    """Why the task cannot read an answer, in words; "" if it can."""
    warm_up: Callable[[], None] = lambda: None
    """Called before anybody is invited, so that the first person need not wait."""


def wait_for_people(
    rules: WorkRules, folder: Path, stage: RoundStage, log: Log, helper: Helper, watch: Watch
) -> None:
    """Serves the pages and returns once no item of the stage is open.

    Args:
        rules: how people work on the stage's questions.
        folder: of the experiment.
        stage: whose questions have been put up.
        log: the experiment's events.
        helper: answers sub-questions.
        watch: shows how many questions have been answered.

    Raises:
        AmplifyError: the pages cannot be served.
    """
    simulated = rules.simulated_people is not None
    where = Where(port=0) if simulated else Where.from_environment()
    helper.warm_up()
    with serving(folder, where, crowd=simulated) as served:
        _announce(Roster(folder), rules.team, served.address, simulated=simulated)
        with watch("people answer", Queue(log.since()).counts(stage).questions) as advance:
            RoundLoop(rules, stage, log, helper).run(served, advance)


def _announce(roster: Roster, team: int, address: str, *, simulated: bool) -> None:
    say(f"all rounds and everybody's work: {address}/in/{roster.admin().token}")
    if simulated:
        return
    people = [member for member in roster.members() if _is_person(member)]
    for member in people or roster.invite([""] * team, time.time()):
        say(f"{member.person}: {address}/in/{member.token}")


def _is_person(member: Member) -> bool:
    return not member.is_admin and not member.simulated


def set_aside(item: Item, why_unreadable: Callable[[str], str]) -> list[New]:
    """Returns the event that sets an item aside if the answer that counts cannot be read by the
    task: nothing is learned from it until somebody decides on another answer.

    Args:
        item: as it stands now.
        why_unreadable: why the task cannot read an answer; "" if it can.
    """
    answer = answer_of(item)
    if answer is None or not (problem := why_unreadable(answer)):
        return []
    request = f"set aside:{item.id}:{answer}"
    return [new_event(PutAside(reason=problem), item.round, item=item.id, request=request)]


class RoundLoop:
    """Reads what people did from the log and appends what follows from it."""

    def __init__(self, rules: WorkRules, stage: RoundStage, log: Log, helper: Helper) -> None:
        self.rules, self.stage, self.log = rules, stage, log
        self.helper, self.queue = helper, Queue()

    def run(self, served: Served, advance: Advance) -> None:
        """Returns once no item is open.

        Args:
            served: the processes to keep alive meanwhile.
            advance: is told how many more questions need nobody any more.

        Raises:
            AmplifyError: a process dies again and again.
        """
        done, looked = 0, time.monotonic()
        while True:
            change = self.log.change()
            news = list(self.log.since(self.queue.last))
            for event in news:
                self.queue.apply(event)
            kinds = {event.kind for event in news}
            events = self._look_after(news)
            if "asked" in kinds:  # what was asked before was answered before
                events += self.helper.answer(self.queue.pending(self.stage))
            if events:
                self.log.append(*events)
            if kinds & {"submitted", "undone", "refused", "withdrawn"}:
                complete = self._complete()
                advance(complete - done)
                done = complete
            if not events and not self.queue.open_items(self.stage):
                return
            while not events and self.log.change() == change:
                time.sleep(POLL)
                if time.monotonic() - looked > KEEP_UP:
                    served.keep_up()
                    looked = time.monotonic()

    def _complete(self) -> int:
        """Number of the stage's questions that need nobody any more, without reviews."""
        return self.queue.counts(self.stage).questions_done

    def _look_after(self, news: Iterable[Event]) -> list[New]:
        """Returns the events that follow from what people did: an answer that the task cannot read
        goes back, some answers are put up for others to check, and an item that nobody can answer
        is withdrawn.
        """
        events = []
        for event in news:
            if self.queue.stage_of(event) != self.stage or not self.queue.is_used(event):
                continue
            if event.kind in ("adjudicated", "corrected"):
                events += set_aside(self.queue.items[event.item or ""], self.helper.why_unreadable)
            if event.kind not in ("submitted", "skipped", "undone"):
                continue
            item = self.queue.items[event.item or ""]
            assignment = item.assignments[event.person or ""]
            if event.kind == "submitted" and assignment.submitted == event.id:
                events += self._check(item, assignment)
            if reason := self._hopeless(item):
                events.append(self._withdraw(item, reason))
        return events

    def _withdraw(self, item: Item, reason: str) -> New:
        withdrawn, request = Withdrawn(reason=reason), f"withdrawn:{item.id}"
        return new_event(withdrawn, item.round, item=item.id, request=request)

    def _check(self, item: Item, assignment: Assignment) -> list[New]:
        if problem := self.helper.why_unreadable(assignment.answer or ""):
            request = f"refused:{assignment.submitted}"
            about = {"item": item.id, "person": assignment.person, "request": request}
            return [new_event(Refused(problem=problem), item.round, **about)]
        rules = self.rules
        name = identify(rules, item.id, assignment.person, assignment.submitted)
        if item.review_of is not None or chance(name, "reviewed") >= rules.reviewed:
            return []
        put = Put(
            stage=item.asked_in.stage,
            question=item.question,
            label=item.label,
            review_of=[item.id, assignment.person],
            overlap=rules.reviewers,
            choices=list(item.choices),
            rule=item.rule.as_row(),
            gold=item.gold,
            also_right=list(item.also_right),
        )
        request = f"put:{name}"
        return [new_event(put, item.round, item=name, checkpoint=item.checkpoint, request=request)]

    def _hopeless(self, item: Item) -> str:
        """Why nobody will answer this item any more; "" if somebody may."""
        if item.complete:
            return ""
        if item.skips >= self.rules.skips:
            return f"{item.skips} people have skipped it"
        if self.rules.simulated_people is not None:
            had = sum(a.state != ACTIVE for a in item.assignments.values())
            others = self.rules.simulated_people - (item.review_of is not None)
            if had >= others:
                return "nobody is left who has not had it"
        return ""
