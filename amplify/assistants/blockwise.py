"""Attention as XLA computes it: the scores of one block of queries at a time.

Scores of all pairs never exist at once, on any platform. `attention` calls it where no kernel of
the platform's own can be used.
"""

from collections.abc import Iterator

import jax.numpy as jnp
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Bool, Float, Int

from amplify.assistants.attention_parts import (
    NOWHERE,
    LogSumExp,
    Part,
    Places,
    Queries,
    Rules,
    compact,
)

UNSEEN = -1e30
"""Score of what may not be seen."""
MAX_SCORE_BYTES = 2**26
"""Scores that are computed at a time take no more than this, in bytes."""
BLOCK = 128
"""Queries of a context for which scores are computed at a time, with the keys up to the last."""
MAX_BLOCKS = 32
"""Bounds the size of the compiled program."""


def forward(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> tuple[Queries, LogSumExp]:
    outs: list[Array] = []
    log_sums: list[Array] = []
    for tokens, seen in _blocks(rules, query, part):
        block = query[:, :, :, tokens]
        if outs:  # one after the other, so that the scores of one block exist at a time
            block, outs[-1] = barrier((block, outs[-1]))
        scores = _scores(rules, block, places.of(tokens), seen, window)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = _times(weights.astype(query.dtype), seen.values) / total
        outs.append(out.astype(query.dtype))
        log_sums.append((top + jnp.log(total))[..., 0])
    return _joined(outs), _joined(log_sums)


def backward(
    rules: Rules,
    query: Queries,
    places: Places,
    part: Part,
    window: Int[Array, ""],
    given: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    d_keys, d_values = (jnp.zeros(part.keys.shape, jnp.float32) for _ in range(2))
    blocks = list(_blocks(rules, query, part))
    d_queries: list[Array] = []
    for tokens, seen in blocks:
        block = query[:, :, :, tokens]
        if d_queries:
            block, d_queries[-1], d_keys = barrier((block, d_queries[-1], d_keys))
        out, log_sum, gradient = (array[:, :, :, tokens] for array in given)
        scores = _scores(rules, block, places.of(tokens), seen, window)
        weights = jnp.exp(scores - log_sum[..., None])
        d_weights = _against(gradient, seen.values)
        along = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
        d_scores = weights * (d_weights - along) * rules.scale
        if rules.cap is not None:
            d_scores *= 1 - jnp.square(jnp.where(scores == UNSEEN, 0, scores) / rules.cap)
        d_scores = d_scores.astype(query.dtype)
        d_queries.append(_times(d_scores, seen.keys).astype(query.dtype))
        here = _by_key(d_scores, block, seen), _by_key(weights.astype(query.dtype), gradient, seen)
        if len(blocks) == 1:
            d_keys, d_values = here
        else:
            end = seen.keys.shape[-2]
            d_keys, d_values = (
                total.at[..., :end, :].add(more)
                for total, more in zip((d_keys, d_values), here, strict=True)
            )
    return _joined(d_queries), d_keys.astype(query.dtype), d_values.astype(query.dtype)


def _blocks(rules: Rules, query: Queries, part: Part) -> Iterator[tuple[slice, Part]]:
    """Which queries are attended from together, and what they see."""
    length, seen = query.shape[3], part.keys.shape[-2]
    size = 4 * query.size // query.shape[-1] * seen
    count = max(-(-size // MAX_SCORE_BYTES), length // BLOCK if rules.in_order else 1)
    step = -(-length // max(1, min(count, length, MAX_BLOCKS)))
    for start in range(0, length, step):
        end = min(start + step, length)
        yield slice(start, end), part.until(end) if rules.in_order else part


def _scores(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> Float[Array, "batch key_heads n length group seen"]:
    """In float32; far below all others where nothing may be seen."""
    scores = _against(query, part.keys) * rules.scale
    if rules.cap is not None:
        scores = rules.cap * jnp.tanh(scores / rules.cap)
    sees = _sees(rules, places, part.places, window)
    return scores + jnp.where(sees, 0.0, UNSEEN)[:, None, :, :, None]


def _sees(
    rules: Rules, queries: Places, keys: Places, window: Int[Array, ""]
) -> Bool[Array, "batch n length seen"]:
    ages = queries.positions[..., None] - keys.positions[..., None, :]
    sees = (ages >= 0) & (keys.positions != NOWHERE)[..., None, :]
    if rules.windowed:
        sees &= ages < window
    if queries.segments is not None and keys.segments is not None:
        sees &= queries.segments[..., None] == keys.segments[..., None, :]
    return sees


def _times(
    weights: Float[Array, "batch key_heads n length group seen"],
    values: Float[Array, "batch key_heads *n seen head_width"],
) -> Queries:
    """Weighted sums, in float32, one product for each sequence; where all n share the values, one
    for all: this is what makes many questions about one context cheap.
    """
    values = compact(values)
    rows = weights.reshape(*values.shape[:-2], -1, weights.shape[-1])
    product = jnp.matmul(rows, values, preferred_element_type=jnp.float32)
    return product.reshape(*weights.shape[:-1], values.shape[-1])


def _against(
    queries: Queries, keys: Float[Array, "batch key_heads *n seen head_width"]
) -> Float[Array, "batch key_heads n length group seen"]:
    """Inner products, in float32; of the keys as they lie: a cache is not transposed, or copied."""
    keys = compact(keys)
    rows = queries.reshape(*keys.shape[:-2], -1, queries.shape[-1])
    product = jnp.einsum("...qw,...sw->...qs", rows, keys, preferred_element_type=jnp.float32)
    return product.reshape(*queries.shape[:-1], keys.shape[-2])


def _by_key(
    weights: Float[Array, "batch key_heads n length group seen"],
    queries: Queries,
    part: Part,
) -> Float[Array, "batch key_heads *n seen head_width"]:
    """Sums over queries, in float32."""
    left, right = (
        array.reshape(*part.keys.shape[:-2], -1, array.shape[-1]) for array in (weights, queries)
    )
    return jnp.einsum("...qs,...qw->...sw", left, right, preferred_element_type=jnp.float32)


def _joined(blocks: list[Float[Array, "..."]]) -> Float[Array, "..."]:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=3)
