"""Reinforcement of language models: masks after an answer's end, value networks, whole rounds."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amplify import stages
from amplify.cli.commands import main
from amplify.files.json_lines import read_lines
from amplify.models.decoder.lora import LoRA
from amplify.models.language_model import LanguageModelConfig
from amplify.models.language_value import LanguageValueModel
from amplify.oversight.reinforcement.ppo import PPO, ClippedPolicy, ClippedValue, ProximalRollouts
from amplify.oversight.reinforcement.rollouts import (
    REFERENCE,
    REWARD_MODEL,
    Penalty,
    PolicyGradient,
    Rollouts,
)
from amplify.oversight.restore import load
from amplify.oversight.work import Work
from amplify.reading.experiment_file import read_experiment
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.training.step import fresh_role
from tests.checkpoints import checkpoint_folder
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

FACT_TRANSFORMER = JUDGED_ESSAYS[
    JUDGED_ESSAYS.index("[assistant]") : JUDGED_ESSAYS.index("[overseer]")
]
LANGUAGE_MODEL = """[assistant]
kind = "language-model"
width = 16
heads = 2
key_heads = 1
layers = 2

"""
TOML = JUDGED_ESSAYS.replace(FACT_TRANSFORMER, LANGUAGE_MODEL).replace(
    "reviews = 200", 'method = "ppo"\nreviews = 200'
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tiny_experiment(tmp_path_factory.mktemp("language") / "tiny", TOML)
    return read_experiment(folder / "experiment.toml")


def asked(experiment, rows: int = 3):
    task = experiment.task
    contexts = jax.vmap(task.draw_context)(jax.random.split(jax.random.key(1), rows))
    questions = jnp.full((rows, 2, 1), task.vocabulary.index("write"), jnp.int32)
    answers = jax.random.randint(jax.random.key(2), (rows, 2, task.answer_length), 1, 8)
    return contexts, questions, answers


def moved(params, seed: int = 3):
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params)


def test_what_follows_an_answers_end_is_not_trained_on(experiment):
    policy, value = experiment.assistant, LanguageValueModel(experiment.assistant)
    contexts, questions, answers = asked(experiment)
    answers = answers.at[0, :, 3].set(0)
    mask = policy.chosen(answers).tokens
    params = moved(policy.init(jax.random.key(0))), moved(value.init(jax.random.key(0)))
    numbers = jax.random.normal(jax.random.key(5), mask.shape)
    of_tokens = dict.fromkeys(("advantage", "value", "return"), jnp.where(mask, numbers, 0))

    @jax.jit
    def losses(params, answers):
        batch = {"context": contexts, "questions": questions, "answers": answers, "mask": mask}
        by_token = batch | of_tokens | {"log_prob": jnp.where(mask, -2.0, 0.0)}
        by_answer = batch | {"advantage": numbers[..., 0]}
        return (
            ClippedPolicy(policy, 0.2)(params[0], {}, by_token)[0],
            ClippedValue(value, 0.2)(params[1], {}, by_token)[0],
            PolicyGradient(policy)(params[0], {}, by_answer)[0],
        )

    gradients = jax.jit(jax.jacrev(losses))
    padded = jnp.where(mask, answers, 5)
    before = jax.tree.leaves((losses(params, answers), gradients(params, answers)))
    after = jax.tree.leaves((losses(params, padded), gradients(params, padded)))
    assert all(map(np.array_equal, before, after))
    said = answers.at[1, 0, 2].set(9)
    assert all(one != two for one, two in zip(before, losses(params, said), strict=False))


def roll_out(experiment, penalty: Penalty):
    """The first batch of PPO, and its metrics."""
    policy = experiment.assistant
    source = ProximalRollouts(
        Rollouts(experiment, experiment.oversight._model(experiment), penalty),
        LanguageValueModel(policy),
        PPO(),
    )
    live = {
        trained.role: fresh_role(trained, moved(trained.model.init(jax.random.key(0))))
        for trained in experiment.oversight._policy(experiment)
    }
    frozen = {
        role: moved(model.init(jax.random.key(1)))
        if role == REFERENCE
        else model.init(jax.random.key(1))
        for role, model in source.frozen
    }
    state = source.begin(None, {})
    next_ = jax.jit(source.next)
    _, updates, metrics = next_(frozen, live, state, jax.random.key(4))
    return source, frozen, live, updates["assistant"].batch, metrics


def test_a_rollout_masks_padding_and_is_what_was_sampled(experiment):
    _, frozen, live, batch, metrics = roll_out(experiment, Penalty(beta=0.1))
    policy, answers, mask = experiment.assistant, *(batch[name] for name in ("answers", "mask"))
    ended = (np.asarray(answers) == 0).any(axis=-1)
    assert 0 < ended.mean() < 1
    np.testing.assert_array_equal(mask.sum(-1)[ended], np.argmin(answers, axis=-1)[ended] + 1)
    assert mask[~ended].all()
    for name in ("log_prob", "value", "return", "advantage"):
        assert not batch[name][~mask].any()
        assert batch[name][mask].all()
    _, said = ClippedPolicy(policy, 0.2)(live["assistant"].params, {}, batch)
    assert said["clipped"] == 0  # the trainer's log-probabilities are the sampler's
    reference = policy.log_prob(
        frozen[REFERENCE],
        policy.encode(frozen[REFERENCE], batch["context"]),
        batch["questions"],
        answers,
    )
    kl = jnp.mean(jnp.sum(jnp.where(mask, batch["log_prob"] - reference, 0), axis=-1))
    assert float(metrics["kl"]) == pytest.approx(float(kl), rel=1e-4)


def test_an_answer_without_an_end_has_a_reward_and_may_lose_some(experiment):
    source, frozen, _, batch, _ = roll_out(experiment, Penalty())
    normaliser = source.begin(None, {}).rollouts.normaliser
    strict = dataclasses.replace(source.rollouts, penalty=Penalty(unfinished=1.5))
    found, lower = (
        rollouts.reward(frozen, normaliser, batch["context"], batch["questions"], batch["answers"])
        for rollouts in (source.rollouts, strict)
    )
    ended = (np.asarray(batch["answers"]) == 0).any(axis=-1)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found - lower, np.where(ended, 0, 1.5), atol=1e-5)


def test_a_value_network_of_a_language_model_begins_at_0_and_reads_what_was_said_before(experiment):
    model = LanguageValueModel(experiment.assistant)
    contexts, questions, answers = asked(experiment)
    params = model.init(jax.random.key(0))
    np.testing.assert_array_equal(model.values(params, contexts, questions, answers), 0)
    params = moved(params)
    values = jax.jit(model.values)
    before = values(params, contexts, questions, answers)
    after = values(params, contexts, questions, answers.at[..., 2].set(9))
    np.testing.assert_allclose(before[..., :3], after[..., :3], rtol=1e-5)
    assert (before[..., 3:] != after[..., 3:]).all()
    other = values(params, contexts.at[:, 0, 1].set(5), questions, answers)
    assert (before != other).all()
    gradient = jax.grad(lambda p: jnp.sum(model.values(p, contexts, questions, answers)))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


def test_a_padded_fact_changes_no_value_of_a_language_model(experiment):
    model = LanguageValueModel(experiment.assistant)
    contexts, questions, answers = asked(experiment)
    params = moved(model.init(jax.random.key(0)))
    padded = contexts.at[:, -3:].set(0)
    np.testing.assert_allclose(
        model.values(params, padded, questions, answers),
        model.values(params, contexts[:, :-3], questions, answers),
        rtol=1e-4,
        atol=1e-5,
    )


def test_with_lora_a_value_network_trains_its_adapters_and_its_head(experiment):
    policy = experiment.assistant
    with_lora = dataclasses.replace(policy.architecture, lora=LoRA(2, 4.0))
    model = LanguageValueModel(dataclasses.replace(policy, given_architecture=with_lora))
    params = model.init(jax.random.key(0))
    own, kept = model.split(params)
    names = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(own)}
    assert {name for name in names if "low_" not in name} == {"head/bias", "head/kernel"}
    assert any("low_in" in name for name in names)
    joined = model.join(own, kept)
    assert jax.tree.all(jax.tree.map(np.array_equal, joined, params))


@pytest.mark.parametrize("rank", [0, 2])
def test_a_value_network_begins_with_the_policys_checkpoint(tmp_path, rank):
    checkpoint_folder(tmp_path / "checkpoint")
    task = Permutation(3, 2)
    policy = LanguageModelConfig(pretrained=str(tmp_path / "checkpoint"), lora_rank=rank).build(
        task
    )
    model = LanguageValueModel(policy)
    params, weights = model.load(), policy.load()
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda one, two: one.shape == two.shape, params, abstract))
    loaded = dict(nnx.to_flat_state(params["trunk"]))
    assert loaded
    for path, leaf in nnx.to_flat_state(weights):
        if path[0] != "out":
            np.testing.assert_array_equal(loaded.pop(path)[...], leaf[...])
    assert not loaded
    contexts = jax.vmap(task.draw_context)(jax.random.split(jax.random.key(1), 2))
    questions = jnp.ones((2, 2, task.question_length), jnp.int32)
    values = model.values(params, contexts, questions, questions[..., :1])
    np.testing.assert_array_equal(values, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("toml", "method", "network"),
    [(TOML, "ppo", "policy"), (TOML, "policy-gradient", "mlp"), (JUDGED_ESSAYS, "ppo", "policy")],
    ids=["language-ppo", "language-policy-gradient", "facts-ppo"],
)
def test_a_round_reinforces_a_policy(tmp_path, capsys, toml, method, network):
    """Of either kind, against either kind of reward model."""
    toml = toml.replace('method = "ppo"\n', "").replace("steps = 20", "steps = 60")
    toml = toml.replace("reviews = 200", f'reviews = 200\nmethod = "{method}"')
    toml = toml.replace("members = 2", f'members = 2\nnetwork = "{network}"')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    main(["round", str(folder), "--n", "1"])
    capsys.readouterr()
    first = Store(folder).round(1)
    assert read_lines(first.phase("reviews").metrics)[-1]["loss"] < 0.68 < np.log(2)
    rows = read_lines(first.phase("reinforcement").metrics)
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.3
    main(["compare", str(folder), "--json"])
    assert all("gold" in row for row in json.loads(capsys.readouterr().out))


SENTENCES = TOML.replace(
    TOML[TOML.index('kind = "essays"') : TOML.index("[assistant]")], 'kind = "sentences"\n\n'
).replace("members = 2", 'members = 2\nnetwork = "policy"\nreads_context = true\ninitial = "{}"')


@pytest.mark.slow
def test_a_round_about_sentences_begins_its_reward_model_with_the_reference_policy(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", SENTENCES.format("reference"))
    main(["round", str(folder), "--n", "1"])
    store = Store(folder)
    experiment, this = store.experiment, store.round(1)
    assert this.complete
    assert {"gold", "beats_draft"} <= {measure.name for measure in experiment.measures}
    begun, phases = [], list(experiment.oversight.phases(experiment, this))
    for phase in phases[:2]:
        work = Work(experiment, this, store.round(0), store.roles(this), unwatched)
        begun.append(stages._before(phase, phase.trains[0], work).params)
    trunk = {path: leaf[...] for path, leaf in nnx.to_flat_state(begun[1][0]["trunk"])}
    reference = load(experiment, experiment.assistant, store.roles(this)[REFERENCE])
    policy = {path: leaf[...] for path, leaf in nnx.to_flat_state(reference)}
    assert all(np.array_equal(leaf, policy[path]) for path, leaf in trunk.items())
    folder = tmp_path / "002"
    folder.mkdir()
    record = {**this.record, "parent": {**this.record["parent"], "round": 1}}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    later = RoundFolder(folder, 2)
    phases = list(experiment.oversight.phases(experiment, later))
    assert phases
    assert not any(begin.role == REWARD_MODEL for phase in phases for begin in phase.begins)
