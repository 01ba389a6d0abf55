"""Noise: replaces a fraction of an overseer's answers by random ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from amplify.types import Overseer, Strategy, Task


def with_noise(overseer: Overseer, share: float, task: Task) -> Overseer:
    """Replaces answers at random by tokens drawn uniformly from the vocabulary.

    The random tokens include "don't know" and the right answer: the accuracy of an otherwise
    perfect overseer with answers of one token is 1 - share * (1 - 1 / len(task.vocabulary)).

    Args:
        overseer: the overseer.
        share: probability that an answer is replaced, 0 to 1.
        task: its vocabulary is drawn from.
    """
    if not share:
        return overseer

    def strategy(questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]) -> Strategy:
        answer = yield from overseer(questions, keys)

        def add_noise(
            key: Key[Array, ""], answer: Int[Array, " answer_length"]
        ) -> Int[Array, " answer_length"]:
            error_key, answer_key = jax.random.split(key)
            random_answer = jax.random.randint(answer_key, answer.shape, 0, len(task.vocabulary))
            is_error = jax.random.bernoulli(error_key, share)
            return jnp.where(is_error, random_answer.astype(answer.dtype), answer)

        flat = jax.vmap(add_noise)(keys.reshape(-1), answer.reshape(-1, answer.shape[-1]))
        return flat.reshape(answer.shape)

    return strategy
