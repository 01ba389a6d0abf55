"""Atomic file writes, JSON lines, and locks between processes."""
