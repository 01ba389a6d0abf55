"""The threads that compiled programs run on."""

import os

VARIABLE = "NPROC"
"""Where XLA reads how many threads its CPU client has; otherwise it has one for each core."""


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reserve() -> None:
    """Gives XLA a second thread where there is one core.

    A program that calls Python, as a search does, waits on its thread for the arguments, which
    another thread copies: with one thread, it may wait forever. Must be called before jax is used;
    a number that the user has set is kept.
    """
    if cores() == 1:
        os.environ.setdefault(VARIABLE, "2")
