"""Algorithmic tasks: the five of Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575)."""
