"""An overseer that sometimes errs: a share of its answers is replaced by random ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from amplify.types import Overseer, Strategy, Task


def with_noise(overseer: Overseer, share: float, task: Task) -> Overseer:
    """Replaces each answer with probability `share` by tokens drawn uniformly from the vocabulary.

    "Don't know" and the right answer are among what is drawn: with an answer of one token, the
    overseer's accuracy falls to 1 - share * (1 - 1 / len(task.vocabulary)).
    """
    if not share:
        return overseer

    def strategy(questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]) -> Strategy:
        answer = yield from overseer(questions, keys)

        def disturb(
            key: Key[Array, ""], answer: Int[Array, " answer_length"]
        ) -> Int[Array, " answer_length"]:
            whether, what = jax.random.split(key)
            anything = jax.random.randint(what, answer.shape, 0, len(task.vocabulary))
            errs = jax.random.bernoulli(whether, share)
            return jnp.where(errs, anything.astype(answer.dtype), answer)

        flat = jax.vmap(disturb)(keys.reshape(-1), answer.reshape(-1, answer.shape[-1]))
        return flat.reshape(answer.shape)

    return strategy
