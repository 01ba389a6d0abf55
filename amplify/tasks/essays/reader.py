"""What a reader with limited time makes of an essay.

A reader checks a few statements and goes by what the others seem. How far it trusts what seems
right is its *credulity*; a hurried reader also misses what only the whole essay shows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.task_abilities import Reader, Seen
from amplify.task_helping import Critique
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
    critique: Critique | None = None,
) -> Seen:
    """What a reader makes of an essay, whose worth is in standard deviations of drafts.

    Args:
        config: of the world.
        world: the one it describes.
        reader: how it reads.
        topic: the topic's number.
        essay: its claims, from 0; negative ones say nothing.
        key: consumed; decides which statements are checked, and where a critic errs.
        critique: what a helper says, in place of the reader's critic; None: there is no helper.
    """
    found = inquire(config, world, reader, topic, essay, key, critique)
    values = (2 * jnp.prod(found.belief, axis=-1) - 1) * world.weight
    if reader.attentive:
        return Seen(value_essay(world, values, essay), found.looks, found.asks)
    worth = (jnp.sum(counts(essay, config.claims) * values) - world.mean) / world.scale
    return Seen(worth, found.looks, found.asks)


class Inquiry(NamedTuple):
    """What a reader has found out about an essay's claims."""

    belief: Float[Array, "claims statements"]  # how probable it finds each statement
    wrong: Bool[Array, " claims"]  # what it has found to be wrong, or was told and believes
    looks: Int[Array, ""]
    asks: Int[Array, ""] | int


def inquire(
    config: WorldConfig,
    world: World,
    reader: Reader,
    topic: Int[Array, ""],
    essay: Int[Array, " length"],
    key: Key[Array, ""],
    critique: Critique | None = None,
) -> Inquiry:
    """Lets a reader ask about claims and check statements.

    Args:
        config, world, reader, topic, essay, key, critique: as in `read_essay`.
    """
    present = presence(essay, config.claims)
    belief = first_belief(config, world, reader, topic)
    right = statements_right(world, topic)
    advised = _advice(world, reader, present, belief, right, key, critique)
    believed = advised.told[:, None] & advised.believed
    belief = jnp.where(believed, (~advised.flaws).astype(belief.dtype), belief)
    order = _urgency(world, reader, belief, advised.flaws, key)
    there = (present > 0)[:, None] & ~believed
    checked = first_parts(order, jnp.broadcast_to(there, order.shape), reader.looks)
    belief = jnp.where(checked, right.astype(belief.dtype), belief)
    wrong = jnp.any((believed & advised.flaws) | (checked & ~right), axis=-1)
    return Inquiry(belief, wrong, jnp.sum(checked, dtype=jnp.int32), advised.asks)


class Advice(NamedTuple):
    """What a reader is told before it checks anything."""

    told: Bool[Array, " claims"]  # whether it is told anything about a claim
    flaws: Bool[Array, "claims statements"]  # what it is told is wrong
    believed: bool
    asks: Int[Array, ""] | int


def _advice(
    world: World,
    reader: Reader,
    present: Float[Array, " claims"],
    belief: Float[Array, "claims statements"],
    right: Bool[Array, "claims statements"],
    key: Key[Array, ""],
    critique: Critique | None,
) -> Advice:
    """What a critic or a helper tells a reader: the critic about all claims, the helper about those
    that the reader asks about.
    """
    if critique is not None:
        order = _claims_urgency(world, reader, belief, jax.random.fold_in(key, 2))
        asked = first_parts(order, (present > 0) & critique.said, reader.asks)
        flaws = critique.flawed & asked[:, None]
        return Advice(asked, flaws, reader.believes, jnp.sum(asked, dtype=jnp.int32))
    everything = jnp.ones(present.shape, bool)
    if reader.critic is not None:
        flaws = criticise(reader.critic, right, jax.random.fold_in(key, 1))
        return Advice(everything, flaws, reader.critic.believed, 0)
    return Advice(~everything, jnp.zeros_like(right), False, 0)


def _claims_urgency(
    world: World,
    reader: Reader,
    belief: Float[Array, "claims statements"],
    key: Key[Array, ""],
) -> Float[Array, " claims"]:
    """How early a reader asks about each claim: the lower, the earlier. See `Checks`."""
    random = jax.random.uniform(key, belief.shape[:1])
    if reader.checks == "random":
        return random
    probable = jnp.prod(belief, axis=-1)
    unsure = jnp.sqrt(probable * (1 - probable))
    return random * 1e-3 - unsure * (world.weight if reader.checks == "stakes" else 1.0)


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
    order = random
    if reader.checks != "random":
        unsure = jnp.sqrt(belief * (1 - belief))
        stakes = world.weight[:, None] if reader.checks == "stakes" else 1.0
        order = random * 1e-3 - unsure * stakes
    if reader.critic is None and not reader.asks:
        return order
    # One flaw makes a claim wrong: a critic shows one of each claim, and begins with the claims
    # that the reader makes the most of.
    first = flaws & (random == jnp.min(random, axis=-1, keepdims=True, where=flaws, initial=2))
    liked = (jnp.prod(belief, axis=-1) * world.weight)[:, None]
    return jnp.where(first, -4 - liked, order + jnp.where(flaws, 1.0, 2.0))
