"""Sentences for an encyclopedia: the task, and what makes a sentence good."""
