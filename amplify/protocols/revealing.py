"""Debates in which two sides take turns at revealing parts of what is judged, played perfectly.

A judge, who sees nothing else, decides after the last part. Neither side can say anything false:
they choose what is seen. Irving, Christiano and Amodei 2018 (arXiv:1805.00899), section 3.1.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

HONEST, LIAR = True, False


def turns(number: int, first: bool) -> tuple[bool, ...]:
    """Returns who reveals each part.

    Args:
        number: of parts.
        first: whose turn is first, HONEST or LIAR.
    """
    return tuple(first == (turn % 2 == 0) for turn in range(number))


def honest_side_wins(
    convinced: Bool[Array, "*parts"],
    allowed: Bool[Array, "*parts"],
    movers: tuple[bool, ...],
) -> Bool[Array, ""]:
    """Whether the honest side wins if both sides play perfectly (minimax).

    Args:
        convinced: with an axis for each turn: whether the judge sides with the honest side after
            these parts were revealed.
        allowed: which sequences of parts may be revealed.
        movers: whose turn each axis is, HONEST or LIAR.
    """
    for honest in reversed(movers):
        if honest:
            convinced = jnp.any(convinced & allowed, axis=-1)
        else:
            convinced = jnp.all(convinced | ~allowed, axis=-1)
        allowed = jnp.any(allowed, axis=-1)
    return convinced


def sets_of(parts: int, number: int) -> Int[np.ndarray, "sets number"]:
    """Returns all sets of a number of parts, each in ascending order.

    Args:
        parts: number of parts that there are.
        number: of parts in a set.
    """
    return np.array([*itertools.combinations(range(parts), number)], np.int32)


def places_in_sets(parts: int, number: int) -> Int[np.ndarray, "*parts"]:
    """Returns the place in `sets_of` of each sequence of parts; -1 where a part is repeated.

    Args:
        parts: number of parts that there are.
        number: of parts in a sequence, an axis each.
    """
    found = np.full((parts,) * number, -1, np.int32)
    sets = sets_of(parts, number)
    for order in itertools.permutations(range(number)):
        found[tuple(sets[:, list(order)].T)] = np.arange(len(sets))
    assert (found >= 0).sum() == math.perm(parts, number)
    return found
