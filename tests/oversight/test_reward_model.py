"""Reward models learned from a judge's comparisons, and reinforcement learning against them."""

import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.overseers.judge import JudgeConfig
from amplify.oversight.reinforcement import rollouts
from amplify.oversight.reinforcement.rollouts import (
    REFERENCE,
    REWARD_MODEL,
    Normaliser,
    Penalty,
    PolicyGradient,
    Rollouts,
    RolloutState,
    measure_rewards,
    whiten,
)
from amplify.reading.experiment_file import read_experiment
from amplify.records.round_folder import Handle, RoundFolder
from amplify.store import Store
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.essays.task import Essays
from amplify.training import dataset
from amplify.training.phase import RoleState
from tests.killed import killed_and_resumed
from tests.tiny import JUDGED_ESSAYS, REVIEWED_ESSAYS, TOML, tiny_experiment

TASK = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=-1)


def essays(rows: int, columns: int = 4, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), 3)
    contexts = jax.vmap(TASK.draw_context)(jax.random.split(keys[0], rows))
    questions = jnp.full((rows, columns, 1), TASK.vocabulary.index("write"), jnp.int32)
    first, second = (
        jax.random.randint(key, (rows, columns, TASK.length), 1, TASK.claims + 1)
        for key in keys[1:]
    )
    return contexts, questions, first, second


def keys_of(rows: int, columns: int = 4, seed: int = 7):
    return jax.random.split(jax.random.key(seed), (rows, columns))


def prefers_first(judge, contexts, questions, first, second, keys):
    choose = jax.jit(judge.choose)
    found = choose({}, contexts, questions, jnp.stack([first, second], axis=2), keys)
    assert found.obtained.all()
    return found.best == 0


@pytest.mark.parametrize("errors", [0.0, 0.25, 1.0])
def test_a_judge_who_checks_everything_is_wrong_as_often_as_it_errs(errors: float):
    judge = JudgeConfig(errors=errors).build(TASK)
    contexts, questions, first, second = essays(500)
    value = jax.vmap(jax.vmap(TASK.gold, in_axes=(None, 0, 0)), in_axes=(0, 0, 0))
    better = value(contexts, questions, first) > value(contexts, questions, second)
    said = prefers_first(judge, contexts, questions, first, second, keys_of(500))
    assert np.mean(np.asarray(said != better)) == pytest.approx(errors, abs=0.03)


def test_of_equal_answers_a_judge_prefers_either():
    contexts, questions, first, _ = essays(500)
    judge = JudgeConfig(errors=0.0).build(TASK)
    said = prefers_first(judge, contexts, questions, first, first, keys_of(500))
    assert np.mean(said) == pytest.approx(0.5, abs=0.05)


def test_a_score_has_its_noise():
    contexts, questions, first, _ = essays(500)
    quiet, noisy = (
        JudgeConfig(noise=noise).build(TASK).score({}, contexts, questions, first, keys_of(500))
        for noise in (0.0, 0.5)
    )
    assert np.std(noisy.value - quiet.value) == pytest.approx(0.5, rel=0.05)
    assert noisy.obtained.all()


def test_a_judgement_does_not_depend_on_its_batch():
    contexts, questions, first, second = essays(8)
    judge, keys = JudgeConfig(looks=2).build(TASK), keys_of(8)
    parts = (contexts, questions, first, second, keys)
    together = prefers_first(judge, *parts)
    alone = [prefers_first(judge, *(part[row : row + 1] for part in parts)) for row in range(8)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


MODEL = RewardModel(RewardModelConfig(members=3, width=8), TASK)


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("mean", 2.0), ("worst", 0.0), ("mean-variance", 2.0 - 8 / 3)]
)
def test_members_are_combined(aggregate, expected):
    model = RewardModel(RewardModelConfig(members=3, aggregate=aggregate), TASK)
    rewards = jnp.array([0.0, 2.0, 4.0])[:, None, None]
    assert float(model.combine(rewards)[0, 0]) == pytest.approx(expected)


