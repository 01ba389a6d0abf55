"""Every task must pass this; a broken one must not (see `Broken`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.amplification import amplified, over_questions, told_the_truth
from amplify.overseers.simulated import Simulated
from amplify.problems import draw_problems
from amplify.tasks.assignments import Assignments
from amplify.tasks.permutation import Permutation
from amplify.tasks.shortest_path import ShortestPath
from amplify.tasks.union_find import UnionFind
from amplify.tasks.wildcard import Wildcard
from amplify.types import Task

TASKS: list[Task] = [
    Wildcard(1),
    Wildcard(3),
    Wildcard(6),
    Permutation(9, 4),
    Assignments(12, 3),
    ShortestPath(9, 16),
    UnionFind(9, 3),
]


@dataclasses.dataclass(frozen=True)
class Broken(Wildcard):
    """A strategy that forgets the second half of its question."""

    def strategy(self, question):
        answer = yield from super().strategy(question.at[..., -1].set(1))
        return answer


def problems_of(task: Task, count: int = 32):
    depths = [depth for depth in range(1, task.max_depth + 1) for _ in range(3)]
    return draw_problems(task, 7, 1, "train", count, depths), np.array(depths)


def overseer_told_the_truth(task: Task):
    problems, _ = problems_of(task)
    everywhere = jnp.ones(problems.questions.shape[:2], bool)
    keys = jax.random.split(jax.random.key(1), everywhere.shape)

    @jax.jit
    def answer(contexts, questions, everywhere, keys):
        told = told_the_truth(task, contexts)
        return amplified(task, Simulated(task).using(), told, contexts, depth=1)(
            questions, everywhere, keys
        )

    return problems, answer(problems.contexts, problems.questions, everywhere, keys)


def check_overseer(task: Task) -> None:
    problems, tree = overseer_told_the_truth(task)
    right = over_questions(task.is_right)(problems.contexts, problems.questions, tree.answer)
    assert bool(jnp.all(right))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_overseer_told_the_truth_gives_the_truth(task):
    check_overseer(task)


def test_a_broken_overseer_is_caught():
    with pytest.raises(AssertionError):
        check_overseer(Broken(4))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_shapes_and_tokens_are_what_the_task_says(task):
    problems, _ = problems_of(task)
    assert problems.contexts.shape[1:] == (task.facts, task.fact_length)
    assert problems.questions.shape[2:] == (task.question_length,)
    truth = over_questions(task.truth)(problems.contexts, problems.questions)
    assert truth.shape[2:] == (task.answer_length,)
    for tokens in (problems.contexts, problems.questions, truth):
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < len(task.vocabulary)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_truth_is_right_and_dont_know_is_not(task):
    problems, _ = problems_of(task)
    truth = over_questions(task.truth)(problems.contexts, problems.questions)
    right = over_questions(task.is_right)
    assert bool(jnp.all(right(problems.contexts, problems.questions, truth)))
    assert not bool(jnp.any(right(problems.contexts, problems.questions, jnp.zeros_like(truth))))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_no_drawn_question_is_primitive_and_every_class_is_drawn(task):
    problems, _ = problems_of(task)
    assert not bool(jnp.any(task.is_primitive(problems.questions)))
    classes = over_questions(task.class_of)(problems.contexts, problems.questions)
    assert set(np.asarray(classes).ravel().tolist()) == set(range(len(task.classes)))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_an_overseer_told_nothing_does_not_know(task):
    problems, _ = problems_of(task)
    strategy = task.strategy(problems.questions)
    next(strategy)
    silence = jnp.zeros((*problems.questions.shape[:2], task.answer_length), jnp.int32)
    answer = None
    while answer is None:
        try:
            strategy.send(silence)
        except StopIteration as end:
            answer = end.value
    assert not bool(jnp.any(answer))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_question_reads_back_as_it_is_shown(task):
    from amplify.words import read_question, shown

    problems, _ = problems_of(task, count=4)
    for question in np.asarray(problems.questions).reshape(-1, task.question_length):
        assert read_question(task, shown(task, question)).tolist() == question.tolist()
