"""How much arithmetic a training step needs, and how much memory decoding one token must read.

Measured times are compared with these bounds.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from amplify.models.attention.attention_parts import PADDING
from amplify.models.decoder.layers import Architecture
from amplify.models.packing import Packed

Number = int | float | Float[Array, ""]
"""A count, which may be traced."""


def matrix_weights(architecture: Architecture) -> int:
    """Number of weights in the layers' matrices, which are multiplied with every token."""
    width, heads, key_heads = architecture.width, architecture.heads, architecture.key_heads
    attention = width * architecture.head_width * (2 * heads + 2 * key_heads)
    mlp = (3 if architecture.gated else 2) * width * architecture.hidden
    return architecture.layers * (attention + mlp)


def causal_pairs(length: int) -> int:
    """Number of (query, key) pairs under a causal mask over `length` tokens."""
    return length * (length + 1) // 2


def training_pairs(context: int, questions: int, question: int) -> int:
    """Number of (query, key) pairs in one row: a context, and questions that continue it.

    Args:
        context: tokens of the context.
        questions: number of questions about it, which do not attend to each other.
        question: tokens of a question with its answer.
    """
    after = questions * (question * context + causal_pairs(question))
    return causal_pairs(context) + after


def training_flops(
    architecture: Architecture, tokens: Number, targets: Number, pairs: Number
) -> Number:
    """Floating-point operations of a training step, forward and backward.

    As model FLOPs utilisation (MFU) counts them: what rematerialisation recomputes is left out.
    Chowdhery et al. 2022 (arXiv:2204.02311), appendix B.

    Args:
        architecture: the model's.
        tokens: tokens of the step, padding left out.
        targets: tokens whose logits are computed.
        pairs: (query, key) pairs in all rows.
    """
    # Floats: these numbers are too large for the integers of a traced computation.
    layers = 6.0 * matrix_weights(architecture) * tokens
    head = 6.0 * architecture.vocabulary * architecture.width * targets
    heads_width = architecture.heads * architecture.head_width
    attention = 12.0 * architecture.layers * heads_width * pairs
    return layers + head + attention


def count_work(architecture: Architecture, packed: Packed) -> dict[str, Float[Array, ""]]:
    """Counts the tokens of a training step, padding left out, and its floating-point operations.

    A question's token attends to its context, and to its question up to itself.

    Args:
        architecture: the model's.
        packed: the batch.

    Returns:
        "tokens" and "flops", to be logged as metrics.
    """
    context = jnp.sum(packed.context != PADDING, axis=1, dtype=jnp.float32)
    is_token = packed.tokens != PADDING
    after = jnp.sum(is_token, axis=(1, 2), dtype=jnp.float32)
    own_pairs = jnp.sum(packed.positions, where=is_token, dtype=jnp.float32)
    pairs = jnp.sum(context * (context + 1) / 2 + after * context) + own_pairs
    tokens = jnp.sum(context + after)
    targets = jnp.sum(packed.targets != PADDING, dtype=jnp.float32)
    work = training_flops(architecture, tokens, targets, pairs)
    return {"tokens": tokens, "flops": jnp.asarray(work)}


def decoding_bytes(
    architecture: Architecture,
    contexts: int,
    context: int,
    questions: int,
    own: int,
    bytes_each: int,
) -> int:
    """Bytes that must be read to decode one more token of each answer.

    Divided by the memory bandwidth, this is a lower bound of the time. The weights are read once,
    and so is each context's KV cache, which its questions share.

    Args:
        architecture: the model's.
        contexts: number of contexts.
        context: tokens of each.
        questions: number of questions about each context.
        own: tokens of a question and of its answer so far.
        bytes_each: bytes of a number in weights and KV cache: 2 for bfloat16.
    """
    weights = matrix_weights(architecture) + architecture.vocabulary * architecture.width
    per_token = 2 * architecture.layers * architecture.key_heads * architecture.head_width
    cache = contexts * per_token * (context + questions * own)
    return bytes_each * (weights + cache)
