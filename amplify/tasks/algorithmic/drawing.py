"""What tasks share in drawing at random under a mask."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def choose(key: Key[Array, ""], where: Bool[Array, " n"]) -> Int[Array, ""]:
    """An index at which `where` is True, each as likely as any other; 0 if there is none."""
    return jnp.argmax(jnp.where(where, 1.0 + jax.random.uniform(key, where.shape), 0.0))


def choose_nearest(
    key: Key[Array, ""], where: Bool[Array, " n"], depths: Int[Array, " n"], depth: Int[Array, ""]
) -> Int[Array, ""]:
    """An index at which `where` is True, uniformly from those whose depth is nearest to `depth`."""
    distance = jnp.where(where, jnp.abs(depths - depth), jnp.iinfo(jnp.int32).max)
    return choose(key, where & (distance == jnp.min(distance)))


def random_order(
    key: Key[Array, ""], count: int, size: Int[Array, ""]
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """`size` of the symbols 1..count in random order, zeros after them; and which are not zero."""
    present = jnp.arange(count) < size
    return jnp.where(present, 1 + jax.random.permutation(key, count), 0), present
