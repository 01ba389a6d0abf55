"""Scores of given words under a network: their log-probabilities, without all logits at once.

Knows final hidden states and words, and nothing of how a model makes either. `language_model` calls
it for the loss and for log-probabilities.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amplify.assistants.packing import PADDING

MAX_LOGIT_BYTES = 2**28
"""Logits that are computed at a time take about this many bytes."""

LogitsOf = Callable[[Float[Array, "*b width"]], Float[Array, "*b vocabulary"]]


def score_words(
    logits_of: LogitsOf,
    x: Float[Array, "batch lines said width"],
    words: Int[Array, "batch lines said"],
    entries: int,
) -> tuple[Float[Array, "batch lines said"], Bool[Array, "batch lines said"]]:
    """Log-probabilities of words, and whether each is the likeliest.

    Logits of a part of the words exist at a time; on the way back they are computed again.

    Args:
        logits_of: unnormalised log-probabilities of all words, for hidden states.
        x: final hidden states.
        words: the word that is said after each.
        entries: logits that a word takes, for the size of a part.
    """

    def score(x: Float[Array, "*b width"], words: Int[Array, "*b"]) -> tuple[Array, Array]:
        logits = logits_of(x)
        given = jnp.take_along_axis(logits, words[..., None], axis=-1)[..., 0]
        given -= jax.nn.logsumexp(logits, axis=-1)
        return given, jax.lax.stop_gradient(likeliest(logits) == words)

    parts = -(-4 * words.size * entries // MAX_LOGIT_BYTES)
    if parts == 1:
        return score(x, words)
    # Rows may be spread over devices: what is cut is each row's words.
    batch, count = len(words), words[0].size
    step = -(-count // parts)

    def cut(array: Array) -> Array:
        flat = array.reshape(batch, count, -1)
        flat = jnp.pad(flat, [(0, 0), (0, -count % step), (0, 0)])
        return jnp.moveaxis(flat.reshape(batch, -1, step, flat.shape[-1]), 1, 0)

    part = jax.checkpoint(lambda part: score(part[0], part[1][..., 0]))
    scored = jax.lax.map(part, (cut(x), cut(words)))
    whole = [jnp.moveaxis(one, 0, 1).reshape(batch, -1)[:, :count] for one in scored]
    return whole[0].reshape(words.shape), whole[1].reshape(words.shape)


def likeliest(log_probs: Float[Array, "*b vocabulary"]) -> Int[Array, "*b"]:
    """The first of the largest: `argmax`, which the CPU's compiler makes a slow loop of, in two
    fast ones.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, log_probs.shape, log_probs.ndim - 1)
    is_top = log_probs == jnp.max(log_probs, axis=-1, keepdims=True)
    return jnp.min(jnp.where(is_top, places, log_probs.shape[-1] - 1), axis=-1)


def by_answer(
    question: Int[Array, "*b said"], wrong: Bool[Array, "*b said"]
) -> tuple[Bool[Array, "*b said"], Bool[Array, "*b said"]]:
    """Of each word: whether it is its answer's first, and whether any of its answer is wrong.

    Args:
        question: number of the question that the word belongs to; PADDING where there is no word.
        wrong: whether the word is not the likeliest.
    """
    same = question[..., :, None] == question[..., None, :]
    first = (question != PADDING) & ~jnp.any(jnp.tril(same, -1), axis=-1)
    return first, jnp.any(same & wrong[..., None, :], axis=-1)
