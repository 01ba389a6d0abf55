"""Autoregressive decoding of many sequences that continue a shared prefix.

Knows a network and token ids, and nothing of what they mean: the functions that choose a token and
that map it to the network's own ids are passed in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amplify.models.attention.attention_parts import PADDING
from amplify.models.decoder.causal_lm import CausalLM, KVCache, PrefixCache
from amplify.models.decoder.stepping import DecodeCache, DecodeStep, reserve
from amplify.types import Answers

LONG = 16
"""Prompts with room for this many tokens or more skip the first half if all of it is padding."""

ChooseToken = Callable[
    [int | Int[Array, ""], Float[Array, "batch n width"], Bool[Array, "batch n"]],
    tuple[Int[Array, "batch n"], Float[Array, "batch n"]],
]
"""`choose_token(step, x, active)`: token number `step` of each completion, given the last hidden
states, and its log-probability. Both must be 0 where `active` is False.
"""


class _DecodeState(NamedTuple):
    step: Int[Array, ""]  # index of the next token
    token: Int[Array, "batch n"]  # chosen last
    tokens: Int[Array, "batch n max_new_tokens"]
    log_prob: Float[Array, "batch n"]
    cache: DecodeCache
    preceding: Int[Array, "batch n some"]  # ids that the network has read directly before `token`


def _is_zero(token: Int[Array, "batch n"]) -> Bool[Array, "batch n"]:
    return token == 0


def decode(
    network: CausalLM,
    prefix: PrefixCache,
    prompts: Int[Array, "batch n length"],
    max_new_tokens: int,
    choose_token: ChooseToken,
    to_model_ids: Callable[[Int[Array, "batch n"]], Int[Array, "batch n"]],
    is_last: Callable[[Int[Array, "batch n"]], Bool[Array, "batch n"]] = _is_zero,
) -> Answers:
    """Completes prompts until every completion has ended.

    Args:
        network: the language model.
        prefix: KV cache of what stands before the prompts.
        prompts: the network's token ids, with PADDING in front. A prompt of PADDING alone gets an
            empty completion.
        max_new_tokens: upper bound on the length of a completion.
        choose_token: chooses the next token of each sequence.
        to_model_ids: maps chosen tokens to the network's token ids.
        is_last: whether a token ends its completion; must hold for 0.

    Returns:
        The chosen tokens, 0 after the end of a completion, and the log-probability of each
        completion.
    """
    positions = positions_after(prefix, relative_positions(prompts))
    x, cache = _prefill_prompts(network, prefix, prompts, positions)
    token, log_prob = choose_token(0, x, jnp.any(prompts != PADDING, axis=-1))
    tokens = jnp.zeros((*prompts.shape[:-1], max_new_tokens), jnp.int32)
    decode_step = DecodeStep.of(network, prefix)

    def is_unfinished(state: _DecodeState) -> Bool[Array, ""]:
        return (state.step < max_new_tokens) & ~jnp.all(is_last(state.token))

    def next_token(state: _DecodeState) -> _DecodeState:
        token, step, preceding = state.token, state.step, state.preceding
        slot, token_id = prompts.shape[-1] + step - 1, to_model_ids(token)[..., None]
        x, cache = decode_step(token_id, positions[:, :, -1:] + step, preceding, state.cache, slot)
        token, log_prob = choose_token(step, x, ~is_last(token))
        return _DecodeState(
            step + 1,
            token,
            state.tokens.at[..., step].set(token.astype(tokens.dtype)),
            state.log_prob + log_prob,
            cache,
            jnp.concatenate([preceding, token_id], axis=-1)[:, :, 1:],
        )

    begin = _DecodeState(
        jnp.int32(1),
        token,
        tokens.at[..., 0].set(token.astype(tokens.dtype)),
        log_prob,
        reserve(cache, max_new_tokens - 1),
        last_tokens(prompts, network.architecture.reach - 1),
    )
    end = jax.lax.while_loop(is_unfinished, next_token, begin)
    return Answers(end.tokens, end.log_prob)


def _prefill_prompts(
    network: CausalLM,
    prefix: PrefixCache,
    prompts: Int[Array, "batch n length"],
    positions: Int[Array, "batch n length"],
) -> tuple[Float[Array, "batch n width"], KVCache]:
    """Returns the hidden state of each prompt's last token, and the KV cache of all tokens."""

    def prefill_from(start: int) -> tuple[Float[Array, "batch n width"], KVCache]:
        tokens = jnp.maximum(prompts[:, :, start:], 0)
        x, cache = network.forward(
            tokens, positions[:, :, start:], prefix=prefix, outputs_to_keep=1
        )
        padding = [(0, 0)] * 4 + [(start, 0), (0, 0)]
        keys, values = (jnp.pad(array, padding) for array in (cache.keys, cache.values))
        cached = jnp.pad(cache.positions, padding[2:5], constant_values=PADDING)
        return x[:, :, -1], KVCache(keys, values, cached)

    half = prompts.shape[-1] // 2
    if prompts.shape[-1] < LONG:
        return prefill_from(0)
    are_short = jnp.all(prompts[..., :half] == PADDING)
    return jax.lax.cond(are_short, lambda: prefill_from(half), lambda: prefill_from(0))


def prefill(network: CausalLM, contexts: Int[Array, "batch length"]) -> PrefixCache:
    """Computes the KV cache of contexts.

    Args:
        network: the language model.
        contexts: token ids, with PADDING at the end.
    """
    positions = jnp.where(contexts == PADDING, PADDING, relative_positions(contexts) - 1)
    tokens = jnp.maximum(contexts, 0)[:, None]
    _, cache = network.forward(tokens, positions[:, None], outputs_to_keep=0, is_causal=True)
    return cache.as_prefix()


def compact(tokens: Int[Array, "*b length"], at_end: bool = False) -> Int[Array, "*b length"]:
    """Moves the padding between token ids behind all of them; with `at_end`, in front of them."""
    is_padding = tokens == PADDING
    order = jnp.argsort(~is_padding if at_end else is_padding, axis=-1, stable=True)
    return jnp.take_along_axis(tokens, order, axis=-1)


def last_tokens(tokens: Int[Array, "*b length"], count: int) -> Int[Array, "*b count"]:
    """Returns the last `count` token ids, with PADDING in front if there are fewer."""
    padding = [(0, 0)] * (tokens.ndim - 1) + [(count, 0)]
    return jnp.pad(tokens, padding, constant_values=PADDING)[..., tokens.shape[-1] :]


def relative_positions(tokens: Int[Array, "*b length"]) -> Int[Array, "*b length"]:
    """Numbers the token ids of each sequence 1, 2, ..., leaving padding out; PADDING for padding.

    This is each token's distance from the end of the prefix that the sequence continues.
    """
    is_token = tokens != PADDING
    return jnp.where(is_token, jnp.cumsum(is_token, axis=-1), PADDING)


def positions_after(
    prefix: PrefixCache, relative: Int[Array, "batch n length"]
) -> Int[Array, "batch n length"]:
    """Returns the position ids of tokens that follow a prefix.

    Args:
        prefix: the prefix.
        relative: each token's distance from the prefix's last token, from 1; PADDING for padding.
    """
    last = jnp.max(prefix.positions, axis=-1)[:, None, None]
    return jnp.where(relative == PADDING, PADDING, last + relative)
