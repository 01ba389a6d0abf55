"""Amplification held against its definition: a plain recursion over one question at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import Simulated
from amplify.tasks.algorithmic.assignments import Assignments
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.shortest_path import ShortestPath
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.tasks.text.search import Search
from amplify.trees import chunks
from amplify.trees.amplification import amplified, assistant_alone, skip_if_none
from amplify.trees.chunks import amplify_problems
from amplify.trees.counting import count_answers, count_calls
from amplify.trees.scanning import amplify_by_scan
from amplify.types import (
    ASSISTANT,
    ENVIRONMENT,
    OVERSEER,
    Answers,
    Ask,
    Interaction,
    Step,
    Task,
    Team,
)
from tests import host_reads

SMALL = [Wildcard(4), Permutation(5, 5), Assignments(6, 3)]
LARGE = [ShortestPath(6, 9), UnionFind(6, 3), Search(regions=20)]
TASKS = [*SMALL, *(pytest.param(task, marks=pytest.mark.slow) for task in LARGE)]
SEED = 3


def problems_of(task, count: int, apart: bool = False):
    depths = [task.max_depth - place % task.max_depth for place in range(3)]
    return draw_problems(task, SEED, 1, "train", count, depths, apart=apart)


@dataclasses.dataclass(frozen=True)
class MostlyRight:
    """An assistant without a network, which knows the truth and errs at random."""

    task: Task

    def one(self, context, question, key):
        errs, what = jax.random.split(key)
        truth = self.task.truth(context, question)
        anything = jax.random.randint(what, truth.shape, 0, len(self.task.vocabulary))
        return jnp.where(jax.random.bernoulli(errs, 0.3), anything.astype(truth.dtype), truth)

    def init(self, key):
        return {}

    def encode(self, params, contexts):
        if isinstance(self.task, Search):  # what is found; the truth needs no context
            return jnp.ones((len(contexts), 1, 1), jnp.int32)
        return contexts

    def answer(self, params, memory, questions, keys):
        tokens = vmap_questions(self.one)(memory, questions, keys)
        return Answers(tokens, jnp.zeros(questions.shape[:-1]))

    def log_prob(self, params, memory, questions, answers):
        raise NotImplementedError

    def loss(self, params, batch):
        raise NotImplementedError


def recursive(task, overseer, assistant, context, question, key, depth):
    """The answer to one question: what amplification is."""
    if depth == 0:
        return assistant(context, question, key)
    strategy, told, step = overseer(question, jax.random.fold_in(key, 0)), None, 0
    while True:
        try:
            ask = next(strategy) if told is None else strategy.send(told)
        except StopIteration as end:
            return end.value
        step, own = step + 1, jax.random.fold_in(key, step + 1)
        told = jnp.zeros(task.answer_length, jnp.int32)
        if (ask.where is None or ask.where) and task.is_primitive(ask.question):
            told = task.environment(context, ask.question, jax.random.fold_in(own, 0))
        elif ask.where is None or ask.where:
            told = recursive(task, overseer, assistant, context, ask.question, own, depth - 1)


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_level_is_a_plain_recursion(task, depth):
    overseer = Simulated(task, noise=0.1).using()
    assistant = MostlyRight(task)
    problems = problems_of(task, 2)
    keys = jax.random.split(jax.random.key(1), problems.questions.shape[:2])

    @jax.jit
    def answer(contexts, questions, keys):
        respond = assistant_alone(task, assistant, {}, contexts)
        level = functools.partial(amplify_by_scan, answer_length=task.answer_length)
        everywhere = jnp.ones(questions.shape[:2], bool)
        tree = amplified(task, overseer, respond, contexts, depth, level)
        return tree(questions, everywhere, keys).answer

    answers = answer(problems.contexts, problems.questions, keys)
    one = jax.jit(assistant.one)
    for row, column in np.ndindex(*problems.questions.shape[:2]):
        context, question = problems.contexts[row], problems.questions[row, column]
        expected = recursive(task, overseer, one, context, question, keys[row, column], depth)
        assert answers[row, column].tolist() == expected.tolist()


@dataclasses.dataclass(frozen=True)
class Unrolled(Simulated):
    """Its program grows as steps^depth."""

    replayable = False


@dataclasses.dataclass(frozen=True)
class Driven(Simulated):
    """Its strategy runs in Python."""

    traced = False
    replayable = False


def trees_of(task, overseer, depth, *, count=6, size=None, network=False):
    """Whole trees, and what else is made of problems, in numpy."""
    assistant, weights = MostlyRight(task), {"assistant": {}}
    if network:
        assistant = FactTransformerConfig(width=16, heads=2).build(task)
        weights = {"assistant": jax.jit(assistant.init)(jax.random.key(0))}
    made = amplify_problems(
        task, assistant, overseer, weights, problems_of(task, count), SEED, depth=depth, size=size
    )
    return jax.tree.map(lambda *parts: np.concatenate(parts), *made)


@pytest.mark.parametrize(
    ("task", "depth", "network"),
    [
        (Wildcard(4), 2, False),
        (Wildcard(4), 3, False),
        (Permutation(5, 5), 2, False),
        pytest.param(Permutation(5, 5), 3, False, marks=pytest.mark.slow),
        pytest.param(Assignments(6, 3), 2, True, marks=pytest.mark.slow),
        pytest.param(Search(regions=20), 2, False, marks=pytest.mark.slow),
        pytest.param(UnionFind(6, 3), 2, False, marks=pytest.mark.slow),
        pytest.param(Wildcard(4), 3, True, marks=pytest.mark.slow),
        pytest.param(Permutation(5, 5), 2, True, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_scanned_levels_give_the_trees_of_an_unrolled_program_bit_for_bit(task, depth, network):
    scanned = trees_of(task, Simulated(task, 0.2), depth, network=network)
    unrolled = trees_of(task, Unrolled(task, 0.2), depth, network=network)
    assert jax.tree.structure(scanned) == jax.tree.structure(unrolled)
    for ours, theirs in zip(jax.tree.leaves(scanned), jax.tree.leaves(unrolled), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert scanned.assistant_answers.any()


def lines_of(task, overseer, depth) -> int:
    """Lines of StableHLO of the program that amplifies a chunk."""
    assistant = FactTransformerConfig(width=16, heads=2).build(task)
    params = jax.eval_shape(assistant.init, jax.random.key(0))
    learned = None if overseer.replayable else jax.eval_shape(overseer.init, jax.random.key(0))
    how = (
        Team(task, assistant, overseer),
        depth,
        "assistant",
        {"assistant": params, "overseer": learned},
    )
    lowered = chunks._compiled.lower(*how, jax.random.key(0), problems_of(task, 2))
    return lowered.as_text().count("\n")


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_program_hardly_grows_with_depth(task):
    one, two, three = (lines_of(task, Simulated(task), depth) for depth in (1, 2, 3))
    assert two <= 2 * one
    assert three <= 3 * one


def test_the_network_of_a_learned_overseer_is_not_replayed():
    """The program of its depth 2 has one of its networks for each sub-question."""
    task = Wildcard(2)
    learned = LearnedConfig(width=16, heads=2).build(task)
    assert lines_of(task, learned, 2) > 2 * lines_of(task, learned, 1)


@dataclasses.dataclass(frozen=True)
class Fixed(Wildcard):
    """Asks so many questions, whatever the question."""

    asks: int = 0

    def strategy(self, question):
        total = jnp.zeros((*question.shape[:-1], 1), jnp.int32)
        for number in range(self.asks):
            told = yield Ask(question.at[..., 0].set(1 + number % 2), where=question[..., 1] != 3)
            total = (total + told) % len(self.vocabulary)
        return total


@pytest.mark.parametrize("asks", [0, 1, 3])
def test_a_strategy_may_ask_any_number_of_questions(asks):
    task = Fixed(3, asks=asks)
    scanned, unrolled = (trees_of(task, kind(task), 2) for kind in (Simulated, Unrolled))
    assert len(scanned.trees.steps) == asks
    jax.tree.map(np.testing.assert_array_equal, scanned, unrolled)


def test_who_is_not_asked_does_not_run():
    ran = []

    def respond(questions):
        jax.debug.callback(lambda: ran.append(1))
        return Interaction(questions, questions + 1, jnp.full(questions.shape[:1], OVERSEER))

    questions = jnp.arange(6, dtype=jnp.int32).reshape(3, 2)
    ask = jax.jit(lambda where, questions: skip_if_none(where, respond, questions))
    nobody = jax.block_until_ready(ask(jnp.zeros(3, bool), questions))
    jax.effects_barrier()
    assert not ran
    assert not any(leaf.any() for leaf in jax.tree.leaves(nobody))
    one = jax.block_until_ready(ask(jnp.array([False, True, False]), questions))
    jax.effects_barrier()
    assert len(ran) == 1
    assert jax.tree.structure(one) == jax.tree.structure(nobody)
    assert one.answer.tolist() == (questions + 1).tolist()


def test_where_only_the_environment_is_asked_nobody_else_runs_or_is_counted():
    """Questions with one wildcard are about two words; with two, about patterns."""
    task, ran = Wildcard(3), []
    problems = problems_of(task, 2)

    def helper(questions, where, keys):
        jax.debug.callback(lambda: ran.append(1))
        answers = jnp.full((*where.shape, task.answer_length), task.zero)
        return Interaction(questions, answers, jnp.full(where.shape, ASSISTANT))

    @jax.jit
    def answer(questions):
        everywhere = jnp.ones(questions.shape[:2], bool)
        respond = amplified(task, Simulated(task).using(), helper, problems.contexts, 1)
        tree = respond(questions, everywhere, jax.random.split(jax.random.key(0), (2, 1)))
        return count_calls(tree, everywhere)

    def asked(words: str) -> dict[str, list[int]]:
        row = jnp.array([task.vocabulary.index(letter) for letter in words])
        counts = jax.device_get(answer(jnp.broadcast_to(row, (2, 1, 3))))
        jax.effects_barrier()
        return {part: number.ravel().tolist() for part, number in counts.items()}

    assert asked("a*b") == {"overseer": [1, 1], "assistant": [0, 0], "environment": [2, 2]}
    assert not ran
    assert asked("**b") == {"overseer": [1, 1], "assistant": [2, 2], "environment": [0, 0]}
    assert len(ran) == 2


def test_only_answers_of_the_assistant_that_a_tree_rests_on_are_counted():
    """Two items with two steps; the second item's second step has steps of its own."""

    def leaf(*by):
        return Interaction(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.array(by))

    inner = leaf(ASSISTANT, OVERSEER)._replace(
        steps=(
            Step(jnp.array([True, True]), leaf(ASSISTANT, ASSISTANT)),
            Step(jnp.array([True, False]), leaf(ASSISTANT, ASSISTANT)),
            Step(jnp.array([True, True]), leaf(ASSISTANT, ENVIRONMENT)),
        )
    )
    tree = leaf(OVERSEER, OVERSEER)._replace(
        steps=(
            Step(jnp.array([True, False]), leaf(ENVIRONMENT, ASSISTANT)),
            Step(jnp.array([True, True]), inner),
        )
    )
    assert count_answers(tree, jnp.array([True, True]), ASSISTANT).tolist() == [1, 1]
    assert count_answers(tree, jnp.array([True, False]), ASSISTANT).tolist() == [1, 0]
    assert count_answers(inner, jnp.array([True, True]), ASSISTANT).tolist() == [1, 1]


