"""What the two tasks on graphs share: reading a graph from facts, and distances in it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

FAR = 10**6
"""The distance of what cannot be reached."""


def adjacency(
    edges: Int[Array, "facts 2"], where: Bool[Array, " facts"], tokens: int
) -> Bool[Array, "tokens tokens"]:
    """True at [a, b] where a fact says that an edge goes from a to b; token 0 has none."""
    start, end = (jnp.where(where, column, 0) for column in jnp.unstack(edges, axis=1))
    graph = jnp.zeros((tokens, tokens), bool).at[start, end].set(True)
    return graph.at[0].set(False).at[:, 0].set(False)


def distances(
    graph: Bool[Array, "n n"], start: Int[Array, "m n"], longest: int
) -> Int[Array, "m n"]:
    """Fewest edges to each vertex, from where `start` has 0 and not FAR; FAR beyond `longest`."""
    edges = graph.astype(jnp.float32)

    def further(length: Int[Array, ""], reached: Int[Array, "m n"]) -> Int[Array, "m n"]:
        frontier = (reached == length).astype(jnp.float32) @ edges > 0
        return jnp.where(frontier & (reached == FAR), length + 1, reached)

    return jax.lax.fori_loop(0, longest, further, start)
