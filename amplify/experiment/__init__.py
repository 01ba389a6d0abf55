"""Experiments: the sections of their files as dataclasses, and their identity."""
