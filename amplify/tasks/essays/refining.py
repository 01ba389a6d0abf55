"""Refines an essay: claims that are wrong are struck out and replaced by claims of other essays."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.task_abilities import Reader
from amplify.task_helping import Critique, Refined
from amplify.tasks.essays.reader import inquire
from amplify.tasks.essays.world import World, WorldConfig


def refine_essay(
    config: WorldConfig,
    world: World,
    reader: Reader,
    critique: Critique,
    topic: Int[Array, ""],
    essays: Int[Array, "essays length"],
    key: Key[Array, ""],
) -> Refined:
    """Refines the first of several essays about a topic.

    Args:
        config: of the world.
        world: the one that the essays describe.
        reader: asks the critic about each essay, and checks or believes what it says.
        critique: what the critic says about each claim, if it is asked.
        topic: the topic's number.
        essays: their claims, from 0; negative ones say nothing.
        key: consumed.

    Returns:
        The essay as tokens: its distinct claims that were not found to be wrong, then those of the
        others, in order, as far as there is room; and zeros, which say nothing, after them.
    """
    look_into = functools.partial(inquire, config, world, reader, topic, critique=critique)
    found = jax.vmap(lambda essay, key: look_into(essay, key))(
        essays, jax.random.split(key, len(essays))
    )
    wrong = jnp.any(found.wrong, axis=0)
    struck = jnp.sum((essays[0] >= 0) & wrong[essays[0]], dtype=jnp.int32)
    tokens = 1 + _first_of(essays.reshape(-1), wrong, essays.shape[1])
    return Refined(tokens, struck, jnp.sum(found.looks), jnp.sum(jnp.asarray(found.asks)))


def _first_of(
    claims: Int[Array, " n"], wrong: Bool[Array, " claims"], number: int
) -> Int[Array, " number"]:
    """The first distinct claims that are not wrong; -1 where there are no more."""
    place = jnp.arange(len(claims), dtype=jnp.int32)
    same = claims[:, None] == claims[None]
    repeated = jnp.any(same & (place[None] < place[:, None]), axis=1)
    kept = (claims >= 0) & ~wrong[claims] & ~repeated
    order = jnp.argsort(jnp.where(kept, place, len(claims)))[:number]
    return jnp.where(kept[order], claims[order], -1)
