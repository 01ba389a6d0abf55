"""Amplified answers to every question of many problems, a chunk at a time: what a round's data set
is made of.

Knows how a chunk is run: as one compiled program or, for an overseer that cannot be traced, driven
from Python.
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
from amplify.tasks.problems import TOGETHER, answer_keys, at_a_time, in_chunks
from amplify.trees.amplification import (
    amplified,
    amplify,
    assistant_alone,
    count_calls,
    helping,
    over_questions,
    read_for,
)
from amplify.trees.driving import ask_everything, driven
from amplify.trees.scanning import by_scan, unstack
from amplify.types import (
    Assistant,
    Interaction,
    OverseerKind,
    Problems,
    Task,
    Weights,
)

CHUNK = 2 * TOGETHER
"""Contexts amplified at a time, at most."""


class Amplified(NamedTuple):
    """What a round's data set is made of."""

    read: Int[Array, "batch facts fact_length"]  # the contexts, given or found
    answers: Int[Array, "batch questions answer_length"]
    classes: Int[Array, "batch questions"]
    calls: dict[str, Int[Array, " batch"]]  # answers behind each row, by the part that gave them
    trees: Interaction  # leading axes: batch, questions

    @property
    def assistant_answers(self) -> Int[Array | np.ndarray, " batch"]:
        """Sub-questions that the assistant answered."""
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
    """Amplified answers to every question of every problem, a chunk at a time, as numpy arrays.

    Sub-questions are answered by the assistant or, where `sub_answers` is "truth", truly: the
    supervised baseline. Depends on nothing else than its arguments: the same problems in the same
    chunks give the same trees, bit for bit. `size`: how many problems a chunk has, where these are
    a part of more, which came in chunks of that size. `place`: where the contexts of a chunk lie.

    What is answered is counted in the ledger of the stage that runs (see `calls`).
    """
    root = jax.random.key(seed)
    how = (task, assistant, overseer, depth, sub_answers)
    function = functools.partial(amplify_chunk, *how, weights, root)
    size = size or chunk_size(len(problems.seeds), place)
    for chunk in in_chunks(function, size, problems, advance=advance, place=place):
        calls.count_all(chunk.calls)
        yield chunk


def chunk_size(problems: int, place: Sharding | None) -> int:
    """How many of so many problems are amplified at a time."""
    return at_a_time(problems, CHUNK, place)


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
    """Amplified answers to the questions of some problems, all at once."""
    how = (task, assistant, overseer, depth, sub_answers)
    if not overseer.traced:
        return _driven(*how, weights, root, problems)
    chunk = _compiled(*how, weights, root, problems)
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
    everywhere, keys = ask_everything(root, problems)
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
    helper = helping(task, contexts, alone, sub_answers)
    upper = amplify
    if overseer.replayable:
        upper = functools.partial(by_scan, answer_length=task.answer_length)
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
    classes = over_questions(task.class_of)(contexts, questions)
    return Amplified(
        read_for(task, contexts, questions),
        tree.answer,
        classes,
        jax.tree.map(lambda count: jnp.sum(count, axis=1), count_calls(tree, everywhere)),
        tree,
    )


_compiled_description = jax.jit(_describe, static_argnums=0)
