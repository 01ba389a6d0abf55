"""What counts once, and how much clustered observations are worth.

An *item* is a question about a context. However often it was drawn, it counts once, with the mean
of what was observed. A *cluster* is a context, by its content: questions about one context are not
independent, and neither are two draws of the same context. Standard errors are therefore clustered
by context (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, section 2.2).

Every function takes leading batch axes, so that simulations call what is shipped.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

Batch = Float[np.ndarray, "*batch"] | np.floating[Any]
"""A number for each cell of a simulation, or one."""

FEWEST = 3.0
"""With fewer effective clusters than this nothing is said about others: an interval would rest on
one or two contexts.
"""
PRIOR = 2.0
"""Weight of two imaginary clusters, one at either end of the scale, that every variance includes
where hardly anything varies (see `spread`). With them, 100 % of n contexts is worth n observations
rather than infinitely many; with fewer than 2 of them, one wrong answer more could raise the lower
bound.
"""


class Clusters(NamedTuple):
    """Per cluster: the sum of its items' values, the sum of their squares, how many they are."""

    totals: Float[np.ndarray, "*batch clusters"]
    squares: Float[np.ndarray, "*batch clusters"]
    sizes: Float[np.ndarray, "*#batch clusters"]

    @property
    def items(self) -> Batch:
        return self.sizes.sum(-1)

    @property
    def mean(self) -> Batch:
        return self.totals.sum(-1) / self.items

    @property
    def effective(self) -> Batch:
        """Number of equally large clusters that these amount to, (Σm)² / Σm² (Kish 1965)."""
        return self.items**2 / (self.sizes**2).sum(-1)

    @property
    def enough(self) -> bool:
        """Whether there are enough effective clusters for an interval."""
        return bool(np.all(self.effective >= FEWEST - 1e-9))


def tabulate(
    values: Shaped[np.ndarray, " rows"],
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None = None,
) -> Clusters:
    """Sums observations by context.

    Args:
        values: one observation a row; a share (0..1) or a difference of two (-1..1).
        context: what the row's context says, or a hash of that.
        question: what was asked. Rows with the same context and question are one item. None if
            every row is an item of its own.

    Raises:
        ValueError: on unequal lengths, or no rows.
    """
    [means], cluster = collapse(context, question, values)
    return Clusters(
        np.bincount(cluster, weights=means),
        np.bincount(cluster, weights=means**2),
        np.bincount(cluster).astype(np.float64),
    )


def collapse(
    context: Shaped[np.ndarray, " rows"],
    question: Shaped[np.ndarray, " rows"] | None,
    *columns: Shaped[np.ndarray, " rows"],
) -> tuple[list[Float[np.ndarray, " items"]], Int[np.ndarray, " items"]]:
    """The mean of each column over the rows of an item, and each item's cluster as a number.

    Raises:
        ValueError: on unequal lengths, or no rows.
    """
    lengths = [len(column) for column in (context, *columns)]
    if question is not None:
        lengths.append(len(question))
    if len(set(lengths)) != 1:
        raise ValueError(f"columns must be equally long, got {', '.join(map(str, lengths))} rows")
    if not lengths[0]:
        raise ValueError("no items to take a mean of")
    _, cluster = np.unique(context, return_inverse=True)
    floats = [np.asarray(column, dtype=np.float64) for column in columns]
    if question is None:
        return floats, cluster
    names, asked = np.unique(question, return_inverse=True)
    _, first, item = np.unique(cluster * len(names) + asked, return_index=True, return_inverse=True)
    counts = np.bincount(item)
    return [np.bincount(item, weights=column) / counts for column in floats], cluster[first]


class Spread(NamedTuple):
    """How far the mean of clustered observations may be off."""

    variance: Batch  # of the mean, the imaginary clusters included
    independent: Batch  # the same, were all items independent
    freedom: Batch  # degrees of freedom, 1 or more


def spread(clusters: Clusters, imaginary: Batch) -> Spread:
    """The larger of two estimates of the variance of a clustered mean.

    One leaves out a cluster at a time (the jackknife, or CR3: Bell and McCaffrey 2002, "Bias
    Reduction in Standard Errors for Linear Regression with Multi-Stage Samples"), which holds
    whatever the clusters are but sees little where one of them dominates. The other takes all
    clusters to have one intra-cluster correlation, which small clusters tell about large ones. Both
    lie between independence and complete correlation.

    Args:
        imaginary: squared distance of the imaginary clusters' items from the mean, times a weight
            in 0..1: 1 where nothing varies, 0 where enough does to go without them.
    """
    items, sizes, mean = clusters.items, clusters.sizes, np.asarray(clusters.mean)
    typical = (sizes**2).sum(-1) / items  # size of the cluster that a random item is in
    prior = PRIOR * typical * imaginary
    residuals = clusters.totals - mean[..., None] * sizes
    own = clusters.squares - 2 * mean[..., None] * clusters.totals + mean[..., None] ** 2 * sizes
    within = np.maximum(own.sum(-1), 0)
    number = sizes.shape[-1]
    share = np.minimum(
        sizes / sizes.sum(-1, keepdims=True), 1 - 1e-9
    )  # a single cluster has no rest
    left_out = ((residuals / (1 - share)) ** 2).sum(-1) * (number - 1) / number
    pairs = ((residuals**2 - own) / np.maximum(sizes - 1, 1) * (sizes > 1)).sum(-1)
    among = within / items * (sizes * (sizes > 1)).sum(-1)
    alike = np.clip((pairs + prior) / np.maximum(among + prior, 1e-300), 0, 1)
    independent = within + prior
    total = np.maximum(left_out + prior * typical, independent * (1 + alike * (typical - 1)))
    total = np.clip(total, independent, independent * typical)
    freedom = np.maximum(clusters.effective - 1, 1)
    return Spread(total / items**2, independent / items**2, np.broadcast_to(freedom, total.shape))
