"""What rounds came to, for people: tables in the terminal, plots, and pages.

Reads only what a Store gives. What is slow to import (matplotlib, altair) is imported where it
draws.
"""

from amplify.report.pages import write_comparison, write_round_page, write_tree
from amplify.report.results import results
from amplify.report.tables import changes, comparison, replayed, rich_tree, rounds_table

__all__ = [
    "changes",
    "comparison",
    "replayed",
    "results",
    "rich_tree",
    "rounds_table",
    "write_comparison",
    "write_round_page",
    "write_tree",
]