def counted(tree, row, column, by) -> int:
    """As `count_answers`, one item and one node at a time."""
    here = int(tree.answered_by[row, column] == by)
    if tree.answered_by[row, column] != OVERSEER:
        return here
    steps = [step.sub for step in tree.steps if step.asked[row, column]]
    return here + sum(counted(sub, row, column, by) for sub in steps)


@pytest.mark.parametrize("kind", [Simulated, Unrolled, Driven])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_count_of_a_problem_is_that_of_its_trees(kind, depth):
    made = trees_of(Permutation(5, 5), kind(Permutation(5, 5)), depth)
    rows, columns = made.answers.shape[:2]
    parts = {"overseer": OVERSEER, "assistant": ASSISTANT, "environment": ENVIRONMENT}
    assert made.calls.keys() == parts.keys()
    for part, by in parts.items():
        expected = [
            sum(counted(made.trees, row, column, by) for column in range(columns))
            for row in range(rows)
        ]
        assert made.calls[part].tolist() == expected
        assert any(expected)
    assert made.assistant_answers.tolist() == made.calls["assistant"].tolist()


def same_where_asked(ours, theirs, asked) -> None:
    for part in ("question", "answer", "answered_by"):
        np.testing.assert_array_equal(getattr(ours, part)[asked], getattr(theirs, part)[asked])
    below = asked & (ours.answered_by == OVERSEER)
    if below.any():
        assert len(ours.steps) == len(theirs.steps)
    for mine, other in zip(ours.steps, theirs.steps, strict=False):
        np.testing.assert_array_equal(mine.asked[below], other.asked[below])
        same_where_asked(mine.sub, other.sub, below & mine.asked)


