"""What people's work cost and what it brought: seconds and answers a round, and a point gained.

Pure functions over the queue and the rounds' records; what cannot be known is None, never 0.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from amplify.people.queue import Queue
from amplify.people.records import Record


class Spent(NamedTuple):
    """Of one round, or of several up to it."""

    round: int
    people: int  # who answered something
    answers: int  # checks of others' answers among them
    seconds: float  # of attention, also of what was skipped or taken back
    points: float | None  # gained by the gate's measure, in percent of held-out questions

    @property
    def seconds_a_point(self) -> float | None:
        return self.seconds / self.points if self.points and self.points > 0 else None

    @property
    def answers_a_point(self) -> float | None:
        return self.answers / self.points if self.points and self.points > 0 else None


def spent(queue: Queue, records: Sequence[Record]) -> list[Spent]:
    """Of each round that people worked on or that has a record; what it gained is against the round
    that it was judged against.
    """
    by_number = {record.number: record for record in records}
    numbers = sorted({*by_number, *queue.rounds})
    return [
        _spent(queue, number, [number], _gain(by_number, number, _before(by_number.get(number))))
        for number in numbers
    ]


def spent_altogether(queue: Queue, records: Sequence[Record]) -> Spent | None:
    """Up to the best round, the last that was promoted, from round 0; None before there is one."""
    promoted = [r.number for r in records if (r.verdict or {}).get("verdict") == "promoted"]
    if not promoted:
        return None
    best, by_number = promoted[-1], {record.number: record for record in records}
    numbers = [number for number in queue.rounds if number <= best]
    return _spent(queue, best, numbers, _gain(by_number, best, 0))


def _spent(queue: Queue, round: int, numbers: Sequence[int], points: float | None) -> Spent:
    work = [
        assignment
        for item in queue.items.values()
        if item.round in numbers
        for assignment in item.assignments.values()
    ]
    done = [assignment for assignment in work if assignment.submitted is not None]
    return Spent(
        round=round,
        people=len({assignment.person for assignment in done}),
        answers=len(done),
        seconds=math.fsum(assignment.seconds for assignment in work),
        points=points,
    )


def _before(record: Record | None) -> int | None:
    if record is None:
        return None
    return record.parent if record.verdict is None else int(record.verdict["against"])


def _gain(records: dict[int, Record], after: int, before: int | None) -> float | None:
    if before not in records or after not in records or before is None:
        return None
    judged = records[after].judged
    was, now = records[before].means.get(judged), records[after].means.get(judged)
    return None if was is None or now is None else 100 * (now.estimate - was.estimate)
