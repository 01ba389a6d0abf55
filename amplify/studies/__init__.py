"""Studies: several experiments that answer one question, in one table.

`study` reads a study's file and runs its cells one by one. Each module beside it is a report: what
it measures in each cell, and the table of all of them.
"""
