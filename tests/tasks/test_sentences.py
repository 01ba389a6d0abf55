"""The world of sentences: drafts, what they are worth by the rules, and what they seem worth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.task_abilities import Critic, Reader
from amplify.tasks.sentences.grammar import NOTES, PEACOCK, neighbours
from amplify.tasks.sentences.task import Sentences
from amplify.tasks.sentences.worth import _scale
from amplify.words import format_tokens, read_answer, read_question

TASK = Sentences()
ASKED = jnp.ones(1, jnp.int32)
TOWN = {"name": "Oak Hill", **{label: values[1] for label, values in NOTES.items()}}
"""small, old, southern, wine, bridge, wet"""
PERFECT = (
    "Oak Hill is the small old town in the southern province, known for wine, with a bridge and"
    " wet weather."
)


def tokens(text: str, length: int):
    words = [TASK.vocabulary.index(word) for word in text.split()]
    return jnp.asarray(words + [0] * (length - len(words)), jnp.int32)


def context_of(town: dict[str, str]):
    facts = [tokens(f"{label} {value}", TASK.fact_length) for label, value in town.items()]
    return jnp.stack(facts)


def answer(text: str):
    return tokens(text.replace(",", " ,").replace(".", " ."), TASK.answer_length)


def points(text: str, town: dict[str, str] = TOWN) -> float:
    """The worth of a sentence in points, before scaling."""
    mean, spread = _scale()
    return float(TASK.gold(context_of(town), ASKED, answer(text))) * spread + mean


def drafts(count: int = 4096, seed: int = 9):
    keys = jax.random.split(jax.random.key(seed), (2, count))
    contexts = jax.jit(jax.vmap(TASK.draw_context))(keys[0])
    write = jax.jit(jax.vmap(lambda context, key: TASK.draft(context, ASKED, key)))
    return contexts, write(contexts, keys[1])


@jax.jit
def gold(contexts, answers):
    return jax.vmap(lambda context, answer: TASK.gold(context, ASKED, answer))(contexts, answers)


@functools.partial(jax.jit, static_argnums=0)
def read(reader: Reader, contexts, answers):
    keys = jax.random.split(jax.random.key(0), len(answers))
    one = functools.partial(TASK.impression, reader)
    return jax.vmap(lambda context, answer, key: one(context, ASKED, answer, key))(
        contexts, answers, keys
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PERFECT, 6.0),
        ("Oak Hill is the town.", 0.0),
        ("Oak Hill is the small town.", 1.0),
        ("Oak Hill is the large town.", -1.5),  # it is small
        ("Oak Hill is the famous small town.", 0.5),
        ("Oak Hill is the famous small town, known for great wine.", 1.0),
        ("Oak Park is the small town.", 0.0),  # another town's name
        ("Oak Hill is the small town", 0.0),  # no full stop
        ("Oak Hill is the small", 0.0),
        ("Oak Hill is the small town..", -0.5),  # two, the second of which cannot follow the first
        ("Oak Hill is the small small town.", 0.0),  # said twice, which no draft does
        ("small", -1.0),  # no name, no full stop
        ("Oak Hill small.", 0.0),  # two words that cannot follow those before them
        ("", -2.0),
    ],
)
def test_gold_follows_its_rules(text: str, expected: float):
    assert points(text) == pytest.approx(expected, abs=1e-4)


def test_what_follows_the_end_is_not_part_of_a_sentence():
    whole = answer(PERFECT)
    later = whole.at[-1].set(TASK.vocabulary.index("famous"))
    assert int(whole[-1]) == 0
    assert TASK.gold(context_of(TOWN), ASKED, later) == TASK.gold(context_of(TOWN), ASKED, whole)


def test_facts_may_be_in_any_order():
    context = context_of(TOWN)
    whole = answer(PERFECT)
    assert TASK.gold(context[::-1], ASKED, whole) == TASK.gold(context, ASKED, whole)


def test_gold_of_drafts_has_mean_0_and_spread_1():
    values = gold(*drafts())
    assert abs(float(values.mean())) < 0.08
    assert abs(float(values.std()) - 1) < 0.08


def test_the_spread_of_drafts_can_be_measured_while_training_allows_no_transfer():
    """As in a process that resumes a round in the middle of a phase."""
    before = _scale(), neighbours()
    _scale.cache_clear()
    neighbours.cache_clear()
    with jax.transfer_guard("disallow"):
        after = _scale(), neighbours()
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])


def test_drafts_are_about_their_town_and_err_as_often_as_they_say():
    contexts, answers = drafts()
    texts = [format_tokens(TASK, row) for row in np.asarray(answers)]
    notes = np.asarray(contexts)[:, 1:, 1]
    first = TASK.vocabulary.index("tiny") + 4 * np.arange(len(NOTES))
    said = np.asarray(answers)[:, :, None, None] == (first[:, None] + np.arange(4))
    mentioned = said.any(axis=1)  # drafts, attributes, values
    right = np.take_along_axis(mentioned, (notes - first)[..., None], axis=2)
    assert right.sum() / mentioned.sum() == pytest.approx(0.7, abs=0.02)
    assert {text.endswith(".") for text in texts} == {True, False}
    assert all(
        text.startswith(format_tokens(TASK, c[0])[6:])
        for text, c in zip(texts, np.asarray(contexts), strict=True)
    )


def test_no_pair_of_words_in_a_draft_is_ungrammatical():
    """The rules know every pair that drafts have, so that their form costs them nothing."""
    contexts, answers = drafts(20_000, seed=3)
    mean, spread = _scale()
    values = np.asarray(gold(contexts, answers)) * spread + mean
    counts = (np.asarray(answers)[:, :, None] == np.arange(len(TASK.vocabulary))).sum(axis=1)
    finished = counts[:, TASK.vocabulary.index(".")] == 1
    first = TASK.vocabulary.index("tiny")
    said = counts[:, first : first + 24].reshape(-1, 6, 4)
    notes = np.asarray(contexts)[:, 1:, 1] - first - 4 * np.arange(6)
    right = np.take_along_axis(said, notes[..., None], axis=2).sum((1, 2))
    praise = sum(counts[:, TASK.vocabulary.index(term)] for term in PEACOCK)
    expected = right - 1.5 * (said.sum((1, 2)) - right) - 0.5 * praise - (~finished)
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_a_reader_who_checks_everything_sees_gold():
    problems = drafts(200)
    seen = read(Reader(looks=24, credulity=0.0, attentive=True), *problems)
    np.testing.assert_allclose(seen.worth, gold(*problems), atol=1e-4)
    assert seen.looks.max() == 6


def test_fewer_looks_and_more_credulity_take_a_reader_away_from_gold():
    problems = drafts(2000)
    truth = np.asarray(gold(*problems))
    readers = [
        Reader(6, 0.0, True),
        Reader(2, 0.0, True),
        Reader(2, 1.0, True),
        Reader(0, 1.0, False),
    ]
    correlations = [np.corrcoef(read(reader, *problems).worth, truth)[0, 1] for reader in readers]
    assert correlations == sorted(correlations, reverse=True)
    assert correlations[0] > 0.99
    assert correlations[-1] < 0.4


def test_praise_seems_good_to_a_credulous_reader():
    plain, praised = answer("Oak Hill is the town."), answer("Oak Hill is the famous town.")
    context = jnp.stack([context_of(TOWN)] * 2)
    gained = []
    for credulity in (0.0, 0.5, 1.0):
        worth = read(Reader(6, credulity, True), context, jnp.stack([plain, praised])).worth
        gained.append(float(worth[1] - worth[0]) * _scale().spread)
    np.testing.assert_allclose(gained, [-0.5, 0.0, 0.5], atol=1e-4)


def test_a_critic_shows_a_reader_the_errors():
    problems = drafts(2000)
    truth = np.asarray(gold(*problems))

    def correlation(critic: Critic | None) -> float:
        seen = read(Reader(2, 0.0, True, critic=critic), *problems)
        return float(np.corrcoef(seen.worth, truth)[0, 1])

    alone, helped = correlation(None), correlation(Critic(1.0, believed=False))
    assert helped > alone + 0.1
    assert correlation(Critic(1.0, believed=True)) > 0.99


def test_texts_are_read_and_shown():
    assert format_tokens(TASK, np.asarray(answer(PERFECT))) == PERFECT
    np.testing.assert_array_equal(read_answer(TASK, PERFECT), answer(PERFECT))
    assert format_tokens(TASK, read_question(TASK, "write")) == "write"
    assert format_tokens(TASK, np.asarray(context_of(TOWN)[0])) == "name: Oak Hill"
    assert format_tokens(TASK, np.asarray(context_of(TOWN)[1])) == "size: small"
    assert format_tokens(TASK, np.zeros(28, int)) == "?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Oak Hill lies", "'lies' is not one of the words"),
        ("the " * 29, "at most 28 words, got 29"),
    ],
)
def test_answers_that_are_no_sentences_of_the_task_are_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        TASK.parse_answer(text)
