"""Evaluates assistants on held-out questions: measures, items and statistics."""