def test_a_reward_does_not_depend_on_the_order_of_a_bag_but_for_positions():
    """Counts matter most: of two essays with the same claims, rewards are close."""
    params = MODEL.init(jax.random.key(0))
    _, questions, first, second = essays(50)
    turned = MODEL.rewards(params, None, questions, first[..., ::-1])
    same = MODEL.rewards(params, None, questions, first)
    other = MODEL.rewards(params, None, questions, second)
    assert np.std(same - turned) < 0.3 * np.std(same - other)


def test_rewards_are_normalised_for_each_member():
    normalise = Normaliser(jnp.array([1.0, 10.0]), jnp.array([2.0, 5.0]))
    rewards = jnp.stack([jnp.full((3, 4), 3.0), jnp.full((3, 4), 5.0)])
    np.testing.assert_allclose(normalise(rewards)[:, 0, 0], [1.0, -1.0])


@pytest.mark.parametrize(
    ("kl", "expected"), [(6.0, 0.1), (6.6, 0.1 * 1.1), (60.0, 0.1 * 1.2), (0.0, 0.1 * 0.8)]
)
def test_an_adaptive_beta_follows_the_clipped_error(kl, expected):
    """Ziegler et al. 2019: with as many answers as the horizon, the error is the change."""
    penalty = Penalty(beta=0.1, target_kl=6.0, horizon=256.0)
    assert penalty.adapt(jnp.float32(0.1), jnp.float32(kl), 256) == pytest.approx(expected)


def test_an_adaptive_beta_is_the_product_of_its_changes():
    """Against the controller of lm-human-preferences, in Python's floats."""
    penalty, beta = Penalty(beta=0.2, target_kl=4.0, horizon=1000.0), 0.2
    found = jnp.float32(beta)
    for kl in np.random.default_rng(0).uniform(0, 12, 50):
        found = penalty.adapt(found, jnp.float32(kl), 128)
        beta *= 1 + np.clip(kl / 4.0 - 1, -0.2, 0.2) * 128 / 1000
    assert float(found) == pytest.approx(beta, rel=1e-4)


@pytest.mark.parametrize("answers", [64, 100_000])
def test_an_adaptive_beta_finds_the_one_whose_kl_is_wanted(answers: int):
    """For policies whose KL falls with beta; also where a step has more answers than the horizon,
    by which beta would otherwise turn negative.
    """
    penalty, beta = Penalty(beta=1.0, target_kl=6.0, horizon=640.0), jnp.float32(1.0)
    for _ in range(400):
        beta = penalty.adapt(beta, 1.5 / beta, answers)
        assert beta > 0
    assert float(1.5 / beta) == pytest.approx(6.0, rel=0.05 if answers < 640 else 0.25)


def test_a_fixed_beta_stays():
    assert Penalty(beta=0.3).adapt(jnp.float32(0.3), jnp.float32(99.0), 256) == pytest.approx(0.3)


