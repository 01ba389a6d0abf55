"""Groups of experiments that differ only in their seed, compared with each other.

An experiment without such siblings is a group of its own, so that comparisons of experiments and of
seeds are the same thing.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amplify.evaluation import figures
from amplify.evaluation import seeds as over_seeds
from amplify.evaluation.items import ALL, FINAL, Items
from amplify.evaluation.measures import Measure
from amplify.evaluation.statistics import Proportion
from amplify.experiment.sections import upgrade_values
from amplify.report.results import Across, Results, Round, Score
from amplify.store import Store

SEED, EVALS_SEED = "seed", "evals.seed"


@dataclasses.dataclass(frozen=True)
class Group:
    """Experiments that differ only in their seed, with means over them."""

    members: Sequence[Results]
    scores: Mapping[str, list[Score]]
    """By class, then ALL: one for each round that all members have finished. No changes."""
    best: Mapping[str, Score]
    """By class, then ALL: of the best round of each member; the number is the first one's."""
    label: str = ""
    """A name for the first member, where another group's has the same; "": its own."""

    @property
    def first(self) -> Results:
        return self.members[0]

    @property
    def seeds(self) -> list[int]:
        """The members' seeds."""
        return [seed_of(found.store) for found in self.members]

    @property
    def name(self) -> str:
        """The first experiment's name, with the number of seeds if there are several."""
        count = len(self.members)
        return self.short_name if count == 1 else f"{self.short_name}, {count} seeds"

    @property
    def short_name(self) -> str:
        """The first experiment's name, which no other group's first experiment has."""
        return self.label or self.first.name

    @property
    def labels(self) -> list[str]:
        """The classes of which there are questions."""
        return [
            label
            for label, row in self.scores.items()
            if label != ALL and any(score.items for score in row)
        ]

    @property
    def numbers(self) -> list[int]:
        """The rounds that all members have finished."""
        return common_rounds(self.members)


def groups_of(experiments: Sequence[Results]) -> list[Group]:
    """Groups the results of experiments that differ only in their seed.

    Args:
        experiments: their results.

    Returns:
        The groups, in the order of their first experiments.
    """
    together: list[list[Results]] = []
    for found in experiments:
        for group in together:
            if all(are_seeds(one.store, found.store) for one in group):
                group.append(found)
                break
        else:
            together.append([found])
    return _with_labels([group_of(group) for group in together])


def _with_labels(groups: Sequence[Group]) -> list[Group]:
    """Names groups by their paths where names are equal, and by numbers where paths are, too."""
    names = Counter(group.first.name for group in groups)
    found, seen = [], Counter[str]()
    for group in groups:
        if names[group.first.name] > 1:
            path = str(group.first.store.path)
            seen[path] += 1
            number = f" ({seen[path]})" if seen[path] > 1 else ""
            group = dataclasses.replace(group, label=f"{path}{number}")
        found.append(group)
    return found


def group_of(members: Sequence[Results]) -> Group:
    """Returns the group of some experiments.

    Args:
        members: results of experiments that differ only in their seed, or of one experiment.
    """
    if len(members) == 1:
        [only] = members
        place = only.rounds.index(only.best)
        return Group(
            members, only.scores, {label: row[place] for label, row in only.scores.items()}
        )
    rounds = [{one.number: one.items for one in found.rounds} for found in members]
    best = [found.best.items for found in members]
    labels = list(dict.fromkeys(label for found in members for label in found.scores))
    labels = [*(label for label in labels if label != ALL), ALL]
    numbers = common_rounds(members)
    return Group(
        members,
        {
            label: [
                score(number, [of[number] for of in rounds], FINAL, label) for number in numbers
            ]
            for label in labels
        },
        {label: score(members[0].best.number, best, FINAL, label) for label in labels},
    )


def common_rounds(members: Sequence[Results]) -> list[int]:
    """Returns the numbers of the rounds that all experiments have finished."""
    each = [{round_.number for round_ in found.rounds} for found in members]
    return sorted(set.intersection(*each))


def score(number: int, seeds: Sequence[Items], split: str, label: str) -> Score:
    """Returns the means over seeds for a class of a split.

    Args:
        number: of the round.
        seeds: the items of each seed.
        split: SELECT or FINAL.
        label: the class, or ALL.
    """
    items = [one.only(split, label) for one in seeds]
    found = over_seeds.means(items) if all(len(one.label) for one in items) else {}
    largest = max(items, key=len)
    return Score(number, len(largest), largest.contexts, found, None)


def seed_of(store: Store) -> int:
    """Returns an experiment's seed."""
    return int(store.experiment.values.get(SEED, 0))


def are_seeds(one: Store, two: Store) -> bool:
    """Whether two experiments differ in their seed and in nothing else.

    Their held-out questions may be the same, or those that belong to each seed.
    """
    values = [upgrade_values(_as_recorded(store)) for store in (one, two)]
    seeds = [values[0].pop(SEED, 0), values[1].pop(SEED, 0)]
    of_evals = [some.pop(EVALS_SEED) for some in values]
    drawn = [seed if given is None else given for seed, given in zip(seeds, of_evals, strict=True)]
    alike = drawn[0] == drawn[1] or of_evals == [None, None]
    return seeds[0] != seeds[1] and alike and values[0] == values[1]


def _as_recorded(store: Store) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dict(store.experiment.values)))
    return values


