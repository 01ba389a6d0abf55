"""Tokens said one after another, by many sequences behind a past that they share.

Knows a network and tokens, and nothing of what they say: who chooses a token, and how the network
spells it, is handed in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amplify.assistants.attention_parts import NOWHERE
from amplify.assistants.causal_lm import CausalLM, KVCache, Past
from amplify.assistants.packing import PADDING
from amplify.assistants.stepping import Cache, Stepper, with_room
from amplify.types import Answers

LONG = 16
"""Where a sequence may take so many tokens, a batch of short ones is read without its padding."""

Say = Callable[
    [int | Int[Array, ""], Float[Array, "batch n width"], Bool[Array, "batch n"]],
    tuple[Int[Array, "batch n"], Float[Array, "batch n"]],
]
"""`say(place, x, speaks)`: a token and its log-probability; both are 0 where nothing is said."""


class _SoFar(NamedTuple):
    """What is being said."""

    place: Int[Array, ""]  # of the next token
    token: Int[Array, "batch n"]  # said last
    said: Int[Array, "batch n longest"]
    log_prob: Float[Array, "batch n"]
    cache: Cache
    before: Int[Array, "batch n some"]  # what the network has read right before `token`


def speak(
    network: CausalLM,
    past: Past,
    tokens: Int[Array, "batch n length"],
    longest: int,
    say: Say,
    spell: Callable[[Int[Array, "batch n"]], Int[Array, "batch n"]],
    ends: Callable[[Int[Array, "batch n"]], Bool[Array, "batch n"]] = lambda token: token == 0,
) -> Answers:
    """What each sequence says next, until all have ended, and no longer than `longest`.

    Args:
        tokens: behind the past, as the network reads them, and PADDING in front. A sequence of
            PADDING alone says nothing.
        spell: how the network reads what was said.
        ends: whether a token is a sequence's last; 0 is.
    """
    positions = behind(past, distances(tokens))
    x, cache = _read(network, past, tokens, positions)
    token, log_prob = say(0, x, jnp.any(tokens != PADDING, axis=-1))
    said = jnp.zeros((*tokens.shape[:-1], longest), jnp.int32)
    step = Stepper.of(network, past)

    def goes_on(so_far: _SoFar) -> Bool[Array, ""]:
        return (so_far.place < longest) & ~jnp.all(ends(so_far.token))

    def next_token(so_far: _SoFar) -> _SoFar:
        token, place, before = so_far.token, so_far.place, so_far.before
        slot, word = tokens.shape[-1] + place - 1, spell(token)[..., None]
        x, cache = step(word, positions[:, :, -1:] + place, before, so_far.cache, slot)
        token, log_prob = say(place, x, ~ends(token))
        return _SoFar(
            place + 1,
            token,
            so_far.said.at[..., place].set(token.astype(said.dtype)),
            so_far.log_prob + log_prob,
            cache,
            jnp.concatenate([before, word], axis=-1)[:, :, 1:],
        )

    begin = _SoFar(
        jnp.int32(1),
        token,
        said.at[..., 0].set(token.astype(said.dtype)),
        log_prob,
        with_room(cache, longest - 1),
        last(tokens, network.of.reach - 1),
    )
    end = jax.lax.while_loop(goes_on, next_token, begin)
    return Answers(end.said, end.log_prob)


def _read(
    network: CausalLM,
    past: Past,
    tokens: Int[Array, "batch n length"],
    positions: Int[Array, "batch n length"],
) -> tuple[Float[Array, "batch n width"], KVCache]:
    """What the network makes of the last token of each sequence, and the cache of all tokens.

    Where all sequences are short, the padding in front of them is not read.
    """

    def read(start: int) -> tuple[Float[Array, "batch n width"], KVCache]:
        rest = jnp.maximum(tokens[:, :, start:], 0)
        x, cache = network.read(rest, positions[:, :, start:], past=past, wanted=1)
        room = [(0, 0)] * 4 + [(start, 0), (0, 0)]
        keys, values = (jnp.pad(part, room) for part in (cache.keys, cache.values))
        there = jnp.pad(cache.positions, room[2:5], constant_values=NOWHERE)
        return x[:, :, -1], KVCache(keys, values, there)

    half = tokens.shape[-1] // 2
    if tokens.shape[-1] < LONG:
        return read(0)
    is_short = jnp.all(tokens[..., :half] == PADDING)
    return jax.lax.cond(is_short, lambda: read(half), lambda: read(0))


def remember(network: CausalLM, context: Int[Array, "batch length"]) -> Past:
    """A context's keys and values; its padding comes last."""
    positions = jnp.where(context == PADDING, NOWHERE, distances(context) - 1)
    tokens = jnp.maximum(context, 0)[:, None]
    _, cache = network.read(tokens, positions[:, None], wanted=0, in_order=True)
    return cache.as_past()


def together(tokens: Int[Array, "*b length"], at_end: bool = False) -> Int[Array, "*b length"]:
    """With the padding between tokens moved behind, or in front of, all of them."""
    padding = tokens == PADDING
    order = jnp.argsort(~padding if at_end else padding, axis=-1, stable=True)
    return jnp.take_along_axis(tokens, order, axis=-1)


def last(tokens: Int[Array, "*b length"], count: int) -> Int[Array, "*b count"]:
    """The last tokens, with PADDING in front where there are fewer."""
    room = [(0, 0)] * (tokens.ndim - 1) + [(count, 0)]
    return jnp.pad(tokens, room, constant_values=PADDING)[..., tokens.shape[-1] :]


def distances(tokens: Int[Array, "*b length"]) -> Int[Array, "*b length"]:
    """Of each token from what is in front of the first, counted from 1."""
    there = tokens != PADDING
    return jnp.where(there, jnp.cumsum(there, axis=-1), PADDING)


def behind(past: Past, distances: Int[Array, "batch lines room"]) -> Int[Array, "batch lines room"]:
    """Positions of tokens that stand so far behind a past."""
    last = jnp.max(past.positions, axis=-1)[:, None, None]
    return jnp.where(distances == PADDING, NOWHERE, last + distances)
