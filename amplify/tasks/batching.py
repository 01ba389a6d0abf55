"""Functions of one question, or one key, applied to batches of them."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jaxtyping import Array, Int, Key, PyTree

T = TypeVar("T")


def vmap_questions(function: Callable[..., T]) -> Callable[..., T]:
    """Vmaps a function of one context and one question over all questions of all contexts.

    Args:
        function: takes a context, or a tree of what there is for each context, a question and
            further arguments per question.

    Returns:
        The function of batched arguments: contexts have a leading axis "batch", the others two,
        "batch questions".
    """

    def of_context(context: PyTree[Array], *columns: Array) -> T:
        mapped: Callable[..., T] = jax.vmap(lambda *items: function(context, *items))
        return mapped(*columns)

    return jax.vmap(of_context)


def fold_in(keys: Key[Array, "*b"], data: int | Int[Array, ""]) -> Key[Array, "*b"]:
    """`jax.random.fold_in` for a batch of keys.

    Args:
        keys: the keys.
        data: folded into each key.
    """
    return map_keys(lambda key: jax.random.fold_in(key, data), keys)


def map_keys(draw: Callable[[Key[Array, ""]], Array], keys: Key[Array, "*b"]) -> Array:
    """Applies a function of one key to a batch of them with any leading axes.

    Args:
        draw: takes a key.
        keys: consumed, if `draw` does so.

    Returns:
        What it returned, with the axes of `keys` before its own.
    """
    drawn: Array = jax.vmap(draw)(keys.reshape(-1))
    return drawn.reshape(*keys.shape, *drawn.shape[1:])
