"""Measures of a round, item by item, and what follows from them."""