def test_whitened_advantages_have_mean_0_and_spread_1():
    values = whiten(jnp.arange(12.0).reshape(3, 4))
    assert float(values.mean()) == pytest.approx(0, abs=1e-6)
    assert float(values.std()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(whiten(jnp.full((3, 4), 2.0)), 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_policy_gradient_reaches_the_optimum_that_the_penalty_sets(seed: int):
    """With a known reward of each token of one answer, the best policy is that of the reference
    times exp(reward / beta): Korbak et al. 2022 (arXiv:2205.11275), section 2.
    """
    task, beta = Permutation(15, 2), 0.5
    policy = FactTransformerConfig(width=32, heads=2, encoder_layers=0, copies=False).build(task)
    params = policy.init(jax.random.key(seed))
    rewards = jax.random.normal(jax.random.key(10 + seed), (16,))
    contexts, questions = jnp.zeros((1, 15, 2), jnp.int32), jnp.ones((1, 256, 3), jnp.int32)
    every = jnp.arange(16, dtype=jnp.int32)[None, :, None]

    @jax.jit
    def distribution(params):
        memory = policy.encode(params, contexts)
        asked = jnp.ones((1, 16, 3), jnp.int32)
        return policy.log_prob(params, memory, asked, every)[0, :, 0]

    reference = distribution(params)
    optimum = jax.nn.softmax(reference + rewards / beta)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 600))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        memory = policy.encode(params, contexts)
        keys = jax.random.split(key, (1, 256))
        answers = policy.answer(params, memory, questions, keys)
        token = answers.tokens[..., 0]
        gain = rewards[token] - beta * (answers.log_prob - reference[token])
        batch = {
            "context": contexts,
            "questions": questions,
            "answers": answers.tokens,
            "advantage": gain - jnp.mean(gain),
        }
        gradient = jax.grad(lambda params: PolicyGradient(policy)(params, {}, batch)[0])(params)
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    def distance(params):
        return 0.5 * float(jnp.sum(jnp.abs(jnp.exp(distribution(params)) - optimum)))

    assert distance(params) > 0.4
    for key in jax.random.split(jax.random.key(seed), 600):
        params, state = step(params, state, key)
    assert distance(params) < 0.05


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            TOML + '[oversight]\nkind = "reward-model"\n',
            "must be human, judge or language-model",
        ),
        (
            JUDGED_ESSAYS.replace('kind = "judge"', 'kind = "simulated"'),
            "must be human, judge or language-model",
        ),
        (
            TOML.replace('"simulated"', '"judge"') + '[oversight]\nkind = "reward-model"\n',
            "Wildcard has none",
        ),
        (REVIEWED_ESSAYS.replace('"human"', '"human"\nasks = 2'), "overseer.asks must be 0"),
        (REVIEWED_ESSAYS.replace('"human"', '"human"\ngold = 0.1'), "overseer.gold must be 0"),
        (REVIEWED_ESSAYS.replace('"human"', '"human"\nitems = 9'), "overseer.items must be 60"),
        (REVIEWED_ESSAYS.replace("people = 4", "people = 1"), "overseer.crowd.people must be at"),
        (JUDGED_ESSAYS.replace('"beats_draft"', '"alone"'), "gate.measure must be one of beats_d"),
        (JUDGED_ESSAYS.replace('"beats_draft"', '"gold"'), "gate.measure must be one of beats_d"),
        (JUDGED_ESSAYS.replace("members = 2", "members = 6"), "oversight.reward_model.members"),
        (JUDGED_ESSAYS.replace("reviews = 200", "reviews = 0"), "oversight.reviews"),
        (
            JUDGED_ESSAYS.replace("members = 2", "member = 2"),
            "reward_model.member; did you mean oversight.reward_model.members?",
        ),
        (JUDGED_ESSAYS.replace("length = 5", "length = 4"), "task.length"),
        (
            JUDGED_ESSAYS.replace("reviews = 200", 'reviews = 200\nmethod = "ppo"')
            + "[oversight.ppo]\nminibatches = 3\n",
            "oversight.ppo.minibatches must divide training.batch / (mesh.data x mesh.fsdp) (8)",
        ),
        (
            JUDGED_ESSAYS.replace('"fact-transformer"', '"language-model"').replace(
                "encoder_layers = 0\ndecoder_layers = 1\ncopies = false", "top_p = 0.9"
            ),
            "needs assistant.top_p = 1",
        ),
        (JUDGED_ESSAYS + "[oversight.penalty]\ntarget_kl = 6.0\n", "beta must begin above 0"),
        (JUDGED_ESSAYS.replace("blind_family = 1", "blind_family = 2"), "task.blind_family"),
    ],
)
def test_what_does_not_fit_is_rejected_when_the_file_is_read(tmp_path, toml, said):
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    folder = tiny_experiment(tmp_path_factory.mktemp("judged") / "tiny", JUDGED_ESSAYS)
    main(["round", str(folder), "--n", "2"])
    return folder


