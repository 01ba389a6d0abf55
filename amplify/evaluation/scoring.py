"""Answers held-out questions and checks which answers are right, on devices.

An overseer that runs in Python is called between compiled programs; otherwise everything is
compiled. `measuring` turns the arrays into items.
"""

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.evaluation.measures import (
    ALONE,
    AMPLIFIED,
    BEATS_DRAFT,
    CEILING,
    FOUND,
    GOLD,
    GOLD_FOCUS,
    GOLD_OTHER,
    OUTSIDE,
)
from amplify.models.abilities import gives_answers
from amplify.runtime import calls
from amplify.task_abilities import draft_of, gold_of, gold_parts_of, knows_truth, search_of
from amplify.tasks.batching import fold_in, vmap_questions
from amplify.tasks.problems import answer_keys
from amplify.trees.amplification import answer_directly, assistant_alone, true_answers
from amplify.trees.chunks import oversee
from amplify.trees.counting import count_calls_by_row
from amplify.trees.driving import drive
from amplify.types import Interaction, OverseerKind, Problems, Roles, Task, Team

DRAFTS = 2**31 - 1
"""Folded into the key of an answer, for that of a draft to compare it with."""
CALLS = "calls"
"""Key of the counts of calls, by measure and part, in what `score_answers` returns."""


def overseer_measures(task: Task, overseer: OverseerKind) -> tuple[str, ...]:
    """Returns the names of the measures that take answers of the overseer.

    Args:
        task: there are none if its answers are more or less good.
        overseer: there are none if it judges answers without giving any.
    """
    if gold_of(task) or not gives_answers(overseer):
        return ()
    return (AMPLIFIED.name, CEILING.name)


def score_answers(
    team: Team,
    wanted: Collection[str],
    weights: Roles,
    root: Key[Array, ""],
    problems: Problems,
) -> dict[str, Any]:
    """Answers questions by the assistant and the overseer, and scores the answers.

    The ceiling, which is the same in most rounds, is a program of its own.

    Args:
        team: who answers.
        wanted: those of `overseer_measures` to take; the overseer is not asked for others.
        weights: parameters of the assistant and the overseer.
        root: key from which, with the problems' seeds, all samples are drawn.
        problems: contexts and questions.

    Returns:
        Arrays with leading axes `batch questions`: "class", "answer", "probability", the measures
        by name and, if available, "truth" and "amplified_answer"; and counts under CALLS.
    """
    asks, traced = AMPLIFIED.name in wanted, team.overseer.traced
    answer = _score_driven if asks and not traced else _score_compiled
    scored = answer(team, asks, weights, root, problems)
    if CEILING.name in wanted and knows_truth(team.task):
        answer_truly = _ceiling_compiled if traced else _ceiling_driven
        ceiling = answer_truly(team, weights, root, problems)
        scored = {**scored, **ceiling, CALLS: {**scored[CALLS], **ceiling[CALLS]}}
    return scored


def record_calls(scored: dict[str, Any]) -> None:
    """Adds the calls counted by `score_answers` to the open tally."""
    for counts in scored[CALLS].values():
        calls.count_all(counts)


