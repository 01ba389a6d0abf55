"""Families in focus: essays about nothing else, and gold that comes from them and from others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.evaluation.measuring import measures_of
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.overseers.judge import JudgeConfig
from amplify.task_abilities import focused_draft_of, gold_parts_of
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import World, essay_gold_parts, write_draft
from amplify.tasks.sentences.task import Sentences
from tests.tasks.test_essays import ASKED, drafts, gold

TASK = Essays(focus=(0, 1, 2, 3))
CLAIM = (2.0, 0.5, 1.0, 0.25)
"""What four claims are worth by themselves; the first two are in focus."""


def world() -> World:
    """Insights: .7 of the first two, -.4 of the first and the third, .9 of the last two."""
    insight = np.zeros((4, 4), np.float32)
    for one, two, worth in ((0, 1, 0.7), (0, 2, -0.4), (2, 3, 0.9)):
        insight[one, two] = insight[two, one] = worth
    even = np.cumsum(np.full((5, 4), 0.25), axis=1)
    focused = np.cumsum(np.full((5, 4), 0.25) * [1, 1, 0, 0], axis=1)
    return World(
        jnp.array(CLAIM),
        jnp.array(insight),
        jnp.array(even, jnp.float32),
        jnp.array(focused, jnp.float32),
        jnp.array([1.0, 1.0, 0.0, 0.0]),
        jax.random.key_data(jax.random.key(0)),
        jnp.array([0.1, 0.3, 2.0, 0.2]),
    )


@pytest.mark.parametrize(
    ("essay", "focus", "all_of_it", "outside"),
    [
        ([0, 1, -1, -1], 2 + 0.5 + 0.7, 2 + 0.5 + 0.7, 0.0),
        ([0, 2, -1, -1], 2, 2 + 1 - 0.4, 0.5),  # an insight between both is the others'
        ([2, 3, -1, -1], 0, 1 + 0.25 + 0.9, 1.0),
        ([0, 0, 0, 2], 2 - 0.1 * 2**1.5, 2 + 1 - 0.4 - 0.1 * 2**1.5, 0.25),
        ([0, 2, 2, 2], 2, 2 + 1 - 0.4 - 0.1 * 2**1.5, 0.75),  # whoever repeats pays
        ([-1, -1, -1, -1], 0, 0, 0.0),
    ],
)
def test_gold_is_divided_as_computed_by_hand(monkeypatch, essay, focus, all_of_it, outside):
    from amplify.tasks.essays import world as module

    monkeypatch.setattr(module, "claim_values", lambda world, topic: world.weight)
    found = essay_gold_parts(world(), jnp.int32(0), jnp.array(essay))
    assert float(found.focus) == pytest.approx((focus - 0.2) / 2, abs=1e-6)
    whole = (all_of_it - 0.3) / 2
    assert float(found.focus + found.other) == pytest.approx(whole, abs=1e-6)
    assert float(found.outside) == outside


@functools.cache
def parts_of_drafts():
    contexts, answers = drafts(TASK)
    parts = jax.jit(jax.vmap(lambda *of: TASK.gold_parts(of[0], ASKED, of[1])))(contexts, answers)
    return parts, gold(TASK, contexts, answers)


def test_parts_add_up_to_gold_and_have_mean_0_over_drafts():
    parts, whole = parts_of_drafts()
    np.testing.assert_allclose(parts.focus + parts.other, whole, atol=1e-5)
    assert abs(float(parts.focus.mean())) < 0.08
    assert abs(float(parts.other.mean())) < 0.08
    assert float(parts.focus.std()) > 0.2
    assert 0 < float(parts.outside.mean()) < 1


def test_a_focus_changes_neither_the_world_nor_drafts():
    plain = Essays()
    for name in ("weight", "insight", "draft", "statements"):
        np.testing.assert_array_equal(getattr(TASK.hidden, name), getattr(plain.hidden, name))
    np.testing.assert_array_equal(TASK.hidden.numbers[:3], plain.hidden.numbers[:3])
    np.testing.assert_array_equal(plain.hidden.focused_draft, plain.hidden.draft)


def test_focused_drafts_keep_to_the_focus_with_the_odds_of_drafts():
    task = Essays(families=3, claims_per_family=2, key_claims=2, blind_family=-1, focus=(0, 2))
    keys, context = jax.random.split(jax.random.key(1), 2000), task.describe(*jnp.zeros(2, int))
    essays = np.asarray(jax.vmap(lambda key: task.focused_draft(context, ASKED, key))(keys)) - 1
    assert {*essays.ravel()} == {0, 1, 4, 5}
    odds = np.diff(np.asarray(task.hidden.draft), prepend=0, axis=1)[:, [0, 1, 4, 5]]
    after_0 = essays[:, 1:][essays[:, :-1] == 0]
    shares = [(after_0 == claim).mean() for claim in (0, 1, 4, 5)]
    np.testing.assert_allclose(shares, odds[0] / odds[0].sum(), atol=0.03)


def test_a_draw_of_0_begins_with_a_claim_in_focus(monkeypatch):
    """The least number that is drawn, where the first claims have a probability of 0."""
    least = lambda key, shape, minval=0.0: jnp.full(shape, minval, jnp.float32)  # noqa: E731
    monkeypatch.setattr(jax.random, "uniform", least)
    of = world()._replace(
        focused_draft=jnp.array(np.cumsum([[0, 0, 0.25, 0.25]] * 5, axis=1), jnp.float32)
    )
    assert write_draft(of, 3, jax.random.key(0), focused=True).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("focus", "said"),
    [
        ((0, 8), "task.focus must have numbers of families, 0 to 7, got 8"),
        ((), "task.focus must have different numbers of 1 to 7 of the 8 families, got \\[\\]"),
        ((1, 1), "must have different numbers of 1 to 7 of the 8 families, got \\[1, 1\\]"),
        (tuple(range(8)), "must have different numbers of 1 to 7 of the 8 families"),
    ],
)
def test_a_focus_must_be_some_of_the_families(focus, said):
    with pytest.raises(ValueError, match=said):
        Essays(focus=focus)


def test_only_a_task_with_a_focus_has_its_measures():
    for task in (Essays(), Sentences()):
        assert gold_parts_of(task) is None
        assert focused_draft_of(task) is None
    judge = JudgeConfig().build(TASK)
    assistant = FactTransformerConfig(width=16, heads=2).build(TASK)
    names = [measure.name for measure in measures_of(TASK, assistant, judge)]
    assert names == ["gold", "beats_draft", "gold_focus", "gold_other", "outside"]
