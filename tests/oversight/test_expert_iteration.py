"""Expert iteration: choosing the best of several answers, and learning to give it."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.oversight.reinforcement.expert_iteration import ExpertIteration, _best_of, choose_best
from amplify.oversight.reinforcement.rollouts import REWARD_MODEL, Normaliser
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.problems import draw_problems
from amplify.training import dataset
from tests.killed import killed_and_resumed
from tests.tiny import AUDITED_ESSAYS, EXPERT_ESSAYS, tiny_experiment


def test_the_answer_with_the_highest_reward_is_chosen():
    answers = jnp.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    rewards = jax.random.normal(jax.random.key(0), (2, 3, 4))
    chosen, best = choose_best(answers, rewards)
    index = np.argmax(rewards, axis=-1)
    for row in range(2):
        for column in range(3):
            np.testing.assert_array_equal(
                chosen[row, column], answers[row, column, index[row, column]]
            )
    np.testing.assert_array_equal(best, rewards.max(-1))


def test_a_reward_that_is_not_a_number_is_never_the_best():
    answers = jnp.arange(3)[None, None, :, None]
    nan = jnp.nan
    for rewards, expected in [([nan, -5, -6], 1), ([-6, -5, nan], 1), ([nan, nan, -7], 2)]:
        chosen, _ = choose_best(answers, jnp.array(rewards, jnp.float32)[None, None])
        assert int(chosen[0, 0, 0]) == expected


@pytest.mark.parametrize("samples", [2, 8])
def test_the_chosen_answers_have_the_distribution_of_best_of_n(samples: int):
    """Over all 16 answers of one token: P(the best is y) = F(r(y))^n - F(below r(y))^n."""
    task = Permutation(15, 2)
    policy = FactTransformerConfig(width=16, heads=2, encoder_layers=0, copies=False).build(task)
    params = policy.init(jax.random.key(0))
    model = RewardModel(RewardModelConfig(width=8), task)
    roles = {REWARD_MODEL: model.init(jax.random.key(1))}
    normaliser = Normaliser(jnp.zeros(1), jnp.ones(1))
    problems = draw_problems(task, 0, 1, "train", 256, [1, 2])
    root = jax.random.key(2)
    found = _best_of(task, policy, model, samples, params, roles, normaliser, root, problems)
    every = jnp.tile(jnp.arange(16, dtype=jnp.int32), 2)[None, :, None]
    every = jnp.broadcast_to(every, (256, 32, 1))
    asked = jnp.repeat(problems.questions, 16, axis=1)
    memory = policy.encode(params, problems.contexts)
    log_prob = np.asarray(policy.log_prob(params, memory, asked, every)[..., 0])
    reward = np.asarray(model.rewards(roles[REWARD_MODEL], None, asked, every)[0])
    probability = np.exp(log_prob.reshape(256, 2, 16).astype(np.float64))
    reward = reward.reshape(256, 2, 16)
    at_most = reward[..., None, :] <= reward[..., :, None]
    below = reward[..., None, :] < reward[..., :, None]
    mass = probability[..., None, :]
    exact = (at_most * mass).sum(-1) ** samples - (below * mass).sum(-1) ** samples
    assert exact.sum(-1) == pytest.approx(np.ones((256, 2)), abs=1e-4)
    counts = np.bincount(np.asarray(found["answers"]).ravel(), minlength=16) / 512
    assert np.abs(counts - exact.mean((0, 1))).sum() / 2 < 0.06
    kl = (exact * np.log(np.maximum(exact, 1e-300) / probability)).sum(-1)
    assert kl.mean() < ExpertIteration(samples=samples).kl_bound


def test_the_bound_on_kl():
    assert ExpertIteration(samples=16).kl_bound == pytest.approx(math.log(16) - 15 / 16)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (EXPERT_ESSAYS.replace("samples = 4", "samples = 1"), "expert_iteration.samples"),
        (EXPERT_ESSAYS.replace("iterations = 2", "iterations = 0"), "expert_iteration.iterations"),
        (
            AUDITED_ESSAYS.replace("reviews = 200", 'reviews = 200\nmethod = "expert-iteration"'),
            "oversight.audit.every must be 0",
        ),
    ],
)
def test_what_does_not_fit_is_rejected_when_the_file_is_read(tmp_path, toml, said):
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Path:
    folder = tiny_experiment(tmp_path_factory.mktemp("expert") / "tiny", EXPERT_ESSAYS)
    main(["round", str(folder), "--n", "2"])
    return folder


@pytest.mark.slow
def test_each_iteration_samples_the_policy_of_the_one_before(expert):
    this = Store(expert).round(1)
    stages = this.record["stages"]
    assert [name for name in stages if name.startswith("best_of")] == [
        "best_of_1/data",
        "best_of_1/checkpoint",
        "best_of_2/data",
        "best_of_2/checkpoint",
    ]
    calls = {(row["stage"], row["part"]): row["calls"] for row in this.record["ledger"]["calls"]}
    assert calls["best_of_1/data", "assistant"] == 64 * 4 * 4
    rewards = [stages[f"best_of_{number}/data"]["best_of"]["best_reward"] for number in (1, 2)]
    assert rewards[0] > 0.3  # the best of four drafts is better than a draft
    assert rewards[1] > rewards[0]
    rows = list(dataset.read(this.phase("best_of_1").data))
    assert len(rows) == 64
    assert len(this.training_curve()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("after", [125, 150])
def test_a_killed_round_ends_as_one_that_was_not(expert, tmp_path, after, monkeypatch):
    """Killed in the first and in the second iteration."""
    folder = killed_and_resumed(expert, tmp_path / "tiny", after, monkeypatch)
    one, two = (
        {
            stage: {key: entry.get(key) for key in ("digest", "digests")}
            for stage, entry in Store(at).round(1).record["stages"].items()
        }
        for at in (folder, expert)
    )
    assert one == two
