"""Debates against the value of the game by exhaustive search, and the figures that follow from the
construction (`python -m tests.benchmarks.protocols` measures more of them on larger problems).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.protocols import Consultancy, Debate, Direct
from amplify.protocols.protocol import as_strategy, play
from amplify.protocols.rewards import zero_sum
from amplify.protocols.sides import answering, honest, parts
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.trees.amplification import amplify
from tests.benchmarks.protocols import (
    accuracy,
    assignments_problems,
    permutation_problems,
    transcripts,
)

SMALL = Permutation(2, 3)
QUESTIONS = [(x, k) for x in (1, 2) for k in (1, 2, 3)]
"""What can be asked below a question with k from 4 to 7."""
LIARS = np.array([*itertools.product((1, 2), repeat=len(QUESTIONS))], np.int32)
"""All sides that are bound by what they say, as the answers to `QUESTIONS`."""
ROOTS = [(x, k) for x in (1, 2) for k in (4, 5, 6, 7)]
WORLDS = np.array([[[1, 1], [2, 2]], [[1, 2], [2, 1]]], np.int32)


def asked(x: int, k: int) -> list[int]:
    return [x, *(1 + int(bit) for bit in f"{k:03b}")]


def powers(world: np.ndarray, x: int, k: int) -> int:
    sigma = dict(world.tolist())
    return x if k == 0 else powers(world, sigma[x], k - 1)


def by_table(tables, root, claims):
    """A side for each batch item: its table says what it answers."""

    def answers(questions):
        k = jnp.sum((questions[..., 1:] - 1) * jnp.array([[[4, 2, 1]]]), axis=-1)
        index = (questions[..., 0] - 1) * 3 + jnp.clip(k, 1, 3) - 1
        said = jnp.take_along_axis(tables, index, axis=-1)
        is_root = jnp.all(questions == root, axis=-1)
        return jnp.where(is_root, claims, said)[..., None]

    return answering(answers)


@functools.cache
def payoffs(world: int, root: tuple[int, int], turns: int) -> np.ndarray:
    """What `pro`, who claims the truth, earns: of each of its tables against each of con's."""
    count, true = len(LIARS), powers(WORLDS[world], *root)
    pro, con = (np.repeat(LIARS, count, axis=0), np.tile(LIARS, (count, 1)))

    @jax.jit
    def rewards(pro, con, context, question):
        contexts = jnp.broadcast_to(context, (len(pro), *context.shape))
        questions = jnp.broadcast_to(question, (len(pro), 1, len(question)))
        where = jnp.ones((len(pro), 1), bool)
        keys = jax.random.split(jax.random.key(0), where.shape)
        sides = (by_table(pro, questions, true), by_table(con, questions, 3 - true))
        people = parts(SMALL, contexts, *sides)
        return zero_sum(play(Debate(SMALL, turns), questions, where, keys, people))

    return np.asarray(rewards(pro, con, jnp.array(WORLDS[world]), jnp.array(asked(*root)))).reshape(
        count, count
    )


def best_play(world: int, x: int, k: int, pro: int, con: int, turns: int) -> int:
    """The value of the game by minimax over its own rules, written down once more: who claims the
    truth moves first at each sub-question, and maximises.
    """
    sigma = WORLDS[world]

    def go_on(said: list[int]) -> int:
        half, odd = k // 2, k % 2
        if len(said) == 2 + odd:
            return (said[-1] == pro) - (said[-1] == con)
        sub = (x, half) if not said else (said[-1], half if len(said) == 1 else 1)

        def settle(one: int, two: int) -> int:
            if one == two:
                return go_on([*said, one])
            if sub[1] <= 1:
                seen = powers(sigma, *sub)
                return (seen == one) - (seen == two)
            return best_play(world, *sub, one, two, turns - 1) if turns > 1 else 0

        return max(min(settle(one, two) for two in (1, 2)) for one in (1, 2))

    return go_on([])


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize(("world", "root"), [(1, (1, 5)), (1, (2, 6)), (0, (1, 4))])
def test_best_play_has_the_value_of_the_game(world, root, turns):
    """Each side chooses among everything that it can be bound to; `pro` chooses first."""
    true = powers(WORLDS[world], *root)
    value = payoffs(world, root, turns).min(axis=1).max()
    assert value == best_play(world, *root, true, 3 - true, turns)


