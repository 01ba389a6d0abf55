"""Attention over a shared prefix and a sequence's own tokens, merged by log-sum-exp.

Each sequence attends to itself and to a prefix that all sequences of its batch row share. The two
blocks of keys are attended to separately; their outputs are then averaged, weighted by the
log-sum-exp of their scores. The gradient of a block needs only the merged output and log-sum-exp.
This is FlashAttention (Dao et al. 2022, arXiv:2205.14135) with two blocks of keys, as in cascade
inference (Ye et al. 2024, flashinfer.ai/2024/02/02/cascade-inference.html).

The full matrix of attention scores never exists. On NVIDIA devices, cuDNN's kernels attend to a
context and to a prefix where they support it: in half precision, without a soft cap and without a
sliding window. Everywhere else, XLA computes the scores of one block of queries at a time. The
choice is made when a function is lowered for a platform, so that `jax.export` on one machine
produces the right code for another.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Float, Int, PyTree

from amplify.models.attention import blockwise, cudnn
from amplify.models.attention.attention_parts import (
    PADDING,
    AttentionOptions,
    KeysAndValues,
    KVBlock,
    LogSumExp,
    Queries,
    TokenPositions,
)

OUTPUT = "attention output"
"""Name of outputs and log-sum-exps, for policies of `jax.checkpoint`."""


def attend(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    own: KVBlock,
    prefix: KVBlock | None,
    window: Int[Array, ""] | int,
) -> Queries:
    """Attends from each query to its own sequence and to the shared prefix.

    Args:
        options: the static settings.
        query: queries of n sequences that share a prefix.
        positions: positions of the queries. A token attends to tokens of its segment at its own
            position and before.
        own: keys and values of the sequences.
        prefix: keys and values that all n sequences of a batch row attend to, padding last; None:
            there are none.
        window: number of most recent tokens that a token attends to, itself included.

    Returns:
        The attention output, of the shape and dtype of `query`. It is finite but arbitrary where a
        query is padding.
    """
    blocks = (own,) if prefix is None else (own, prefix)
    return _attend(options, query, positions, blocks, jnp.asarray(window))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    blocks: tuple[KVBlock, ...],
    window: Int[Array, ""],
) -> Queries:
    return _merge_blocks(options, query, positions, blocks, window)[0]


def _merge_blocks(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    blocks: tuple[KVBlock, ...],
    window: Int[Array, ""],
) -> tuple[Queries, LogSumExp]:
    """Returns the output, and the log-sum-exp of the scores of all blocks."""
    outs, log_sums = zip(
        *(_forward(options, query, positions, block, window) for block in blocks), strict=True
    )
    if len(blocks) == 1:
        return outs[0].astype(query.dtype), log_sums[0]
    log_sum = functools.reduce(jnp.logaddexp, log_sums)
    out = sum(
        jnp.exp(of_block - log_sum)[..., None] * out.astype(jnp.float32)
        for out, of_block in zip(outs, log_sums, strict=True)
    )
    return jnp.asarray(out, query.dtype), log_sum


def _attend_forward(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    blocks: tuple[KVBlock, ...],
    window: Int[Array, ""],
) -> tuple[Queries, tuple]:
    # The attention mask is the same in all layers. JAX would compute it once, outside the scan over
    # layers, and keep an array as large as the scores: the barrier makes it depend on the query.
    query, positions, blocks = barrier((query, positions, blocks))
    out, log_sum = (
        checkpoint_name(array, OUTPUT)
        for array in _merge_blocks(options, query, positions, blocks, window)
    )
    return out, (query, positions, blocks, window, out, log_sum)


def _attend_backward(options: AttentionOptions, residuals: tuple, gradient: Queries) -> tuple:
    query, positions, blocks, window, out, log_sum = residuals
    gradient, positions, blocks = barrier((gradient, positions, blocks))
    output = out, log_sum, gradient
    d_queries, d_keys, d_values = zip(
        *(_backward(options, query, positions, block, window, output) for block in blocks),
        strict=True,
    )
    d_blocks = tuple(
        block._replace(keys=keys, values=values, positions=_zero_gradient(block.positions))
        for block, keys, values in zip(blocks, d_keys, d_values, strict=True)
    )
    d_query = functools.reduce(jnp.add, d_queries)
    return d_query, _zero_gradient(positions), d_blocks, _zero_gradient(window)


def _zero_gradient(integers: PyTree[Array]) -> PyTree[np.ndarray]:
    return jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), jax.dtypes.float0), integers)


_attend.defvjp(_attend_forward, _attend_backward)


# One block of keys: cuDNN's kernels, or XLA.


def _uses_cudnn(options: AttentionOptions, query: Queries, block: KVBlock) -> bool:
    """Whether cuDNN's kernels support this, on a device that has them."""
    simple_mask = block.is_shared or (options.is_causal and query.shape[2] == 1)
    simple_mask = simple_mask and block.positions.segments is None
    plain_scores = options.cap is None and not options.windowed
    return simple_mask and plain_scores and cudnn.supports(query.dtype, query.shape[-1])