def differences(one: Group, two: Group, number: int | None = None) -> list[Across]:
    """Compares a round of two groups, or their best ones, by the measure of the first one's gate.

    Args:
        one: the first group.
        two: the second.
        number: of a round that all members have finished; None: the best round of each member.

    Returns:
        A comparison for each class that both have; also for ALL, if they have the same classes.
    """
    shared = [label for label in one.labels if label in two.labels]
    if {*one.labels} == {*two.labels}:
        shared.append(ALL)
    return [_across(one, two, label, number) for label in shared]


def _across(one: Group, two: Group, label: str, number: int | None) -> Across:
    judged = one.first.judged.name
    before, after = (
        [_round(found, number).items.only(FINAL, label) for found in group.members]
        for group in (one, two)
    )
    change = over_seeds.gain(before, after, judged, same_seeds=one.seeds == two.seeds)
    scores = [_score_in(group, label, number) for group in (one, two)]
    means = [score.means.get(judged) for score in scores]
    return Across(label, means[0], means[1], change)


def _round(found: Results, number: int | None) -> Round:
    if number is None:
        return found.best
    return next(round_ for round_ in found.rounds if round_.number == number)


def _score_in(group: Group, label: str, number: int | None) -> Score:
    if number is None:
        return group.best[label]
    return next(score for score in group.scores[label] if score.number == number)


def equal_rounds(one: Group, two: Group) -> list[int]:
    """Returns the numbers of the rounds that all members of two groups have finished."""
    return common_rounds([*one.members, *two.members])


def best_rounds_words(one: Group, two: Group) -> str:
    """Lists the best round of each seed of two groups: `walk 2, 3, 2; walk-600 1, 2, 1`."""
    return "; ".join(
        f"{group.short_name} {', '.join(str(found.best.number) for found in group.members)}"
        for group in (one, two)
    )


def whose_best(one: Group, two: Group) -> str:
    """Says of which rounds the differences of two groups' best rounds are."""
    several = max(len(one.members), len(two.members)) > 1
    return f"at each {'seed' if several else 'experiment'}'s best round"


def nothing_in_common(groups: Sequence[Group]) -> str | None:
    """Says that no class of questions is that of two groups; None if one is."""
    labels = Counter(label for group in groups for label in group.labels)
    if len(groups) == 1 or max(labels.values(), default=0) > 1:
        return None
    names = " and ".join(group.name for group in groups)
    return f"{names} have no class of questions in common, so nothing compares them."


def by_class(
    groups: Sequence[Group],
) -> Iterator[tuple[str, list[tuple[str, list[Proportion | None]]]]]:
    """Yields the rows of a table for each class: the round's name, and each group's mean.

    The last row, "best", is of the best round of each experiment.

    Args:
        groups: compared by the measure of the first one's gate.
    """
    judged = judged_measure(groups).name
    labels = dict.fromkeys(label for group in groups for label in group.labels)
    for label in (*labels, ALL):
        found = [{s.number: s for s in group.scores.get(label, [])} for group in groups]
        numbers = sorted({number for scores in found for number in scores})
        best = [group.best.get(label) for group in groups]
        rows = [
            *((f"{number}", [scores.get(number) for scores in found]) for number in numbers),
            ("★ best", best),
        ]
        yield label, [(name, [one and one.means.get(judged) for one in row]) for name, row in rows]


def interval_words(groups: Sequence[Group]) -> str:
    """Says what the intervals of groups include."""
    counts = sorted({len(group.members) for group in groups} - {1})
    if not counts:
        return "Intervals are of 95 %, clustered by context; they do not include other seeds."
    freedom = " or ".join(str(count - 1) for count in counts)
    lone = any(len(group.members) == 1 for group in groups)
    alone = (
        " Of a single seed they do not include other seeds; in a difference, it is taken to vary as"
        " much as the other experiment's."
    )
    return (
        "Intervals of several seeds are of 95 %, over seeds and contexts (t quantile with"
        f" {freedom} degree{'' if freedom == '1' else 's'} of freedom: with few seeds they are"
        f" wide).{alone if lone else ''}"
    )


def agreement_words(groups: Sequence[Group]) -> str | None:
    """Explains intervals beside 100.0 and 0.0, on which all seeds of a group agree.

    Args:
        groups: whose means are shown by class.

    Returns:
        One line; None if no such interval is shown.
    """
    if not judged_measure(groups).share:
        return None
    extreme: dict[str, None] = {}
    counts: set[int] = set()
    for _, rows in by_class(groups):
        for _, means in rows:
            for group, mean in zip(groups, means, strict=True):
                if len(group.members) > 1 and mean and mean.interval and mean.estimate in (0, 1):
                    extreme[figures.percent(mean.estimate)] = None
                    counts.add(len(group.members))
    if not extreme:
        return None
    seeds = " or ".join(map(str, sorted(counts)))
    named = " and ".join(sorted(extreme, key=float, reverse=True))
    return (
        f"{named} {'has' if len(extreme) == 1 else 'have'} an interval although all seeds agree:"
        f" it is over seeds and contexts, and allows for what {seeds} seeds cannot show"
        " (docs/statistics.md, Several seeds)."
    )


def judged_measure(groups: Sequence[Group]) -> Measure:
    """Returns the measure that groups are compared by: that of the first one's gate."""
    return groups[0].first.judged
