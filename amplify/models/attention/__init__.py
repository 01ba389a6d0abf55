"""Attention, by several kernels."""
