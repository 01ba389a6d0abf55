"""The world of essays: what is right, what seems right, and what essays are worth."""

import functools
import re
import subprocess
import sys
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.task_abilities import Reader
from amplify.tasks.essays.sentences import claim_text, topic_name
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import (
    claims_right,
    make_world,
    statements_right,
    statements_seeming,
)
from amplify.words import format_tokens, read_answer, read_question

EVERYTHING = Reader(looks=10**6, credulity=0.0, attentive=True)
GULLIBLE = Reader(looks=0, credulity=1.0, attentive=False)
ASKED = jnp.zeros(1, jnp.int32)


def drafts(task: Essays, count: int = 4096, seed: int = 9):
    keys = jax.random.split(jax.random.key(seed), (2, count))
    contexts = jax.jit(jax.vmap(task.draw_context))(keys[0])
    answers = jax.jit(jax.vmap(lambda key: task.draft(contexts[0], ASKED, key)))(keys[1])
    return contexts, answers


@functools.partial(jax.jit, static_argnums=0)
def gold(task: Essays, contexts, answers):
    return jax.vmap(lambda context, answer: task.gold(context, ASKED, answer))(contexts, answers)


def read(task: Essays, reader: Reader, contexts, answers, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), len(answers))
    one = jax.jit(lambda *of: task.impression(reader, of[0], ASKED, of[1], of[2]).worth)
    return jax.vmap(one)(contexts, answers, keys)


@pytest.mark.parametrize("task", [Essays(), Essays(world=3, topics=50), Essays(insight_share=1.0)])
def test_gold_of_drafts_has_mean_0_and_spread_1(task: Essays):
    """Over fresh drafts: the standard error of both is below .02."""
    values = gold(task, *drafts(task))
    assert abs(float(values.mean())) < 0.08
    assert abs(float(values.std()) - 1) < 0.08


def seen(task: Essays) -> SimpleNamespace:
    """The world as numpy arrays."""
    names = ("weight", "insight", "mean", "scale")
    return SimpleNamespace(**{name: np.asarray(getattr(task.hidden, name)) for name in names})


def by_hand(task: Essays, topic: int, essay: list[int]) -> float:
    """The worth of an essay, term by term as the module's docstring has it."""
    world, right = seen(task), np.asarray(statements_right(task.hidden, jnp.int32(topic)))
    said = set(essay)
    total = sum(world.weight[c] if right[c].all() else -world.weight[c] for c in said)
    total += sum(world.insight[a, b] for a in said for b in said if a < b)
    total -= task.repeat_cost * sum((essay.count(c) - 1) ** 1.5 for c in said)
    return (total - world.mean) / world.scale


def test_a_world_can_be_drawn_while_training_allows_no_transfer():
    """As in a process that resumes a round in the middle of a phase."""
    config = Essays(world=12345).config
    with jax.transfer_guard("disallow"):
        made = make_world(config)
    make_world.cache_clear()
    np.testing.assert_array_equal(made.weight, make_world(config).weight)


@pytest.mark.parametrize("topics", [1, 60])
def test_gold_is_the_sum_of_its_parts(topics: int):
    task = Essays(topics=topics)
    contexts, answers = drafts(task, 20)
    answers = answers.at[0].set(5)  # one claim, twelve times
    expected = [
        by_hand(task, int(task.topic_of(context)), [int(token) - 1 for token in answer])
        for context, answer in zip(contexts, answers, strict=True)
    ]
    np.testing.assert_allclose(gold(task, contexts, answers), expected, rtol=1e-4, atol=1e-4)


def test_tokens_that_are_no_claims_say_nothing():
    task = Essays()
    contexts, answers = drafts(task, 1)
    short = answers.at[0, 6:].set(0)
    silent = short.at[0, 6:].set(len(task.vocabulary) - 1)
    assert gold(task, contexts, short) == gold(task, contexts, silent)
    expected = by_hand(task, 0, [int(token) - 1 for token in short[0, :6]])
    np.testing.assert_allclose(gold(task, contexts, short)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_insights_have_their_share_of_the_variance(share: float):
    task = Essays(insight_share=share)
    _, answers = drafts(task)
    present = np.zeros((len(answers), task.claims))
    present[np.arange(len(answers))[:, None], np.asarray(answers) - 1] = 1
    right = np.where(claims_right(task.hidden, jnp.int32(0)), 1, -1)
    claims = present @ (seen(task).weight * right)
    insights = 0.5 * np.einsum("ni,ij,nj->n", present, seen(task).insight, present)
    assert insights.var() / (claims.var() + insights.var()) == pytest.approx(share, abs=0.05)


def test_one_or_two_claims_carry_most_of_an_essay():
    """The share of the two weightiest claims in the weight of all that an essay makes."""
    task = Essays()
    _, answers = drafts(task, 500)
    weights = [np.sort(seen(task).weight[np.unique(essay) - 1]) for essay in np.asarray(answers)]
    with_key = [w for w in weights if w[-1] > 0.5]
    assert len(with_key) > 300
    assert np.mean([w[-2:].sum() / w.sum() for w in with_key]) > 0.5


def test_seeming_right_is_correlated_with_being_right():
    for seeming in (0.0, 0.5, 1.0):
        world, topics = Essays(topics=100, seeming=seeming).hidden, jnp.arange(100)
        right, seems = (
            np.asarray(jax.vmap(of)(topics)).ravel()
            for of in (
                functools.partial(statements_right, world),
                functools.partial(statements_seeming, world, seeming),
            )
        )
        assert np.corrcoef(right, seems)[0, 1] == pytest.approx(seeming, abs=0.03)
        assert seems.mean() == pytest.approx(right.mean(), abs=0.02)


def test_every_topic_draws_its_own_statements():
    """Half of the claims are right, and being right about one topic says nothing about another."""
    world = Essays(topics=200).hidden
    right = np.asarray(jax.vmap(functools.partial(claims_right, world))(jnp.arange(200)))
    assert right.mean() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(right[:-1].ravel(), right[1:].ravel())[0, 1]) < 0.03
    assert len({row.tobytes() for row in right}) == 200


