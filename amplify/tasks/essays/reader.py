"""What a reader with limited time makes of an essay.

A reader checks a few statements and goes by what the others seem. How far it trusts what seems
right is its *credulity*; a hurried reader also misses what only the whole essay shows.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.task_abilities import Reader
from amplify.tasks.essays.world import (
    RIGHT,
    STATEMENTS,
    World,
    WorldConfig,
    counts,
    presence,
    statements_right,
    statements_seeming,
    value_essay,
)


def read_essay(
    config: WorldConfig,
    world: World,
    reader: Reader,
    topic: Int[Array, ""],
    essay: Int[Array, " length"],
    key: Key[Array, ""],
) -> Float[Array, ""]:
    """What a reader takes an essay to be worth, in standard deviations of drafts.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
        essay: its claims, from 0; negative ones say nothing.
        key: consumed; decides which statements are checked.
    """
    present = presence(essay, config.claims)
    belief = believed(config, world, reader, topic, present > 0, key)
    values = (2 * jnp.prod(belief, axis=-1) - 1) * world.weight
    if reader.attentive:
        return value_essay(world, values, essay)
    return (jnp.sum(counts(essay, config.claims) * values) - world.mean) / world.scale


def believed(
    config: WorldConfig,
    world: World,
    reader: Reader,
    topic: Int[Array, ""],
    present: Bool[Array, " claims"],
    key: Key[Array, ""],
) -> Float[Array, "claims statements"]:
    """How probable a reader finds each statement.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
        present: the claims that the essay makes, whose statements may be checked.
        key: consumed; decides which statements are checked.
    """
    right = statements_right(world, topic)
    seems = statements_seeming(world, config.seeming, topic)
    if_seems = config.seeming + (1 - config.seeming) * RIGHT
    if_not = (1 - config.seeming) * RIGHT
    careful = jnp.where(seems, if_seems, if_not)
    belief = jnp.where(seems, reader.credulity, 0.0) + (1 - reader.credulity) * careful
    order = jnp.where(present[:, None], jax.random.uniform(key, right.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(order, axis=None)).reshape(right.shape)
    checked = present[:, None] & (rank < min(reader.looks, config.claims * STATEMENTS))
    return jnp.where(checked, right.astype(belief.dtype), belief)
