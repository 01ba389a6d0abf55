"""A decoder-only language model, and decoding with it."""
