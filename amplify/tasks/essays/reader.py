"""What a reader with limited time makes of an essay.

A reader checks a few statements and goes by what the others seem. How far it trusts what seems
right is its *credulity*; a hurried reader also misses what only the whole essay shows.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.task_abilities import Reader, Seen
from amplify.tasks.essays.world import (
    RIGHT,
    World,
    WorldConfig,
    counts,
    presence,
    statements_right,
    statements_seeming,
    value_essay,
)
from amplify.tasks.readers import criticise, first_parts


def read_essay(
    config: WorldConfig,
    world: World,
    reader: Reader,
    topic: Int[Array, ""],
    essay: Int[Array, " length"],
    key: Key[Array, ""],
) -> Seen:
    """What a reader makes of an essay, whose worth is in standard deviations of drafts.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
        essay: its claims, from 0; negative ones say nothing.
        key: consumed; decides which statements are checked, and where a critic errs.
    """
    present = presence(essay, config.claims)
    belief = first_belief(config, world, reader, topic)
    right = statements_right(world, topic)
    flaws = jnp.zeros_like(right)
    if reader.critic is not None:
        flaws = criticise(reader.critic, right, jax.random.fold_in(key, 1))
    if reader.critic is not None and reader.critic.believed:
        belief, looks = (~flaws).astype(belief.dtype), jnp.int32(0)
    else:
        order = _urgency(world, reader, belief, flaws, key)
        there = jnp.broadcast_to((present > 0)[:, None], order.shape)
        checked = first_parts(order, there, reader.looks)
        belief = jnp.where(checked, right.astype(belief.dtype), belief)
        looks = jnp.sum(checked, dtype=jnp.int32)
    values = (2 * jnp.prod(belief, axis=-1) - 1) * world.weight
    if reader.attentive:
        return Seen(value_essay(world, values, essay), looks)
    worth = (jnp.sum(counts(essay, config.claims) * values) - world.mean) / world.scale
    return Seen(worth, looks)


def first_belief(
    config: WorldConfig, world: World, reader: Reader, topic: Int[Array, ""]
) -> Float[Array, "claims statements"]:
    """How probable a reader finds each statement before checking any.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
    """
    seems = statements_seeming(world, config.seeming, topic)
    if_seems = config.seeming + (1 - config.seeming) * RIGHT
    if_not = (1 - config.seeming) * RIGHT
    careful = jnp.where(seems, if_seems, if_not)
    return jnp.where(seems, reader.credulity, 0.0) + (1 - reader.credulity) * careful


def _urgency(
    world: World,
    reader: Reader,
    belief: Float[Array, "claims statements"],
    flaws: Bool[Array, "claims statements"],
    key: Key[Array, ""],
) -> Float[Array, "claims statements"]:
    """How early a reader checks each statement: the lower, the earlier."""
    random = jax.random.uniform(key, belief.shape)
    if reader.critic is not None:
        # One flaw makes a claim wrong: the critic shows one of each claim, and begins with the
        # claims that the reader makes the most of.
        first = flaws & (random == jnp.min(random, axis=-1, keepdims=True, where=flaws, initial=2))
        liked = (jnp.prod(belief, axis=-1) * world.weight)[:, None]
        return jnp.where(first, -liked, random + jnp.where(flaws, 1.0, 2.0))
    unsure = jnp.sqrt(belief * (1 - belief))
    if reader.checks == "unsure":
        return random * 1e-3 - unsure
    if reader.checks == "stakes":
        return random * 1e-3 - unsure * world.weight[:, None]
    return random
