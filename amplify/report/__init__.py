"""What a person looks at: tables for the terminal, plots, and self-contained pages. Reads round
folders, runs nothing.
"""

from amplify.report.pages import write_comparison, write_round_page, write_tree
from amplify.report.results import results
from amplify.report.tables import comparison, rich_tree, rounds_table

__all__ = [
    "comparison",
    "results",
    "rich_tree",
    "rounds_table",
    "write_comparison",
    "write_round_page",
    "write_tree",
]
