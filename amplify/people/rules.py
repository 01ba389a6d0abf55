"""What may be done next: by people, and by whoever runs the experiment.

Every method of `Queue`, and every decision below it, returns the events to append and changes
nothing; web pages append them through `Log.decide`. Nothing is overwritten: a decision is an event
like any other, and a later one counts instead. It may be made after a round was closed; `stale`
says what then rests on the old answer.
"""

import itertools
from collections.abc import Iterator

from amplify.answers import collapse_spaces
from amplify.people.events import (
    About,
    Adjudicated,
    Asked,
    Body,
    Corrected,
    Draft,
    New,
    Released,
    Seen,
    Skipped,
    Submitted,
    Taken,
    Undone,
    Withdrawn,
    new_event,
)
from amplify.people.items import ACTIVE, SKIPPED, SUBMITTED, Assignment, Item, same
from amplify.people.state import State
from amplify.people.text import shows_something, why_not_kept

LONGEST = 2000
"""Maximum characters of anything that a person types."""


class RefusedError(Exception):
    """What a person wants cannot be done. The message tells them why, and what they can do."""


class Queue(State):
    """The state of the log, and what each person may do next.

    Times are in seconds since 1970. Where an act is not allowed, methods raise RefusedError.
    """

    def take(self, person: str, now: float) -> list[New]:
        """Gives a person their next item: the one in hand, one that came back to them, or one that
        needs more people, reviews first.

        Returns:
            The event to append; none if there is no item, or if they hold one already.
        """
        item = self.current(person, now)
        if item is None:
            item = next((i for i in self._waiting(person) if self._fits(i, person, now)), None)
        elif self.is_held(item.assignments[person], now):
            return []
        return [] if item is None else [new_of_item(Taken(), item, person)]

    def _waiting(self, person: str) -> Iterator[Item]:
        """Unfinished items, in the order in which this person should get them."""
        yield from (self.items[name] for name in self._returned.get(person, ()))
        names = itertools.chain.from_iterable(self._unfinished.values())
        items = [self.items[name] for name in names]
        yield from (item for item in items if item.review_of is not None)
        yield from (item for item in items if item.review_of is None)

    def _fits(self, item: Item, person: str, now: float) -> bool:
        """Whether a person may be given an item: nothing that they have answered or skipped, and no
        check of their own answer.
        """
        before = item.assignments.get(person)
        if before is not None and before.state != ACTIVE:
            return False
        if before is not None and self.is_held(before, now):
            return item.withdrawn is None and not self.is_closed(item)
        mine = item.review_of is not None and item.review_of[1] == person
        return not mine and self.needs(item, now) > 0

    def ask(
        self,
        person: str,
        item: str,
        text: str,
        now: float,
        about: About | None = None,
    ) -> list[New]:
        """Asks the assistant a sub-question.

        Args:
            person: who asks.
            item: what they have in hand.
            text: the sub-question; if `about` is given, what it is called on the page.
            now: the time.
            about: an answer, or a part of one, that the assistant is to expand on.
        """
        mine = self._mine(person, item, now)
        this, in_hand = self.items[item], self.current(person, now)
        if in_hand is not None and in_hand is not this:
            raise RefusedError("you have another question in hand now; answer that one first")
        text = checked(text, "a question") if about is None else text[:LONGEST]
        if this.withheld or this.review_of:
            raise RefusedError("this question is to be answered without the assistant's help")
        if sum(exchange.costs for exchange in mine.exchanges) >= this.budget:
            raise RefusedError(f"all {this.budget} questions for the assistant have been asked")
        if any(exchange.pending for exchange in mine.exchanges):
            raise RefusedError("the assistant has not answered the last question yet")
        if about is not None:
            answered = {e.number: e for e in mine.kept if e.answer is not None}
            if about.get("number") not in answered:
                raise RefusedError("there is no such answer to expand on")
            part = collapse_spaces(str(about.get("part") or ""))
            if part not in collapse_spaces(answered[about["number"]].answer or ""):
                raise RefusedError("what is marked is not part of the answer")
            about = About(number=about["number"], part=part)
        asked = Asked(text=text) if about is None else Asked(text=text, about=about)
        return [new_of_item(asked, this, person)]

    def draft(self, person: str, item: str, text: str) -> list[New]:
        """Keeps what was typed so far, even if the assignment has ended: nothing typed is lost."""
        if not self.may_open(person, item):
            raise RefusedError("this is not one of your questions")
        if len(text) > LONGEST:
            raise RefusedError(f"at most {LONGEST} characters can be kept")
        if problem := why_not_kept(text):
            raise RefusedError(f"a draft {problem}")
        return [new_of_item(Draft(text=text), self.items[item], person)]

    def submit(self, person: str, item: str, answer: str, now: float) -> list[New]:
        """Submits a final answer. Submitting the same answer again changes nothing."""
        if self.may_open(person, item):
            before = self.items[item].assignments[person]
            if before.state == SUBMITTED and collapse_spaces(
                before.answer or ""
            ) == collapse_spaces(answer):
                return []
        self._mine(person, item, now)
        this = self.items[item]
        answer = checked_answer(this, answer)
        return [new_of_item(Submitted(answer=answer), this, person)]

    def skip(self, person: str, item: str, reason: str, now: float) -> list[New]:
        """Passes on an item, for a reason in words."""
        self._mine(person, item, now)
        skipped = Skipped(reason=checked(reason, "a reason"))
        return [new_of_item(skipped, self.items[item], person)]

    def see(self, person: str, item: str) -> list[New]:
        """Reveals who told a person what. From then on their answer cannot be undone."""
        if not self.may_open(person, item):
            raise RefusedError("this is not one of your questions")
        mine = self.items[item].assignments[person]
        if mine.state != SUBMITTED:
            raise RefusedError("who told you what is shown once you have submitted your answer")
        return [] if mine.seen else [new_of_item(Seen(), self.items[item], person)]

    def undo(self, person: str, now: float) -> list[New]:
        """Takes back a person's last act: a sub-question, a submission or a skip."""
        acts = self._acts.get(person, [])
        if not acts:
            raise RefusedError("there is nothing to undo")
        last, item = acts[-1], self.items[acts[-1].item or ""]
        if self.is_closed(item) or item.withdrawn is not None:
            raise RefusedError("the round has been closed: what was submitted stays")
        mine = item.assignments[person]
        if last.kind == "asked":
            self._mine(person, item.id, now)
        elif mine.seen:
            raise RefusedError("you have seen who told you what for this answer: it stays")
        elif any(review.assignments for review in self._reviews(mine)):
            raise RefusedError("somebody is checking this answer already: it stays")
        elif mine.state == SKIPPED and self.needs(item, now) <= 0:
            raise RefusedError("somebody else has taken it meanwhile")
        events = [new_of_item(Undone(event=last.id, what=last.kind), item, person)]
        in_hand = self.current(person, now)
        if in_hand is not None and in_hand.id != item.id:
            events.insert(0, new_of_item(Released(), in_hand, person))
        return events

    def _mine(self, person: str, item: str, now: float) -> Assignment:
        """A person's active assignment. Raises RefusedError if it no longer is."""
        if not self.may_open(person, item):
            raise RefusedError("this is not one of your questions")
        this, mine = self.items[item], self.items[item].assignments[person]
        if this.withdrawn is not None:
            raise RefusedError("this question was withdrawn; what you wrote is kept")
        if self.is_closed(this):
            raise RefusedError("this round has been closed; what you wrote is kept")
        if mine.state != ACTIVE:
            raise RefusedError(f"you have {mine.state} this question already; undo that first")
        if not self.is_held(mine, now) and self.needs(this, now) <= 0:
            raise RefusedError("your time for this ran out, and it went to somebody else; what you"
                          " wrote is kept")  # fmt: skip
        return mine


