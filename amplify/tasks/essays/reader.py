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
) -> Seen:
    """What a reader makes of an essay, whose worth is in standard deviations of drafts.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
        essay: its claims, from 0; negative ones say nothing.
        key: consumed; decides which statements are checked.
    """
    present = presence(essay, config.claims)
    checked = drawn_to_check(config, reader, present > 0, key)
    belief = believed(config, world, reader, topic, checked)
    looks = jnp.sum(checked, dtype=jnp.int32)
    values = (2 * jnp.prod(belief, axis=-1) - 1) * world.weight
    if reader.attentive:
        return Seen(value_essay(world, values, essay), looks)
    worth = (jnp.sum(counts(essay, config.claims) * values) - world.mean) / world.scale
    return Seen(worth, looks)


def drawn_to_check(
    config: WorldConfig, reader: Reader, present: Bool[Array, " claims"], key: Key[Array, ""]
) -> Bool[Array, "claims statements"]:
    """Draws the statements that a reader checks.

    Args:
        config: of the world.
        reader: how many it checks.
        present: the claims that the essay makes.
        key: consumed.
    """
    order = jax.random.uniform(key, (config.claims, STATEMENTS))
    order = jnp.where(present[:, None], order, 2.0)
    rank = jnp.argsort(jnp.argsort(order, axis=None)).reshape(order.shape)
    return present[:, None] & (rank < min(reader.looks, config.claims * STATEMENTS))


def believed(
    config: WorldConfig,
    world: World,
    reader: Reader,
    topic: Int[Array, ""],
    checked: Bool[Array, "claims statements"],
) -> Float[Array, "claims statements"]:
    """How probable a reader finds each statement.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
        checked: the statements that it checks.
    """
    right = statements_right(world, topic)
    seems = statements_seeming(world, config.seeming, topic)
    if_seems = config.seeming + (1 - config.seeming) * RIGHT
    if_not = (1 - config.seeming) * RIGHT
    careful = jnp.where(seems, if_seems, if_not)
    belief = jnp.where(seems, reader.credulity, 0.0) + (1 - reader.credulity) * careful
    return jnp.where(checked, right.astype(belief.dtype), belief)
