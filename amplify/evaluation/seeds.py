"""Measures of experiments that differ only in their seed, each with its eval items."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from amplify.evaluation.items import Difference, Items, difference, in_pairs, is_share
from amplify.evaluation.statistics import Proportion, unpaired_difference
from amplify.evaluation.statistics.seeds import (
    Observations,
    difference_over_seeds,
    mean_over_seeds,
)


def mean(seeds: Sequence[Items], measure: str) -> Proportion | None:
    """Returns the mean of a measure over seeds, with an interval that includes their variation.

    Args:
        seeds: the items of each seed; if there is one, the interval is that of its contexts.
        measure: its name.

    Returns:
        The mean; None if a seed has no items with a value.
    """
    if len(seeds) == 1:
        return seeds[0].mean(measure)
    there = [items.having(measure) for items in seeds]
    if not all(len(items.label) for items in there):
        return None
    digests = all(np.all(items.context != "") for items in there)
    rows = [
        Observations(
            items.column(measure), items.context if digests else items.problem, items.question
        )
        for items in there
    ]
    return mean_over_seeds(rows, share=all(is_share(one.values) for one in rows))


def means(seeds: Sequence[Items]) -> dict[str, Proportion]:
    """Returns the means over seeds of all measures that all seeds have."""
    names = [name for name in seeds[0].measures if all(name in one.measures for one in seeds)]
    found = {name: mean(seeds, name) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def gain(
    before: Sequence[Items], after: Sequence[Items], measure: str, *, same_seeds: bool
) -> Difference | None:
    """Returns the difference of means over seeds, after minus before.

    It is paired by question if all seeds of both have the same questions.

    Args:
        before: the items of each seed of one experiment.
        after: those of another.
        measure: its name.
        same_seeds: whether seed i of both is the same; then it is paired by seed, too.

    Returns:
        The difference; None if a seed has no values, or some are outside 0..1.
    """
    if len(before) == len(after) == 1:
        return difference(before[0], after[0], measure)
    one, two = mean(before, measure), mean(after, measure)
    columns = [items.column(measure) for items in (*before, *after)]
    if one is None or two is None or not all(map(is_share, columns)):
        return None
    if (aligned := _aligned([*before, *after], measure)) is None:
        return Difference(two.estimate - one.estimate, unpaired_difference(one, two), paired=False)
    first, values = aligned
    was, now = np.split(values, [len(before)])
    paired = same_seeds and len(before) == len(after)
    found = difference_over_seeds(was, now, first.clusters, first.question, same_seeds=paired)
    return Difference(*found, paired=True)


def _aligned(
    seeds: Sequence[Items], measure: str
) -> tuple[Items, Float[np.ndarray, "seeds rows"]] | None:
    """Sorts the items of all seeds alike, and keeps those with a value for every seed.

    Returns:
        The items, and the values by seed; None: the questions differ, or none has all values.
    """
    if any(in_pairs(seeds[0], other) is None for other in seeds[1:]):
        return None
    digests = all(np.all(items.context != "") for items in seeds)
    first, *others = (
        items.where(np.lexsort([items.question, items.context if digests else items.problem]))
        for items in seeds
    )
    values = np.stack([items.column(measure) for items in (first, *others)])
    there = ~np.isnan(values).any(axis=0)
    return (first.where(there), values[:, there]) if there.any() else None
