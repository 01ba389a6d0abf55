"""Amplifies the questions of many problems in chunks, for a round's data set.

A chunk runs as one compiled program or, if the overseer cannot be traced, is driven from Python.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, Key

from amplify.runtime import calls
from amplify.tasks.problems import CONTEXTS_PER_CHUNK, answer_keys, chunk_rows, map_in_chunks
from amplify.trees.amplification import (
    amplified,
    amplify,
    assistant_alone,
    contexts_for,
    sub_answerer,
    vmap_questions,
)
from amplify.trees.counting import count_calls
from amplify.trees.driving import ask_all, driven
from amplify.trees.scanning import amplify_by_scan, unstack
from amplify.types import (
    Assistant,
    Interaction,
    OverseerKind,
    Problems,
    Task,
    Weights,
)

CHUNK = 2 * CONTEXTS_PER_CHUNK
"""Contexts amplified at a time, at most."""


class Amplified(NamedTuple):
    """The amplified questions of a chunk of problems."""

    read: Int[Array, "batch facts fact_length"]  # the contexts, drawn or retrieved
    answers: Int[Array, "batch questions answer_length"]
    classes: Int[Array, "batch questions"]
    calls: dict[str, Int[Array, " batch"]]  # answers in each row's trees, by part
    trees: Interaction  # leading axes: batch, questions

    @property
    def assistant_answers(self) -> Int[Array | np.ndarray, " batch"]:
        """Number of sub-questions of each row that the assistant answered."""
        return self.calls[calls.ASSISTANT]


def amplify_problems(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    weights: Weights,
    problems: Problems,
    seed: int,
    *,
    depth: int = 1,
    sub_answers: str = "assistant",
    size: int | None = None,
    advance: Callable[[int], Any] = lambda rows: None,
    place: Sharding | None = None,
) -> Iterator[Amplified]:
    """Amplifies every question of every problem, in chunks.

    The result depends on the arguments only: the same problems in chunks of the same size give the
    same trees, bit for bit. Answers are counted in the ledger of the current stage (see
    `runtime.calls`).

    Args:
        task: the task.
        assistant: the policy that answers sub-questions.
        overseer: decomposes questions.
        weights: parameters of the assistant and the overseer.
        problems: contexts and questions.
        seed: the experiment's.
        depth: levels of the overseer, at least 1.
        sub_answers: "assistant", or "truth" for the supervised baseline.
        size: problems of a chunk; None: `chunk_size`. To reproduce part of a data set, the chunk
            size that it was made with.
        advance: called with the number of problems of each finished chunk.
        place: sharding of a chunk's contexts.

    Yields:
        The amplified chunks, as NumPy arrays.
    """
    root = jax.random.key(seed)
    static = (task, assistant, overseer, depth, sub_answers)
    function = functools.partial(amplify_chunk, *static, weights, root)
    size = size or chunk_size(len(problems.seeds), place)
    for chunk in map_in_chunks(function, size, problems, advance=advance, place=place):
        calls.count_all(chunk.calls)
        yield chunk


def chunk_size(problems: int, place: Sharding | None) -> int:
    """The number of problems that are amplified at a time.

    Args:
        problems: number of problems in total.
        place: sharding of a chunk's contexts.
    """
    return chunk_rows(problems, CHUNK, place)


def amplify_chunk(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    depth: int,
    sub_answers: str,
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> Amplified:
    """Amplifies the questions of one chunk of problems.

    Args:
        task: the task.
        assistant: the policy that answers sub-questions.
        overseer: decomposes questions.
        depth: levels of the overseer, at least 1.
        sub_answers: "assistant", or "truth" for the supervised baseline.
        weights: parameters of the assistant and the overseer.
        root: the experiment's key.
        problems: contexts and questions of the chunk.
    """
    static = (task, assistant, overseer, depth, sub_answers)
    if not overseer.traced:
        return _driven(*static, weights, root, problems)
    chunk = _compiled(*static, weights, root, problems)
    if depth > 1:
        chunk = chunk._replace(trees=unstack(jax.device_get(chunk.trees)))
    return chunk


def _driven(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    depth: int,
    sub_answers: str,
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> Amplified:
    respond = driven(
        task,
        assistant,
        overseer.using(weights.overseer),
        weights.assistant,
        problems.contexts,
        depth,
        sub_answers,
    )
    everywhere, keys = ask_all(root, problems)
    tree = respond(problems.questions, everywhere, keys)
    return _compiled_description(task, problems, everywhere, tree)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _compiled(
    task: Task,
    assistant: Assistant,
    overseer: OverseerKind,
    depth: int,
    sub_answers: str,
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> Amplified:
    contexts, questions = problems.contexts, problems.questions
    alone = assistant_alone(task, assistant, weights.assistant, contexts)
    helper = sub_answerer(task, contexts, alone, sub_answers)
    upper = amplify
    if overseer.replayable:
        upper = functools.partial(amplify_by_scan, answer_length=task.answer_length)
    bound = overseer.using(weights.overseer)
    respond = amplified(task, bound, helper, contexts, depth, upper)
    everywhere = jnp.ones(questions.shape[:2], bool)
    tree = respond(questions, everywhere, answer_keys(root, problems.seeds, questions.shape[1]))
    return _describe(task, problems, everywhere, tree)


def _describe(
    task: Task,
    problems: Problems,
    everywhere: Bool[Array, "batch questions"],
    tree: Interaction,
) -> Amplified:
    contexts, questions = problems.contexts, problems.questions
    classes = vmap_questions(task.class_of)(contexts, questions)
    return Amplified(
        contexts_for(task, contexts, questions),
        tree.answer,
        classes,
        jax.tree.map(lambda count: jnp.sum(count, axis=1), count_calls(tree, everywhere)),
        tree,
    )


_compiled_description = jax.jit(_describe, static_argnums=0)
