"""Every interval and test that Amplify prints, over one definition of what counts once.

`clusters` says what an item and a cluster are, `intervals` estimates from them, and `gate` decides
whether a round is better than the best before it. Arrays in, numbers out: nothing here knows
models, files or people. Which methods were tried, and how they did, is in docs/statistics.md.
"""

from amplify.evaluation.statistics.clusters import Clusters, tabulate
from amplify.evaluation.statistics.gate import Verdict, carried_error_rate, judge, smallest_gain
from amplify.evaluation.statistics.intervals import (
    Comparison,
    Proportion,
    accuracy,
    average,
    compare,
    unpaired_difference,
)

__all__ = [
    "Clusters",
    "Comparison",
    "Proportion",
    "Verdict",
    "accuracy",
    "average",
    "carried_error_rate",
    "compare",
    "judge",
    "smallest_gain",
    "tabulate",
    "unpaired_difference",
]
