"""cuDNN's flash attention on NVIDIA devices: the forward and the backward kernel.

`jax.nn.dot_product_attention(implementation="cudnn", return_residual=True)` rounds the log-sum-exp
of the scores to the dtype of the queries, and its gradient ignores the log-sum-exp: the gradient of
an output merged from two calls would be wrong. Both kernels are therefore called directly. Their
primitives are not part of JAX's public interface: a test lowers them for CUDA and fails if they
change.

Arrays have the layout `batch heads length head_width`. FlashAttention 2: Dao 2023
(arXiv:2307.08691).
"""

import functools

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as kernels
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

MAX_HEAD_WIDTH = 128
"""Wider heads are supported on some devices only."""


def supports(dtype: DTypeLike, head_width: int) -> bool:
    """Whether the kernels support a dtype and head width on the devices of this process.

    A process without a GPU compiles for a device that it cannot see, which is assumed to be recent.

    Args:
        dtype: of queries, keys and values.
        head_width: numbers in the query of one head.
    """
    half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    return half and head_width % 8 == 0 and head_width <= MAX_HEAD_WIDTH and _devices_are_recent()


@functools.cache
def _devices_are_recent() -> bool:
    """Whether all local GPUs are of NVIDIA's Ampere generation or later."""
    if jax.default_backend() != "gpu":
        return True
    capabilities = (getattr(device, "compute_capability", "0") for device in jax.local_devices())
    return all(float(capability) >= 8.0 for capability in capabilities)


def forward(
    query: Float[Array, "batch heads length head_width"],
    keys: Float[Array, "batch key_heads key_length head_width"],
    values: Float[Array, "batch key_heads key_length head_width"],
    lengths: Int[Array, " batch"] | None,
    *,
    scale: float,
) -> tuple[Float[Array, "batch heads length head_width"], Float[Array, "batch heads length"]]:
    """Runs the forward kernel.

    Args:
        query: the number of heads is a multiple of `key_heads`; heads that share a key head are
            adjacent.
        keys, values: keys and values, padding last.
        lengths: number of keys in each batch row, padding left out; None: the mask is causal.
        scale: multiplies the scores.

    Returns:
        The attention output, and the log-sum-exp of each query's scores in float32.
    """
    rest, options = _options(query, lengths, scale)
    out, log_sum = kernels._dot_product_attention_fwd_p_wrapper.bind(
        query, keys, values, *rest, **options, is_training=True
    )
    return out, log_sum


def backward(
    query: Float[Array, "batch heads length head_width"],
    keys: Float[Array, "batch key_heads key_length head_width"],
    values: Float[Array, "batch key_heads key_length head_width"],
    lengths: Int[Array, " batch"] | None,
    log_sum: Float[Array, "batch heads length"],
    out: Float[Array, "batch heads length head_width"],
    gradient: Float[Array, "batch heads length head_width"],
    *,
    scale: float,
) -> tuple[
    Float[Array, "batch heads length head_width"],
    Float[Array, "batch key_heads key_length head_width"],
    Float[Array, "batch key_heads key_length head_width"],
]:
    """Runs the backward kernel.

    Args:
        query, keys, values, lengths, scale: as in `forward`.
        log_sum, out: log-sum-exp and output over all blocks of keys, of which these keys may be
            one.
        gradient: gradient of `out`.

    Returns:
        The gradients of queries, keys and values.
    """
    rest, options = _options(query, lengths, scale)
    d_query, d_keys, d_values = kernels._dot_product_attention_bwd_p_wrapper.bind(
        query, keys, values, *rest, log_sum, out, gradient, **options
    )
    return d_query, d_keys, d_values


def _options(
    query: Float[Array, "batch heads length head_width"],
    lengths: Int[Array, " batch"] | None,
    scale: float,
) -> tuple[tuple[Array, ...], dict]:
    """The further operands of both kernels (bias, lengths, offsets, page tables), and settings."""
    unused = jnp.zeros(0, query.dtype)
    query_and_key_lengths = (unused, unused)
    if lengths is not None:
        query_lengths = jnp.full(query.shape[:1], query.shape[2], jnp.int32)
        query_and_key_lengths = query_lengths, lengths.astype(jnp.int32)
    options = {
        "scale": scale,
        "seed": 42,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),  # no bias and no gradient of one
        "mask_type": kernels.MaskType.CAUSAL if lengths is None else kernels.MaskType.PADDING,
        "layout": kernels.AttentionLayout.BNTH.value,
        "sliding_window_length": None,
    }
    return (unused, *query_and_key_lengths, unused, unused, unused, unused), options
