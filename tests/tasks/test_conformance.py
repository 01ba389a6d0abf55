"""Every task must pass this; broken ones must not (see the `Broken...` fakes)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.overseers.simulated import Simulated
from amplify.tasks.algorithmic.assignments import Assignments
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.shortest_path import ShortestPath
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.tasks.text.documents import Documents
from amplify.tasks.text.search import Search
from amplify.trees.amplification import amplified, contexts_for, true_answers
from amplify.types import Task
from amplify.words import format_tokens, read_answer, read_question
from tests.documents import asked_rows, jsonl, written

WITH_STRATEGY: list[Task] = [
    Wildcard(1),
    Wildcard(3),
    Wildcard(6),
    Permutation(9, 4),
    Assignments(12, 3),
    ShortestPath(9, 16),
    UnionFind(9, 3),
    Search(regions=64),
    Search(regions=64, hops=2, show_work=True),
]
DOCUMENTS = "documents"
"""Questions over documents in files, which are written first."""


@pytest.fixture(scope="module", params=[*WITH_STRATEGY, DOCUMENTS], ids=str)
def task(request, tmp_path_factory) -> Task:
    if request.param != DOCUMENTS:
        return request.param
    folder = tmp_path_factory.mktemp("documents")
    questions = written(folder / "questions.jsonl", asked_rows())
    return Documents(documents=str(jsonl(folder / "texts.jsonl")), questions=str(questions))


@dataclasses.dataclass(frozen=True)
class BrokenStrategy(Wildcard):
    """Forgets the second half of its question."""

    def strategy(self, question):
        answer = yield from super().strategy(question.at[..., -1].set(1))
        return answer


@dataclasses.dataclass(frozen=True)
class BrokenSearch(Search):
    """Finds the same for all problems: what the first one's questions find."""

    def find(self, questions):
        return super().find(jnp.broadcast_to(questions[:1], questions.shape))


def problems_of(task: Task, count: int = 32, split: str = "train"):
    depths = [depth for depth in range(1, task.max_depth + 1) for _ in range(3)]
    return draw_problems(task, 7, 1, split, count, depths), np.array(depths)


def overseer_told_the_truth(task: Task):
    problems, _ = problems_of(task)
    everywhere = jnp.ones(problems.questions.shape[:2], bool)
    keys = jax.random.split(jax.random.key(1), everywhere.shape)

    @jax.jit
    def answer(contexts, questions, everywhere, keys):
        told = true_answers(task, contexts)
        return amplified(task, Simulated(task).using(), told, contexts, depth=1)(
            questions, everywhere, keys
        )

    return problems, answer(problems.contexts, problems.questions, everywhere, keys)


def check_overseer(task: Task) -> None:
    problems, tree = overseer_told_the_truth(task)
    right = vmap_questions(task.is_right)(problems.contexts, problems.questions, tree.answer)
    assert bool(jnp.all(right))


@pytest.mark.parametrize("task", WITH_STRATEGY, ids=str)
def test_the_overseer_told_the_truth_gives_the_truth(task):
    check_overseer(task)


def test_a_broken_overseer_is_caught():
    with pytest.raises(AssertionError):
        check_overseer(BrokenStrategy(4))


def test_shapes_and_tokens_are_what_the_task_says(task):
    problems, _ = problems_of(task)
    read = contexts_for(task, problems.contexts, problems.questions)
    assert read.shape[1:] == (task.facts, task.fact_length)
    assert problems.questions.shape[2:] == (task.question_length,)
    truth = vmap_questions(task.truth)(problems.contexts, problems.questions)
    assert truth.shape[2:] == (task.answer_length,)
    for tokens in (read, problems.questions, truth):
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < len(task.vocabulary)


def test_the_truth_is_right_and_dont_know_is_not(task):
    problems, _ = problems_of(task)
    truth = vmap_questions(task.truth)(problems.contexts, problems.questions)
    right = vmap_questions(task.is_right)
    assert bool(jnp.all(right(problems.contexts, problems.questions, truth)))
    assert not bool(jnp.any(right(problems.contexts, problems.questions, jnp.zeros_like(truth))))


def test_no_drawn_question_is_primitive_and_every_class_is_drawn(task):
    drawn = set()
    # Where contexts are found, some classes are kept for evals.
    for split in ("train", "final") if hasattr(task, "find") else ("train",):
        problems, _ = problems_of(task, split=split)
        assert not bool(jnp.any(task.is_primitive(problems.questions)))
        classes = vmap_questions(task.class_of)(problems.contexts, problems.questions)
        drawn |= set(np.asarray(classes).ravel().tolist())
    assert drawn == set(range(len(task.classes)))


@pytest.mark.parametrize("task", WITH_STRATEGY, ids=str)
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


def test_a_question_reads_back_as_it_is_shown(task):
    problems, _ = problems_of(task, count=4)
    for question in np.asarray(problems.questions).reshape(-1, task.question_length):
        assert read_question(task, format_tokens(task, question)).tolist() == question.tolist()


def test_a_true_answer_reads_back_as_it_is_shown(task):
    problems, _ = problems_of(task, count=4)
    truth = vmap_questions(task.truth)(problems.contexts, problems.questions)
    for answer in np.asarray(truth).reshape(-1, task.answer_length):
        assert read_answer(task, format_tokens(task, answer)).tolist() == answer.tolist()


def check_search(task: Task) -> None:
    """What questions find depends on the questions of their own problem alone, and blanks find
    nothing.
    """
    questions = problems_of(task, count=4)[0].questions
    together = np.asarray(task.find(questions))
    for row, found in enumerate(together):
        assert np.array_equal(np.asarray(task.find(questions[row : row + 1]))[0], found)
    assert not np.any(np.asarray(task.find(jnp.zeros_like(questions[:1]))))
    supported = vmap_questions(task.supports)(jnp.asarray(together), questions)
    assert not bool(
        jnp.any(vmap_questions(task.supports)(jnp.zeros_like(jnp.asarray(together)), questions))
    )
    assert bool(jnp.any(supported))


def test_what_is_found_is_found_for_each_problem_by_itself(task):
    if hasattr(task, "find"):
        check_search(task)


def test_a_broken_search_is_caught():
    with pytest.raises(AssertionError):
        check_search(BrokenSearch(regions=64))
