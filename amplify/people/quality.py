"""How people do, and how far they agree.

People's answers to an item, and those of whoever checked one of them, are ratings of that item.
Agreement is Krippendorff's alpha for nominal data with missing values (Krippendorff 2011,
"Computing Krippendorff's Alpha-Reliability"; 2018, "Content Analysis", 4th ed., chapter 12). It is
about what people said themselves: a correction changes what counts and not who agreed. Pure
functions over the queue; what cannot be known is None, never 0.
"""

import collections
import dataclasses
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from amplify.people.choice import canonical, is_gold
from amplify.people.items import SKIPPED, Assignment, Item
from amplify.people.queue import Queue

CARELESS = 0.05
"""Chance of calling anybody careless in a crowd in which nobody is worse than the others."""


class Share(NamedTuple):
    """Of `of` cases, `right` count; halves are possible."""

    right: float
    of: int

    @property
    def estimate(self) -> float | None:
        return self.right / self.of if self.of else None

    def interval(self, error_rate: float = 0.05) -> tuple[float, float] | None:
        """Wilson's (1927, "Probable Inference, the Law of Succession, and Statistical Inference");
        None without cases.
        """
        if not self.of:
            return None
        rate, z = self.right / self.of, statistics.NormalDist().inv_cdf(1 - error_rate / 2)
        centre = (rate + z**2 / (2 * self.of)) / (1 + z**2 / self.of)
        half = math.sqrt(rate * (1 - rate) / self.of + z**2 / (4 * self.of**2))
        half *= z / (1 + z**2 / self.of)
        # The bounds meet 0 and 1 exactly there, where rounding would leave them a hair off.
        return min(max(0.0, centre - half), rate), max(min(1.0, centre + half), rate)


class Agreement(NamedTuple):
    alpha: float | None  # 1: perfect, 0: as by chance; None: nothing to compare, or no variation
    interval: tuple[float, float] | None  # 95%
    items: int  # with two answers or more


@dataclasses.dataclass(frozen=True)
class Person:
    """What one person did, in one round or all."""

    person: str
    answers: int
    reviews: int  # of the answers
    skips: int
    gold: Share  # right, of their answers to items whose true answer is known
    agreeing: Share  # with others; each item counts once, by the share of others that agree
    seconds: float | None  # of attention an answer, where it was measured
    careless: tuple[str, ...] = ()  # why they are thought to be, in words


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An item to which people gave different answers."""

    item: Item
    answers: Mapping[str, tuple[Assignment, ...]]  # by what was said, the most frequent first

    @property
    def settled(self) -> bool:
        return self.item.adjudicated is not None


def ratings(queue: Queue, round: int | None = None) -> dict[str, dict[str, Assignment]]:
    """By item and person: the final answers to it, of those who were given it and of those who
    checked one of them. Who did both counts with the first. Withdrawn items are left out.
    """
    found: dict[str, dict[str, Assignment]] = {}
    for item in _items(queue, round):
        of = reviewed(queue, item)
        if of.withdrawn is None:
            for assignment in item.submissions:
                by_person = found.setdefault(of.id, {})
                known = by_person.get(assignment.person)
                if known is None or (assignment.submitted or 0) < (known.submitted or 0):
                    by_person[assignment.person] = assignment
    return found


def reviewed(queue: Queue, item: Item) -> Item:
    """The item whose answer an item checks; itself, if it checks none."""
    while item.review_of is not None:
        item = queue.items[item.review_of[0]]
    return item


def agreement(queue: Queue, round: int | None = None) -> Agreement:
    rated = [
        [canonical(queue.items[item], answer.said or "") for answer in answers.values()]
        for item, answers in ratings(queue, round).items()
    ]
    compared = [values for values in rated if len(values) > 1]
    return Agreement(alpha(rated), alpha_interval(rated), len(compared))


def alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal data.

    Args:
        units: of each unit, the values that its raters gave; those with fewer than two compare
            nothing and do not count.

    Returns:
        None if no unit has two values, or if all values are one and the same: agreement then
        cannot be told from having no choice.
    """
    return _Coincidences.of(units).alpha()