@pytest.mark.parametrize(
    ("task", "depth"),
    [
        (Wildcard(4), 0),
        (Wildcard(4), 2),
        (Permutation(5, 5), 1),
        (Permutation(5, 5), 2),
        pytest.param(Assignments(6, 3), 2, marks=pytest.mark.slow),
        pytest.param(Search(regions=20), 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_driven_overseer_makes_the_trees_of_a_traced_one(task, depth):
    with host_reads.forbidden(), jax.transfer_guard_device_to_host("disallow"):
        ours = trees_of(task, Driven(task, 0.2), depth)
    theirs = trees_of(task, Unrolled(task, 0.2), depth)
    np.testing.assert_array_equal(ours.assistant_answers, theirs.assistant_answers)
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    same_where_asked(ours.trees, theirs.trees, np.ones(ours.answers.shape[:2], bool))


def test_a_driven_overseer_answers_the_same_however_problems_are_grouped():
    task = Permutation(5, 5)
    whole, parts = (trees_of(task, Driven(task, 0.3), 1, size=size) for size in (8, 3))
    np.testing.assert_array_equal(whole.answers, parts.answers)
    same_where_asked(whole.trees, parts.trees, np.ones(whole.answers.shape[:2], bool))


@dataclasses.dataclass(frozen=True)
class Costly(Driven):
    """Notes how many items it is asked about, each time."""

    def using(self, params=None):
        overseer = super().using()

        def noting(questions, keys):
            assert not isinstance(questions, jax.core.Tracer)
            ASKED.append(len(questions))
            return (yield from overseer(questions, keys))

        return noting


ASKED: list[int] = []


def test_a_costly_overseer_is_asked_only_what_is_asked():
    task = Permutation(5, 5)
    ASKED.clear()
    made = trees_of(task, Costly(task), 2, count=8)
    asked = [step.asked & (step.sub.answered_by == OVERSEER) for step in made.trees.steps]
    assert [made.answers[..., 0].size, *(int(step.sum()) for step in asked)] == ASKED
    assert sum(ASKED[1:]) < len(asked) * ASKED[0]
