"""How well people do, and how far they agree.

People's answers to an item, and those of the people who checked one of them, are ratings of the
item. Agreement is Krippendorff's alpha for nominal data with missing values (Krippendorff 2011,
"Computing Krippendorff's Alpha-Reliability"; 2018, "Content Analysis", 4th ed., chapter 12). It is
about what people said themselves: a correction changes which answer counts, not who agreed. Pure
functions over the queue; what cannot be known is None, never 0.
"""

import collections
import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from amplify.evaluation.statistics import accuracy
from amplify.evaluation.statistics.agreement import agreement_interval
from amplify.people.items import SKIPPED, Assignment, Item, Where, canonical, is_among, is_gold
from amplify.people.rules import Queue

CARELESS = 0.05
"""Probability that anybody is called careless although nobody is worse than the others."""


class Tally(NamedTuple):
    """How many of `of` cases count, with fractions where a case counts in part."""

    right: float
    of: int
    bounds: tuple[float, float] | None = None

    @property
    def estimate(self) -> float | None:
        """The share of cases that count; None if there are none."""
        return self.right / self.of if self.of else None

    def interval(self) -> tuple[float, float] | None:
        """95 % interval, clustered by context; None if there are too few contexts."""
        return self.bounds


def tally(values: Sequence[float], contexts: Sequence[Hashable]) -> Tally:
    """Adds up cases.

    Args:
        values: how much each case counts, 0 to 1.
        contexts: what each is about; cases about one context are not independent.
    """
    total = math.fsum(values)
    if not values:
        return Tally(total, 0)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(contexts))}
    context = np.array([numbers[name] for name in contexts])
    return Tally(total, len(values), accuracy(np.array(values, float), context).interval)


class Agreement(NamedTuple):
    """How far people agree, beyond chance."""

    alpha: float | None  # 1: perfect, 0: chance; None: nothing to compare, or no variation
    interval: tuple[float, float] | None  # 95 %
    items: int  # with two answers or more


@dataclasses.dataclass(frozen=True)
class PersonQuality:
    """What one person did, in one round or in all."""

    person: str
    answers: int
    reviews: int  # of the answers
    skips: int
    gold: Tally  # right answers, of those to items whose true answer is known
    agreeing: Tally  # agreement with others; an item counts by the share that agrees
    seconds: float | None  # of attention per answer, where it was measured
    careless: tuple[str, ...] = ()  # the evidence for it, in words


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An item to which people gave different answers."""

    item: Item
    answers: Mapping[str, tuple[Assignment, ...]]  # by their text, the most frequent first

    @property
    def settled(self) -> bool:
        """Whether somebody has decided."""
        return self.item.adjudicated is not None


def ratings(queue: Queue, where: Where = None) -> dict[str, dict[str, Assignment]]:
    """Returns the final answers to each item, by item and person.

    Includes the answers of those who checked one. If somebody did both, their first answer is
    taken. Withdrawn items are left out.
    """
    found: dict[str, dict[str, Assignment]] = {}
    for item in _items(queue, where):
        of = reviewed(queue, item)
        if of.withdrawn is None:
            for assignment in item.submissions:
                by_person = found.setdefault(of.id, {})
                known = by_person.get(assignment.person)
                if known is None or (assignment.submitted or 0) < (known.submitted or 0):
                    by_person[assignment.person] = assignment
    return found


def reviewed(queue: Queue, item: Item) -> Item:
    """Returns the item whose answer an item checks, or the item itself if it checks none."""
    while item.review_of is not None:
        item = queue.items[item.review_of[0]]
    return item


def agreement(queue: Queue, where: Where = None) -> Agreement:
    """Returns how far people agree, in one round, one stage or (None) in all."""
    found = ratings(queue, where)
    rated = [
        [canonical(queue.items[item], answer.said or "") for answer in answers.values()]
        for item, answers in found.items()
    ]
    compared = [values for values in rated if len(values) > 1]
    about = [_context(queue.items[item]) for item in found]
    return Agreement(alpha(rated), alpha_interval(rated, about), len(compared))


def alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal data.

    Args:
        units: for each unit, the values that its raters gave. Units with fewer than two are
            ignored.

    Returns:
        1 for perfect agreement, 0 for chance; None if no unit has two values, or if all values are
        the same, since agreement cannot then be told from having no choice.
    """
    return _Coincidences.of(units).alpha()


def alpha_interval(
    units: Iterable[Sequence[Hashable]],
    contexts: Iterable[Hashable] | None = None,
    error_rate: float = 0.05,
) -> tuple[float, float] | None:
    """Returns the confidence interval of alpha, clustered by context.

    Args:
        units: as for `alpha`.
        contexts: what each unit is about; None: all are about different things.
        error_rate: 1 minus the confidence level.

    Returns:
        Lower and upper bound; None if alpha is undefined or there are too few contexts.
    """
    units = list(units)
    named = list(range(len(units)) if contexts is None else contexts)
    rated = [(unit, name) for unit, name in zip(units, named, strict=True) if len(unit) > 1]
    whole = _Coincidences.of(unit for unit, _ in rated)
    estimate, n = whole.alpha(), sum(whole.values.values())
    if estimate is None:
        return None
    shares = {value: count / n for value, count in whole.values.items()}
    alike = math.fsum(share**2 for share in shares.values())
    numbers = {name: number for number, name in enumerate(dict.fromkeys(named))}
    low_and_high = agreement_interval(
        apart=np.array([_apart(unit) for unit, _ in rated]),
        raters=np.array([float(len(unit)) for unit, _ in rated]),
        unusual=np.array([2 * math.fsum(alike - shares[v] for v in unit) for unit, _ in rated]),
        # So that observed / expected disagreement is what it is in alpha, which has n - 1 for n.
        expected=(1 - alike) * n / (n - 1),
        cluster=np.array([numbers[name] for _, name in rated]),
        error_rate=error_rate,
    )
    if low_and_high is None:
        return None
    return min(low_and_high[0], estimate), max(low_and_high[1], estimate)