def _forward(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
) -> tuple[Queries, LogSumExp]:
    xla = functools.partial(blockwise.forward, options)
    if not _uses_cudnn(options, query, block):
        return xla(query, positions, block, window)
    flash = functools.partial(_forward_cudnn, options)
    return jax.lax.platform_dependent(query, positions, block, window, cuda=flash, default=xla)


def _backward(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
    output: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    """Returns the gradients of queries, keys and values.

    Args:
        output: the merged output, its log-sum-exp, and the output's gradient.
    """
    xla = functools.partial(blockwise.backward, options)
    if not _uses_cudnn(options, query, block):
        return xla(query, positions, block, window, output)
    flash = functools.partial(_backward_cudnn, options)
    return jax.lax.platform_dependent(
        query, positions, block, window, output, cuda=flash, default=xla
    )


def _forward_cudnn(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
) -> tuple[Queries, LogSumExp]:
    lengths = _prefix_lengths(block)
    out, log_sum = cudnn.forward(
        _to_cudnn(query, block),
        *_cudnn_keys_and_values(block),
        _at_least_one(lengths),
        scale=options.scale,
    )
    out = _from_cudnn(out, query.shape, block)
    log_sum = _from_cudnn(log_sum, query.shape[:-1], block)
    if lengths is not None:  # the output for an empty prefix gets no weight
        log_sum += jnp.where(lengths == 0, blockwise.MASKED, 0).reshape(-1, 1, 1, 1, 1)
    return out, log_sum


def _backward_cudnn(
    options: AttentionOptions,
    query: Queries,
    positions: TokenPositions,
    block: KVBlock,
    window: Int[Array, ""],
    output: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    lengths = _prefix_lengths(block)
    out, log_sum, gradient = (_to_cudnn(array, block) for array in output)
    if lengths is not None:  # an empty prefix has no gradient: its attention weights become zero
        log_sum -= jnp.where(lengths == 0, 3 * blockwise.MASKED, 0).reshape(-1, 1, 1)
    d_query, d_keys, d_values = cudnn.backward(
        _to_cudnn(query, block),
        *_cudnn_keys_and_values(block),
        _at_least_one(lengths),
        log_sum,
        out,
        gradient,
        scale=options.scale,
    )
    d_keys, d_values = (array.reshape(block.keys.shape) for array in (d_keys, d_values))
    return _from_cudnn(d_query, query.shape, block), d_keys, d_values


def _cudnn_keys_and_values(block: KVBlock) -> KeysAndValues:
    """Drops the axis of sequences, whose length is 1 where there is one."""
    shape = (*block.keys.shape[:2], *block.keys.shape[-2:])
    return block.keys.reshape(shape), block.values.reshape(shape)


def _prefix_lengths(block: KVBlock) -> Int[Array, " batch"] | None:
    """Number of tokens in each shared prefix; None: the mask is causal."""
    if not block.is_shared:
        return None
    return jnp.sum(block.positions.positions[:, 0] != PADDING, axis=-1, dtype=jnp.int32)


def _at_least_one(lengths: Int[Array, " batch"] | None) -> Int[Array, " batch"] | None:
    # The kernels would divide by zero.
    return None if lengths is None else jnp.maximum(lengths, 1)


def _to_cudnn(array: Float[Array, "..."], block: KVBlock) -> Float[Array, "..."]:
    """Reshapes an array with an entry for each query to the kernels' layout.

    For a shared prefix, the queries that share a key head become one long sequence, so that its
    keys are read once for all of them.
    """
    batch, key_heads, n, length, group, *rest = array.shape
    if block.is_shared:
        return array.reshape(batch, key_heads, n * length * group, *rest)
    return jnp.moveaxis(array, 4, 2).reshape(batch, key_heads * group, length, *rest)


def _from_cudnn(
    array: Float[Array, "..."], shape: tuple[int, ...], block: KVBlock
) -> Float[Array, "..."]:
    if block.is_shared:
        return array.reshape(shape)
    batch, key_heads, n, length, group, *rest = shape
    return jnp.moveaxis(array.reshape(batch, key_heads, group, n, length, *rest), 2, 4)
