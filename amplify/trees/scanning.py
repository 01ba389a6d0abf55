"""Levels of a tree whose program does not grow with the number of steps.

`amplification.amplify` lays out one step after another, each with everything below it, so that the
program of a tree of depth d has steps^d copies of the assistant. Here a level is one `jax.lax.scan`
over its steps. What a strategy asks at step i depends on the question and on earlier answers alone,
so the body replays the strategy from its start on the answers so far and selects question i. That
runs steps^2 steps of the strategy, which is cheap for one in code and expensive for one that runs a
network: overseers say which they are (`OverseerKind.replayable`).
"""

from collections.abc import Callable
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.trees.amplification import TO_ASSISTANT, Parts, amplify, fold_in
from amplify.types import (
    OVERSEER,
    Ask,
    Interaction,
    Overseer,
    Respond,
    StackedSteps,
    Step,
    Strategy,
)


def by_scan(
    overseer: Overseer,
    respond: Respond,
    questions: Int[Array, "*b question_length"],
    where: Bool[Array, "*b"],
    keys: Key[Array, "*b"],
    *,
    answer_length: int,
    parts: Parts = MappingProxyType({}),
) -> Interaction:
    """As `amplification.amplify`, bit for bit, but the interaction's steps are stacked.

    Steps that ask several parts are laid out one after another, as `amplify` does.

    Args:
        answer_length: tokens of an answer.
        parts: as for `amplify`.
    """
    own_keys = fold_in(keys, 0)
    nothing = jnp.zeros((*where.shape, answer_length), questions.dtype)

    def replayed(told: Callable[[int], Array]) -> tuple[list[Ask], Array]:
        return replay(overseer(questions, own_keys), told)

    parts_asked = _parts_asked(overseer, questions, own_keys, nothing)
    if len(parts_asked) < 2 or {*parts_asked} != {TO_ASSISTANT}:
        return amplify(overseer, respond, questions, where, keys, parts=parts)

    def take_step(answers: Array, number: Int[Array, ""]) -> tuple[Array, Step]:
        asks, _ = replayed(lambda step: answers[step])
        question = jnp.stack([ask.question for ask in asks])[number]
        wheres = [where if ask.where is None else where & ask.where for ask in asks]
        asked = jnp.stack(wheres)[number]
        sub = respond(question, asked, fold_in(keys, number + 1))
        return answers.at[number].set(sub.answer), Step(asked, sub)

    silence = jnp.broadcast_to(nothing, (len(parts_asked), *nothing.shape))
    answers, steps = jax.lax.scan(take_step, silence, jnp.arange(len(parts_asked)))
    _, answer = replayed(lambda step: answers[step])
    return Interaction(questions, answer, jnp.full(where.shape, OVERSEER), StackedSteps(steps))


def _parts_asked(
    overseer: Overseer,
    questions: Int[Array, "*b question_length"],
    keys: Key[Array, "*b"],
    nothing: Int[Array, "*b answer_length"],
) -> list[str]:
    """The part that each step of a strategy asks, found without computing anything."""
    parts: list[str] = []

    def trace() -> Array:
        asks, answer = replay(overseer(questions, keys), lambda step: nothing)
        parts.extend(ask.to for ask in asks)
        return answer

    jax.eval_shape(trace)
    return parts


def replay(strategy: Strategy, told: Callable[[int], Array]) -> tuple[list[Ask], Array]:
    """Everything that a strategy asks, and its answer, where `told(i)` answers what it asks at step
    i.
    """
    asks: list[Ask] = []
    try:
        asks.append(next(strategy))
        while True:
            asks.append(strategy.send(told(len(asks) - 1)))
    except StopIteration as end:
        return asks, end.value


def unstack(tree: Interaction) -> Interaction:
    """The tree with a tuple of steps at every level; its arrays are on the host."""
    steps = tree.steps
    if isinstance(steps, StackedSteps):
        numbers = range(len(steps.step.asked))
        steps = tuple(jax.tree.map(lambda leaf, n=n: leaf[n], steps.step) for n in numbers)
    return tree._replace(steps=tuple(step._replace(sub=unstack(step.sub)) for step in steps))
