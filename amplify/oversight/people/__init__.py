"""Oversight by people: which questions they get, and the model that answers their sub-questions."""
