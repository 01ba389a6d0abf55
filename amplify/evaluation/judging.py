"""Answers of an assistant and its overseer to held-out questions, and which of them are right.

This is the part of evaluation that runs on devices: as compiled programs or, where the overseer
runs in Python, around it. `measuring` makes items of what comes out.
"""

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.evaluation.measures import ALONE, AMPLIFIED, CEILING, FOUND
from amplify.runtime import calls
from amplify.task_abilities import knows_truth, search_of
from amplify.tasks.problems import answer_keys
from amplify.trees.amplification import (
    amplified,
    assistant_alone,
    count_calls,
    over_questions,
    read_for,
    told_the_truth,
)
from amplify.trees.driving import ask_everything, driven
from amplify.types import (
    Assistant,
    Interaction,
    OverseerKind,
    Problems,
    Respond,
    Task,
    Weights,
)

OVERSEEN = (AMPLIFIED.name, CEILING.name)
"""Measures for which the overseer is asked."""
CALLS = "calls"
"""Of what was judged: answers behind each row, by what they were for and by who gave them."""


@dataclasses.dataclass(frozen=True)
class Team:
    """Those who answer, without their parameters."""

    task: Task
    assistant: Assistant
    overseer: OverseerKind


def judge(
    team: Team,
    wanted: Collection[str],
    weights: Weights,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Any]:
    """How each question is answered by the assistant and by the overseer, and what is right.

    Two programs: the second, of what does not change from round to round, is seldom needed.

    Args:
        wanted: which of OVERSEEN are taken; the overseer is not asked for the others.
        root: all that is sampled is drawn from it and the problems' seeds.

    Returns:
        Columns with leading axes `batch questions`: "class", "answer", "probability", measures by
        name, and where they are known "truth" and "amplified_answer"; and under CALLS the calls.
    """
    asks, traced = AMPLIFIED.name in wanted, team.overseer.traced
    help_ = _judge_driven if asks and not traced else _judge_compiled
    judged = help_(team, asks, weights, root, problems)
    if CEILING.name in wanted and knows_truth(team.task):
        reach = _ceiling_compiled if traced else _ceiling_driven
        ceiling = reach(team, weights, root, problems)
        judged = {**judged, **ceiling, CALLS: {**judged[CALLS], **ceiling[CALLS]}}
    return judged


def count(judged: dict[str, Any]) -> None:
    """Adds the calls behind what `judge` returned to the ledger of the stage that runs."""
    for counts in judged[CALLS].values():
        calls.count_all(counts)


@functools.partial(jax.jit, static_argnums=0)
def right_alone(
    team: Team, params: PyTree[Array], problems: Problems
) -> Bool[Array, "batch questions"]:
    """Which of the assistant's own likeliest answers are right.

    Args:
        params: the assistant's.
    """
    assistant = team.assistant
    memory = assistant.encode(params, read_for(team.task, problems.contexts, problems.questions))
    answers = assistant.answer(params, memory, problems.questions, None)
    return _right(team.task, problems, answers.tokens)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _judge_compiled(
    team: Team, asks: bool, weights: Weights, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    tree = None
    if asks:
        params = weights.assistant
        alone = assistant_alone(team.task, team.assistant, params, problems.contexts)
        tree = _oversee(team, alone, weights, root, problems)
    return _results(team, weights.assistant, problems, tree)


@functools.partial(jax.jit, static_argnums=0)
def _ceiling_compiled(
    team: Team, weights: Weights, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    helper = told_the_truth(team.task, problems.contexts)
    return _reached(team, problems, _oversee(team, helper, weights, root, problems))


def _oversee(
    team: Team, helper: Respond, weights: Weights, root: Key[Array, ""], problems: Problems
) -> Interaction:
    """The problems' questions, answered by the overseer with a helper."""
    contexts, questions = problems.contexts, problems.questions
    keys = answer_keys(root, problems.seeds, questions.shape[1])
    overseer = team.overseer.using(weights.overseer)
    tree = amplified(team.task, overseer, helper, contexts, depth=1)
    return tree(questions, jnp.ones(questions.shape[:2], bool), keys)


def _judge_driven(
    team: Team, asks: bool, weights: Weights, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    tree = _drive(team, weights, root, problems, "assistant")
    return _compiled_results(team, weights.assistant, problems, tree)


def _ceiling_driven(
    team: Team, weights: Weights, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    return _compiled_reached(team, problems, _drive(team, weights, root, problems, "truth"))


def _drive(
    team: Team, weights: Weights, root: Key[Array, ""], problems: Problems, sub_answers: str
) -> Interaction:
    """As `_oversee`, for an overseer that runs in Python."""
    everywhere, keys = ask_everything(root, problems)
    tree = driven(
        team.task,
        team.assistant,
        team.overseer.using(weights.overseer),
        weights.assistant,
        problems.contexts,
        1,
        sub_answers,
    )
    return tree(problems.questions, everywhere, keys)


def _results(
    team: Team, params: PyTree[Array], problems: Problems, helped: Interaction | None
) -> dict[str, Any]:
    """What is right of the assistant's own likeliest answers and of the overseer's.

    Args:
        params: the assistant's.
        helped: what the overseer made of the questions with the assistant's sampled sub-answers;
            None if it was not asked.
    """
    task, assistant = team.task, team.assistant
    contexts, questions = problems.contexts, problems.questions
    read = read_for(task, contexts, questions)
    memory = assistant.encode(params, read)
    alone = assistant.answer(params, memory, questions, None)
    measured: dict[str, Any] = {}
    if knows_truth(task):
        if (search := search_of(task)) and search.supports:
            measured[FOUND.name] = over_questions(search.supports)(read, questions)
        measured |= {
            "truth": over_questions(task.truth)(contexts, questions),
            ALONE.name: _right(task, problems, alone.tokens),
        }
    rows, columns = questions.shape[:2]
    counts = {ALONE.name: {calls.ASSISTANT: jnp.full(rows, columns)}}
    if helped is not None:
        if knows_truth(task):
            measured[AMPLIFIED.name] = _right(task, problems, helped.answer)
        measured["amplified_answer"] = helped.answer
        counts[AMPLIFIED.name] = _calls_behind(helped)
    return measured | {
        "class": over_questions(task.class_of)(contexts, questions),
        "answer": alone.tokens,
        "probability": jnp.exp(alone.log_prob),
        CALLS: counts,
    }


_compiled_results = jax.jit(_results, static_argnums=0)


def _reached(team: Team, problems: Problems, told: Interaction) -> dict[str, Any]:
    """What is right of the overseer's answers with true sub-answers."""
    return {
        CEILING.name: _right(team.task, problems, told.answer),
        CALLS: {CEILING.name: _calls_behind(told)},
    }


_compiled_reached = jax.jit(_reached, static_argnums=0)


def _right(
    task: Task, problems: Problems, tokens: Int[Array, "batch questions answer_length"]
) -> Bool[Array, "batch questions"]:
    return over_questions(task.is_right)(problems.contexts, problems.questions, tokens)


def _calls_behind(tree: Interaction) -> dict[str, Int[Array, " batch"]]:
    counts = count_calls(tree, jnp.ones(tree.question.shape[:2], bool))
    return {part: jnp.sum(number, axis=1) for part, number in counts.items()}
