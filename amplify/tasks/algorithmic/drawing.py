"""Random choices under a mask, shared by the algorithmic tasks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def choose(key: Key[Array, ""], where: Bool[Array, " n"]) -> Int[Array, ""]:
    """Draws an index uniformly from those where a mask is True.

    Args:
        key: consumed.
        where: True at the indices to choose from.

    Returns:
        The index; 0 if the mask is False everywhere.
    """
    return jnp.argmax(jnp.where(where, 1.0 + jax.random.uniform(key, where.shape), 0.0))


def choose_nearest(
    key: Key[Array, ""], where: Bool[Array, " n"], depths: Int[Array, " n"], depth: Int[Array, ""]
) -> Int[Array, ""]:
    """Draws an index uniformly from those where a mask is True and whose depth is nearest to
    `depth`.

    Args:
        key: consumed.
        where: True at the indices to choose from.
        depths: depth of each index.
        depth: the depth wanted.

    Returns:
        The index; 0 if the mask is False everywhere.
    """
    distance = jnp.where(where, jnp.abs(depths - depth), jnp.iinfo(jnp.int32).max)
    return choose(key, where & (distance == jnp.min(distance)))


def random_order(
    key: Key[Array, ""], count: int, size: Int[Array, ""]
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """Draws `size` of the symbols 1..count in random order.

    Args:
        key: consumed.
        count: number of symbols.
        size: number of symbols to draw, 0..count.

    Returns:
        The symbols, padded with zeros; and a mask that is True where there is a symbol.
    """
    present = jnp.arange(count) < size
    return jnp.where(present, 1 + jax.random.permutation(key, count), 0), present