def new_of_item(body: Body, item: Item, person: str) -> New:
    """Returns an event about an item, by a person."""
    return new_event(body, item.round, item=item.id, person=person, checkpoint=item.checkpoint)


def checked_answer(item: Item, text: str) -> str:
    """Returns an answer to an item as it is stored: in one line, or one of the item's choices.

    Raises:
        RefusedError: it cannot be stored, or is none of the choices.
    """
    typed, text = text, checked(text, "an answer")
    if not item.choices or typed in item.choices:
        return typed if item.choices else text
    for choice in item.choices:  # as they were put up, with whatever space they have
        if item.rule.same(choice, text):
            return choice
    shown = ", ".join(item.choices[:20]) + (", ..." if len(item.choices) > 20 else "")
    raise RefusedError(f"an answer must be one of {shown}")


def checked(text: str, what: str) -> str:
    """Returns typed text as it is stored: in one line, without spare space.

    Args:
        text: what somebody typed.
        what: what it is, for the error: "an answer".

    Raises:
        RefusedError: it shows nothing, is longer than `LONGEST`, or has characters that cannot be
            stored.
    """
    if problem := why_not_kept(text):
        raise RefusedError(f"{what} {problem}")
    text = collapse_spaces(text)
    if not shows_something(text):
        raise RefusedError(f"{what} cannot be empty")
    if len(text) > LONGEST:
        raise RefusedError(f"{what} has at most {LONGEST} characters, this one {len(text)}")
    return text


