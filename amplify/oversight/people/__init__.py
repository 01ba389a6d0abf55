"""People oversee: the questions that are put up to them, and what helps them meanwhile."""
