"""Lets the assistant argue about questions: with itself, and what the winners said is kept; or with
an earlier assistant, and who won is.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.protocols.protocol import SIDES, JudgeProtocol, play
from amplify.protocols.rewards import zero_sum
from amplify.protocols.sides import parts, sampling
from amplify.tasks.batching import fold_in, map_keys
from amplify.tasks.problems import answer_keys
from amplify.trees.scanning import unstack
from amplify.types import (
    DONT_KNOW,
    ENVIRONMENT,
    OTHERS,
    Assistant,
    Interaction,
    Problems,
    StackedSteps,
    Step,
    Task,
)
from amplify.words import describe_context, describe_tree

SAMPLED_TRANSCRIPTS = 50
"""Transcripts that a round's folder keeps."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def argue(
    task: Task,
    assistant: Assistant,
    rules: JudgeProtocol,
    options: tuple[int, bool],
    params: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Any]:
    """Plays a protocol about each question, with the assistant on both sides.

    Args:
        task: the task.
        assistant: the model.
        rules: the protocol.
        options: number of statements to choose about each context; whether sides are bound.
        params: of the assistant.
        root: key from which, with the problems' seeds, everything is drawn.
        problems: what is argued about.

    Returns:
        Arrays with a leading axis of rows. Of each row: "questions", "answers" and "weight", what
        the assistant is to learn. Of each question: "transcripts", "agreed" (the sides gave the
        same answer), "undecided", "pro_won", and the numbers of answers that were "asked" and
        "looked" up.
    """
    statements, precommitment = options
    keys = answer_keys(root, problems.seeds, problems.questions.shape[1])
    transcripts = _play(task, assistant, rules, precommitment, (params, params), keys, problems)
    rewards, step = zero_sum(transcripts), _steps(transcripts)
    pro, con = (step.asked & (step.sub.answered_by == OTHERS + side) for side in range(len(SIDES)))
    won = (pro & (rewards > 0)[..., None]) | (con & (rewards < 0)[..., None])
    chosen = _choose(step, won, fold_in(keys, len(SIDES) + 1), statements)
    agreed = jnp.all(step.sub.answer[:, :, 0] == step.sub.answer[:, :, 1], axis=-1)
    undecided = jnp.all(transcripts.answer == DONT_KNOW, axis=-1)
    asked = jnp.sum((pro | con).astype(jnp.int32), axis=-1)
    looked = step.asked & (step.sub.answered_by == ENVIRONMENT)
    return chosen | {
        "transcripts": (transcripts._replace(steps=()), step),
        "agreed": agreed,
        "undecided": undecided & ~agreed,
        "pro_won": rewards > 0,
        "asked": asked,
        "looked": jnp.sum(looked.astype(jnp.int32), axis=-1),
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def argue_against(
    task: Task,
    assistant: Assistant,
    rules: JudgeProtocol,
    precommitment: bool,
    one: PyTree[Array],
    other: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Float[Array, "batch questions"]]:
    """Plays a protocol about each question twice, so that each of two assistants takes each side.

    Args:
        task: the task.
        assistant: the model of both.
        rules: the protocol.
        precommitment: whether sides are bound by what they first said.
        one, other: parameters of the two.
        root: key from which, with the problems' seeds, everything is drawn.
        problems: what is argued about.

    Returns:
        "score" of `one`: 1 if it wins both debates, -1 if it loses both; the mean of the two. And
        "decided": the share of the two debates that either side wins.
    """
    keys = answer_keys(root, problems.seeds, problems.questions.shape[1])
    rewards = [
        zero_sum(_play(task, assistant, rules, precommitment, sides, keys, problems))
        for sides in ((one, other), (other, one))
    ]
    return {
        "score": (rewards[0] - rewards[1]) / 2,
        "decided": (jnp.abs(rewards[0]) + jnp.abs(rewards[1])) / 2,
    }


def _play(
    task: Task,
    assistant: Assistant,
    rules: JudgeProtocol,
    precommitment: bool,
    params: tuple[PyTree[Array], PyTree[Array]],
    keys: Key[Array, "batch questions"],
    problems: Problems,
) -> Interaction:
    """Plays a protocol about each question, with parameters of the model for each side."""
    contexts, questions = problems.contexts, problems.questions
    sides = (
        sampling(
            task, assistant, of_side, contexts, fold_in(keys, number) if precommitment else None
        )
        for number, of_side in enumerate(params)
    )
    everywhere = jnp.ones(questions.shape[:2], bool)
    people = parts(task, contexts, *sides)
    return play(rules, questions, everywhere, fold_in(keys, len(SIDES)), people)


def sample_transcripts(task: Task, problems: Problems, transcripts: Any) -> list[dict[str, Any]]:
    """Describes the transcript about one question of each of the first problems.

    Args:
        task: the task.
        problems: what was argued about.
        transcripts: from `argue`, of the first problems.
    """
    verdicts, step = jax.device_get(transcripts)
    steps = StackedSteps(jax.tree.map(lambda leaf: np.moveaxis(leaf, 2, 0), step))
    trees = unstack(verdicts._replace(steps=steps))
    contexts = jax.device_get(problems.contexts)
    rows, per_context = verdicts.question.shape[:2]
    shown = min(rows, len(contexts), SAMPLED_TRANSCRIPTS)  # a chunk may be padded
    places = [(row, row % per_context) for row in range(shown)]
    return [
        {"row": row, "column": column}
        | describe_tree(task, contexts[row], trees, row, column, SIDES)
        | describe_context(task, contexts[row])
        for row, column in places
    ]


def _steps(transcripts: Interaction) -> Step:
    """The steps of transcripts, with their axis after those of the questions."""
    assert isinstance(transcripts.steps, StackedSteps)
    moved: Step = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 2), transcripts.steps.step)
    return moved


def _choose(
    step: Step,
    won: Array,
    keys: Key[Array, "batch questions"],
    statements: int,
) -> dict[str, Float[Array, "..."] | Int[Array, "..."]]:
    """Draws some of the statements about each context that winners made."""
    batch, questions, steps = won.shape
    draws = map_keys(lambda key: jax.random.uniform(key, (steps,)), keys)
    scores = jnp.where(won, 1 + draws, 0.0)
    count = min(statements, questions * steps)
    best, index = jax.lax.top_k(scores.reshape(batch, -1), count)
    best, index = (jnp.pad(part, ((0, 0), (0, statements - count))) for part in (best, index))

    def take(part: Array) -> Array:
        flat = part.reshape(batch, questions * steps, part.shape[-1])
        return jnp.take_along_axis(flat, index[..., None], axis=1)

    return {
        "questions": take(step.sub.question),
        "answers": take(step.sub.answer),
        "weight": (best > 0).astype(jnp.float32),
    }
