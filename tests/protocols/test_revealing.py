"""Debates by revealing parts, against a plain recursion over all play."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.protocols.revealing import (
    HONEST,
    LIAR,
    honest_side_wins,
    places_in_sets,
    sets_of,
    turns,
)


def plainly(convinced, allowed, movers, said=()) -> bool:
    """Minimax, one move at a time."""
    if len(said) == len(movers):
        return bool(convinced[said])
    following = [
        (*said, part) for part in range(convinced.shape[len(said)]) if allowed[(*said, part)].any()
    ]
    results = [plainly(convinced, allowed, movers, one) for one in following]
    return any(results) if movers[len(said)] == HONEST else all(results)


@hypothesis.given(st.integers(1, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_perfect_play_is_minimax(number: int, first: bool, seed: int):
    random = np.random.default_rng(seed)
    convinced = random.random((4,) * number) < random.random()
    allowed = random.random((4,) * number) < 0.7
    hypothesis.assume(allowed.any())
    movers = turns(number, first)
    found = honest_side_wins(jnp.asarray(convinced), jnp.asarray(allowed), movers)
    assert bool(found) == plainly(convinced, allowed, movers)


def test_the_last_word_decides_where_a_single_part_convinces():
    """Whoever moves last can undo the other's part, if the judge goes by the last part alone."""
    convinced = jnp.broadcast_to(jnp.array([True, False]), (2, 2))
    everything = jnp.ones((2, 2), bool)
    assert honest_side_wins(convinced, everything, turns(2, LIAR))
    assert not honest_side_wins(convinced, everything, turns(2, HONEST))
    assert turns(3, HONEST) == (HONEST, LIAR, HONEST)


@pytest.mark.parametrize(("parts", "number"), [(5, 1), (5, 2), (6, 3), (3, 3)])
def test_every_order_of_a_set_has_its_place(parts: int, number: int):
    sets, places = sets_of(parts, number), places_in_sets(parts, number)
    for said in itertools.product(range(parts), repeat=number):
        if len({*said}) < number:
            assert places[said] == -1
        else:
            assert sets[places[said]].tolist() == sorted(said)