def alpha_interval(
    units: Iterable[Sequence[Hashable]], error_rate: float = 0.05
) -> tuple[float, float] | None:
    """By the jackknife over units (Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
    chapter 11). None where that sees no spread, as with perfect agreement, or too few units.
    """
    units = [values for values in units if len(values) > 1]
    whole, count = _Coincidences.of(units), len(units)
    estimate = whole.alpha()
    without = [whole.without(values).alpha() for values in units]
    told = [value for value in without if value is not None]
    if estimate is None or count < 2 or len(told) < count:
        return None
    mean = math.fsum(told) / count
    error = math.sqrt((count - 1) / count * math.fsum((value - mean) ** 2 for value in told))
    if error < 1e-12:
        return None
    from scipy import stats  # takes a second to load, which pages that need none do not wait for

    half = float(stats.t.ppf(1 - error_rate / 2, count - 1)) * error
    return max(-1.0, estimate - half), min(1.0, estimate + half)


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

    def without(self, unit: Sequence[Hashable]) -> "_Coincidences":
        left = collections.Counter(self.values)
        left.subtract(unit)
        return _Coincidences(left, self.apart - _apart(unit))

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


def people(queue: Queue, round: int | None = None) -> list[Person]:
    """Everybody who answered or skipped something, by pseudonym; who is careless is marked."""
    rated = ratings(queue, round)
    found: dict[str, list[Assignment]] = {}
    for item in _items(queue, round):
        for assignment in item.assignments.values():
            if assignment.submitted is not None or assignment.state == SKIPPED:
                found.setdefault(assignment.person, []).append(assignment)
    counted = [_person(queue, person, found[person], rated) for person in sorted(found)]
    return [dataclasses.replace(one, careless=_careless(one, counted)) for one in counted]


def disagreements(queue: Queue, round: int | None = None) -> list[Disagreement]:
    """Items to which people gave different answers: first those that nobody has decided, and of
    them those whose round is not closed.
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
    return sorted(
        found, key=lambda one: (one.settled, queue.rounds[one.item.round].closed is not None)
    )


def _items(queue: Queue, round: int | None) -> list[Item]:
    return [item for item in queue.items.values() if round in (None, item.round)]


def _person(
    queue: Queue,
    person: str,
    assignments: list[Assignment],
    rated: Mapping[str, Mapping[str, Assignment]],
) -> Person:
    done = [a for a in assignments if a.submitted is not None]
    known = [(queue.items[a.item], a) for a in done]
    gold = [is_gold(item, a.said) for item, a in known if item.gold is not None]
    timed = [a.seconds for a in done if a.seconds > 0]
    return Person(
        person=person,
        answers=len(done),
        reviews=sum(item.review_of is not None for item, _ in known),
        skips=sum(a.state == SKIPPED for a in assignments),
        gold=Share(sum(gold), len(gold)),
        agreeing=_agreeing(queue, person, rated),
        seconds=math.fsum(timed) / len(timed) if timed else None,
    )


def _agreeing(queue: Queue, person: str, rated: Mapping[str, Mapping[str, Assignment]]) -> Share:
    shares = []
    for name, answers in rated.items():
        if person in answers and len(answers) > 1:
            said = {who: canonical(queue.items[name], a.said or "") for who, a in answers.items()}
            mine = said.pop(person)
            shares.append(sum(theirs == mine for theirs in said.values()) / len(said))
    return Share(math.fsum(shares), len(shares))


def _careless(one: Person, everybody: Sequence[Person]) -> tuple[str, ...]:
    """What somebody does worse at than the others do together, by more than chance explains.

    Fisher's exact tests, one-sided, at CARELESS / (2 people): by Bonferroni's inequality the error
    rate holds for the crowd.
    """
    from scipy import stats  # as above

    reasons = []
    for share, others, what in (
        (one.gold, _together(one, everybody, "gold"), "right on gold items"),
        (one.agreeing, _together(one, everybody, "agreeing"), "agreeing with others"),
    ):
        if share.estimate is None or not others.estimate:
            continue
        # Halves are rounded towards no difference; as yes and no they would only vary more.
        got, theirs = math.ceil(share.right - 1e-9), math.floor(others.right + 1e-9)
        chance = stats.hypergeom.cdf(got, share.of + others.of, got + theirs, share.of)
        if chance < CARELESS / (2 * len(everybody)):
            reasons.append(
                f"{100 * share.estimate:.0f} % {what}, the others {100 * others.estimate:.0f} %"
            )
    return tuple(reasons)


def _together(one: Person, everybody: Sequence[Person], measure: str) -> Share:
    shares: list[Share] = [getattr(other, measure) for other in everybody if other is not one]
    return Share(math.fsum(share.right for share in shares), sum(share.of for share in shares))