@pytest.mark.slow
def test_rounds_have_their_phases_and_report_what_essays_are_worth(judged, capsys):
    store = Store(judged)
    first, second = (store.round(number).record["stages"] for number in (1, 2))
    is_fitted = store.parent_of(store.round(2)).number == 0  # round 1 was not promoted
    assert [name for name in first if "/" in name] == [
        "drafts/checkpoint",
        "reviews/data",
        "reviews/checkpoint",
        "reinforcement/checkpoint",
    ]
    assert ("drafts/checkpoint" in second) == is_fitted
    assert [first["reviews/data"]["reviews"], second["reviews/data"]["reviews"]] == [200, 200]
    main(["compare", str(judged), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert all({"gold", "beats_draft"} <= {*row} for row in rows)
    main(["compare", str(judged)])
    assert "gold" in capsys.readouterr().out


@pytest.mark.slow
def test_later_rounds_learn_from_the_reviews_of_the_best_round_too(judged):
    store = Store(judged)
    second = store.round(2)
    rows = list(dataset.read(second.phase("reviews").data))
    kept = (
        len(list(dataset.read(store.parent_of(second).phase("reviews").data)))
        if (store.parent_of(second).number)
        else 0
    )
    assert len(rows) == 50 + kept


@pytest.mark.slow
def test_reviews_are_in_the_ledger(judged):
    calls = Store(judged).round(1).record["ledger"]["calls"]
    found = {(row["stage"], row["purpose"], row["part"]): row["calls"] for row in calls}
    assert found["reviews/data", "signal", "judge"] == 200
    assert found["reviews/data", "signal", "assistant"] == 400
    assert found["reinforcement/checkpoint", "signal", "assistant"] == 20 * 8 * 4


@pytest.mark.slow
def test_the_reward_rises(judged):
    rows = read_lines(Store(judged).round(1).phase("reinforcement").metrics)
    assert rows[-1]["reward"] > 0.5
    assert rows[-1]["kl"] > 0
    assert {"gold", "beats_draft"} <= {*rows[-1]["accuracy"]}


@pytest.mark.slow
def test_rewards_are_normalised_on_the_reference_policy(judged):
    store = Store(judged)
    experiment, roles = store.experiment, store.roles(store.round(1))
    from amplify.oversight.restore import load

    model = RewardModel(experiment.oversight.reward_model, experiment.task)
    params = {
        "reward_model": load(experiment, model, roles["reward_model"]),
        "reference": load(experiment, experiment.assistant, roles["reference"]),
    }
    one, two = (
        measure_rewards(experiment, model, params, jax.random.key(seed)) for seed in range(2)
    )
    np.testing.assert_allclose(one.mean, two.mean, atol=5 * float(one.scale.max()) / 256**0.5)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 70, 135])
def test_a_killed_round_ends_as_one_that_was_not(judged, tmp_path, after, monkeypatch):
    """Killed while the reference policy, the reward model or the assistant is trained."""
    folder = killed_and_resumed(judged, tmp_path / "tiny", after, monkeypatch)
    for name in ("digests", "digest"):
        one, two = (
            {
                stage: entry[name]
                for stage, entry in Store(at).round(1).record["stages"].items()
                if name in entry
            }
            for at in (folder, judged)
        )
        assert one == two


@pytest.mark.slow
def test_no_training_signal_reads_gold(tmp_path, monkeypatch):
    """Gold is read by evals only: not to make reviews, nor to train on them."""
    callers = set()

    def watched(name):
        method = getattr(Essays, name)

        def call(self, context, question, answer):
            stack = [frame.frame.f_globals["__name__"] for frame in inspect.stack()[1:]]
            ours = [name for name in stack if name.startswith("amplify.")]
            passed_through = ("amplify.trees.", "amplify.tasks.")
            caller = next(name for name in ours if not name.startswith(passed_through))
            callers.add((name, caller.split(".")[1]))
            return method(self, context, question, answer)

        return call

    for name in ("gold", "gold_parts"):
        monkeypatch.setattr(Essays, name, watched(name))
    jax.clear_caches()
    toml = JUDGED_ESSAYS.replace("blind_family = 1", "blind_family = 1\nfocus = [0]")
    toml = toml.replace("reviews = 200", 'reviews = 200\nreviews_of = "focused-drafts"')
    main(["round", str(tiny_experiment(tmp_path / "tiny", toml)), "--n", "1"])
    assert callers == {("gold", "evaluation"), ("gold_parts", "evaluation")}


