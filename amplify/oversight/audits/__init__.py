"""Audits of a policy while it is trained: when they happen, and how one is made."""
