"""Reports the results of rounds: tables in the terminal, figures, and HTML pages.

Reads results only through a `Store`. Libraries that are slow to import (matplotlib, altair) are
imported where they draw.
"""

from amplify.report.group_rows import compared
from amplify.report.group_tables import comparison
from amplify.report.pages import write_comparison, write_round_page, write_tree
from amplify.report.results import results
from amplify.report.siblings import seeds_beside
from amplify.report.tables import changes, cross_played, replayed, rich_tree, rounds_table

__all__ = [
    "changes",
    "compared",
    "comparison",
    "cross_played",
    "replayed",
    "results",
    "rich_tree",
    "rounds_table",
    "seeds_beside",
    "write_comparison",
    "write_round_page",
    "write_tree",
]
