"""Amplification: an overseer takes questions apart and an assistant answers the pieces.

Everything is traced once for a whole batch and stays on the device: no loop over questions.
Primitive sub-questions go to the environment, the others to the assistant or, in a deeper tree, to
another copy of the overseer. What passed through is the interaction. Christiano, Shlegeris and
Amodei 2018 (arXiv:1810.08575), section 2.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.problems import TOGETHER, answer_keys, at_a_time, in_chunks
from amplify.types import (
    ASSISTANT,
    ENVIRONMENT,
    OVERSEER,
    Assistant,
    Interaction,
    Overseer,
    OverseerKind,
    Problems,
    Respond,
    SearchedTask,
    Step,
    Task,
    Weights,
)

CHUNK = 2 * TOGETHER
"""Contexts amplified at a time, at most."""


def amplify(
    overseer: Overseer,
    respond: Respond,
    questions: Int[Array, "*b question_length"],
    where: Bool[Array, "*b"],
    keys: Key[Array, "*b"],
) -> Interaction:
    """The overseer answers each question, `respond` answering its sub-questions. Consumes the keys.

    Items where `where` is False are carried along, cost nothing where a whole step can be skipped,
    and mean nothing.
    """
    strategy = overseer(questions, fold_in(keys, 0))
    steps: list[Step] = []
    answers = None
    while True:
        try:
            ask = next(strategy) if answers is None else strategy.send(answers)
        except StopIteration as end:
            by = jnp.full(where.shape, OVERSEER)
            return Interaction(questions, end.value, by, tuple(steps))
        asked = where if ask.where is None else where & ask.where
        sub = respond(ask.question, asked, fold_in(keys, len(steps) + 1))
        steps.append(Step(asked, sub))
        answers = sub.answer


def amplified(
    task: Task,
    overseer: Overseer,
    assistant: Respond,
    contexts: Int[Array, "batch facts fact_length"],
    depth: int,
) -> Respond:
    """Answers by `depth` levels of the overseer over the assistant; at 0 the assistant alone.

    A tree of depth d asks the assistant up to steps^d times a question; it is unrolled into one
    compiled program.
    """
    if depth == 0:
        return assistant
    below = amplified(task, overseer, assistant, contexts, depth - 1)
    respond = with_environment(task, contexts, below)
    return lambda questions, where, keys: amplify(overseer, respond, questions, where, keys)


def with_environment(
    task: Task, contexts: Int[Array, "batch facts fact_length"], otherwise: Respond
) -> Respond:
    """Primitive questions are answered by the environment, the rest by `otherwise`."""
    environment = over_questions(task.environment)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        primitive = task.is_primitive(questions)
        rest = where & ~primitive
        # Many steps of many strategies only ever ask the environment: then nobody else is run at
        # all.
        sub = skip_if_none(rest, otherwise, questions, rest, keys)
        told = environment(contexts, questions, fold_in(keys, 0))
        return sub._replace(
            question=questions,
            answer=jnp.where(primitive[..., None], told, sub.answer),
            answered_by=jnp.where(primitive, ENVIRONMENT, sub.answered_by),
        )

    return respond


def helping(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    alone: Respond,
    sub_answers: str,
) -> Respond:
    """Who answers sub-questions: the "assistant", or for the supervised baseline the "truth"."""
    return alone if sub_answers == "assistant" else told_the_truth(task, contexts)


def assistant_alone(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
) -> Respond:
    """The assistant answers, sampling. Contexts that are given are encoded once; where they are
    found, each batch of questions finds its own.
    """
    given = None if isinstance(task, SearchedTask) else assistant.encode(params, contexts)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        asked, memory = jnp.where(where[..., None], questions, 0), given
        if memory is None:
            memory = assistant.encode(params, read_for(task, contexts, asked))
        answers = assistant.answer(params, memory, asked, keys)
        return Interaction(questions, answers.tokens, jnp.full(where.shape, ASSISTANT))

    return respond


def read_for(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
) -> Int[Array, "batch read read_length"]:
    """What the assistant reads to answer questions: what is given, or what they find."""
    return task.find(questions) if isinstance(task, SearchedTask) else contexts


def told_the_truth(task: Task, contexts: Int[Array, "batch facts fact_length"]) -> Respond:
    """Every question is answered truly: what an overseer makes of this is the ceiling of
    amplification.
    """
    truth = over_questions(task.truth)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        return Interaction(
            questions, truth(contexts, questions), jnp.full(where.shape, ENVIRONMENT)
        )

    return respond


def skip_if_none(where: Bool[Array, "*b"], respond: Respond, *arguments: Array) -> Interaction:
    """`respond(*arguments)`, or zeros in its shape, without running it, if `where` is False
    everywhere.
    """
    shape = jax.eval_shape(respond, *arguments)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    return jax.lax.cond(jnp.any(where), lambda: respond(*arguments), lambda: zeros)


def over_questions(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function(context, question, ...)` of one question, for every question of every context of a
    batch.
    """

    def of_context(context: Array, *columns: Array) -> Array:
        return jax.vmap(lambda *items: function(context, *items))(*columns)

    return jax.vmap(of_context)


def fold_in(keys: Key[Array, "*b"], data: int) -> Key[Array, "*b"]:
    """`jax.random.fold_in` for a batch of keys."""
    folded = jax.vmap(lambda key: jax.random.fold_in(key, data))(keys.reshape(-1))
    return folded.reshape(keys.shape)


class Amplified(NamedTuple):
    """What a round's data set is made of."""

    read: Int[Array, "batch facts fact_length"]  # the contexts, given or found
    answers: Int[Array, "batch questions answer_length"]
    classes: Int[Array, "batch questions"]
    assistant_answers: Int[Array, " batch"]  # sub-questions that the assistant answered
    trees: Interaction  # leading axes: batch, questions


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
    """
    root = jax.random.key(seed)
    how = (task, assistant, overseer, depth, sub_answers)
    function = functools.partial(amplify_chunk, *how, weights, root)
    size = size or chunk_size(len(problems.seeds), place)
    return in_chunks(function, size, problems, advance=advance, place=place)


def chunk_size(problems: int, place: Sharding | None) -> int:
    """How many of so many problems are amplified at a time."""
    return at_a_time(problems, CHUNK, place)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
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
    contexts, questions = problems.contexts, problems.questions
    alone = assistant_alone(task, assistant, weights.assistant, contexts)
    helper = helping(task, contexts, alone, sub_answers)
    respond = amplified(task, overseer.using(weights.overseer), helper, contexts, depth)
    everywhere = jnp.ones(questions.shape[:2], bool)
    tree = respond(questions, everywhere, answer_keys(root, problems.seeds, questions.shape[1]))
    classes = over_questions(task.class_of)(contexts, questions)
    return Amplified(
        read_for(task, contexts, questions),
        tree.answer,
        classes,
        jnp.sum(count_assistant_answers(tree, everywhere), axis=1),
        tree,
    )


def count_assistant_answers(tree: Interaction, asked: Bool[Array, "*b"]) -> Int[Array, "*b"]:
    """How many answers of the assistant each item's tree rests on."""
    here = jnp.int32(asked & (tree.answered_by == ASSISTANT))
    below = asked & (tree.answered_by == OVERSEER)
    return here + sum(count_assistant_answers(step.sub, below & step.asked) for step in tree.steps)
