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
from jaxtyping import Array, Int, Key

from amplify.runtime import calls
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import CONTEXTS_PER_CHUNK, answer_keys, chunk_rows, map_in_chunks
from amplify.trees.amplification import (
    Level,
    amplified,
    amplify,
    assistant_alone,
    contexts_for,
    sub_answerer,
)
from amplify.trees.counting import count_calls_by_row
from amplify.trees.driving import drive
from amplify.trees.scanning import amplify_by_scan, unstack
from amplify.types import (
    Assistant,
    Interaction,
    OverseerKind,
    Problems,
    Respond,
    Roles,
    Task,
    Team,
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
    weights: Roles,
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
    team = Team(task, assistant, overseer)
    function = functools.partial(amplify_chunk, team, depth, sub_answers, weights, root)
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
    team: Team,
    depth: int,
    sub_answers: str,
    weights: Roles,
    root: Key[Array, ""],
    problems: Problems,
) -> Amplified:
    """Amplifies the questions of one chunk of problems.

    Args:
        team: who answers.
        depth: levels of the overseer, at least 1.
        sub_answers: "assistant", or "truth" for the supervised baseline.
        weights: parameters of the assistant and the overseer.
        root: the experiment's key.
        problems: contexts and questions of the chunk.
    """
    if not team.overseer.traced:
        tree = drive(team, weights, root, problems, depth, sub_answers)
        return _compiled_description(team.task, problems, tree)
    chunk = _compiled(team, depth, sub_answers, weights, root, problems)
    if depth > 1:
        chunk = chunk._replace(trees=unstack(jax.device_get(chunk.trees)))
    return chunk


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    team: Team,
    depth: int,
    sub_answers: str,
    weights: Roles,
    root: Key[Array, ""],
    problems: Problems,
) -> Amplified:
    task = team.task
    alone = assistant_alone(task, team.assistant, weights["assistant"], problems.contexts)
    helper = sub_answerer(task, problems.contexts, alone, sub_answers)
    upper = amplify
    if team.overseer.replayable:
        upper = functools.partial(amplify_by_scan, answer_length=task.answer_length)
    tree = oversee(team, helper, weights, root, problems, depth, upper)
    return _describe(task, problems, tree)


def oversee(
    team: Team,
    helper: Respond,
    weights: Roles,
    root: Key[Array, ""],
    problems: Problems,
    depth: int = 1,
    upper: Level = amplify,
) -> Interaction:
    """Answers all questions of problems by an overseer that is traced; `driving.drive` does so by
    one that is not.

    Args:
        team: who answers.
        helper: answers the sub-questions of the lowest level.
        weights: parameters of the overseer; the assistant's are not used here.
        root: key from which, with the problems' seeds, all samples are drawn.
        problems: contexts and questions.
        depth: levels of the overseer.
        upper: see `amplification.amplified`.
    """
    questions = problems.questions
    overseer = team.overseer.using(weights.get("overseer"))
    respond = amplified(team.task, overseer, helper, problems.contexts, depth, upper)
    everywhere = jnp.ones(questions.shape[:2], bool)
    return respond(questions, everywhere, answer_keys(root, problems.seeds, questions.shape[1]))


def _describe(task: Task, problems: Problems, tree: Interaction) -> Amplified:
    contexts, questions = problems.contexts, problems.questions
    classes = vmap_questions(task.class_of)(contexts, questions)
    return Amplified(
        contexts_for(task, contexts, questions),
        tree.answer,
        classes,
        count_calls_by_row(tree),
        tree,
    )


_compiled_description = jax.jit(_describe, static_argnums=0)
