"""Follows a task's strategy: replays it on given answers, or answers a question by it with few
look-ups, as somebody does who checks an answer and may not look at everything.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.task_abilities import Reader, Seen, strategy_of
from amplify.types import Ask, Strategy, Task


def replay(strategy: Strategy, answer_to: Callable[[int], Array]) -> tuple[list[Ask], Array]:
    """Runs a strategy on given answers.

    Args:
        strategy: a strategy that has not started.
        answer_to: maps the number of a step, from 0, to the answers to what it asks.

    Returns:
        Everything that the strategy asks, and its final answers.
    """
    asks: list[Ask] = []
    try:
        asks.append(next(strategy))
        while True:
            asks.append(strategy.send(answer_to(len(asks) - 1)))
    except StopIteration as end:
        return asks, end.value


class Followed(NamedTuple):
    """The answer to a question by a strategy."""

    answer: Int[Array, " answer_length"]
    known: Bool[Array, ""]  # False: there were too few look-ups, and `answer` is meaningless
    looks: Int[Array, ""]  # number of look-ups


class _State(NamedTuple):
    """Questions that are being answered, each a sub-question of the one before it."""

    level: Int[Array, ""]  # of the last one; -1: the first question is answered
    questions: Int[Array, "levels question_length"]
    step: Int[Array, " levels"]  # number of the next step of its strategy
    answers: Int[Array, "levels steps answer_length"]  # to its earlier steps
    answer: Int[Array, " answer_length"]  # to the question that was answered last
    looks: Int[Array, ""]
    stuck: Bool[Array, ""]  # there are no look-ups left, or questions are too deep


def follow(
    task: Task,
    context: Int[Array, "facts fact_length"],
    question: Int[Array, " question_length"],
    looks: int,
    key: Key[Array, ""],
) -> Followed:
    """Answers a question by the task's strategy, whose sub-questions are answered likewise; the
    environment answers primitive ones, which are look-ups.

    Sub-questions are answered depth first, in one loop, so that the compiled program does not grow
    with the depth. What a strategy asks next is found by replaying it.

    Args:
        task: has a strategy.
        context: what the question is about; only the environment sees it.
        question: about the context.
        looks: largest number of look-ups.
        key: consumed.
    """
    strategy: Any = strategy_of(task)
    empty = jnp.zeros(task.answer_length, question.dtype)
    steps = len(replay(strategy(question), lambda step: empty)[0])
    levels = 2 * task.max_depth + 2  # some tasks' largest depth is a typical one

    def advance(state: _State) -> _State:
        level, number = state.level, state.step[state.level]
        asks, answer = replay(
            strategy(state.questions[level]), lambda step: state.answers[level, step]
        )
        place = jnp.minimum(number, steps - 1)
        asked = jnp.stack([ask.question for ask in asks])[place].astype(question.dtype)
        wheres = [jnp.bool_(True) if ask.where is None else ask.where for ask in asks]
        done, where = number == steps, jnp.stack(wheres)[place]
        primitive = task.is_primitive(asked)
        looks_up, descends = where & ~done & primitive, where & ~done & ~primitive
        found = task.environment(context, asked, jax.random.fold_in(key, state.looks))
        # An answer goes to the question itself or, when all its steps are taken, to the one above.
        to = jnp.maximum(level - _number(done), 0)
        given = jnp.where(done, answer, jnp.where(looks_up, found, empty)).astype(question.dtype)
        answers = state.answers.at[to, jnp.minimum(state.step[to], steps - 1)].set(given)
        taken = state.step.at[to].add(_number(~descends))
        below = jnp.minimum(level + 1, levels - 1)
        may_look = state.looks < looks
        return _State(
            level - _number(done) + _number(descends),
            state.questions.at[below].set(jnp.where(descends, asked, state.questions[below])),
            taken.at[below].set(jnp.where(descends, 0, taken[below])),
            jnp.where(descends, state.answers.at[below].set(0), answers),
            given,
            state.looks + _number(looks_up & may_look),
            (looks_up & ~may_look) | (descends & (level + 1 == levels)),
        )

    start = _State(
        jnp.int32(0),
        jnp.zeros((levels, len(question)), question.dtype).at[0].set(question),
        jnp.zeros(levels, jnp.int32),
        jnp.zeros((levels, steps, task.answer_length), question.dtype),
        empty,
        jnp.int32(0),
        jnp.bool_(False),
    )
    end = jax.lax.while_loop(lambda state: (state.level >= 0) & ~state.stuck, advance, start)
    return Followed(end.answer, ~end.stuck, end.looks)


def _number(condition: Bool[Array, ""]) -> Int[Array, ""]:
    return condition.astype(jnp.int32)


def check_answer(
    task: Task,
    reader: Reader,
    guessed: float,
    context: Int[Array, "facts fact_length"],
    question: Int[Array, " question_length"],
    answer: Int[Array, " answer_length"],
    key: Key[Array, ""],
) -> Seen:
    """What a reader makes of an answer who answers the question by the task's strategy and
    compares: it is worth 1 if it is right, 0 if it is wrong.

    If there are too few look-ups to find out, any answer seems as good as another: from `guessed`,
    for a reader who trusts nothing, to 1.

    Args:
        task: has a strategy; a question has one right answer.
        reader: how many facts it looks up, and how far it trusts what it has not checked.
        guessed: probability that an answer is right by chance, 0..1.
        context: what the question is about.
        question: about the context; not primitive.
        answer: to the question.
        key: consumed.
    """
    found = follow(task, context, question, reader.looks, key)
    right = jnp.all(answer == found.answer).astype(jnp.float32)
    unknown = reader.credulity + (1 - reader.credulity) * guessed
    return Seen(jnp.where(found.known, right, unknown), found.looks)
