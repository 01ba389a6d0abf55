"""Levels of a tree whose program size does not depend on the number of steps.

`amplification.amplify` unrolls all steps, each with the levels below it, so that the program of a
tree of depth d contains the assistant steps^d times. Here a level is one `jax.lax.scan` over its
steps. What a strategy asks at step i depends on the question and the earlier answers only, so the
body replays the strategy from its start with the answers so far, and selects question i. This runs
steps^2 steps of the strategy, which is cheap for one in code but expensive for one that runs a
network (see `OverseerKind.replayable`).
"""

from collections.abc import Callable
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from amplify.runtime import calls
from amplify.tasks.batching import fold_in
from amplify.tasks.strategies import replay
from amplify.trees.amplification import Parts, amplify
from amplify.types import (
    OVERSEER,
    Ask,
    Interaction,
    Overseer,
    Respond,
    StackedSteps,
    Step,
)


def amplify_by_scan(
    overseer: Overseer,
    respond: Respond,
    questions: Int[Array, "*b question_length"],
    where: Bool[Array, "*b"],
    keys: Key[Array, "*b"],
    *,
    answer_length: int,
    parts: Parts = MappingProxyType({}),
) -> Interaction:
    """As `amplification.amplify`, with bit-identical results, but the steps are stacked.

    Strategies that ask parts other than the assistant are unrolled, as by `amplify`.

    Args:
        overseer: a replayable overseer.
        respond: answers what is asked of the assistant.
        questions: a batch of questions.
        where: True for the items to answer.
        keys: one per question, consumed.
        answer_length: tokens of an answer.
        parts: answer what is asked of other parts.

    Returns:
        The interactions; their steps are `StackedSteps`, unless unrolled.
    """
    own_keys = fold_in(keys, 0)
    empty = jnp.zeros((*where.shape, answer_length), questions.dtype)

    def replayed(answer_to: Callable[[int], Array]) -> tuple[list[Ask], Array]:
        return replay(overseer(questions, own_keys), answer_to)

    parts_asked = _parts_asked(overseer, questions, own_keys, empty)
    if len(parts_asked) < 2 or {*parts_asked} != {calls.ASSISTANT}:
        return amplify(overseer, respond, questions, where, keys, parts=parts)

    def take_step(answers: Array, number: Int[Array, ""]) -> tuple[Array, Step]:
        asks, _ = replayed(lambda step: answers[step])
        question = jnp.stack([ask.question for ask in asks])[number]
        wheres = [where if ask.where is None else where & ask.where for ask in asks]
        asked = jnp.stack(wheres)[number]
        sub = respond(question, asked, fold_in(keys, number + 1))
        return answers.at[number].set(sub.answer), Step(asked, sub)

    no_answers = jnp.broadcast_to(empty, (len(parts_asked), *empty.shape))
    answers, steps = jax.lax.scan(take_step, no_answers, jnp.arange(len(parts_asked)))
    _, answer = replayed(lambda step: answers[step])
    return Interaction(questions, answer, jnp.full(where.shape, OVERSEER), StackedSteps(steps))


def _parts_asked(
    overseer: Overseer,
    questions: Int[Array, "*b question_length"],
    keys: Key[Array, "*b"],
    empty: Int[Array, "*b answer_length"],
) -> list[str]:
    """The part that each step of a strategy asks, by abstract evaluation."""
    parts: list[str] = []

    def trace() -> Array:
        asks, answer = replay(overseer(questions, keys), lambda step: empty)
        parts.extend(ask.to for ask in asks)
        return answer

    jax.eval_shape(trace)
    return parts


def unstack(tree: Interaction) -> Interaction:
    """Converts stacked steps to tuples at every level of a tree.

    Args:
        tree: interactions, as NumPy arrays.
    """
    steps = tree.steps
    if isinstance(steps, StackedSteps):
        numbers = range(len(steps.step.asked))
        steps = tuple(jax.tree.map(lambda leaf, n=n: leaf[n], steps.step) for n in numbers)
    return tree._replace(steps=tuple(step._replace(sub=unstack(step.sub)) for step in steps))
