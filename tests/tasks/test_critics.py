"""Critics of planted accuracy, who point at the statements of an essay that are wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.overseers.judge import JudgeConfig
from amplify.reading.experiment_file import read_experiment
from amplify.task_abilities import Critic, Reader
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import statements_right, statements_seeming
from amplify.tasks.readers import criticise
from tests.benchmarks import critics
from tests.tasks.test_essays import drafts, gold
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

TASK = Essays(insight_share=0.0)
QUESTION = jnp.ones(1, jnp.int32)
CAREFUL = functools.partial(Reader, credulity=0.0, attentive=True)


def seen(reader: Reader, contexts, essays, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), len(essays))
    one = jax.jit(lambda *of: TASK.impression(reader, of[0], QUESTION, of[1], of[2]))
    return jax.vmap(one)(contexts, essays, keys)


@pytest.mark.parametrize("accuracy", [1.0, 0.8, 0.0])
def test_a_critic_is_right_as_often_as_it_is_said_to_be(accuracy: float):
    right = jax.random.bernoulli(jax.random.key(0), 0.8, (64, 3))
    draw = jax.vmap(lambda key: criticise(Critic(accuracy, False), right, key))
    flaws = np.asarray(draw(jax.random.split(jax.random.key(1), 500)))
    agrees = (flaws == ~np.asarray(right)).mean(axis=0)
    assert agrees.mean() == pytest.approx(accuracy, abs=0.01)
    assert np.abs(agrees - accuracy).max() < 0.1, "each statement by itself"


def test_a_reader_who_believes_a_perfect_critic_sees_gold_without_looking():
    contexts, essays = drafts(TASK, 200)
    found = seen(CAREFUL(looks=9, critic=Critic(1.0, True)), contexts, essays)
    np.testing.assert_allclose(found.worth, gold(TASK, contexts, essays), rtol=1e-4, atol=1e-4)
    assert not found.looks.any()


def test_who_believes_a_critic_that_is_always_wrong_sees_no_claim_that_is_right():
    """A claim seems right only if all of its statements are wrong."""
    contexts, essays = drafts(TASK, 200)
    found = seen(CAREFUL(looks=9, critic=Critic(0.0, True)), contexts, essays)
    assert np.corrcoef(found.worth, gold(TASK, contexts, essays))[0, 1] < -0.2


def test_a_flaw_is_checked_before_anything_else_and_only_one_of_a_claim_at_first():
    """With as many looks as there are wrong claims, a reader finds all of them."""
    contexts, _ = drafts(TASK, 1)
    topic = TASK.topic_of(contexts[0])
    right = np.asarray(statements_right(TASK.hidden, topic))
    seems = np.asarray(statements_seeming(TASK.hidden, TASK.seeming, topic)).all(axis=1)
    wrong = [int(claim) for claim in np.flatnonzero(~right.all(axis=1) & seems)[:2]]
    sound = [int(claim) for claim in np.flatnonzero(right.all(axis=1) & seems)[:2]]
    essay = jnp.zeros((1, TASK.length), jnp.int32).at[0, :4].set(1 + jnp.array(wrong + sound))
    one = functools.partial(seen, contexts=contexts, essays=essay)
    helped = one(CAREFUL(looks=2, critic=Critic(1.0, False)))
    nobody = one(CAREFUL(looks=0))
    # By hand: a claim believed with probability b is worth (2 b - 1) weights, one found wrong -1.
    belief = (TASK.seeming + (1 - TASK.seeming) * 0.5 ** (1 / 3)) ** 3
    weight = np.asarray(TASK.hidden.weight)[wrong].sum() / float(TASK.hidden.scale)
    assert float((helped.worth - nobody.worth)[0]) == pytest.approx(-2 * belief * weight, rel=1e-3)
    assert helped.looks.tolist() == [2]


@pytest.mark.parametrize("checks", ["random", "unsure", "stakes"])
def test_whoever_checks_everything_sees_gold_in_whatever_order(checks):
    contexts, essays = drafts(TASK, 100)
    found = seen(CAREFUL(looks=1000, checks=checks), contexts, essays)
    np.testing.assert_allclose(found.worth, gold(TASK, contexts, essays), rtol=1e-4, atol=1e-4)


def test_who_checks_what_seems_uncertain_looks_at_what_seems_wrong():
    """Careful readers find a statement that seems right more certain than one that does not."""
    contexts, essays = drafts(TASK, 300)
    truth = np.asarray(gold(TASK, contexts, essays))
    found = {
        checks: np.asarray(seen(CAREFUL(looks=6, checks=checks), contexts, essays).worth)
        for checks in ("random", "unsure", "stakes")
    }
    errors = {name: np.mean((worth - truth) ** 2) for name, worth in found.items()}
    assert errors["stakes"] < errors["random"]


def test_a_judge_checks_what_its_critic_shows_it():
    assert JudgeConfig().reader == Reader(1000, 1.0, True)
    assert JudgeConfig(checks="unsure").reader.checks == "unsure"
    helped = JudgeConfig(critic=0.8).reader
    assert helped == Reader(1000, 1.0, True, critic=Critic(0.8, False))
    assert JudgeConfig(critic=0.8, trust="believe").reader.critic == Critic(0.8, True)


@pytest.mark.parametrize("wrong", [{"critic": 0.8}, {"checks": "unsure"}])
def test_only_answers_that_have_parts_can_be_criticised(wrong):
    said = r"overseer\.critic and overseer\.checks need a task whose"
    with pytest.raises(ValueError, match=said):
        JudgeConfig(**wrong).build(Permutation(5, 3))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("critic = 1.5", "overseer.critic"),
        ('checks = "criticised"', "overseer.checks"),
        ('trust = "doubt"', "overseer.trust"),
    ],
)
def test_keys_of_critics_are_checked(tmp_path, key: str, said: str):
    toml = JUDGED_ESSAYS.replace('kind = "judge"', f'kind = "judge"\n{key}')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError, match=said) as error:
        read_experiment(folder / "experiment.toml")
    assert "\n" not in str(error.value)


def test_older_experiments_with_a_judge_keep_their_identity(tmp_path):
    plain, said = (
        read_experiment(tiny_experiment(tmp_path / name, toml) / "experiment.toml")
        for name, toml in (
            ("plain", JUDGED_ESSAYS),
            ("said", JUDGED_ESSAYS.replace('"judge"', '"judge"\nchecks = "random"\ncritic = 0.0')),
        )
    )
    other = JUDGED_ESSAYS.replace('"judge"', '"judge"\ncritic = 0.8')
    other = read_experiment(tiny_experiment(tmp_path / "other", other) / "experiment.toml")
    assert plain.digest == said.digest != other.digest


@pytest.mark.slow
def test_critics_are_worth_what_the_documentation_says():
    """On fewer worlds and pairs than `tests.benchmarks.critics`."""
    found = critics.results(range(100, 104), 1000)
    for accuracy in (0.8, 1.0):
        helped = critics.difference(found, critics.verified(accuracy), critics.RANDOM)
        assert np.mean(helped) > 0
    assert np.mean(critics.difference(found, critics.believed(0.6), critics.ALONE)) < -0.05
    assert min(found[critics.believed(1.0)]) == 1
