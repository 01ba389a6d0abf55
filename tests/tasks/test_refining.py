"""Essays that are refined: what is struck out, and by what it is replaced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.task_abilities import Reader
from amplify.task_helping import Critique
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import statements_right
from tests.tasks.test_essays import ASKED, drafts, gold

TASK = Essays(length=6, families=2, claims_per_family=4, key_claims=2, insights=4, blind_family=-1)
BELIEVES = Reader(looks=0, credulity=0.0, attentive=True, asks=6, believes=True)
ESSAYS = [[1, 2, 2, 3, 4, 1], [5, 1, 6, 6, 7, 8], [8, 3, 5, 2, 1, 4]]


def refine(reader: Reader, wrong: list[int], essays=ESSAYS, said=range(1, 9)):
    """Refines essays where the critic says that some claims are wrong."""
    is_wrong = jnp.array([claim in wrong for claim in range(1, 9)])
    critique = Critique(
        jnp.array([claim in said for claim in range(1, 9)]),
        jnp.stack([is_wrong, jnp.zeros(8, bool), jnp.zeros(8, bool)], axis=-1),
    )
    context = TASK.draw_context(jax.random.key(0))
    answers = jnp.array(essays, jnp.int32)
    found = TASK.refine(reader, critique, context, ASKED, answers, jax.random.key(1))
    return found.answer.tolist(), int(found.struck), int(found.looks), int(found.asks)


@pytest.mark.parametrize(
    ("wrong", "refined", "struck"),
    [
        ([], [1, 2, 3, 4, 5, 6], 0),  # repeats make room
        ([2], [1, 3, 4, 5, 6, 7], 2),
        ([1, 2, 3, 4], [5, 6, 7, 8, 0, 0], 6),  # nobody says more
        ([5, 6, 7, 8], [1, 2, 3, 4, 0, 0], 0),
        ([1, 2, 3, 4, 5, 6, 7, 8], [0] * 6, 6),
    ],
)
def test_what_is_wrong_is_replaced_by_what_others_say(wrong, refined, struck):
    asked = sum(len({*essay}) for essay in ESSAYS)
    assert refine(BELIEVES, wrong) == (refined, struck, 0, asked)


def test_what_the_critic_is_not_asked_about_stays():
    essays = [ESSAYS[0]]
    reader = BELIEVES._replace(asks=1)
    [refined, struck, looks, asks] = refine(reader, [1, 2, 3, 4], essays)
    assert (len({*refined} - {0}), looks, asks) == (3, 0, 1)
    assert struck in (1, 2), "a claim that is made twice is struck twice"
    assert refine(BELIEVES, [2, 3], essays, said=[1, 3]) == ([1, 2, 4, 0, 0, 0], 1, 0, 2)


def test_who_verifies_strikes_only_what_is_wrong():
    """The critic says that everything is wrong; with enough looks, the truth decides."""
    context = TASK.draw_context(jax.random.key(0))
    right = np.asarray(statements_right(TASK.hidden, TASK.topic_of(context))).all(axis=-1)
    verifies = BELIEVES._replace(believes=False, looks=1000)
    refined, _, looks, _ = refine(verifies, [*range(1, 9)])
    there = {1 + int(claim) for claim in np.flatnonzero(right)}
    assert {*refined} <= there
    assert len({*refined}) == min(6, len(there))
    assert looks == 3 * sum(len({*essay}) for essay in ESSAYS)
    unread = refine(verifies._replace(looks=0), [*range(1, 9)])
    assert unread == refine(BELIEVES, []), "nothing was checked"


def test_a_critic_that_knows_makes_drafts_better():
    task = dataclasses.replace(TASK, insight_share=0.0)
    contexts, essays = drafts(task, 200)
    right = statements_right(task.hidden, task.topic_of(contexts[0]))
    critique = Critique(jnp.ones(8, bool), ~right)

    @jax.jit
    @jax.vmap
    def refined(essays, key):
        return task.refine(BELIEVES, critique, contexts[0], ASKED, essays, key).answer

    better = refined(essays.reshape(50, 4, -1), jax.random.split(jax.random.key(2), 50))
    before = np.asarray(gold(task, contexts[:50], essays.reshape(50, 4, -1)[:, 0]))
    after = np.asarray(gold(task, contexts[:50], better))
    assert (after >= before - 1e-5).all()
    assert after.mean() > before.mean() + 1
