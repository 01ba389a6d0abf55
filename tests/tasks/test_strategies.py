"""Checks answers by a task's strategy with limited look-ups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.overseers.judge import JudgeConfig
from amplify.task_abilities import Reader
from amplify.tasks.algorithmic.assignments import Assignments
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.tasks.strategies import follow

TASKS = [Permutation(6, 3), Assignments(7, 3)]


def asked(task, rows: int = 16):
    depths = [*range(1, task.max_depth + 1)]
    problems = draw_problems(task, 0, 1, "train", rows, depths)
    keys = jax.random.split(jax.random.key(5), problems.questions.shape[:2])
    return problems.contexts, problems.questions, keys


@functools.partial(jax.jit, static_argnums=(0, 1))
def followed(task, looks, contexts, questions, keys):
    def one(context, question, key):
        return follow(task, context, question, looks, key)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)))(contexts, questions, keys)


@pytest.mark.parametrize("task", TASKS)
def test_with_enough_look_ups_the_strategy_finds_the_truth(task):
    contexts, questions, keys = asked(task)
    found = followed(task, 1000, contexts, questions, keys)
    assert found.known.all()
    np.testing.assert_array_equal(found.answer, vmap_questions(task.truth)(contexts, questions))


def test_applying_a_permutation_k_times_takes_k_look_ups_and_fewer_do_not_suffice():
    task = Permutation(6, 3)
    contexts, questions, keys = asked(task)
    k = np.asarray(task._steps(questions))
    assert {*k.ravel()} >= {2, 3, 4, 7}
    np.testing.assert_array_equal(followed(task, 1000, contexts, questions, keys).looks, k)
    few = followed(task, 4, contexts, questions, keys)
    np.testing.assert_array_equal(few.known, k <= 4)
    np.testing.assert_array_equal(few.looks, np.minimum(k, 4))
    assert not followed(task, 0, contexts, questions, keys).known.any()


def test_a_variable_takes_the_look_ups_of_what_it_is_computed_from():
    """A(x), B(x) and an entry of the table, beside those for both variables; 1 if it is given."""
    task = Assignments(7, 3)
    contexts, questions, keys = asked(task)
    found = np.asarray(followed(task, 1000, contexts, questions, keys).looks)
    value, first, _, _ = task._kinds

    def cost(sources, x):
        return 1 if not sources[x] else 3 + sum(cost(sources, y) for y in sources[x])

    for row, context in enumerate(np.asarray(contexts).tolist()):
        sources = {x: () if kind == value else (y, z) for kind, x, y, z in context if kind <= first}
        assert found[row].tolist() == [cost(sources, int(x)) for _, x, _ in questions[row]]


@pytest.mark.parametrize("task", TASKS)
def test_a_reader_knows_what_it_could_check_and_the_rest_seems_as_it_trusts(task):
    contexts, questions, keys = asked(task)
    truth = vmap_questions(task.truth)(contexts, questions)
    wrong = vmap_questions(task.draft)(contexts, questions, keys)
    wrong = jnp.where(wrong == truth, 0, wrong)
    for looks, credulity, unknown in ((1000, 1.0, 1.0), (3, 1.0, 1.0), (3, 0.0, None)):
        known = followed(task, looks, contexts, questions, keys).known
        impression = functools.partial(task.impression, Reader(looks, credulity, True))
        seems = [
            np.asarray(vmap_questions(impression)(contexts, questions, answers, keys).worth)
            for answers in (truth, wrong)
        ]
        by_chance = len({*np.asarray(truth).ravel().tolist()})  # all answers occur
        unknown = 1 / by_chance if unknown is None else unknown
        np.testing.assert_allclose(seems[0], np.where(known, 1, unknown))
        np.testing.assert_allclose(seems[1], np.where(known, 0, unknown))


@pytest.mark.parametrize("task", TASKS)
def test_drafts_are_answers_that_are_right_by_chance(task):
    contexts, questions, keys = asked(task, 200)
    drafts = vmap_questions(task.draft)(contexts, questions, keys)
    truth = vmap_questions(task.truth)(contexts, questions)
    assert {*np.asarray(drafts).ravel()} == {*np.asarray(truth).ravel()}
    chance = 1 / len({*np.asarray(drafts).ravel()})
    assert np.mean(drafts == truth) == pytest.approx(chance, abs=0.06)


def test_a_judge_with_few_look_ups_guesses_where_questions_are_deep():
    task = Permutation(6, 3)
    contexts, questions, keys = asked(task, 200)
    truth = vmap_questions(task.truth)(contexts, questions)
    pairs = jnp.stack([truth, 1 + truth % 6], axis=2)
    judge = JudgeConfig(looks=3, errors=0.0).build(task)
    found = jax.jit(judge.choose)({}, contexts, questions, pairs, keys)
    right, shallow = np.asarray(found.best == 0), np.asarray(task._steps(questions)) <= 3
    assert right[shallow].all()
    assert right[~shallow].mean() == pytest.approx(0.5, abs=0.1)
    assert not found.confidence[~shallow].any()
