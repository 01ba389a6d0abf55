"""Amplify runs iterated amplification and its siblings for real, round after round.

People or simulated people answer hard questions with the previous assistant's help, the amplified
answers are distilled into the next assistant, and every round is judged against the best before it.
Read `amplify/round.py` first. `api` has what is imported from here.
"""

from typing import TYPE_CHECKING, Any

from amplify.runtime import threads

if TYPE_CHECKING:
    from amplify.api import (
        Answers,
        Experiment,
        Policy,
        Round,
        compare,
        open,  # noqa: A004
    )
    from amplify.comparison import Comparison
    from amplify.errors import AmplifyError
    from amplify.held_out import Problems

__all__ = [
    "AmplifyError",
    "Answers",
    "Comparison",
    "Experiment",
    "Policy",
    "Problems",
    "Round",
    "compare",
    "open",
]

threads.reserve()


def __getattr__(name: str) -> Any:
    """Imports the interface, and with it jax, only once it is used: commands answer at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from amplify import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
