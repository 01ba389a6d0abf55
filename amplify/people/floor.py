"""Where people work, seen from the round: their sub-questions are answered, and the rest is looked
after, until every question has been answered or withdrawn.

Everything is decided from the log, so that a round that is killed goes on when it is begun again.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from amplify.events import Event, Log
from amplify.experiment import Experiment
from amplify.people.answer_tokens import read_answer
from amplify.people.choice import answer_of
from amplify.people.items import ACTIVE, Assignment, Item
from amplify.people.putting import chance, human, identify, new_event
from amplify.people.queue import New, Queue
from amplify.people.roster import Member, Roster
from amplify.people.serving import Served, Where, serving
from amplify.people.worker import Worker
from amplify.progress import Advance, Watch, say
from amplify.types import Task

POLL = 0.02
"""Seconds between two looks at the log while nothing happens."""
KEEP_UP = 0.5
"""Seconds between two looks at the processes."""


def wait_for_people(
    experiment: Experiment, folder: Path, number: int, log: Log, worker: Worker, watch: Watch
) -> None:
    config = human(experiment).config
    simulated = config.people == "simulated"
    where = Where(port=0) if simulated else Where.from_environment()
    worker.warm_up()
    with serving(folder, where, crowd=simulated) as served:
        _announce(Roster(folder), config.team, served.address, simulated=simulated)
        with watch("people answer", config.items) as advance:
            Floor(experiment, number, log, worker).run(served, advance)


def _announce(roster: Roster, team: int, address: str, *, simulated: bool) -> None:
    say(f"all rounds and everybody's work: {address}/in/{roster.admin().token}")
    if simulated:
        return
    people = [member for member in roster.members() if _is_person(member)]
    for member in people or roster.invite([""] * team, time.time()):
        say(f"{member.person}: {address}/in/{member.token}")


def _is_person(member: Member) -> bool:
    return not member.is_admin and not member.simulated


def set_aside(task: Task, item: Item) -> list[New]:
    """An event that sets an item aside if somebody decided on an answer that the task cannot read;
    until it is decided on again, nothing is learned from it.
    """
    answer = answer_of(item)
    if answer is None or not (problem := read_answer(task, answer).problem):
        return []
    facts = {"item": item.id, "request": f"set aside:{item.id}:{answer}"}
    return [new_event("set_aside", item.round, **facts, body={"reason": problem})]


class Floor:
    """Where people work, seen from the round: answers what they ask, and looks after the rest."""

    def __init__(self, experiment: Experiment, number: int, log: Log, worker: Worker) -> None:
        self.experiment, self.number, self.log = experiment, number, log
        self.worker, self.queue = worker, Queue()

    def run(self, served: Served, advance: Advance) -> None:
        """Until no item is open."""
        done, looked = 0, time.monotonic()
        while True:
            change = self.log.change()
            news = list(self.log.since(self.queue.last))
            for event in news:
                self.queue.apply(event)
            kinds = {event.kind for event in news}
            events = self._look_after(news)
            if "asked" in kinds:  # what was asked before was answered before
                events += self.worker.tell(self.queue.pending(self.number))
            if events:
                self.log.append(*events)
            if kinds & {"submitted", "undone", "refused", "withdrawn"}:
                complete = self._complete()
                advance(complete - done)
                done = complete
            if not events and not self.queue.open_items(self.number):
                return
            while not events and self.log.change() == change:
                time.sleep(POLL)
                if time.monotonic() - looked > KEEP_UP:
                    served.keep_up()
                    looked = time.monotonic()

    def _complete(self) -> int:
        """Questions of the round that need nobody any more; reviews are not counted."""
        items = map(self.queue.items.__getitem__, self.queue.rounds[self.number].items)
        return sum(item.review_of is None and item.complete for item in items)

    def _look_after(self, news: Iterable[Event]) -> list[New]:
        """What follows from what people did: an answer that makes no sense goes back, some are put
        up for others to check, and what nobody can answer is withdrawn.
        """
        events = []
        for event in news:
            if event.round != self.number or not self.queue.is_used(event):
                continue
            if event.kind in ("adjudicated", "corrected"):
                events += set_aside(self.experiment.task, self.queue.items[event.item or ""])
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
        facts = {"item": item.id, "request": f"withdrawn:{item.id}", "body": {"reason": reason}}
        return new_event("withdrawn", self.number, **facts)

    def _check(self, item: Item, assignment: Assignment) -> list[New]:
        if problem := read_answer(self.experiment.task, assignment.answer or "").problem:
            facts = {"item": item.id, "person": assignment.person}
            request = f"refused:{assignment.submitted}"
            body: New = {"problem": problem}
            return [new_event("refused", self.number, **facts, request=request, body=body)]
        config = human(self.experiment).config
        name = identify(self.experiment, item.id, assignment.person, assignment.submitted)
        if item.review_of is not None or chance(name, "reviewed") >= config.reviewed:
            return []
        body = {
            "question": item.question,
            "label": item.label,
            "review_of": [item.id, assignment.person],
            "overlap": config.reviewers,
            "choices": item.choices,
            "rule": item.rule.as_row(),
            "gold": item.gold,
            "also_right": item.also_right,
        }
        put = new_event("put", self.number, item=name, request=f"put:{name}", body=body)
        return [{**put, "checkpoint": item.checkpoint}]

    def _hopeless(self, item: Item) -> str:
        """Why nobody will answer an item any more; "" if somebody may."""
        config = human(self.experiment).config
        if item.complete:
            return ""
        if item.skips >= config.skips:
            return f"{item.skips} people have skipped it"
        if config.people == "simulated":
            had = sum(a.state != ACTIVE for a in item.assignments.values())
            others = config.crowd.people - (item.review_of is not None)
            if had >= others:
                return "nobody is left who has not had it"
        return ""