@dataclasses.dataclass
class _Coincidences:
    """What alpha needs of the coincidence matrix: its margins, and what lies off its diagonal."""

    values: collections.Counter[Hashable]
    apart: float = 0.0  # pairs of unlike values, each unit's divided by its raters less one

    @classmethod
    def of(cls, units: Iterable[Sequence[Hashable]]) -> "_Coincidences":
        total = cls(collections.Counter())
        for values in units:
            if len(values) > 1:
                total.values.update(values)
                total.apart += _apart(values)
        return total

    def alpha(self) -> float | None:
        n = sum(self.values.values())
        expected = n**2 - sum(count**2 for count in self.values.values())
        if not expected:
            return None
        return 1 - (n - 1) * self.apart / expected


def _apart(values: Sequence[Hashable]) -> float:
    raters = len(values)
    alike = sum(count**2 for count in collections.Counter(values).values())
    return (raters**2 - alike) / (raters - 1)


def people(queue: Queue, round: int | None = None) -> list[PersonQuality]:
    """Returns the quality of everybody who answered or skipped an item, by pseudonym."""
    rated = ratings(queue, round)
    found: dict[str, list[Assignment]] = {}
    for item in _items(queue, round):
        for assignment in item.assignments.values():
            if assignment.submitted is not None or assignment.state == SKIPPED:
                found.setdefault(assignment.person, []).append(assignment)
    counted = [_person(queue, person, found[person], rated) for person in sorted(found)]
    return [dataclasses.replace(one, careless=_careless(one, counted)) for one in counted]


def disagreements(queue: Queue, round: int | None = None) -> list[Disagreement]:
    """Returns the items to which people gave different answers.

    Undecided ones come first, and among them those whose stage is open.
    """
    found = []
    for name, answers in ratings(queue, round).items():
        item, groups = queue.items[name], dict[str, list[Assignment]]()
        for answer in sorted(answers.values(), key=lambda answer: answer.submitted or 0):
            groups.setdefault(canonical(item, answer.said or ""), []).append(answer)
        if len(groups) > 1:
            ordered = sorted(groups.values(), key=len, reverse=True)
            said = {group[0].said or "": tuple(group) for group in ordered}
            found.append(Disagreement(item, said))
    return sorted(found, key=lambda one: (one.settled, queue.is_closed(one.item)))


def _items(queue: Queue, where: Where) -> list[Item]:
    return [item for item in queue.items.values() if is_among(item, where)]


def _person(
    queue: Queue,
    person: str,
    assignments: list[Assignment],
    rated: Mapping[str, Mapping[str, Assignment]],
) -> PersonQuality:
    done = [a for a in assignments if a.submitted is not None]
    known = [(queue.items[a.item], a) for a in done]
    gold = {item.id: float(is_gold(item, a.said)) for item, a in known if item.gold is not None}
    timed = [a.seconds for a in done if a.seconds > 0]
    return PersonQuality(
        person=person,
        answers=len(done),
        reviews=sum(item.review_of is not None for item, _ in known),
        skips=sum(a.state == SKIPPED for a in assignments),
        gold=tally(list(gold.values()), [_context(queue.items[item]) for item in gold]),
        agreeing=_agreeing(queue, person, rated),
        seconds=math.fsum(timed) / len(timed) if timed else None,
    )


def _agreeing(queue: Queue, person: str, rated: Mapping[str, Mapping[str, Assignment]]) -> Tally:
    shares = {}
    for name, answers in rated.items():
        if person in answers and len(answers) > 1:
            said = {who: canonical(queue.items[name], a.said or "") for who, a in answers.items()}
            mine = said.pop(person)
            shares[name] = sum(theirs == mine for theirs in said.values()) / len(said)
    return tally(list(shares.values()), [_context(queue.items[name]) for name in shares])


def _context(item: Item) -> Hashable:
    """The context of an item: that of its row in the stage's data set, if it has one."""
    return (item.asked_in, item.row) if item.row >= 0 else item.id


def _careless(one: PersonQuality, everybody: Sequence[PersonQuality]) -> tuple[str, ...]:
    """What a person is worse at than all others together, by more than chance explains.

    Fisher's exact test, one-sided, at level CARELESS / (2 · people): by Bonferroni's inequality the
    error rate holds for the crowd as a whole.
    """
    from scipy import stats  # takes long to import

    reasons = []
    for own, others, what in (
        (one.gold, _together(one, everybody, "gold"), "right on gold items"),
        (one.agreeing, _together(one, everybody, "agreeing"), "agreeing with others"),
    ):
        if own.estimate is None or not others.estimate:
            continue
        # Fractions are rounded towards no difference, which makes the test conservative.
        got, theirs = math.ceil(own.right - 1e-9), math.floor(others.right + 1e-9)
        chance = stats.hypergeom.cdf(got, own.of + others.of, got + theirs, own.of)
        if chance < CARELESS / (2 * len(everybody)):
            reasons.append(
                f"{100 * own.estimate:.0f} % {what}, the others {100 * others.estimate:.0f} %"
            )
    return tuple(reasons)


def _together(one: PersonQuality, everybody: Sequence[PersonQuality], measure: str) -> Tally:
    tallies: list[Tally] = [getattr(other, measure) for other in everybody if other is not one]
    return Tally(math.fsum(one.right for one in tallies), sum(one.of for one in tallies))
