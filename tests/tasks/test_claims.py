"""Claims: which are right, and whom somebody who knows can help."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.reading.experiment_file import read_experiment
from amplify.task_helping import helping_of
from amplify.tasks.essays.claims import Claims
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import statements_right
from amplify.words import format_tokens, read_question
from tests.tasks.common import play
from tests.tasks.test_conformance import problems_of
from tests.tiny import tiny_experiment

ESSAYS = Essays(
    topics=500, length=5, families=2, claims_per_family=4, key_claims=2, insights=4,
    blind_family=1, sources=3,
)  # fmt: skip
TASK = Claims(ESSAYS)


WORDS = {word: token for token, word in enumerate(TASK.vocabulary)}


def passages_and_right(seed: int):
    """What can be read about each claim of a topic, and which of its statements are right."""
    context = ESSAYS.draw_context(jax.random.key(seed))
    shuffled = jax.random.permutation(jax.random.key(seed), context)
    right = np.asarray(statements_right(ESSAYS.hidden, ESSAYS.topic_of(context)))
    return np.asarray(TASK.passages(shuffled)), right


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_names_a_wrong_statement_or_says_that_there_is_none(seed: int):
    passages, right = passages_and_right(seed)
    judge = jax.jit(lambda *of: (TASK.is_right(*of), TASK.truth(*of[:2]), TASK.class_of(*of[:2])))
    for context, statements in zip(passages, right, strict=True):
        for place in (None, 0, 1, 2):
            name = "claim" if place is None else str(1 + place)
            question = jnp.asarray(read_question(TASK, name))
            wrong = [s for s in range(3) if place in (None, s) and not statements[s]]
            allowed = {str(1 + s) for s in wrong} or {"right"}
            accepted = set()
            for word in TASK.choices:
                fine, truth, kind = judge(context, question, jnp.array([WORDS[word]], jnp.int32))
                accepted |= {word} if fine else set()
            assert accepted == allowed
            assert format_tokens(TASK, np.asarray(truth)) in allowed
            of = "claim" if place is None else "statement"
            assert TASK.classes[int(kind)] == f"{'wrong' if wrong else 'right'} {of}"


def test_a_source_says_the_number_that_is_cited_if_and_only_if_the_statement_is_right():
    passages, right = passages_and_right(3)
    for claim, (context, statements) in enumerate(zip(passages, right, strict=True)):
        facts = {tuple(fact) for fact in context.tolist()}
        (topic,) = (fact for fact in facts if fact[0] == WORDS["write"])
        seems, cited, found = sorted(facts - {topic}, key=lambda fact: fact[1])
        assert {seems[0], cited[0], found[0]} == {1 + claim}
        words = [[TASK.vocabulary[token] for token in fact[1:]] for fact in (cited, found)]
        numbers = [[word.rpartition("-")[2] for word in of] for of in words]
        assert [one == other for one, other in zip(*numbers, strict=True)] == statements.tolist()
        said = format_tokens(TASK, np.array(cited))
        assert said == f"{TASK.vocabulary[1 + claim]}: {', '.join(words[0])}."


@pytest.mark.parametrize(
    ("question", "told", "asked", "answer"),
    [
        ("2", ["2"], ["2"], "2"),
        ("2", ["right"], ["2"], "right"),
        ("claim", ["right"] * 3, ["1", "2", "3"], "right"),
        ("claim", ["right", "2", "3"], ["1", "2", "3"], "2"),
        ("claim", ["?", "right", "3"], ["1", "2", "3"], "3"),
        ("claim", ["right", "?", "right"], ["1", "2", "3"], "?"),
        ("claim", ["2", "right", "right"], ["1", "2", "3"], "?"),
    ],
)
def test_a_statement_is_looked_up_and_a_claim_asked_about(question, told, asked, answer):
    assert play(TASK, question, told) == (asked, answer)


def test_no_claim_of_the_blind_family_is_asked_about_and_half_of_the_others_are_wrong():
    problems, depths = problems_of(TASK, 300)
    contexts = np.asarray(problems.contexts)
    claims = np.where(contexts[..., 0] == WORDS["write"], 0, contexts[..., 0]).max(axis=1)
    assert {*claims.tolist()} == {1, 2, 3, 4}
    classes = jax.vmap(jax.vmap(TASK.class_of, (None, 0)))(problems.contexts, problems.questions)
    assert (np.asarray(classes) // 2 + 1 == depths[None]).all()
    wrong = np.asarray(classes)[:, depths == 2] % 2
    assert wrong.mean() == pytest.approx(0.5, abs=0.1)


def test_what_somebody_says_about_every_claim():
    helping = helping_of(TASK)
    assert helping is not None
    assert format_tokens(TASK, np.asarray(helping.question)) == "claim"
    said = ["right", "2", "?", "claim", "1", "right", "3", "right"]
    found = helping.critique(jnp.array([[WORDS[word]] for word in said], jnp.int32))
    assert found.said.tolist() == [True, True, False, False, False, False, False, False]
    assert found.flawed[:4].tolist() == [
        [False] * 3,
        [False, True, False],
        [False] * 3,
        [False] * 3,
    ]


def test_it_helps_with_essays_that_differ_in_their_topics_only():
    assert TASK.fits(dataclasses.replace(ESSAYS, topics=7))
    assert not TASK.fits(dataclasses.replace(ESSAYS, world=1))
    assert not TASK.fits(TASK)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("sources = 0", "task.essays.sources must be 2 or more"),
        ("sources = 1", "task.sources must be 0, or 2 or more"),
        (
            "sources = 2\nfamilies = 1\nblind_family = 0\nkey_claims = 2",
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
