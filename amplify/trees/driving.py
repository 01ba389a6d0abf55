"""Amplification driven from Python, for overseers that cannot be traced: language models behind a
server or in this process.

The loop is `amplification.amplify`, one step for a whole chunk, as in a compiled program; only the
answers to sub-questions are compiled. Only the items that an overseer is asked about are passed to
it, in one flat batch, because each may cost money.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.runtime import calls
from amplify.tasks.batching import fold_in, vmap_questions
from amplify.tasks.problems import answer_keys
from amplify.trees.amplification import (
    amplify,
    assistant_with_memory,
    encode_given_contexts,
    environment_alone,
    merge_environment_answers,
    skip_if_none,
    sub_answerer,
)
from amplify.types import (
    Assistant,
    Interaction,
    Overseer,
    Problems,
    Respond,
    Roles,
    Strategy,
    Task,
    Team,
)


def drive(
    team: Team,
    weights: Roles,
    root: Key[Array, ""],
    problems: Problems,
    depth: int,
    sub_answers: str,
) -> Interaction:
    """Answers all questions of problems by an overseer that is not traced.

    Args:
        team: who answers.
        weights: parameters of the assistant and the overseer.
        root: key from which, with the problems' seeds, all samples are drawn.
        problems: contexts and questions.
        depth: levels of the overseer.
        sub_answers: who answers the sub-questions of the lowest level, see `sub_answerer`.
    """
    everywhere, keys = ask_all(root, problems)
    respond = driven(
        team.task,
        team.assistant,
        team.overseer.using(weights.get("overseer")),
        weights["assistant"],
        problems.contexts,
        depth,
        sub_answers,
    )
    return respond(problems.questions, everywhere, keys)


def driven(
    task: Task,
    assistant: Assistant,
    overseer: Overseer,
    params: PyTree[Array],
    contexts: Int[Array, "batch facts fact_length"],
    depth: int,
    sub_answers: str,
) -> Respond:
    """Builds a tree of `depth` levels: an overseer that is not traced above the assistant.

    Args:
        task: the task.
        assistant: the policy that answers sub-questions.
        overseer: decomposes questions; called from Python.
        params: the assistant's parameters.
        contexts: of the questions.
        depth: levels of the overseer; 0: the assistant alone.
        sub_answers: "assistant" or "truth", see `amplification.sub_answerer`.

    Returns:
        A function to be called from Python, not traced. It returns the same trees as that of
        `amplification.amplified`.
    """
    memory = None
    if sub_answers == "assistant":
        memory = _encode(task, assistant, params, contexts)
    helper = functools.partial(
        _sub_answers, task, assistant, sub_answers, params=params, contexts=contexts, memory=memory
    )
    respond = _levels(task, overseer, helper, contexts, depth)

    def respond_without_guard(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        # Constants of single operations are transferred to the devices implicitly.
        to_device = jax.transfer_guard_host_to_device("allow")
        with to_device, jax.transfer_guard_device_to_device("allow"):
            return respond(questions, where, keys)

    return respond_without_guard


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
        primitive, answers = _environment_answers(task, contexts, questions, keys)
        return merge_environment_answers(
            primitive, answers, questions, below(questions, where & ~primitive, keys)
        )

    parts = {calls.ENVIRONMENT: functools.partial(_ask_environment, task, contexts)}

    def level(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        asked = compact_asked(where, overseer, contexts.sharding)
        return amplify(asked, respond, questions, where, keys, parts=parts)

    return level


def compact_asked(where: Bool[Array, "*b"], overseer: Overseer, place: Sharding) -> Overseer:
    """Compacts a batch: passes the items where `where` is True to an overseer, as one flat batch.

    Args:
        where: True for the items to pass on. Questions and answers of the others are zeros.
        overseer: receives the flat batch.
        place: sharding of the whole batch.

    Returns:
        An overseer of the whole batch.
    """
    indices = np.nonzero(jax.device_get(where))

    def select(batch: Array) -> Array:
        return jax.device_put(jax.device_get(batch)[indices])

    def scatter(items: Array) -> Array:
        rows = jax.device_get(items)
        batch = np.zeros((*where.shape, *rows.shape[1:]), rows.dtype)
        batch[indices] = rows
        return jax.device_put(batch, place)

    def strategy(questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]) -> Strategy:
        data = select(jax.random.key_data(keys))
        compacted = overseer(
            select(questions), jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))
        )
        answers = None
        while True:
            try:
                ask = next(compacted) if answers is None else compacted.send(select(answers))
            except StopIteration as end:
                return scatter(end.value)
            asks = None if ask.where is None else scatter(ask.where)
            answers = yield ask._replace(question=scatter(ask.question), where=asks)

    return strategy


@jax.jit
def ask_all(
    root: Key[Array, ""], problems: Problems
) -> tuple[Bool[Array, "batch questions"], Key[Array, "batch questions"]]:
    """The mask and the keys to answer all questions of problems.

    Args:
        root: the experiment's key.
        problems: contexts and questions.

    Returns:
        A mask that is True everywhere, and a key per question.
    """
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
    return encode_given_contexts(task, assistant, params, contexts)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sub_answers(
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
    alone = assistant_with_memory(task, assistant, params, contexts, memory)
    helper = sub_answerer(task, contexts, alone, sub_answers)
    return skip_if_none(where, helper, questions, where, keys)


@functools.partial(jax.jit, static_argnums=0)
def _ask_environment(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    where: Bool[Array, "batch questions"],
    keys: Key[Array, "batch questions"],
) -> Interaction:
    return environment_alone(task, contexts)(questions, where, keys)


@functools.partial(jax.jit, static_argnums=0)
def _environment_answers(
    task: Task,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    keys: Key[Array, "batch questions"],
) -> tuple[Bool[Array, "batch questions"], Int[Array, "batch questions answer_length"]]:
    """Which questions are primitive, and the environment's answers to them."""
    answers = vmap_questions(task.environment)(contexts, questions, fold_in(keys, 0))
    return task.is_primitive(questions), answers
