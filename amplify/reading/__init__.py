"""Reads experiment files: what they name is found, checked and built."""
