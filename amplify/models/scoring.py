"""Log-probabilities: of given tokens, without all logits in memory at once, and for sampling.

Knows hidden states, logits and tokens, and nothing of the model behind them. `language_model` uses
it for the loss, for log-probabilities and to choose tokens.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amplify.models.attention.attention_parts import PADDING

MAX_LOGIT_BYTES = 2**28
"""Approximate memory of the logits that exist at a time, in bytes."""

ComputeLogits = Callable[[Float[Array, "*b width"]], Float[Array, "*b vocabulary"]]


def score_tokens(
    compute_logits: ComputeLogits,
    x: Float[Array, "batch sequences targets width"],
    tokens: Int[Array, "batch sequences targets"],
    vocabulary_size: int,
) -> tuple[Float[Array, "batch sequences targets"], Bool[Array, "batch sequences targets"]]:
    """Computes the log-probability of each token.

    The logits of one chunk of tokens exist at a time; the backward pass recomputes them.

    Args:
        compute_logits: maps hidden states to unnormalised log-probabilities.
        x: final hidden states.
        tokens: the token predicted by each hidden state.
        vocabulary_size: number of logits per token, which determines the size of a chunk.

    Returns:
        Log-probabilities, and whether each token is the most likely one.
    """

    def score(x: Float[Array, "*b width"], tokens: Int[Array, "*b"]) -> tuple[Array, Array]:
        logits = compute_logits(x)
        log_prob = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        log_prob -= jax.nn.logsumexp(logits, axis=-1)
        return log_prob, jax.lax.stop_gradient(argmax(logits) == tokens)

    chunks = -(-4 * tokens.size * vocabulary_size // MAX_LOGIT_BYTES)
    if chunks == 1:
        return score(x, tokens)
    # Rows may be spread over devices, so the tokens of each row are split, and not the rows.
    batch, count = len(tokens), tokens[0].size
    size = -(-count // chunks)

    def split(array: Array) -> Array:
        flat = array.reshape(batch, count, -1)
        flat = jnp.pad(flat, [(0, 0), (0, -count % size), (0, 0)])
        return jnp.moveaxis(flat.reshape(batch, -1, size, flat.shape[-1]), 1, 0)

    score_chunk = jax.checkpoint(lambda chunk: score(chunk[0], chunk[1][..., 0]))
    scored = jax.lax.map(score_chunk, (split(x), split(tokens)))
    whole = [jnp.moveaxis(one, 0, 1).reshape(batch, -1)[:, :count] for one in scored]
    return whole[0].reshape(tokens.shape), whole[1].reshape(tokens.shape)


def sampling_log_probs(
    logits: Float[Array, "*b vocabulary"], temperature: float, top_p: float
) -> Float[Array, "*b vocabulary"]:
    """Log-probabilities of the distribution that tokens are sampled from.

    Nucleus sampling: Holtzman et al. 2019 (arXiv:1904.09751), section 3.1.

    Args:
        logits: unnormalised log-probabilities.
        temperature: divides the logits; positive.
        top_p: total probability of the tokens that are kept, likeliest first; above 0, and 1 to
            keep all.

    Returns:
        Normalised log-probabilities, -inf for tokens that are left out.
    """
    log_probs = jax.nn.log_softmax(logits / temperature)
    if top_p == 1:
        return log_probs
    # A token is left out if the likelier ones together reach top_p. It is marked by its index: a
    # comparison with a threshold that is computed twice may be rounded in two ways.
    order = jnp.argsort(log_probs, axis=-1, descending=True)
    probs = jnp.exp(jnp.take_along_axis(log_probs, order, axis=-1))
    is_beyond = jnp.cumsum(probs, axis=-1) - probs >= top_p
    left_out = jnp.put_along_axis(
        jnp.zeros_like(is_beyond), order, is_beyond, axis=-1, inplace=False
    )
    return jax.nn.log_softmax(jnp.where(left_out, -jnp.inf, log_probs))


def argmax(log_probs: Float[Array, "*b vocabulary"]) -> Int[Array, "*b"]:
    """Index of the first maximum, like `jnp.argmax`, which XLA compiles to a slow loop on CPUs."""
    indices = jax.lax.broadcasted_iota(jnp.int32, log_probs.shape, log_probs.ndim - 1)
    is_top = log_probs == jnp.max(log_probs, axis=-1, keepdims=True)
    return jnp.min(jnp.where(is_top, indices, log_probs.shape[-1] - 1), axis=-1)


def group_by_answer(
    segments: Int[Array, "*b targets"], wrong: Bool[Array, "*b targets"]
) -> tuple[Bool[Array, "*b targets"], Bool[Array, "*b targets"]]:
    """Finds the answer that each target token belongs to.

    Args:
        segments: segment id of the token's question; PADDING where there is no target.
        wrong: whether the token is not the most likely one.

    Returns:
        Whether the token is the first of its answer, and whether any token of its answer is wrong.
    """
    same = segments[..., :, None] == segments[..., None, :]
    first = (segments != PADDING) & ~jnp.any(jnp.tril(same, -1), axis=-1)
    return first, jnp.any(same & wrong[..., None, :], axis=-1)
