"""Graphs: adjacency matrices from facts, and distances. Shared by the two tasks on graphs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

FAR = 10**6
"""The distance to vertices that cannot be reached."""


def adjacency(
    edges: Int[Array, "facts 2"], where: Bool[Array, " facts"], tokens: int
) -> Bool[Array, "tokens tokens"]:
    """The adjacency matrix of a directed graph.

    Args:
        edges: start and end of each edge, as tokens.
        where: True for the facts that are edges.
        tokens: size of the vocabulary.

    Returns:
        True at [a, b] if there is an edge from a to b; token 0 has no edges.
    """
    start, end = (jnp.where(where, column, 0) for column in jnp.unstack(edges, axis=1))
    graph = jnp.zeros((tokens, tokens), bool).at[start, end].set(True)
    return graph.at[0].set(False).at[:, 0].set(False)


def distances(
    graph: Bool[Array, "n n"], start: Int[Array, "m n"], longest: int
) -> Int[Array, "m n"]:
    """Shortest distances from each of m sets of vertices, by breadth-first search.

    Args:
        graph: adjacency matrix.
        start: 0 at the vertices of each set, FAR at the others.
        longest: largest distance that is searched.

    Returns:
        The number of edges to each vertex; FAR if it exceeds `longest`.
    """
    edges = graph.astype(jnp.float32)

    def expand(length: Int[Array, ""], reached: Int[Array, "m n"]) -> Int[Array, "m n"]:
        frontier = (reached == length).astype(jnp.float32) @ edges > 0
        return jnp.where(frontier & (reached == FAR), length + 1, reached)

    return jax.lax.fori_loop(0, longest, expand, start)
