"""Decomposition trees: an overseer takes questions apart, and an assistant answers the pieces."""
