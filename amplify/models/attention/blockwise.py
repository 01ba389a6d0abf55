"""Attention in plain XLA, for one block of queries at a time.

The full matrix of scores never exists, on any platform. `attention` uses this where the platform
has no suitable kernel.
"""

from collections.abc import Iterator

import jax.numpy as jnp
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Bool, Float, Int

from amplify.models.attention.attention_parts import (
    PADDING,
    AttentionOptions,
    KVBlock,
    LogSumExp,
    Queries,
    TokenPositions,
    drop_unit_axes,
)

MASKED = -1e30
"""Added to the score of a key that the query must not attend to."""
MAX_SCORE_BYTES = 2**26
"""Upper bound on the memory of the scores that exist at a time, in bytes."""
BLOCK = 128
"""Queries in a block under a causal mask, each block with the keys up to its last query."""
MAX_BLOCKS = 32
"""Bounds the size of the compiled program."""


def forward(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
) -> tuple[Queries, LogSumExp]:
    """Attends from queries to one block of keys.

    Args:
        options: the static settings.
        query: queries of n sequences.
        positions: positions of the queries.
        block: the keys and values.
        window: number of most recent tokens that a token attends to, itself included.

    Returns:
        The output, in the dtype of `query`, and the log-sum-exp of the scores, in float32.
    """
    outs: list[Array] = []
    log_sums: list[Array] = []
    for rows, visible in _split_queries(options, query, block):
        queries = query[:, :, :, rows]
        if outs:  # one after another, so that the scores of one block exist at a time
            queries, outs[-1] = barrier((queries, outs[-1]))
        scores = _masked_scores(options, queries, positions.take(rows), visible, window)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = _weighted_sum(weights.astype(query.dtype), visible.values) / total
        outs.append(out.astype(query.dtype))
        log_sums.append((top + jnp.log(total))[..., 0])
    return _concatenate(outs), _concatenate(log_sums)


def backward(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
    output: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    """Returns the gradients of queries, keys and values (FlashAttention 2, Algorithm 2; Dao 2023,
    arXiv:2307.08691).

    Args:
        options, query, positions, block, window: as in `forward`.
        output: the output and log-sum-exp over all blocks of keys, and the output's gradient.
    """
    d_keys, d_values = (jnp.zeros(block.keys.shape, jnp.float32) for _ in range(2))
    blocks = list(_split_queries(options, query, block))
    d_queries: list[Array] = []
    for rows, visible in blocks:
        queries = query[:, :, :, rows]
        if d_queries:
            queries, d_queries[-1], d_keys = barrier((queries, d_queries[-1], d_keys))
        out, log_sum, gradient = (array[:, :, :, rows] for array in output)
        scores = _masked_scores(options, queries, positions.take(rows), visible, window)
        weights = jnp.exp(scores - log_sum[..., None])
        d_weights = _inner_products(gradient, visible.values)
        along = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
        d_scores = weights * (d_weights - along) * options.scale
        if options.cap is not None:
            d_scores *= 1 - jnp.square(jnp.where(scores == MASKED, 0, scores) / options.cap)
        d_scores = d_scores.astype(query.dtype)
        d_queries.append(_weighted_sum(d_scores, visible.keys).astype(query.dtype))
        from_rows = (
            _sum_over_queries(d_scores, queries, visible),
            _sum_over_queries(weights.astype(query.dtype), gradient, visible),
        )
        if len(blocks) == 1:
            d_keys, d_values = from_rows
        else:
            end = visible.keys.shape[-2]
            d_keys, d_values = (
                total.at[..., :end, :].add(more)
                for total, more in zip((d_keys, d_values), from_rows, strict=True)
            )
    return _concatenate(d_queries), d_keys.astype(query.dtype), d_values.astype(query.dtype)


def _split_queries(
    options: AttentionOptions, query: Queries, block: KVBlock
) -> Iterator[tuple[slice, KVBlock]]:
    """Yields slices of the queries, each with the keys that they may attend to."""
    length, key_length = query.shape[3], block.keys.shape[-2]
    size = 4 * query.size // query.shape[-1] * key_length
    count = max(-(-size // MAX_SCORE_BYTES), length // BLOCK if options.is_causal else 1)
    step = -(-length // max(1, min(count, length, MAX_BLOCKS)))
    for start in range(0, length, step):
        end = min(start + step, length)
        yield slice(start, end), block.first(end) if options.is_causal else block


def _masked_scores(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
) -> Float[Array, "batch key_heads n length group key_length"]:
    scores = _inner_products(query, block.keys) * options.scale
    if options.cap is not None:
        scores = options.cap * jnp.tanh(scores / options.cap)
    mask = _attention_mask(options, positions, block.positions, window)
    return scores + jnp.where(mask, 0.0, MASKED)[:, None, :, :, None]


def _attention_mask(
    options: AttentionOptions, queries: TokenPositions, keys: TokenPositions, window: Int[Array, ""]
) -> Bool[Array, "batch n length key_length"]:
    """True where a query attends to a key."""
    distance = queries.positions[..., None] - keys.positions[..., None, :]
    mask = (distance >= 0) & (keys.positions != PADDING)[..., None, :]
    if options.windowed:
        mask &= distance < window
    if queries.segments is not None and keys.segments is not None:
        mask &= queries.segments[..., None] == keys.segments[..., None, :]
    return mask


def _weighted_sum(
    weights: Float[Array, "batch key_heads n length group key_length"],
    values: Float[Array, "batch key_heads *n key_length head_width"],
) -> Queries:
    """Sums values by attention weights, in float32: one matrix product per sequence, or a single
    one where all n sequences share the values, which makes many questions about a context cheap.
    """
    values = drop_unit_axes(values)
    rows = weights.reshape(*values.shape[:-2], -1, weights.shape[-1])
    product = jnp.matmul(rows, values, preferred_element_type=jnp.float32)
    return product.reshape(*weights.shape[:-1], values.shape[-1])


def _inner_products(
    queries: Queries, keys: Float[Array, "batch key_heads *n key_length head_width"]
) -> Float[Array, "batch key_heads n length group key_length"]:
    """Inner products in float32. The KV cache is neither transposed nor copied."""
    keys = drop_unit_axes(keys)
    rows = queries.reshape(*keys.shape[:-2], -1, queries.shape[-1])
    product = jnp.einsum("...qw,...sw->...qs", rows, keys, preferred_element_type=jnp.float32)
    return product.reshape(*queries.shape[:-1], keys.shape[-2])


def _sum_over_queries(
    weights: Float[Array, "batch key_heads n length group key_length"],
    queries: Queries,
    block: KVBlock,
) -> Float[Array, "batch key_heads *n key_length head_width"]:
    """For each key, the weighted sum of the queries, in float32."""
    left, right = (
        array.reshape(*block.keys.shape[:-2], -1, array.shape[-1]) for array in (weights, queries)
    )
    return jnp.einsum("...qs,...qw->...sw", left, right, preferred_element_type=jnp.float32)


def _concatenate(blocks: list[Float[Array, "..."]]) -> Float[Array, "..."]:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=3)
