"""How much the assistant helps people: the trial in which a random share of items has no help.

Items are drawn for the trial one by one, so whoever answers does some with help and some without.
The difference of the means is a regression on "helped"; answers of one person are not independent,
so its standard error is clustered by person (Liang and Zeger 1986, with the small-sample factor of
Stata's `vce(cluster)`), and its interval takes Student's t with one degree of freedom less than
there are people (Cameron and Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference").
Pure functions over the queue; what cannot be known is None, never 0.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from amplify.people.choice import chosen, is_gold
from amplify.people.items import Assignment, Item
from amplify.people.queue import Queue

Judge = Callable[[Item, Assignment], bool | None]
"""Whether an answer is right; None where that is not known."""


class Arm(NamedTuple):
    answers: int
    mean: float | None


class Effect(NamedTuple):
    """Of the assistant's help on one thing, over answers for which that is known."""

    helped: Arm
    alone: Arm
    difference: float | None  # helped minus alone
    interval: tuple[float, float] | None  # 95%; None with one person, or where nothing varies
    people: int


class Uplift(NamedTuple):
    accuracy: Effect  # as fractions
    seconds: Effect  # of attention an answer


def on_gold(item: Item, assignment: Assignment) -> bool | None:
    """Judges by the true answers of gold items."""
    return None if item.gold is None else is_gold(item, assignment.said)


def by_item(right: Mapping[str, bool]) -> Judge:
    """Judges by whether the answer that was chosen for an item is right."""

    def judge(item: Item, assignment: Assignment) -> bool | None:
        return right.get(item.id) if chosen(item) is assignment else None

    return judge


def uplift(queue: Queue, judge: Judge = on_gold, round: int | None = None) -> Uplift:
    """Of the rounds in which there was a trial: those with items of both arms. Reviews and
    withdrawn items do not count.
    """
    answers = list(_in_trial(queue, round))
    judged = [(*answer, judge(*answer)) for answer in answers]
    return Uplift(
        accuracy=_effect([(i, a, float(right)) for i, a, right in judged if right is not None]),
        seconds=_effect([(i, a, a.seconds) for i, a in answers if a.seconds > 0]),
    )


def _in_trial(queue: Queue, round: int | None) -> Iterable[tuple[Item, Assignment]]:
    items = [
        item
        for item in queue.items.values()
        if item.review_of is None and item.withdrawn is None and round in (None, item.round)
    ]
    arms: dict[int, set[bool]] = {}
    for item in items:
        arms.setdefault(item.round, set()).add(item.withheld)
    for item in items:
        if len(arms[item.round]) == 2:
            for assignment in item.submissions:
                yield item, assignment


def _effect(answers: list[tuple[Item, Assignment, float]]) -> Effect:
    helped = np.array([not item.withheld for item, _, _ in answers], dtype=bool)
    people = [assignment.person for _, assignment, _ in answers]
    values = np.array([value for _, _, value in answers], dtype=np.float64)
    _, person = np.unique(np.array(people, dtype=np.str_), return_inverse=True)
    arms = [_arm(values[helped]), _arm(values[~helped])]
    difference, interval = None, None
    if arms[0].mean is not None and arms[1].mean is not None:
        difference = arms[0].mean - arms[1].mean
        interval = clustered_interval(values, helped, person)
    return Effect(arms[0], arms[1], difference, interval, len(set(people)))


def _arm(values: Float[np.ndarray, " n"]) -> Arm:
    return Arm(len(values), float(values.mean()) if len(values) else None)


def clustered_interval(
    values: Float[np.ndarray, " n"],
    helped: Bool[np.ndarray, " n"],
    person: Int[np.ndarray, " n"],
    error_rate: float = 0.05,
) -> tuple[float, float] | None:
    """Of the mean of those helped minus the mean of the others; both arms have answers.

    None with fewer than two people or three answers, or where the standard error is 0: so few or so
    even answers say nothing of how far they could be off.
    """
    people, n = np.unique(person), len(values)
    if len(people) < 2 or n < 3:
        return None
    means = np.where(helped, values[helped].mean(), values[~helped].mean())
    # An answer's part in the difference: its residual, over the answers of its arm, signed.
    sizes = np.where(helped, helped.sum(), -(~helped).sum())
    parts = (values - means) / sizes
    sums = np.array([parts[person == one].sum() for one in people])
    factor = len(people) / (len(people) - 1) * (n - 1) / (n - 2)
    error = float(np.sqrt(factor * np.sum(sums**2)))
    if error < 1e-12:
        return None
    from scipy import stats  # takes a second to load, which pages that need none do not wait for

    difference = float(values[helped].mean() - values[~helped].mean())
    half = float(stats.t.ppf(1 - error_rate / 2, len(people) - 1)) * error
    return difference - half, difference + half
