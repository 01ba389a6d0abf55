"""Confidence intervals for agreement between people."""

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
    """Returns an interval for 1 - observed / expected disagreement, such as Krippendorff's alpha.

    The observed disagreement is a share, so it gets the interval of a share with clustered units.
    The dependence of the expected disagreement on each unit is included by linearisation. The
    interval is within -1..1, and is not a point even for perfect agreement.

    Args:
        apart: for each unit, the share of its pairs of ratings that differ, times its raters.
        raters: for each unit, the number of its raters.
        unusual: for each unit, the derivative of the expected disagreement with respect to it,
            times the number of all raters.
        expected: share of pairs of any two ratings that differ; above 0.
        cluster: identifies clusters; units in the same cluster are dependent.
        error_rate: 1 minus the confidence level.

    Returns:
        The bounds; None if there are too few clusters.
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