def test_a_judge_needs_a_task_that_can_be_read():
    with pytest.raises(ValueError, match="Wildcard has none"):
        JudgeConfig().build(Wildcard(3))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reviews = 200", 'reviews = 200\nmethod = "ppo"', 'needs oversight.method = "policy-g'),
        ('kind = "judge"', 'kind = "human"\npeople = "simulated"', 'needs overseer.kind = "judge"'),
        ('reward = "judge"', 'reward = "gold"', "oversight.reward"),
    ],
)
def test_only_a_simulated_judge_rewards_every_answer(tmp_path, old: str, new: str, said: str):
    toml = JUDGED_ESSAYS.replace("reviews = 200", 'reviews = 200\nreward = "judge"')
    folder = tiny_experiment(tmp_path / "tiny", toml.replace(old, new))
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_judge_rewards_what_it_takes_each_answer_to_be_worth(tmp_path):
    """One who checks everything and has no noise rewards by gold."""
    folder = tiny_experiment(tmp_path / "tiny", JUDGED_ESSAYS)
    experiment = read_experiment(folder / "experiment.toml")
    task, policy = experiment.task, experiment.assistant
    model = RewardModel(experiment.oversight.reward_model, task)
    params = policy.init(jax.random.key(0))
    frozen = {REFERENCE: params, REWARD_MODEL: model.init(jax.random.key(1))}
    live = {"assistant": RoleState(jnp.int32(0), params, None, None)}
    state = RolloutState(Normaliser(jnp.zeros(2), jnp.ones(2)), jnp.float32(0))
    gold = jax.vmap(jax.vmap(task.gold, in_axes=(None, 0, 0)), in_axes=(0, 0, 0))

    def rollout(judge):
        source = Rollouts(experiment, model, Penalty(), judge)
        _, updates, found = source.next(frozen, live, state, jax.random.key(2))
        return updates["assistant"].batch, found

    batch, found = rollout(JudgeConfig(noise=0.0).build(task))
    parts = (batch["context"], batch["questions"], batch["answers"])
    np.testing.assert_allclose(batch["advantage"], whiten(gold(*parts)), atol=1e-4)
    assert found["calls/judge, scores"] == batch["advantage"].size
    other, without = rollout(None)
    np.testing.assert_array_equal(batch["answers"], other["answers"])
    assert abs(float(found["reward"] - without["reward"])) > 1e-3
    assert "calls/judge, scores" not in without


def test_rewards_are_measured_once_for_the_same_weights(tmp_path, monkeypatch):
    """Phases of a round may have them in different checkpoints."""
    folder = tiny_experiment(tmp_path / "tiny", JUDGED_ESSAYS)
    experiment = read_experiment(folder / "experiment.toml")
    model = RewardModel(experiment.oversight.reward_model, experiment.task)
    digests = {"first": "a", "again": "a", "other": "b"}
    stages = {f"{name}/checkpoint": {"digests": {REWARD_MODEL: d}} for name, d in digests.items()}
    stages["drafts/checkpoint"] = {"digests": {REFERENCE: "r"}}
    (folder / "001").mkdir()
    (folder / "001/record.json").write_text(json.dumps({"stages": stages}))
    this = RoundFolder(folder / "001", 1)
    measured = []

    def measure(experiment, model, roles, key):
        measured.append(roles[REWARD_MODEL])
        return Normaliser(jnp.zeros(2), jnp.ones(2))

    monkeypatch.setattr(rollouts, "measure_rewards", measure)
    monkeypatch.setattr(rollouts, "load", lambda experiment, model, handle: handle.phase)
    for name in digests:
        reference = Handle(REFERENCE, this, "drafts")
        roles = {REWARD_MODEL: Handle(REWARD_MODEL, this, name), REFERENCE: reference}
        rollouts.normaliser_of(experiment, model, roles)
    assert measured == ["first", "other"]
