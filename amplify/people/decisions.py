"""What whoever runs an experiment may decide: which answer counts, that one was wrong, that an item
goes.

Pure functions over the queue, each returning the events to append. Nothing is overwritten: a
decision is an event like any other, and a later one counts instead. May be done after a round was
closed; what then rests on the old answer is said by `stale`.
"""

from amplify.people.choice import same
from amplify.people.events import Adjudicated, Corrected, New, Withdrawn
from amplify.people.items import SUBMITTED, Assignment, Item
from amplify.people.queue import Queue, RefusedError, checked, checked_answer, new_of_item


def adjudicate(queue: Queue, item: str, answer: str, by: str) -> list[New]:
    """The answer that counts for an item. To decide the same again changes nothing."""
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
    """What somebody's final answer should have been, or with a `number` the assistant's answer to
    that sub-question of theirs.
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
    """Nobody is asked any more, and no answer counts."""
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
