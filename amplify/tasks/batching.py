"""Functions of one question, or one key, applied to batches of them."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Int, Key


def vmap_questions(function: Callable[..., Array]) -> Callable[..., Array]:
    """Vmaps a function of one context and one question over all questions of all contexts.

    Args:
        function: takes a context, a question and further arguments per question.

    Returns:
        The function of batched arguments: contexts have a leading axis "batch", the others two,
        "batch questions".
    """

    def of_context(context: Array, *columns: Array) -> Array:
        return jax.vmap(lambda *items: function(context, *items))(*columns)

    return jax.vmap(of_context)


def fold_in(keys: Key[Array, "*b"], data: int | Int[Array, ""]) -> Key[Array, "*b"]:
    """`jax.random.fold_in` for a batch of keys.

    Args:
        keys: the keys.
        data: folded into each key.
    """
    folded = jax.vmap(lambda key: jax.random.fold_in(key, data))(keys.reshape(-1))
    return folded.reshape(keys.shape)