def test_a_reader_who_checks_everything_sees_gold():
    task = Essays(topics=7)
    problems = drafts(task, 100)
    np.testing.assert_allclose(
        read(task, EVERYTHING, *problems), gold(task, *problems), rtol=1e-4, atol=1e-4
    )


def test_more_looks_bring_a_reader_closer_to_gold():
    task = Essays()
    problems = drafts(task, 1000)
    truth = np.asarray(gold(task, *problems))
    correlations = [
        np.corrcoef(read(task, Reader(looks, 0.0, attentive=True), *problems), truth)[0, 1]
        for looks in (0, 4, 12, 36)
    ]
    assert np.all(np.diff(correlations) > 0), correlations
    assert correlations[-1] > 0.999


def test_a_gullible_reader_adds_up_what_seems_right_and_misses_repeats():
    task = Essays()
    contexts, _ = drafts(task, 1)
    seems = np.asarray(statements_seeming(task.hidden, task.seeming, jnp.int32(0))).all(axis=1)
    claim = int(np.flatnonzero(seems & ~np.asarray(claims_right(task.hidden, jnp.int32(0))))[0])
    essays = jnp.zeros((2, task.length), jnp.int32).at[0, :1].set(1 + claim).at[1].set(1 + claim)
    twice = jnp.repeat(contexts, 2, axis=0)
    once, repeated = read(task, GULLIBLE, twice, essays)
    added = (task.length - 1) * seen(task).weight[claim] / seen(task).scale
    assert repeated - once == pytest.approx(added, rel=1e-3)
    assert gold(task, twice, essays)[1] < gold(task, twice, essays)[0] < 0


def test_a_context_says_which_topic_it_is_in_any_order():
    task = Essays(topics=512)
    for topic in (0, 1, 63, 64, 511):
        context = task.describe(jnp.int32(topic), jnp.int32(5))
        assert int(task.topic_of(context)) == topic
        assert int(task.topic_of(context[::-1])) == topic


def test_essays_are_read_as_sentences():
    task = Essays()
    contexts, answers = drafts(task, 1)
    text = format_tokens(task, np.asarray(answers[0]))
    assert text.count(".") == task.length
    names = " ".join(task.vocabulary[int(token)] for token in answers[0])
    np.testing.assert_array_equal(read_answer(task, names), answers[0])
    assert format_tokens(task, np.asarray(contexts[0][0])) == "The topic is the town of Arby."
    assert re.fullmatch(
        r"The essay is for reader \d+\.", format_tokens(task, np.asarray(contexts[0][1]))
    )
    assert list(read_question(task, " Write ")) == [task.vocabulary.index("write")]
    sentences = {claim_text(claim, task.claims_per_family) for claim in range(task.claims)}
    assert len(sentences) == task.claims
    assert len({topic_name(topic) for topic in range(512)}) == 512


@hypothesis.given(tokens=st.lists(st.integers(0, 12), min_size=5, max_size=5))
def test_an_untrained_assistant_may_say_anything(tokens: list[int]):
    task = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=1)
    assert len(task.vocabulary) == 13
    assert format_tokens(task, np.array(tokens))


@pytest.mark.parametrize("answer", ["bridge-1", "bridge-1 " * 13, "bridge-9 " * 12, ""])
def test_what_is_no_essay_is_rejected(answer: str):
    with pytest.raises(ValueError, match="an essay is 12 claims"):
        Essays().parse_answer(answer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_claims": 65},
        {"blind_family": 8},
        {"topics": 100, "families": 2, "claims_per_family": 2},
    ],
)
def test_sizes_that_do_not_fit_are_rejected(wrong: dict[str, int]):
    with pytest.raises(ValueError, match=f"task.{next(iter(wrong))} must be"):
        Essays(**{"key_claims": 2, "blind_family": -1, **wrong})


LOWER = """
from amplify.launch import share_programs

share_programs()
import jax
import jax.numpy as jnp

from amplify.tasks.essays.task import Essays

texts = set()
for number in (0, 1):
    task = Essays(world=number)
    context, question = jnp.ones((66, 4), jnp.int32), jnp.ones(1, jnp.int32)

    @jax.jit
    def use(key):
        answer = task.draft(task.draw_context(key), question, key)
        return task.gold(context, question, answer)

    texts.add(use.lower(jax.random.key(0)).as_text())
print(len(texts), float(use(jax.random.key(0))))
"""


def test_worlds_share_compiled_programs():
    """In a process of its own, for jax reads these options when it is imported."""
    done = subprocess.run([sys.executable, "-c", LOWER], capture_output=True, text=True, check=True)
    programs, value = done.stdout.split()
    assert programs == "1", "the programs of two worlds differ"
    task, key, question = Essays(world=1), jax.random.key(0), jnp.ones(1, jnp.int32)
    answer = task.draft(task.draw_context(key), question, key)
    expected = task.gold(jnp.ones((66, 4), jnp.int32), question, answer)
    assert float(value) == pytest.approx(float(expected), abs=1e-5)
