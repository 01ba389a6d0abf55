"""All intervals and tests that Amplify reports.

`clusters` defines items and clusters, `intervals` estimates from them, and `gate` decides whether a
round is better than the best one before it. Functions take and return arrays and numbers; they know
nothing about models, files or people. docs/statistics.md compares the methods that were tried.
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
