"""Claims: which are right, and whom somebody who knows can help."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.reading.experiment_file import read_experiment
from amplify.task_abilities import helping_of
from amplify.tasks.essays.claims import Claims
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import statements_right
from amplify.words import format_tokens, read_question
from tests.tasks.common import play
from tests.tasks.test_conformance import problems_of
from tests.tiny import tiny_experiment

ESSAYS = Essays(
    topics=500, length=5, families=2, claims_per_family=4, key_claims=2, insights=4,
    blind_family=1, sources=True,
)  # fmt: skip
TASK = Claims(ESSAYS)


def context_and_right(seed: int):
    context = TASK.draw_context(jax.random.key(seed))
    return context, np.asarray(statements_right(ESSAYS.hidden, ESSAYS.topic_of(context)))


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_names_a_wrong_statement_or_says_that_there_is_none(seed: int):
    context, right = context_and_right(seed)
    words = {word: token for token, word in enumerate(TASK.vocabulary)}
    for claim in range(ESSAYS.claims):
        for place in (None, 0, 1, 2):
            name = TASK.vocabulary[1 + claim] + ("" if place is None else f".{place + 1}")
            question = jnp.asarray(read_question(TASK, name))
            wrong = [s for s in range(3) if place in (None, s) and not right[claim, s]]
            allowed = {str(1 + s) for s in wrong} or {"right"}
            accepted = {
                word for word in TASK.choices
                if bool(TASK.is_right(context, question, jnp.array([words[word]], jnp.int32)))
            }  # fmt: skip
            assert accepted == allowed
            assert format_tokens(TASK, np.asarray(TASK.truth(context, question))) in allowed
            label = TASK.classes[int(TASK.class_of(context, question))]
            of = "claim" if place is None else "statement"
            assert label == f"{'wrong' if wrong else 'right'} {of}"


def test_sources_confirm_what_is_right_and_deny_the_rest():
    context, right = context_and_right(3)
    said = [format_tokens(TASK, np.asarray(fact)) for fact in context]
    for claim in range(ESSAYS.claims):
        words = ", ".join("confirmed" if one else "denied" for one in right[claim])
        assert said.count(f"{TASK.vocabulary[1 + claim]}: its sources say {words}.") == 1


@pytest.mark.parametrize(
    ("question", "told", "asked", "answer"),
    [
        ("bridge-1.2", ["2"], ["bridge-1.2"], "2"),
        ("bridge-1.2", ["right"], ["bridge-1.2"], "right"),
        ("bridge-1", ["right"] * 3, ["bridge-1.1", "bridge-1.2", "bridge-1.3"], "right"),
        ("bridge-1", ["right", "2", "3"], ["bridge-1.1", "bridge-1.2", "bridge-1.3"], "2"),
        ("bridge-1", ["?", "right", "3"], ["bridge-1.1", "bridge-1.2", "bridge-1.3"], "3"),
        ("bridge-1", ["right", "?", "right"], ["bridge-1.1", "bridge-1.2", "bridge-1.3"], "?"),
        ("bridge-1", ["2", "right", "right"], ["bridge-1.1", "bridge-1.2", "bridge-1.3"], "?"),
    ],
)
def test_a_statement_is_looked_up_and_a_claim_asked_about(question, told, asked, answer):
    assert play(TASK, question, told) == (asked, answer)


def test_half_of_the_questions_are_about_something_wrong_and_none_about_the_blind_family():
    problems, depths = problems_of(TASK, 200)
    classes = jax.vmap(jax.vmap(TASK.class_of, (None, 0)))(problems.contexts, problems.questions)
    share = np.asarray(classes % 2).mean()
    assert share == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(
        np.asarray(classes) // 2 + 1, np.broadcast_to(depths, classes.shape)
    )
    assert (np.asarray(problems.questions)[..., 0] <= 4).all()


def test_what_somebody_says_about_every_claim():
    helping = helping_of(TASK)
    assert helping is not None
    words = {word: token for token, word in enumerate(TASK.vocabulary)}
    said = ["right", "2", "?", "claim", "1", "right", "3", "right"]
    found = helping.critique(jnp.array([[words[word]] for word in said], jnp.int32))
    assert found.said.tolist() == [True, True, False, False, False, False, False, False]
    assert found.flawed[:4].tolist() == [
        [False] * 3,
        [False, True, False],
        [False] * 3,
        [False] * 3,
    ]
    shown = [format_tokens(TASK, np.asarray(one)) for one in helping.questions]
    assert shown == list(TASK.vocabulary[1:9])


def test_it_helps_with_essays_that_differ_in_their_topics_only():
    assert TASK.fits(dataclasses.replace(ESSAYS, topics=7))
    assert not TASK.fits(dataclasses.replace(ESSAYS, world=1))
    assert not TASK.fits(TASK)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("sources = false", "task.essays.sources must be true"),
        (
            "sources = true\nfamilies = 1\nblind_family = 0\nkey_claims = 2",
            "blind_family must be -1",
        ),
    ],
)
def test_claims_that_nobody_could_judge_are_refused(keys, said, tmp_path):
    folder = tiny_experiment(
        tmp_path / "tiny",
        f'[task]\nkind = "claims"\n[task.essays]\n{keys}\n[assistant]\nkind = "fact-transformer"\n'
        '[overseer]\nkind = "simulated"\n',
    )
    with pytest.raises(AmplifyError, match=said):
        read_experiment(folder / "experiment.toml")
