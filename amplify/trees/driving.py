"""Amplification in Python, for overseers that cannot be traced because they talk to somebody: a
server, or a model that speaks in this process.

The loop is `amplification.amplify`, one step for a whole chunk, as in a compiled program; only the
answers to what is asked are compiled. An overseer is given the items that it is really asked about,
in one flat batch, for each may cost money.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.tasks.problems import answer_keys
from amplify.trees.amplification import (
    TO_ENVIRONMENT,
    amplify,
    encode_given,
    fold_in,
    helping,
    over_questions,
    skip_if_none,
    told_by_environment,
    told_where,
    with_memory,
)
from amplify.types import Assistant, Interaction, Overseer, Problems, Respond, Strategy, Task


def driven(
    task: Task,
    assistant: Assistant,
    overseer: Overseer,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
    depth: int,
    sub_answers: str,
) -> Respond:
    """Answers by `depth` levels of an overseer that is not traced.

    Args:
        params: the assistant's.
        sub_answers: who answers what is asked on the lowest level, see `amplification.helping`.

    Returns:
        A function that is called from Python, never traced. Its trees are those of
        `amplification.amplified`.
    """
    memory = None
    if sub_answers == "assistant":
        memory = _encode(task, assistant, params, contexts)
    helper = functools.partial(
        _help, task, assistant, sub_answers, params=params, contexts=contexts, memory=memory
    )
    respond = _levels(task, overseer, helper, contexts, depth)

    def outside_the_guard(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        # Constants of single operations go to the devices in passing; nothing comes back that way.
        to_device = jax.transfer_guard_host_to_device("allow")
        with to_device, jax.transfer_guard_device_to_device("allow"):
            return respond(questions, where, keys)

    return outside_the_guard


def _levels(
    task: Task,
    overseer: Overseer,
    helper: Respond,
    contexts: Int[Array, "batch facts fact_length"],
    depth: int,
) -> Respond:
    if depth == 0:
        return helper
    below = _levels(task, overseer, helper, contexts, depth - 1)

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        primitive, told = _tell(task, contexts, questions, keys)
        return told_where(primitive, told, questions, below(questions, where & ~primitive, keys))

    parts = {TO_ENVIRONMENT: functools.partial(_ask_environment, task, contexts)}

    def level(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        asked = only_where(where, overseer, contexts.sharding)
        return amplify(asked, respond, questions, where, keys, parts=parts)

    return level


def only_where(where: Bool[Array, "*b"], overseer: Overseer, place: Sharding) -> Overseer:
    """An overseer of a whole batch that passes on the items where `where` is True to `overseer`, in
    one flat batch. Elsewhere its questions and answers are zeros.

    Args:
        place: where the whole batch lies.
    """
    places = np.nonzero(jax.device_get(where))

    def select(batch: Array) -> Array:
        return jax.device_put(jax.device_get(batch)[places])

    def spread(items: Array) -> Array:
        there = jax.device_get(items)
        batch = np.zeros((*where.shape, *there.shape[1:]), there.dtype)
        batch[places] = there
        return jax.device_put(batch, place)

    def strategy(questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]) -> Strategy:
        data = select(jax.random.key_data(keys))
        of_items = overseer(
            select(questions), jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))
        )
        answers = None
        while True:
            try:
                ask = next(of_items) if answers is None else of_items.send(select(answers))
            except StopIteration as end:
                return spread(end.value)
            asks = None if ask.where is None else spread(ask.where)
            answers = yield ask._replace(question=spread(ask.question), where=asks)

    return strategy


@jax.jit
def ask_everything(
    root: Key[Array, ""], problems: Problems
) -> tuple[Bool[Array, "batch questions"], Key[Array, "batch questions"]]:
    """Where problems' own questions are asked, and the keys for answering them."""
    questions = problems.questions
    everywhere = jnp.ones(questions.shape[:2], bool)
    return everywhere, answer_keys(root, problems.seeds, questions.shape[1])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
) -> PyTree[Array]:
    return encode_given(task, assistant, params, contexts)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _help(
    task: Task,
    assistant: Assistant,
    sub_answers: str,
    questions: Int[Array, "batch questions question_length"],
    where: Bool[Array, "batch questions"],
    keys: Key[Array, "batch questions"],
    *,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
    memory: PyTree[Array],
) -> Interaction:
    alone = with_memory(task, assistant, params, contexts, memory)
    helper = helping(task, contexts, alone, sub_answers)
    return skip_if_none(where, helper, questions, where, keys)


@functools.partial(jax.jit, static_argnums=0)
def _ask_environment(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    where: Bool[Array, "batch questions"],
    keys: Key[Array, "batch questions"],
) -> Interaction:
    return told_by_environment(task, contexts)(questions, where, keys)


@functools.partial(jax.jit, static_argnums=0)
def _tell(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    keys: Key[Array, "batch questions"],
) -> tuple[Bool[Array, "batch questions"], Int[Array, "batch questions answer_length"]]:
    """Which questions are primitive, and what the environment says to those."""
    told = over_questions(task.environment)(contexts, questions, fold_in(keys, 0))
    return task.is_primitive(questions), told
