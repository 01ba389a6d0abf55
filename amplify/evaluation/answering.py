"""An assistant's own answers to any number of questions, without the overseer."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.errors import AmplifyError
from amplify.tasks.problems import CONTEXTS_PER_CHUNK, chunk_rows, map_in_chunks
from amplify.trees.amplification import answer_directly
from amplify.types import Assistant, Task


class Answered(NamedTuple):
    """Answers of an assistant, as numpy arrays."""

    read: Int[np.ndarray, "batch read read_length"]  # the contexts, as given or found
    tokens: Int[np.ndarray, "batch questions answer_length"]
    log_prob: Float[np.ndarray, "batch questions"]  # of the whole answer, in nats


def answer_alone(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array | np.ndarray, "batch facts fact_length"],
    questions: Int[Array | np.ndarray, "batch questions question_length"],
    keys: Key[Array, "batch questions"] | None = None,
    *,
    place: Sharding | None = None,
) -> Answered:
    """Answers questions by the assistant alone, in chunks of contexts of the size that evals have.

    Args:
        task: the task.
        assistant: the model.
        params: its parameters.
        contexts: tokens; ignored if the task searches for contexts.
        questions: tokens.
        keys: sample the answers; consumed. None: the most likely token at each position.
        place: sharding of the contexts; None: the default device.
    """
    columns = (contexts, questions) if keys is None else (contexts, questions, keys)
    chunks = map_in_chunks(
        functools.partial(_answer_directly, task, assistant, params),
        chunk_rows(len(contexts), CONTEXTS_PER_CHUNK, place),
        *columns,
        advance=lambda rows: None,
        place=place,
    )
    read, answers = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    return Answered(read, answers.tokens, answers.log_prob)


_answer_directly = jax.jit(answer_directly, static_argnums=(0, 1))


def check_tokens(what: str, tokens: np.ndarray, shape: Sequence[str | int], task: Any) -> None:
    """Checks an array of tokens that a user passed.

    Args:
        what: they are, in the plural, for the message.
        tokens: the array.
        shape: its length along each axis; a name stands for any length.
        task: whose tokens they are.

    Raises:
        AmplifyError: if they are no integers of this shape, or no tokens of the task.
    """
    wanted = ", ".join(map(str, shape))
    fits = len(tokens.shape) == len(shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(shape, tokens.shape, strict=True)
    )
    if not fits or tokens.dtype.kind not in "iu" or not tokens.size:
        found = f"{tokens.dtype} of shape {tokens.shape}"
        raise AmplifyError(f"{what} must be integers of shape ({wanted}), got {found}")
    most = len(task.vocabulary) - 1
    if tokens.min() < 0 or tokens.max() > most:
        raise AmplifyError(
            f"{what} must be tokens 0 to {most}, got {tokens.min()} to {tokens.max()}"
        )
