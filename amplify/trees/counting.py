"""Counts the answers in decomposition trees by the part that gave them, for the ledger of calls."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from amplify.runtime import calls
from amplify.types import ASSISTANT, ENVIRONMENT, OVERSEER, Interaction, StackedSteps


def count_answers(tree: Interaction, asked: Bool[Array, "*b"], by: int) -> Int[Array, "*b"]:
    """Counts the answers in each item's tree that one part gave.

    Args:
        tree: interactions over a batch of items.
        asked: True for the items to count; the others have 0.
        by: ASSISTANT, ENVIRONMENT or OVERSEER.

    Returns:
        The number of nodes that were asked and that this part answered, the root included.
    """
    here = jnp.int32(asked & (tree.answered_by == by))
    below = asked & (tree.answered_by == OVERSEER)
    if isinstance(tree.steps, StackedSteps):
        of_step = jax.vmap(lambda step: count_answers(step.sub, below & step.asked, by))
        return here + jnp.sum(of_step(tree.steps.step), axis=0)
    return here + sum(count_answers(step.sub, below & step.asked, by) for step in tree.steps)


def count_calls_by_row(tree: Interaction) -> dict[str, Int[Array, " batch"]]:
    """Counts the answers in the trees of each row's questions, all of which were asked, by part.

    Args:
        tree: interactions with the leading axes `batch questions`.
    """
    counts = count_calls(tree, jnp.ones(tree.question.shape[:2], bool))
    return {part: jnp.sum(number, axis=1) for part, number in counts.items()}


def count_calls(tree: Interaction, asked: Bool[Array, "*b"]) -> dict[str, Int[Array, "*b"]]:
    """Counts the answers in each item's tree by part; see `count_answers`.

    Args:
        tree: interactions over a batch of items.
        asked: True for the items to count; the others have 0.

    Returns:
        The counts under the names of parts in `runtime.calls`.
    """
    parts = {calls.OVERSEER: OVERSEER, calls.ASSISTANT: ASSISTANT, calls.ENVIRONMENT: ENVIRONMENT}
    return {part: count_answers(tree, asked, by) for part, by in parts.items()}