@pytest.mark.parametrize("root", ROOTS)
def test_the_truth_is_a_best_play_and_wins_given_all_turns(root):
    truths = [powers(WORLDS[1], *question) for question in QUESTIONS]
    row = int(np.flatnonzero(np.equal(LIARS, truths).all(axis=1))[0])
    assert payoffs(1, root, 2)[row].min() == 1


def test_with_too_few_turns_a_liar_gets_away_undecided():
    assert best_play(1, 1, 4, 1, 2, 1) == 0
    assert payoffs(1, (1, 4), 1).min(axis=1).max() == 0


def test_a_debate_about_powers_takes_log2_turns():
    for k in (4, 8):
        task, problems = permutation_problems(8, k, 64, bits=4)
        found = transcripts(task, problems, Debate(task, 4))
        assert (np.asarray(found.turns) == np.log2(k)).all()
        assert accuracy(found) == 1


def test_accuracy_halves_with_each_level_that_the_honest_side_does_not_know():
    for k, expected in ((4, 1.0), (8, 0.5), (16, 0.25)):
        task, problems = permutation_problems(64, k, 400, bits=5)
        found = transcripts(task, problems, Debate(task, 4), knows=2)
        assert accuracy(found) == pytest.approx(expected, abs=0.09), k


def test_a_judge_who_errs_is_right_as_often_as_it_does_not():
    task, problems = permutation_problems(8, 4, 64, bits=4)
    found = transcripts(task, problems, Debate(task, 4, errors=0.1))
    assert accuracy(found) == pytest.approx(0.9, abs=0.09)


def test_looks_alone_suffice_for_as_many_steps():
    task, problems = permutation_problems(8, 8, 64, bits=4)
    for looks, expected in ((7, 0.5), (8, 1.0)):
        found = transcripts(task, problems, Direct(task, 4, looks=looks))
        assert accuracy(found) == expected


def test_a_consultant_is_caught_more_often_the_more_the_judge_looks():
    task, problems = permutation_problems(8, 8, 64, bits=4)
    rates = [
        accuracy(transcripts(task, problems, Consultancy(task, 4, looks=looks))) for looks in (1, 8)
    ]
    assert 0.5 < rates[0] < rates[1] < 1


@pytest.mark.slow
def test_debates_about_deep_assignments():
    task, problems = assignments_problems(64, 8, least=9, contexts=8)
    found = {
        protocol: accuracy(transcripts(task, problems, protocol))
        for protocol in (Debate(task, 16), Consultancy(task, 16, looks=16))
    }
    assert found[Debate(task, 16)] >= 0.95
    assert 0.5 < found[Consultancy(task, 16, looks=16)] <= 0.93  # .867 of 1,920, see the command


def test_without_precommitment_a_side_may_take_a_claim_back():
    """Con disputes that half of the way leads to 1, then agrees: the first statement goes on."""
    task = Permutation(2, 3)
    contexts, question = jnp.array(WORLDS[1:]), jnp.array([[asked(1, 4)]])
    calls: list[int] = []

    def takes_back(questions, where, keys):
        """Says 2 when it is first asked about (1, 2), and 1 from then on."""
        calls.append(1)
        is_half = jnp.all(questions == jnp.array([[asked(1, 2)]]), axis=-1)
        said = jnp.where(is_half & (len(calls) == 2), 2, jnp.where(len(calls) == 1, 2, 1))
        return honest(task, contexts)(questions, where, keys)._replace(answer=said[..., None])

    where, keys = jnp.ones((1, 1), bool), jax.random.split(jax.random.key(0), (1, 1))
    found = {}
    for bound in (True, False):
        calls.clear()
        people = parts(task, contexts, honest(task, contexts), takes_back)
        protocol = Debate(task, 3, precommitment=bound)
        tree = amplify(as_strategy(protocol), takes_back, question, where, keys, parts=people)
        steps = [step.sub for step in tree.steps if bool(step.asked[0, 0])]
        found[bound] = [tuple(map(int, sub.question[0, 0])) for sub in steps]
        assert int(zero_sum(tree)[0, 0]) == 1
    assert found[False].count(tuple(asked(1, 2))) >= 4  # both are asked again
    assert found[True].count(tuple(asked(1, 2))) == 2
