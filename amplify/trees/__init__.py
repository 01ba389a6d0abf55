"""Decomposition trees: an overseer decomposes questions, and an assistant answers sub-questions."""
