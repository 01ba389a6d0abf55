"""Items, clusters, and the variance of clustered means.

An *item* is a question about a context. If it was drawn several times, it counts once, with the
mean of its observations. A *cluster* is a context, identified by its content: questions about the
same context are dependent, and so are repeated draws of a context. Standard errors are therefore
clustered by context (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, section 2.2).

All functions accept leading batch axes, so that simulations can call them directly.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

Batch = Float[np.ndarray, "*batch"] | np.floating[Any]
"""One number for each cell of a simulation, or a single one."""

FEWEST = 3.0
"""Smallest effective number of clusters for which intervals are reported."""
PRIOR = 2.0
"""Weight of two pseudo-clusters, one at each end of the scale, that are added to every variance
where values hardly vary (see `clustered_variance`). They make 100 % of n contexts equivalent to n
observations instead of infinitely many. With a weight below 2, an additional wrong answer could
raise the lower bound.
"""


class Clusters(NamedTuple):
    """For each cluster: the sum of its items' values, of their squares, and their number."""

    totals: Float[np.ndarray, "*batch clusters"]
    squares: Float[np.ndarray, "*batch clusters"]
    sizes: Float[np.ndarray, "*#batch clusters"]

    @property
    def items(self) -> Batch:
        """Number of items."""
        return self.sizes.sum(-1)

    @property
    def mean(self) -> Batch:
        """Mean over items."""
        return self.totals.sum(-1) / self.items

    @property
    def effective(self) -> Batch:
        """Effective number of clusters, (Σm)² / Σm² (Kish 1965)."""
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
        context: the content of the row's context, or a hash of it.
        question: the question. Rows with the same context and question are the same item. None:
            each row is an item.

    Returns:
        Sums by cluster.

    Raises:
        ValueError: if lengths differ, or there are no rows.
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
    """Averages the rows of each item.

    Args:
        context: as in `tabulate`.
        question: as in `tabulate`.
        columns: the values to average.

    Returns:
        The means of each column, one an item, and the index of each item's cluster.

    Raises:
        ValueError: if lengths differ, or there are no rows.
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


class ClusteredVariance(NamedTuple):
    """The variance of a mean of clustered observations."""

    variance: Batch  # of the mean, pseudo-clusters included
    independent: Batch  # the same if all items were independent
    freedom: Batch  # degrees of freedom, 1 or more


def clustered_variance(clusters: Clusters, imaginary: Batch) -> ClusteredVariance:
    """Returns the larger of two estimates of the variance of a clustered mean.

    The first is the delete-one-cluster jackknife, CR3 (Bell and McCaffrey 2002, "Bias Reduction in
    Standard Errors for Linear Regression with Multi-Stage Samples"). It makes no assumption about
    clusters, but underestimates if one of them dominates. The second assumes the same intra-cluster
    correlation in all clusters, so that small clusters inform about large ones. Both are limited to
    the range between independence and complete correlation.

    Args:
        clusters: the observations.
        imaginary: squared distance of the pseudo-clusters' items from the mean, times a weight in
            0..1: 1 if nothing varies, 0 if the pseudo-clusters are not needed.
    """
    items, sizes, mean = clusters.items, clusters.sizes, np.asarray(clusters.mean)
    typical = (sizes**2).sum(-1) / items  # size of the cluster that a random item is in
    prior = PRIOR * typical * imaginary
    residuals = clusters.totals - mean[..., None] * sizes
    own = clusters.squares - 2 * mean[..., None] * clusters.totals + mean[..., None] ** 2 * sizes
    within = np.maximum(own.sum(-1), 0)
    number = sizes.shape[-1]
    share = np.minimum(sizes / sizes.sum(-1, keepdims=True), 1 - 1e-9)  # below 1 for one cluster
    left_out = ((residuals / (1 - share)) ** 2).sum(-1) * (number - 1) / number
    pairs = ((residuals**2 - own) / np.maximum(sizes - 1, 1) * (sizes > 1)).sum(-1)
    among = within / items * (sizes * (sizes > 1)).sum(-1)
    alike = np.clip((pairs + prior) / np.maximum(among + prior, 1e-300), 0, 1)
    independent = within + prior
    total = np.maximum(left_out + prior * typical, independent * (1 + alike * (typical - 1)))
    total = np.clip(total, independent, independent * typical)
    freedom = np.maximum(clusters.effective - 1, 1)
    return ClusteredVariance(
        total / items**2, independent / items**2, np.broadcast_to(freedom, total.shape)
    )


class Between(NamedTuple):
    """How far a mean over seeds varies because seeds do."""

    variance: Batch  # of the mean over seeds, estimated from the differences between them
    cells: Batch | None  # the part of it that contexts explain, too; None: seeds share no contexts
    freedom: Batch  # degrees of freedom
    number: int  # of seeds

    def widen(self, found: ClusteredVariance) -> ClusteredVariance:
        """Returns the variance of the mean over contexts with that between seeds.

        Args:
            found: the variance between contexts of values that are averaged over seeds.
        """
        variance = np.maximum(found.variance, self.variance)
        if self.cells is not None:
            variance = np.maximum(variance, found.variance + self.variance - self.cells)
        return found._replace(variance=variance, freedom=self.freedom)
