"""Statements: what somebody says to a question's sub-questions, in the order in which the task's
own strategy asks them.

What a strategy asks at a step depends on the question and the earlier answers only. So a statement
is a question with the answers so far, and the strategy is replayed from its start to find the next
sub-question, as in `trees.scanning`. Nothing here knows who makes a statement, or who is right.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from amplify.runtime import calls
from amplify.task_abilities import strategy_of
from amplify.tasks.strategies import replay
from amplify.types import Strategy, Task


class Statement(NamedTuple):
    """A question, and answers to the first of its sub-questions."""

    question: Int[Array, "*b question_length"]
    answers: Int[Array, "*b steps answer_length"]  # those from `place` on are meaningless
    place: Int[Array, "*b"]  # number of steps of the strategy that are done


class Points(NamedTuple):
    """The sub-questions of a statement."""

    questions: Int[Array, "*b steps question_length"]
    asked: Bool[Array, "*b steps"]  # False: the strategy skips this step
    primitive: Bool[Array, "*b steps"]  # True: a look at the world answers it
    result: Int[Array, "*b answer_length"]  # the strategy's answer, if the statement is complete


class Point(NamedTuple):
    """The next sub-question of a statement."""

    question: Int[Array, "*b question_length"]
    primitive: Bool[Array, "*b"]
    place: Int[Array, "*b"]  # its step
    missing: Bool[Array, "*b"]  # False: the statement is complete, and there is no next one
    result: Int[Array, "*b answer_length"]  # the strategy's answer, if the statement is complete


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """How a task's own strategy decomposes its questions."""

    task: Task

    def __post_init__(self) -> None:
        if strategy_of(self.task) is None:
            raise ValueError(
                "a protocol divides a question into sub-questions, but"
                f" {type(self.task).__name__} has no `strategy`"
            )

    @functools.cached_property
    def steps(self) -> int:
        """Number of steps of the strategy."""
        found: list[int] = []

        def trace() -> Array:
            question = jnp.zeros(self.task.question_length, jnp.int32)
            empty = jnp.zeros(self.task.answer_length, jnp.int32)
            asks, answer = replay(self._strategy(question), lambda step: empty)
            found.append(len(asks))
            return answer

        jax.eval_shape(trace)
        return found[0]

    def begin(self, question: Int[Array, "*b question_length"]) -> Statement:
        """Returns a statement about a question, without any answers yet."""
        lead = question.shape[:-1]
        answers = jnp.zeros((*lead, self.steps, self.task.answer_length), jnp.int32)
        return Statement(question, answers, jnp.zeros(lead, jnp.int32))

    def points(self, statement: Statement) -> Points:
        """Returns the sub-questions of a statement, as far as its answers determine them."""
        given = jnp.unstack(statement.answers, axis=-2)
        asks, result = replay(self._strategy(statement.question), lambda step: given[step])
        questions = jnp.stack([ask.question for ask in asks], axis=-2)
        everywhere = jnp.ones(statement.place.shape, bool)
        asked = [everywhere if ask.where is None else ask.where for ask in asks]
        looked_up = jnp.array([ask.to == calls.ENVIRONMENT for ask in asks])
        primitive = self.task.is_primitive(questions)
        primitive |= jnp.broadcast_to(looked_up, primitive.shape)
        return Points(questions, jnp.stack(asked, axis=-1), primitive, result)

    def next(self, statement: Statement) -> Point:
        """Returns the first sub-question of a statement that is not answered yet."""
        points = self.points(statement)
        steps = jnp.broadcast_to(jnp.arange(self.steps), points.asked.shape)
        left = points.asked & (steps >= statement.place[..., None])
        place = jnp.argmax(left, axis=-1).astype(jnp.int32)
        return Point(
            pick(points.questions, place),
            pick(points.primitive, place),
            place,
            jnp.any(left, axis=-1),
            points.result,
        )

    def say(
        self,
        statement: Statement,
        point: Point,
        answer: Int[Array, "*b answer_length"],
        where: Bool[Array, "*b"],
    ) -> Statement:
        """Adds the answer to the next sub-question.

        Args:
            statement: so far.
            point: its next sub-question.
            answer: to it.
            where: True for the items whose statement goes on; the others stay as they are.
        """
        answers = put(statement.answers, point.place, answer, where)
        place = jnp.where(where, point.place + 1, statement.place)
        return statement._replace(answers=answers, place=place)

    def _strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        decompose: Callable[[Array], Strategy] | None = strategy_of(self.task)
        assert decompose is not None  # checked at the beginning
        return decompose(question)


def stack(entry: Array, levels: int, lead: int) -> Array:
    """Repeats an entry along a new axis of levels.

    Args:
        entry: with leading axes of items.
        levels: how many.
        lead: number of the leading axes, after which the axis of levels is added.
    """
    shape = (*entry.shape[:lead], levels, *entry.shape[lead:])
    return jnp.broadcast_to(jnp.expand_dims(entry, lead), shape)


def stack_statement(statement: Statement, levels: int) -> Statement:
    """Returns a statement at the bottom of a stack of statements."""
    return Statement(*(stack(column, levels, statement.place.ndim) for column in statement))


def pick_statement(statements: Statement, level: Int[Array, "*b"]) -> Statement:
    """Returns the statement at a level of each item's stack."""
    return Statement(*(pick(column, level) for column in statements))


def put_statement(
    statements: Statement, level: Int[Array, "*b"], new: Statement, where: Bool[Array, "*b"]
) -> Statement:
    """Replaces the statement at a level of each item's stack, where a mask is True."""
    columns = zip(statements, new, strict=True)
    return Statement(*(put(column, level, entry, where) for column, entry in columns))


def pick(stack: Array, index: Int[Array, "*b"]) -> Array:
    """Returns an entry of each item's stack.

    Args:
        stack: entries along the axis after those of `index`.
        index: which one, of each item.
    """
    more = stack.ndim - index.ndim
    index = index.reshape(*index.shape, *[1] * more)
    return jnp.squeeze(jnp.take_along_axis(stack, index, axis=-more), axis=-more)


def put(stack: Array, index: Int[Array, "*b"], entry: Array, where: Bool[Array, "*b"]) -> Array:
    """Replaces an entry of each item's stack.

    Args:
        stack: entries along the axis after those of `index`.
        index: which one, of each item.
        entry: the new one, without that axis.
        where: True for the items to change.
    """
    axis = index.ndim
    places = jnp.arange(stack.shape[axis])
    here = where[..., None] & (
        jnp.broadcast_to(places, (*index.shape, len(places))) == index[..., None]
    )
    here = here.reshape(*here.shape, *[1] * (stack.ndim - axis - 1))
    return jnp.where(here, jnp.expand_dims(entry, axis), stack)


def same(one: Int[Array, "*b length"], two: Int[Array, "*b length"]) -> Bool[Array, "*b"]:
    """Whether two answers have the same tokens."""
    return jnp.all(one == two, axis=-1)


def select(where: Bool[Array, "*b"], one: Array, two: Array) -> Array:
    """Returns `one` where a mask is True, and `two` elsewhere; both may have further axes."""
    more = max(jnp.ndim(one), jnp.ndim(two)) - where.ndim
    return jnp.where(where.reshape(*where.shape, *[1] * more), one, two)