@functools.partial(jax.jit, static_argnums=0)
def assistant_is_right(
    team: Team, params: PyTree[Array], problems: Problems
) -> Bool[Array, "batch questions"]:
    """Returns whether each of the assistant's most likely answers is right.

    Args:
        team: who answers; the overseer is not asked.
        params: the assistant's parameters.
        problems: contexts and questions.
    """
    asked = (problems.contexts, problems.questions)
    _, answers = answer_directly(team.task, team.assistant, params, *asked)
    return _right(team.task, problems, answers.tokens)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score_compiled(
    team: Team, asks: bool, weights: Roles, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    tree = None
    if asks:
        params = weights["assistant"]
        alone = assistant_alone(team.task, team.assistant, params, problems.contexts)
        tree = oversee(team, alone, weights, root, problems)
    return _results(team, weights["assistant"], root, problems, tree)


@functools.partial(jax.jit, static_argnums=0)
def _ceiling_compiled(
    team: Team, weights: Roles, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    helper = true_answers(team.task, problems.contexts)
    return _ceiling(team, problems, oversee(team, helper, weights, root, problems))


def _score_driven(
    team: Team, asks: bool, weights: Roles, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    tree = drive(team, weights, root, problems, 1, "assistant")
    return _compiled_results(team, weights["assistant"], root, problems, tree)


def _ceiling_driven(
    team: Team, weights: Roles, root: Key[Array, ""], problems: Problems
) -> dict[str, Any]:
    return _compiled_ceiling(team, problems, drive(team, weights, root, problems, 1, "truth"))


def _results(
    team: Team,
    params: PyTree[Array],
    root: Key[Array, ""],
    problems: Problems,
    tree: Interaction | None,
) -> dict[str, Any]:
    """Scores the assistant's answers, and the overseer's.

    The assistant's are its most likely ones; where answers are more or less good, they are sampled.
    `params` are the assistant's; `tree` is None if the overseer was not asked.
    """
    task, contexts, questions = team.task, problems.contexts, problems.questions
    keys = answer_keys(root, problems.seeds, questions.shape[1]) if gold_of(task) else None
    read, alone = answer_directly(task, team.assistant, params, contexts, questions, keys)
    measured = {} if keys is None else _measure_gold(task, problems, alone.tokens, keys)
    if knows_truth(task):
        if (search := search_of(task)) and search.supports:
            measured[FOUND.name] = vmap_questions(search.supports)(read, questions)
        measured |= {
            "truth": vmap_questions(task.truth)(contexts, questions),
            ALONE.name: _right(task, problems, alone.tokens),
        }
    rows, columns = questions.shape[:2]
    counts = {ALONE.name: {calls.ASSISTANT: jnp.full(rows, columns)}}
    if tree is not None:
        if knows_truth(task):
            measured[AMPLIFIED.name] = _right(task, problems, tree.answer)
        measured["amplified_answer"] = tree.answer
        counts[AMPLIFIED.name] = count_calls_by_row(tree)
    return measured | {
        "class": vmap_questions(task.class_of)(contexts, questions),
        "answer": alone.tokens,
        "probability": jnp.exp(alone.log_prob),
        CALLS: counts,
    }


def _measure_gold(
    task: Task,
    problems: Problems,
    tokens: Int[Array, "batch questions answer_length"],
    keys: Key[Array, "batch questions"],
) -> dict[str, Any]:
    """What answers are worth, and whether it is more than what drafts are."""
    gold, draft = gold_of(task), draft_of(task)
    assert gold is not None
    asked = (problems.contexts, problems.questions)
    measured = {GOLD.name: vmap_questions(gold)(*asked, tokens)}
    if draft is not None:
        drafts = vmap_questions(draft)(*asked, fold_in(keys, DRAFTS))
        measured[BEATS_DRAFT.name] = measured[GOLD.name] > vmap_questions(gold)(*asked, drafts)
    if (parts_of := gold_parts_of(task)) is not None:
        parts = vmap_questions(parts_of)(*asked, tokens)
        measured |= {
            GOLD_FOCUS.name: parts.focus,
            GOLD_OTHER.name: parts.other,
            OUTSIDE.name: parts.outside,
        }
    return measured


_compiled_results = jax.jit(_results, static_argnums=0)


def _ceiling(team: Team, problems: Problems, tree: Interaction) -> dict[str, Any]:
    """Scores the overseer's answers given true sub-answers."""
    return {
        CEILING.name: _right(team.task, problems, tree.answer),
        CALLS: {CEILING.name: count_calls_by_row(tree)},
    }


_compiled_ceiling = jax.jit(_ceiling, static_argnums=0)


def _right(
    task: Task, problems: Problems, tokens: Int[Array, "batch questions answer_length"]
) -> Bool[Array, "batch questions"]:
    return vmap_questions(task.is_right)(problems.contexts, problems.questions, tokens)
