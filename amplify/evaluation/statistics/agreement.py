"""How far an agreement between people could be off."""

import numpy as np
from jaxtyping import Float, Shaped

from amplify.evaluation.statistics.clusters import Clusters
from amplify.evaluation.statistics.intervals import LEVEL, Interval, proportion_bounds


def agreement_interval(
    apart: Float[np.ndarray, " units"],
    raters: Float[np.ndarray, " units"],
    unusual: Float[np.ndarray, " units"],
    expected: float,
    cluster: Shaped[np.ndarray, " units"],
    error_rate: float = LEVEL,
) -> Interval | None:
    """Interval of 1 - observed / expected disagreement, such as Krippendorff's alpha.

    Observed disagreement is a share, so it has the interval of one, of units in clusters; what the
    expected disagreement owes to a unit is taken into account by its derivative. So the interval
    lies in -1..1, and perfect agreement has one, too.

    Args:
        apart: of each unit, the share of pairs of raters that differ, times its raters.
        unusual: of each unit, the derivative of expected disagreement by it, times all raters.
        expected: share of pairs of any two ratings that differ; above 0.
        cluster: what tells clusters apart: units of one are not independent.

    Returns:
        None where there are too few clusters to tell.
    """
    ratio = float(apart.sum() / raters.sum()) / expected
    _, cluster = np.unique(cluster, return_inverse=True)
    totals = apart - ratio * unusual
    clusters = Clusters(
        *(np.bincount(cluster, weights=part) for part in (totals, totals**2 / raters, raters))
    )
    if not clusters.enough:
        return None
    low, high = (float(bound) for bound in proportion_bounds(clusters, error_rate))
    return max(-1.0, 1 - high / expected), min(1.0, 1 - low / expected)
