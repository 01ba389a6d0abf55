"""cuDNN's flash attention on NVIDIA devices: the forward and the backward kernel.

`jax.nn.dot_product_attention(implementation="cudnn", return_residual=True)` rounds the log-sum-exp
of the scores to the dtype of the queries, and its gradient leaves the log-sum-exp out: what is
merged from two calls would have a wrong gradient. Both kernels are therefore called directly. Their
primitives are not part of JAX's public interface: a test lowers them for CUDA, and fails if they
change.

Arrays are laid out `batch heads length head_width`. Dao 2023 (arXiv:2307.08691).
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
    """Whether the kernels take heads of this width and dtype, on the devices of this process.

    A process without a GPU compiles for one that it does not see: that is assumed to be recent.
    """
    half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    return half and head_width % 8 == 0 and head_width <= MAX_HEAD_WIDTH and _recent_devices()


@functools.cache
def _recent_devices() -> bool:
    """Whether all GPUs here are of NVIDIA's Ampere generation or later."""
    if jax.default_backend() != "gpu":
        return True
    capabilities = (getattr(device, "compute_capability", "0") for device in jax.local_devices())
    return all(float(capability) >= 8.0 for capability in capabilities)


def forward(
    query: Float[Array, "batch heads length head_width"],
    keys: Float[Array, "batch key_heads seen head_width"],
    values: Float[Array, "batch key_heads seen head_width"],
    seen: Int[Array, " batch"] | None,
    *,
    scale: float,
) -> tuple[Float[Array, "batch heads length head_width"], Float[Array, "batch heads length"]]:
    """Attention, and the log-sum-exp of each query's scores, in float32.

    Args:
        query: heads are a multiple of the key heads; those that share one are neighbours.
        keys, values: what is attended to.
        seen: how many keys there are, counted from the first; None: a query attends to the keys up
            to its own index, as in `is_causal`.
        scale: of the scores.
    """
    rest, options = _options(query, seen, scale)
    out, log_sum = kernels._dot_product_attention_fwd_p_wrapper.bind(
        query, keys, values, *rest, **options, is_training=True
    )
    return out, log_sum


def backward(
    query: Float[Array, "batch heads length head_width"],
    keys: Float[Array, "batch key_heads seen head_width"],
    values: Float[Array, "batch key_heads seen head_width"],
    seen: Int[Array, " batch"] | None,
    log_sum: Float[Array, "batch heads length"],
    out: Float[Array, "batch heads length head_width"],
    gradient: Float[Array, "batch heads length head_width"],
    *,
    scale: float,
) -> tuple[
    Float[Array, "batch heads length head_width"],
    Float[Array, "batch key_heads seen head_width"],
    Float[Array, "batch key_heads seen head_width"],
]:
    """Gradients of queries, keys and values.

    Args:
        log_sum, out: of all that the queries attend to, of which these keys may be a part.
        gradient: of `out`.
    """
    rest, options = _options(query, seen, scale)
    d_query, d_keys, d_values = kernels._dot_product_attention_bwd_p_wrapper.bind(
        query, keys, values, *rest, log_sum, out, gradient, **options
    )
    return d_query, d_keys, d_values


def _options(
    query: Float[Array, "batch heads length head_width"],
    seen: Int[Array, " batch"] | None,
    scale: float,
) -> tuple[tuple[Array, ...], dict]:
    """What both kernels take: bias, lengths, offsets and page tables; and settings."""
    unused = jnp.zeros(0, query.dtype)
    lengths = (unused, unused)
    if seen is not None:
        lengths = jnp.full(query.shape[:1], query.shape[2], jnp.int32), seen.astype(jnp.int32)
    options = {
        "scale": scale,
        "seed": 42,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),  # neither a bias nor its gradient
        "mask_type": kernels.MaskType.CAUSAL if seen is None else kernels.MaskType.PADDING,
        "layout": kernels.AttentionLayout.BNTH.value,
        "sliding_window_length": None,
    }
    return (unused, *lengths, unused, unused, unused, unused), options