# What whoever runs the experiment may decide


def adjudicate(queue: Queue, item: str, answer: str, by: str) -> list[New]:
    """Decides which answer to an item counts. Deciding the same again changes nothing.

    Args:
        queue: as it stands.
        item: a question; no check of somebody's answer.
        answer: one that was given, or any other.
        by: who decides.

    Raises:
        RefusedError: there is no such item, it was withdrawn, or the answer cannot be one.
    """
    this = _item(queue, item)
    if this.review_of is not None:
        raise RefusedError("this checks an answer to another question; decide on that one")
    if this.withdrawn is not None:
        raise RefusedError("this question was withdrawn: no answer to it counts")
    answer = checked_answer(this, answer)
    if this.adjudicated is not None and same(this, this.adjudicated, answer):
        return []
    return [new_of_item(Adjudicated(answer=answer), this, by)]


def correct(
    queue: Queue, item: str, person: str, answer: str, by: str, number: int | None = None
) -> list[New]:
    """Corrects a person's final answer, or an answer that the assistant gave them.

    Args:
        queue: as it stands.
        item: that the person worked on.
        person: whose answer it is.
        answer: what it should have been.
        by: who decides.
        number: of the person's sub-question whose answer was wrong; None: their final answer.

    Raises:
        RefusedError: there is no such answer, or the correction cannot be one.
    """
    this = _item(queue, item)
    whose = this.assignments.get(person)
    if whose is None:
        raise RefusedError(f"{person} was not given this question")
    if number is None:
        return _correct_final(this, whose, checked_answer(this, answer), by)
    told = {exchange.number: exchange for exchange in whose.exchanges}
    if number not in told or told[number].answer is None:
        raise RefusedError(f"no question number {number} of {person} was answered")
    answer = checked(answer, "an answer")
    return [new_of_item(Corrected(answer=answer, number=number, person=person), this, by)]


def withdraw(queue: Queue, item: str, reason: str, by: str) -> list[New]:
    """Withdraws an item: nobody is asked any more, and no answer to it counts.

    Raises:
        RefusedError: there is no such item, or no reason.
    """
    this = _item(queue, item)
    if this.withdrawn is not None:
        return []
    return [new_of_item(Withdrawn(reason=checked(reason, "a reason")), this, by)]


def _correct_final(item: Item, whose: Assignment, answer: str, by: str) -> list[New]:
    if whose.state != SUBMITTED:
        raise RefusedError(f"{whose.person} has submitted no answer to correct")
    if whose.answer == answer:
        return []
    corrected = Corrected(answer=answer, number=None, person=whose.person)
    return [new_of_item(corrected, item, by)]


def _item(queue: Queue, item: str) -> Item:
    if item not in queue.items:
        raise RefusedError("there is no such question")
    return queue.items[item]
