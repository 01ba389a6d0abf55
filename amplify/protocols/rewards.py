"""Reward rules: what each side earns, as a pure function of the transcript.

Nothing else is read, so a transcript that was logged can be scored again, also by another rule.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amplify.protocols.protocol import SIDES
from amplify.protocols.statements import same
from amplify.types import DONT_KNOW, Interaction, StackedSteps


def zero_sum(transcript: Interaction) -> Float[Array, "*b"]:
    """Rewards `pro` by the verdict: 1 if the judge accepts its answer, -1 if that of `con`, and 0
    if it accepts neither, both sides gave the same answer, or the answer is "don't know". `con`
    earns the negative.

    Args:
        transcript: of any protocol.
    """
    pro, con = (candidate(transcript, side) for side in range(len(SIDES)))
    accepted = jnp.asarray(transcript.answer)
    wins = same(accepted, pro).astype(jnp.float32)
    loses = same(accepted, con).astype(jnp.float32)
    # Who says "don't know" wins nothing where the judge does not know either.
    decided = jnp.any(accepted != DONT_KNOW, axis=-1)
    return jnp.where(decided, wins - loses, 0.0)


def zero_sum_of_log(transcript: Mapping[str, Any], dont_know: str) -> float:
    """`zero_sum` of one transcript as it is logged: a tree of texts, see `words.describe_tree`.

    Args:
        transcript: the tree.
        dont_know: how "don't know" is written: the first word of the task's vocabulary.

    Raises:
        ValueError: it does not begin with an answer of each side.
    """
    opening = {step["by"]: step["answer"] for step in reversed(transcript["steps"][: len(SIDES)])}
    if {*opening} != {*SIDES}:
        raise ValueError(
            f"a transcript begins with the answers of {' and '.join(SIDES)}, this one with those of"
            f" {', '.join(opening) or 'nobody'}"
        )
    wins, loses = (transcript["answer"] == opening[side] for side in SIDES)
    return 0.0 if transcript["answer"] == dont_know else float(wins) - float(loses)


def candidate(transcript: Interaction, side: int) -> Int[Array, "*b answer_length"]:
    """Returns the answer that a side is committed to.

    Args:
        transcript: of any protocol.
        side: index in `SIDES`.
    """
    steps = transcript.steps
    if isinstance(steps, StackedSteps):
        return jnp.asarray(steps.step.sub.answer[side])
    return jnp.asarray(steps[side].sub.answer)
