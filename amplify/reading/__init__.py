"""Reads experiment files, checks them, and runs the code that they name."""
