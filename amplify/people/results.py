"""What people's work cost and brought, and how much the assistant helps them.

The uplift trial gives a random share of items no help. Items are drawn for it one by one, so
whoever answers does some with help and some without, and intervals are clustered by person (see
`statistics.arms`). Pure functions over the queue and the rounds' records; what cannot be known is
None, never 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from amplify.evaluation.statistics.arms import difference_of_means, difference_of_shares
from amplify.people.items import Assignment, Item, Where, chosen, is_among, is_gold
from amplify.people.records import Record
from amplify.people.rules import Queue

Judge = Callable[[Item, Assignment], bool | None]
"""Says whether an answer is right; None if that is not known."""


class Arm(NamedTuple):
    """One arm of the trial."""

    answers: int
    mean: float | None


class Effect(NamedTuple):
    """Effect of the assistant's help on one quantity, over the answers for which it is known."""

    helped: Arm
    alone: Arm
    difference: float | None  # helped minus alone
    interval: tuple[float, float] | None  # 95 %; None where there are too few people to tell
    people: int


class Uplift(NamedTuple):
    """Effects of the assistant's help."""

    accuracy: Effect  # fraction right, of answers
    assigned: Effect  # fraction right, of items in the arm that they were drawn into
    seconds: Effect  # attention per answer


def on_gold(item: Item, assignment: Assignment) -> bool | None:
    """A `Judge` that knows the true answers of gold items."""
    return None if item.gold is None else is_gold(item, assignment.said)


def by_item(right: Mapping[str, bool]) -> Judge:
    """Returns a `Judge` of the answers that count.

    Args:
        right: by id of the item, whether the answer that counts is right.
    """

    def judge(item: Item, assignment: Assignment) -> bool | None:
        return right.get(item.id) if chosen(item) is assignment else None

    return judge


def uplift(queue: Queue, judge: Judge | None = on_gold, where: Where = None) -> Uplift:
    """Estimates the effect of the assistant's help from rounds with items of both arms.

    `accuracy` is about answers. Help may also influence which items are answered at all, which can
    make it look better or worse than it is; so `assigned` counts every item in the arm that it was
    drawn into, and as not right if no answer to it counts (intention to treat).

    Args:
        queue: with everybody's answers. Reviews are left out.
        judge: says which answers are right; None where nobody knows: then only `seconds` is
            estimated.
        where: only of this round, or of this stage; None: of all.
    """
    items = _in_trial(queue, where)
    answers = [(item, a) for item in items if item.withdrawn is None for a in item.submissions]
    judged = [(*answer, None if judge is None else judge(*answer)) for answer in answers]
    right = [(i, a.person, float(right)) for i, a, right in judged if right is not None]
    missing = [
        (item, _last_person(item), 0.0)
        for item in items
        if judge is not None
        and _came_to_nothing(queue, item)
        and (judge is not on_gold or item.gold is not None)
    ]
    return Uplift(
        accuracy=_effect(right, difference_of_shares),
        assigned=_effect(right + missing, difference_of_shares),
        seconds=_effect(
            [(i, a.person, a.seconds) for i, a in answers if a.seconds > 0], difference_of_means
        ),
    )


def _in_trial(queue: Queue, where: Where) -> list[Item]:
    items = [
        item for item in queue.items.values() if item.review_of is None and is_among(item, where)
    ]
    arms: dict[int, set[bool]] = {}
    for item in items:
        if item.withdrawn is None:
            arms.setdefault(item.round, set()).add(item.withheld)
    return [item for item in items if len(arms.get(item.round, ())) == 2]


def _came_to_nothing(queue: Queue, item: Item) -> bool:
    """Whether no answer to an item will ever count: it was withdrawn, or its stage was closed."""
    return item.withdrawn is not None or (queue.is_closed(item) and not item.submissions)


def _last_person(item: Item) -> str:
    """The person who had the item last; a cluster of its own for an item that nobody had."""
    return next(reversed(item.assignments), f"nobody: {item.id}")


def _effect(
    answers: list[tuple[Item, str, float]], interval: Callable[..., tuple[float, float] | None]
) -> Effect:
    helped = np.array([not item.withheld for item, _, _ in answers], dtype=bool)
    people = np.array([person for _, person, _ in answers], dtype=np.str_)
    values = np.array([value for _, _, value in answers], dtype=np.float64)
    _, person = np.unique(people, return_inverse=True)
    with_help, alone = _arm(values[helped]), _arm(values[~helped])
    everybody = len(set(people.tolist()))
    if with_help.mean is None or alone.mean is None:
        return Effect(with_help, alone, None, None, everybody)
    difference = with_help.mean - alone.mean
    return Effect(with_help, alone, difference, interval(values, helped, person), everybody)


def _arm(values: Float[np.ndarray, " n"]) -> Arm:
    return Arm(len(values), float(values.mean()) if len(values) else None)


class Cost(NamedTuple):
    """Human effort of one round, or of all rounds up to it, and what it gained."""

    round: int
    people: int  # who answered at least one item
    answers: int  # including checks of others' answers
    seconds: float  # of attention, including what was skipped or undone
    points: float | None  # gain of the gate's measure, in percentage points

    @property
    def seconds_per_point(self) -> float | None:
        """None if nothing was gained."""
        return self.seconds / self.points if self.points and self.points > 0 else None

    @property
    def answers_per_point(self) -> float | None:
        """None if nothing was gained."""
        return self.answers / self.points if self.points and self.points > 0 else None


def cost_by_round(queue: Queue, records: Sequence[Record]) -> list[Cost]:
    """Returns the cost of each round that people worked on or that has a record, in order.

    A round's gain is over the round that it was judged against, or else its parent.
    """
    by_number = {record.number: record for record in records}
    numbers = sorted({*by_number, *queue.rounds})
    return [
        _cost(queue, number, [number], _gain(by_number, number, _before(by_number.get(number))))
        for number in numbers
    ]


def total_cost(queue: Queue, records: Sequence[Record]) -> Cost | None:
    """Returns the cost of all rounds up to the best one, and its gain over round 0.

    The best round is the last that was promoted; None if none was.
    """
    promoted = [r.number for r in records if (r.verdict or {}).get("verdict") == "promoted"]
    if not promoted:
        return None
    best, by_number = promoted[-1], {record.number: record for record in records}
    numbers = [number for number in queue.rounds if number <= best]
    return _cost(queue, best, numbers, _gain(by_number, best, 0))


def _cost(queue: Queue, round: int, numbers: Sequence[int], points: float | None) -> Cost:
    work = [
        assignment
        for item in queue.items.values()
        if item.round in numbers
        for assignment in item.assignments.values()
    ]
    done = [assignment for assignment in work if assignment.submitted is not None]
    return Cost(
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
