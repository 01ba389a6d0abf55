"""What a sentence about a town is worth by rules, and what a reader with limited time makes of it.

Gold is 1 for each right attribute and a penalty for each fault below, in standard deviations of
drafts. A reader checks a few attributes against the notes; a credulous one believes the others, and
is taken in by peacock terms; a hurried one does not notice whether the sentence is one.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amplify.task_abilities import Reader, Seen
from amplify.tasks.readers import criticise, first_parts
from amplify.tasks.sentences.grammar import (
    ATTRIBUTES,
    ERRS,
    FIRST_PEACOCK,
    FIRST_VALUE,
    PEACOCK,
    STOP,
    TOKEN,
    VALUES,
    VOCABULARY,
    Town,
    draw_town,
    neighbours,
    write_draft,
)

RIGHT, WRONG, REPEATED = 1.0, -1.5, -0.5
"""Worth of a value that is right, one that is wrong, and of each repetition of a value."""
PRAISE = -0.5
"""Worth of a peacock term. To the most credulous reader it seems worth as much more."""
UNGRAMMATICAL = -0.5
"""Worth of each word that cannot follow the word before it."""
UNNAMED, UNFINISHED = -1.0, -1.0
"""Worth of a sentence that does not begin with the town's name; that does not end with its only
full stop."""
DRAFTS = 1 << 13
"""Drafts by which gold is scaled."""

Values = Float[Array, "attributes values"]
"""A number for each value that an attribute may have."""


class Scale(NamedTuple):
    """Mean and standard deviation of the worth of drafts, before scaling."""

    mean: float
    spread: float


def gold_of_sentence(town: Town, sentence: Int[Array, " length"]) -> Float[Array, ""]:
    """The worth of a sentence, in standard deviations of drafts.

    Args:
        town: what it should be about.
        sentence: tokens; the first 0 ends it.
    """
    mean, spread = _scale()
    return (_worth(town, sentence) - mean) / spread


def read_sentence(
    reader: Reader, town: Town, sentence: Int[Array, " length"], key: Key[Array, ""]
) -> Seen:
    """What a reader takes a sentence to be worth, in standard deviations of drafts.

    Args:
        reader: how it reads.
        town: what the sentence should be about.
        sentence: tokens; the first 0 ends it.
        key: consumed; decides what is checked, and where a critic errs.
    """
    said, right = _said(count_words(sentence)) > 0, _right(town)
    order_key, critic_key = jax.random.split(key)
    flaws = jnp.zeros_like(right)
    if reader.critic is not None:
        flaws = criticise(reader.critic, right, critic_key)
    if reader.critic is not None and reader.critic.believed:
        belief, looks = (~flaws).astype(jnp.float32), jnp.int32(0)
    else:
        unchecked = reader.credulity + (1 - reader.credulity) * (1 - ERRS)
        order = jax.random.uniform(order_key, said.shape) - flaws.astype(jnp.float32)
        checked = first_parts(order, said, reader.looks)
        belief = jnp.where(checked, right.astype(jnp.float32), unchecked)
        looks = jnp.sum(checked, dtype=jnp.int32)
    praise = (1 - 2 * reader.credulity) * PRAISE
    counts = count_words(sentence)
    total = _content(counts, belief, praise)
    if reader.attentive:
        total += _form(town, sentence, counts)
    mean, spread = _scale()
    return Seen((total - mean) / spread, looks)


def count_words(sentence: Int[Array, " length"]) -> Float[Array, " words"]:
    """Returns how often a sentence has each word.

    Args:
        sentence: tokens; the first 0 ends it.
    """
    return jnp.sum(jax.nn.one_hot(_up_to_end(sentence), len(VOCABULARY)), axis=0).at[0].set(0)


def _up_to_end(sentence: Int[Array, " length"]) -> Int[Array, " length"]:
    return jnp.where(jnp.cumsum(sentence == 0) == 0, sentence, 0)


def _worth(town: Town, sentence: Int[Array, " length"]) -> Float[Array, ""]:
    """The worth of a sentence by the rules, before scaling."""
    counts, right = count_words(sentence), _right(town).astype(jnp.float32)
    return _content(counts, right, PRAISE) + _form(town, sentence, counts)


def _content(counts: Float[Array, " words"], belief: Values, praise: float) -> Float[Array, ""]:
    """The worth of what a sentence says.

    Args:
        counts: of each word.
        belief: probability that a value is right.
        praise: worth of a peacock term.
    """
    said = jnp.minimum(_said(counts), 1)
    terms = jnp.sum(counts[FIRST_PEACOCK : FIRST_PEACOCK + len(PEACOCK)])
    return jnp.sum(said * (belief * RIGHT + (1 - belief) * WRONG)) + terms * praise


def _form(
    town: Town, sentence: Int[Array, " length"], counts: Float[Array, " words"]
) -> Float[Array, ""]:
    """The worth of how a sentence says it."""
    sentence = _up_to_end(sentence)
    length = jnp.sum(sentence != 0)
    follows = jnp.asarray(neighbours())[sentence[:-1], sentence[1:]]
    odd = jnp.sum(~follows, dtype=jnp.float32)
    named = jnp.all(sentence[: len(town.name)] == town.name)
    stop = TOKEN[STOP]
    finished = (sentence[length - 1] == stop) & (counts[stop] == 1)
    repeats = jnp.sum(jnp.maximum(_said(counts) - 1, 0))
    return (
        REPEATED * repeats
        + UNGRAMMATICAL * odd
        + jnp.where(named, 0.0, UNNAMED)
        + jnp.where(finished, 0.0, UNFINISHED)
    )


def _said(counts: Float[Array, " words"]) -> Values:
    """How often a sentence has each value."""
    return counts[FIRST_VALUE : FIRST_VALUE + ATTRIBUTES * VALUES].reshape(ATTRIBUTES, VALUES)


def _right(town: Town) -> Bool[Array, "attributes values"]:
    return town.notes[:, None] == jnp.arange(VALUES, dtype=jnp.int32)[None]


@functools.cache
def _scale() -> Scale:
    """The spread of drafts."""
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        keys = jax.random.split(jax.random.key(1), (2, DRAFTS))
        towns = jax.jit(jax.vmap(draw_town))(keys[0])
        drafts = jax.jit(jax.vmap(write_draft))(towns, keys[1])
        worth = jax.jit(jax.vmap(_worth))(towns, drafts)
        return Scale(float(worth.mean()), float(worth.std()))
