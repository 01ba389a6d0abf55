"""Amplification: an overseer takes questions apart and an assistant answers the pieces.

Primitive sub-questions go to the environment, the others to the assistant or, in a deeper tree, to
another copy of the overseer. The result is the whole interaction. There is no loop over questions:
each step is taken for a whole batch. Nearly always everything is traced into one program that stays
on the device; `scanning` has levels whose program does not grow with the number of steps, and
`driving` runs the same loop in Python for overseers that cannot be traced. Christiano, Shlegeris
and Amodei 2018 (arXiv:1810.08575), section 2.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.errors import AmplifyError
from amplify.runtime import calls
from amplify.task_abilities import search_of
from amplify.types import (
    ASSISTANT,
    ENVIRONMENT,
    OVERSEER,
    Assistant,
    Interaction,
    Overseer,
    Respond,
    StackedSteps,
    Step,
    Task,
)

Parts = Mapping[str, Respond]
"""Who answers what is asked of parts other than the assistant, by the part's name."""


@runtime_checkable
class Level(Protocol):
    """One level of a tree: `amplify`, or something that gives the same interaction."""

    def __call__(
        self,
        overseer: Overseer,
        respond: Respond,
        questions: Int[Array, "*b question_length"],
        where: Bool[Array, "*b"],
        keys: Key[Array, "*b"],
        *,
        parts: Parts,
    ) -> Interaction: ...


def amplify(
    overseer: Overseer,
    respond: Respond,
    questions: Int[Array, "*b question_length"],
    where: Bool[Array, "*b"],
    keys: Key[Array, "*b"],
    *,
    parts: Parts = MappingProxyType({}),
) -> Interaction:
    """The overseer answers each question with the answers to its sub-questions. Consumes the keys.

    Items where `where` is False are carried along, cost nothing where a whole step can be skipped,
    and mean nothing.

    Args:
        respond: answers what is asked of the assistant.
        parts: who answers what is asked of other parts.

    Raises:
        AmplifyError: if the overseer asks a part that is not there.
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
        answerer = respond if ask.to == TO_ASSISTANT else _part(ask.to, parts)
        sub = answerer(ask.question, asked, fold_in(keys, len(steps) + 1))
        steps.append(Step(asked, sub))
        answers = sub.answer


TO_ASSISTANT, TO_ENVIRONMENT = "assistant", "environment"


def _part(name: str, parts: Parts) -> Respond:
    if name not in parts:
        known = ", ".join((TO_ASSISTANT, *parts))
        raise AmplifyError(f"the overseer asks the part {name!r}; parts are {known}")
    return parts[name]


def amplified(
    task: Task,
    overseer: Overseer,
    assistant: Respond,
    contexts: Int[Array, "batch facts fact_length"],
    depth: int,
    upper: Level = amplify,
    parts: Parts = MappingProxyType({}),
) -> Respond:
    """Answers by `depth` levels of the overseer over the assistant; at 0 the assistant alone.

    A tree of depth d asks the assistant up to steps^d times a question.

    Args:
        upper: how the levels above the lowest are amplified. With `amplify` the program grows as
            steps^depth; see `scanning.by_scan`.
        parts: who answers what is asked of parts other than the assistant and the environment.
    """
    if depth == 0:
        return assistant
    below = amplified(task, overseer, assistant, contexts, depth - 1, upper, parts)
    respond = with_environment(task, contexts, below)
    level: Level = amplify if depth == 1 else upper
    everyone = {TO_ENVIRONMENT: told_by_environment(task, contexts), **parts}
    return lambda questions, where, keys: level(
        overseer, respond, questions, where, keys, parts=everyone
    )


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
        return told_where(primitive, told, questions, sub)

    return respond


def told_by_environment(task: Task, contexts: Int[Array, "batch facts fact_length"]) -> Respond:
    """The environment answers, as it does primitive questions."""
    environment = over_questions(task.environment)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        told = environment(contexts, questions, fold_in(keys, 0))
        return Interaction(questions, told, jnp.full(where.shape, ENVIRONMENT))

    return respond


def told_where(
    primitive: Bool[Array, "*b"],
    told: Int[Array, "*b answer_length"],
    questions: Int[Array, "*b question_length"],
    sub: Interaction,
) -> Interaction:
    """What the environment told where a question is primitive, `sub` elsewhere."""
    return sub._replace(
        question=questions,
        answer=jnp.where(primitive[..., None], told, sub.answer),
        answered_by=jnp.where(primitive, ENVIRONMENT, sub.answered_by),
    )


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
    memory = encode_given(task, assistant, params, contexts)
    return with_memory(task, assistant, params, contexts, memory)


def encode_given(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
) -> PyTree[Array]:
    """The assistant's encoding of the contexts; None for tasks that search for them."""
    return None if search_of(task) else assistant.encode(params, contexts)


def with_memory(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
    given: PyTree[Array],
) -> Respond:
    """The assistant answers, sampling, from what `encode_given` returned."""

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
    search = search_of(task)
    return search.find(questions) if search else contexts


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


def fold_in(keys: Key[Array, "*b"], data: int | Int[Array, ""]) -> Key[Array, "*b"]:
    """`jax.random.fold_in` for a batch of keys."""
    folded = jax.vmap(lambda key: jax.random.fold_in(key, data))(keys.reshape(-1))
    return folded.reshape(keys.shape)


def count_answers(tree: Interaction, asked: Bool[Array, "*b"], by: int) -> Int[Array, "*b"]:
    """How many answers in each item's tree one kind of answerer gave: nodes that were asked.

    Args:
        tree: interactions over a batch of items.
        asked: True for the items whose trees count; the others have 0.
        by: ASSISTANT, ENVIRONMENT or OVERSEER.

    Returns:
        The number of nodes of each item, its own question included.
    """
    here = jnp.int32(asked & (tree.answered_by == by))
    below = asked & (tree.answered_by == OVERSEER)
    if isinstance(tree.steps, StackedSteps):
        of_step = jax.vmap(lambda step: count_answers(step.sub, below & step.asked, by))
        return here + jnp.sum(of_step(tree.steps.step), axis=0)
    return here + sum(count_answers(step.sub, below & step.asked, by) for step in tree.steps)


def count_assistant_answers(tree: Interaction, asked: Bool[Array, "*b"]) -> Int[Array, "*b"]:
    """How many answers of the assistant each item's tree rests on; see `count_answers`."""
    return count_answers(tree, asked, ASSISTANT)


def count_calls(tree: Interaction, asked: Bool[Array, "*b"]) -> dict[str, Int[Array, "*b"]]:
    """`count_answers` of everybody, under the names of parts that `calls` has."""
    parts = {calls.OVERSEER: OVERSEER, calls.ASSISTANT: ASSISTANT, calls.ENVIRONMENT: ENVIRONMENT}
    return {part: count_answers(tree, asked, by) for part, by in parts.items()}
