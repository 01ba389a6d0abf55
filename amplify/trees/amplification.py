"""Amplification: an overseer decomposes questions, and an assistant answers the sub-questions.

Primitive sub-questions go to the environment, the others to the assistant or, in a deeper tree, to
another copy of the overseer. The result is the whole interaction. There is no loop over questions:
each step is taken for a whole batch. For traced overseers, everything is compiled to one program.
`scanning` has levels whose program size does not depend on the number of steps, and `driving` runs
the same loop in Python for overseers that cannot be traced. Christiano, Shlegeris and Amodei 2018
(arXiv:1810.08575), section 2.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.errors import AmplifyError
from amplify.runtime import calls
from amplify.task_abilities import search_of
from amplify.tasks.batching import fold_in, vmap_questions
from amplify.types import (
    ASSISTANT,
    ENVIRONMENT,
    OVERSEER,
    Answers,
    Assistant,
    Interaction,
    Overseer,
    Respond,
    Step,
    Task,
)

Parts = Mapping[str, Respond]
"""Answers what is asked of parts other than the assistant, by the part's name."""


@runtime_checkable
class Level(Protocol):
    """One level of a tree: `amplify`, or a function that returns the same interaction."""

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
    """The overseer answers each question, using the answers to its sub-questions.

    Args:
        overseer: decomposes the questions.
        respond: answers what is asked of the assistant.
        questions: a batch of questions.
        where: True for the items to answer. The others are undefined in the result; a step that no
            item asks can be skipped.
        keys: one per question, consumed.
        parts: answer what is asked of other parts.

    Returns:
        The interactions, with one step for each ask of the overseer's strategy.

    Raises:
        AmplifyError: if the overseer asks an unknown part.
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
        answerer = respond if ask.to == calls.ASSISTANT else _part(ask.to, parts)
        sub = answerer(ask.question, asked, fold_in(keys, len(steps) + 1))
        steps.append(Step(asked, sub))
        answers = sub.answer


def _part(name: str, parts: Parts) -> Respond:
    if name not in parts:
        known = ", ".join((calls.ASSISTANT, *parts))
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
    """Builds a tree of `depth` levels: the overseer above the assistant.

    A tree of depth d asks the assistant up to steps^d times per question.

    Args:
        task: its environment answers primitive questions.
        overseer: decomposes questions at every level.
        assistant: answers the sub-questions of the lowest level.
        contexts: of the questions.
        depth: levels of the overseer; 0: the assistant alone.
        upper: amplifies the levels above the lowest. With `amplify` the size of the program grows
            as steps^depth; see `scanning.amplify_by_scan`.
        parts: answer what is asked of parts other than the assistant and the environment.

    Returns:
        A function that answers questions about the contexts.
    """
    if depth == 0:
        return assistant
    below = amplified(task, overseer, assistant, contexts, depth - 1, upper, parts)
    respond = with_environment(task, contexts, below)
    level: Level = amplify if depth == 1 else upper
    all_parts = {calls.ENVIRONMENT: environment_alone(task, contexts), **parts}
    return lambda questions, where, keys: level(
        overseer, respond, questions, where, keys, parts=all_parts
    )


def with_environment(
    task: Task, contexts: Int[Array, "batch facts fact_length"], otherwise: Respond
) -> Respond:
    """Routes primitive questions to the environment, and the others to `otherwise`.

    Args:
        task: its environment answers.
        contexts: of the questions.
        otherwise: answers the questions that are not primitive; it is skipped at run time if there
            are none.
    """
    environment = vmap_questions(task.environment)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        primitive = task.is_primitive(questions)
        rest = where & ~primitive
        # Many steps ask primitive questions only: then `otherwise` is skipped.
        sub = skip_if_none(rest, otherwise, questions, rest, keys)
        answers = environment(contexts, questions, fold_in(keys, 0))
        return merge_environment_answers(primitive, answers, questions, sub)

    return respond


def environment_alone(task: Task, contexts: Int[Array, "batch facts fact_length"]) -> Respond:
    """The environment answers every question.

    Args:
        task: its environment answers.
        contexts: of the questions.
    """
    environment = vmap_questions(task.environment)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        answers = environment(contexts, questions, fold_in(keys, 0))
        return Interaction(questions, answers, jnp.full(where.shape, ENVIRONMENT))

    return respond


def merge_environment_answers(
    primitive: Bool[Array, "*b"],
    answers: Int[Array, "*b answer_length"],
    questions: Int[Array, "*b question_length"],
    sub: Interaction,
) -> Interaction:
    """Replaces the interactions of primitive questions by the environment's answers.

    Args:
        primitive: True for primitive questions.
        answers: the environment's.
        questions: the questions.
        sub: interactions of the other questions.
    """
    return sub._replace(
        question=questions,
        answer=jnp.where(primitive[..., None], answers, sub.answer),
        answered_by=jnp.where(primitive, ENVIRONMENT, sub.answered_by),
    )


def sub_answerer(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    alone: Respond,
    sub_answers: str,
) -> Respond:
    """What answers sub-questions at the lowest level.

    Args:
        task: the task.
        contexts: of the questions.
        alone: the assistant.
        sub_answers: "assistant", or "truth" for the supervised baseline.
    """
    return alone if sub_answers == "assistant" else true_answers(task, contexts)


def assistant_alone(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
) -> Respond:
    """The assistant answers every question by sampling.

    Contexts are encoded once; in retrieval tasks, each batch of questions retrieves its own.

    Args:
        task: the task.
        assistant: the policy.
        params: the assistant's parameters.
        contexts: of the questions.
    """
    memory = encode_given_contexts(task, assistant, params, contexts)
    return assistant_with_memory(task, assistant, params, contexts, memory)


def encode_given_contexts(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
) -> PyTree[Array]:
    """Encodes the contexts once; None for retrieval tasks, whose contexts depend on the questions.

    Args:
        task: the task.
        assistant: the policy.
        params: the assistant's parameters.
        contexts: of the questions.
    """
    return None if search_of(task) else assistant.encode(params, contexts)


def assistant_with_memory(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
    encoded: PyTree[Array],
) -> Respond:
    """The assistant answers every question by sampling, with contexts encoded before.

    Args:
        task: the task.
        assistant: the policy.
        params: the assistant's parameters.
        contexts: of the questions.
        encoded: what `encode_given_contexts` returned for them.
    """

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        asked, memory = jnp.where(where[..., None], questions, 0), encoded
        if memory is None:
            memory = assistant.encode(params, contexts_for(task, contexts, asked))
        answers = assistant.answer(params, memory, asked, keys)
        return Interaction(questions, answers.tokens, jnp.full(where.shape, ASSISTANT))

    return respond


def contexts_for(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
) -> Int[Array, "batch read read_length"]:
    """The contexts that the assistant reads to answer questions.

    Args:
        task: the task.
        contexts: drawn with the questions.
        questions: about each context.

    Returns:
        `contexts`; in retrieval tasks, the contexts that the questions retrieve.
    """
    search = search_of(task)
    return search.find(questions) if search else contexts


def answer_directly(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    keys: Key[Array, "batch questions"] | None = None,
) -> tuple[Int[Array, "batch read read_length"], Answers]:
    """Answers questions by the assistant, without an overseer.

    Args:
        task: the task.
        assistant: the policy.
        params: the assistant's parameters.
        contexts: drawn with the questions.
        questions: about each context.
        keys: sample the answers; consumed. None: the most likely token at each position.

    Returns:
        What the assistant read, see `contexts_for`, and its answers.
    """
    read = contexts_for(task, contexts, questions)
    return read, assistant.answer(params, assistant.encode(params, read), questions, keys)


def true_answers(task: Task, contexts: Int[Array, "batch facts fact_length"]) -> Respond:
    """Answers every question truly. Amplifying this gives the ceiling of an overseer.

    Args:
        task: a task that knows the truth.
        contexts: of the questions.
    """
    truth = vmap_questions(task.truth)

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
    """Calls `respond(*arguments)` unless `where` is False everywhere, decided at run time.

    Args:
        where: the mask.
        respond: the function.
        *arguments: its arguments.

    Returns:
        The function's result, or zeros of the same shapes.
    """
    shape = jax.eval_shape(respond, *arguments)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    return jax.lax.cond(jnp.any(where), lambda: respond(*arguments), lambda: zeros)
