"""The words and the grammar of an encyclopedia's first sentence about a town.

"Oak Hill is the small old town in the northern province, known for salt, with a castle and dry
weather." Drafts are sentences of a writer who knows the grammar and is careless about the rest.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

NOTES = {
    "size": ("tiny", "small", "large", "huge"),
    "age": ("ancient", "old", "modern", "new"),
    "place": ("northern", "southern", "eastern", "western"),
    "trade": ("salt", "wine", "glass", "wool"),
    "building": ("castle", "bridge", "tower", "church"),
    "weather": ("dry", "wet", "mild", "cold"),
}
"""What notes about a town say, and its possible values."""
ATTRIBUTES, VALUES = len(NOTES), 4
FIRST_NAMES = ("Oak", "Stone", "River", "Lake", "Forest", "Snow", "Sun", "Wolf")
LAST_NAMES = ("Hill", "Park", "Field", "Wood", "Point", "Gate", "Island", "Valley")
PEACOCK = ("famous", "beautiful", "great", "unique")
"""Peacock terms: words that promote their subject without saying anything about it. Wikipedia's
manual of style has the name, and advises against them."""
STOP = "."
LINKS = ("is", "the", "town", "in", "province", ",", "known", "for", "with", "a", "and")

VOCABULARY = (
    "?",
    *FIRST_NAMES,
    *LAST_NAMES,
    *(value for values in NOTES.values() for value in values),
    *PEACOCK,
    *LINKS,
    STOP,
    "name",
    *NOTES,
    "write",
)
"""All words, each a common one: most tokenizers have a single token for it."""
TOKEN = {word: token for token, word in enumerate(VOCABULARY)}
FIRST_NAME, LAST_NAME = TOKEN[FIRST_NAMES[0]], TOKEN[LAST_NAMES[0]]
FIRST_VALUE, FIRST_PEACOCK = TOKEN["tiny"], TOKEN[PEACOCK[0]]
LONGEST = 25
"""Words of the longest draft."""

MENTIONS, ERRS, PRAISES, BREAKS_OFF = 0.6, 0.3, 0.35, 0.15
"""How often a draft mentions an attribute; is wrong about one; has a peacock term in each of two
places; and ends in the middle."""


class Town(NamedTuple):
    """What is known about a town."""

    name: Int[Array, "2"]  # tokens
    notes: Int[Array, " attributes"]  # the number of each attribute's value


def value_tokens(values: Int[Array, " attributes"]) -> Int[Array, " attributes"]:
    """Returns the token of each attribute's value.

    Args:
        values: the number of each value.
    """
    return FIRST_VALUE + VALUES * jnp.arange(ATTRIBUTES, dtype=jnp.int32) + values


def write_draft(town: Town, key: Key[Array, ""]) -> Int[Array, " longest"]:
    """Writes a sentence about a town, padded with 0.

    Args:
        town: what it should be about.
        key: consumed.
    """
    keys = iter(jax.random.split(key, 6))
    mentions = jax.random.bernoulli(next(keys), MENTIONS, (ATTRIBUTES,))
    errs = jax.random.bernoulli(next(keys), ERRS, (ATTRIBUTES,))
    shift = jax.random.randint(next(keys), (ATTRIBUTES,), 1, VALUES)
    values = jnp.where(errs, (town.notes + shift) % VALUES, town.notes)
    praises = jax.random.bernoulli(next(keys), PRAISES, (2,))
    terms = FIRST_PEACOCK + jax.random.randint(next(keys), (2,), 0, len(PEACOCK))
    sentence = compose(town.name, values, mentions, terms, praises)
    breaks_key, place_key = jax.random.split(next(keys))
    length = jnp.sum(sentence != 0)
    end = jax.random.randint(place_key, (), 4, length)
    breaks = jax.random.bernoulli(breaks_key, BREAKS_OFF)
    return jnp.where(breaks & (jnp.arange(LONGEST) >= end), 0, sentence)


def compose(
    name: Int[Array, "2"],
    values: Int[Array, " attributes"],
    mentions: Bool[Array, " attributes"],
    terms: Int[Array, "2"],
    praises: Bool[Array, "2"],
) -> Int[Array, " longest"]:
    """Composes a sentence, padded with 0.

    Args:
        name: tokens of the town's name.
        values: of each attribute.
        mentions: which attributes are mentioned.
        terms: tokens of two peacock terms.
        praises: which of the terms are used.
    """
    size, age, place, trade, building, weather = jnp.unstack(value_tokens(values))
    has = dict(zip(NOTES, jnp.unstack(mentions), strict=True))
    always, both = jnp.array(True), has["building"] & has["weather"]
    phrases: list[tuple[Array, list[Any]]] = [
        (always, [*jnp.unstack(name), "is", "the"]),
        (praises[0], [terms[0]]),
        (has["size"], [size]),
        (has["age"], [age]),
        (always, ["town"]),
        (has["place"], ["in", "the", place, "province"]),
        (has["trade"], [",", "known", "for"]),
        (has["trade"] & praises[1], [terms[1]]),
        (has["trade"], [trade]),
        (has["building"] | has["weather"], [",", "with"]),
        (has["building"], ["a", building]),
        (both, ["and"]),
        (has["weather"], [weather, "weather"]),
        (always, [STOP]),
    ]
    tokens, used = [], []
    for used_if, words in phrases:
        tokens += [jnp.int32(TOKEN[word] if isinstance(word, str) else word) for word in words]
        used += [used_if] * len(words)
    return _compact(jnp.stack(tokens), jnp.stack(used))


def _compact(tokens: Int[Array, " n"], used: Bool[Array, " n"]) -> Int[Array, " longest"]:
    """The tokens that are used, in their order, padded with 0."""
    order = jnp.argsort(~used, stable=True)
    return jnp.where(used, tokens, 0)[order][:LONGEST]


@functools.cache
def neighbours() -> Bool[np.ndarray, "words words"]:
    """Which word may follow which, as in some draft; 0, the end, may follow everything."""
    follows = np.zeros((len(VOCABULARY), len(VOCABULARY)), bool)
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        keys = jax.random.split(jax.random.key(0), (2, 1 << 14))
        towns = jax.jit(jax.vmap(draw_town))(keys[0])
        drafts = np.asarray(jax.jit(jax.vmap(write_draft))(towns, keys[1]))
    follows[drafts[:, :-1], drafts[:, 1:]] = True
    follows[:, 0] = True
    return follows


def draw_town(key: Key[Array, ""]) -> Town:
    """Draws a town.

    Args:
        key: consumed.
    """
    name_key, notes_key = jax.random.split(key)
    first, last = jax.random.randint(name_key, (2,), 0, len(FIRST_NAMES))
    notes = jax.random.randint(notes_key, (ATTRIBUTES,), 0, VALUES)
    return Town(jnp.stack([FIRST_NAME + first, LAST_NAME + last]), notes)
