"""The training step: parts of a batch, optimizers, and parameters that are not trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.models.decoder.lora import LoRA, with_lora_merged
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModel, LanguageModelConfig
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems
from amplify.training.loop import train
from amplify.training.options import Training
from amplify.training.step import mean_gradients
from amplify.types import FAILED
from tests.training import step_of, untrained

TASK = Wildcard(3)
SIZES = LanguageModelConfig(width=16, heads=2, key_heads=1, layers=2)
MODEL = SIZES.build(TASK)
ADAPTED = dataclasses.replace(
    MODEL, given_architecture=dataclasses.replace(MODEL.architecture, lora=LoRA(2, 8.0))
)
TRAINING = Training(steps=20, batch=8, warmup_steps=1, learning_rate=0.01)


def batch(rows: int = 8) -> dict[str, np.ndarray]:
    problems = draw_problems(TASK, 0, 1, "train", rows, [1, 2, 3, 1])
    truth = jax.vmap(jax.vmap(TASK.truth, (None, 0)))(problems.contexts, problems.questions)
    columns = {"context": problems.contexts, "questions": problems.questions, "answers": truth}
    return jax.tree.map(np.array, columns)


def trained(assistant, training: Training = TRAINING, steps: int = 3):
    params = jax.jit(assistant.init)(jax.random.key(0))
    state, step = untrained(assistant, params, training), step_of(assistant, training)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch())
        losses.append(float(metrics["loss"]))
    return params, state.roles["assistant"], losses


def gradients_of(assistant, params, rows, parts: int):
    compiled = jax.jit(mean_gradients, static_argnums=(0, 3))
    return compiled(assistant.loss, params, rows, parts)


@pytest.mark.slow
@pytest.mark.parametrize("assistant", [MODEL, FactTransformerConfig(width=16).build(TASK)])
def test_a_batch_in_parts_is_the_same_step(assistant):
    _, whole, losses = trained(assistant)
    in_parts = dataclasses.replace(TRAINING, accumulate=4)
    _, parts, their_losses = trained(assistant, in_parts)
    np.testing.assert_allclose(losses, their_losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), whole.params, parts.params
    )


@pytest.mark.slow
@pytest.mark.parametrize("assistant", [MODEL, FactTransformerConfig(width=16).build(TASK)])
def test_microbatches_weigh_what_they_have_answers_to(assistant):
    """Rows 0 and 2 have one answer of four, rows 4 to 7 none."""
    rows = batch()
    rows["answers"][[0, 2], 1:] = FAILED
    rows["answers"][4:] = FAILED
    rows = jax.device_put(rows)
    params = jax.jit(assistant.init)(jax.random.key(0))
    metrics, gradients = gradients_of(assistant, params, rows, 1)
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradients))
    for parts in (2, 4, 8):
        theirs, in_parts = gradients_of(assistant, params, rows, parts)
        assert float(theirs["answered"]) == float(metrics["answered"]) == 10
        for name in metrics:
            np.testing.assert_allclose(theirs[name], metrics[name], rtol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * scale), gradients, in_parts
        )


def test_a_batch_without_answers_changes_no_mean():
    rows = batch()
    rows["answers"][:] = FAILED
    rows = jax.device_put(rows)
    params = jax.jit(MODEL.init)(jax.random.key(0))
    for parts in (1, 4):
        metrics, gradients = gradients_of(MODEL, params, rows, parts)
        assert not any(metrics[name] for name in ("loss", "agreement", "answered"))
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_logged_means_weigh_steps_by_their_answers():
    steps = [(3.0, 30), (1.0, 10), (0.0, 0)]
    logged = []
    metrics = iter([{"loss": jnp.float32(a), "answered": jnp.float32(n)} for a, n in steps])
    training = Training(steps=3, log_every=3, look_every=3)
    state = untrained(MODEL, jax.jit(MODEL.init)(jax.random.key(0)), training)
    train(
        lambda state: (state, next(metrics)),
        training.schedule,
        state,
        evaluate=lambda state: {},
        save=lambda state, log: None,
        log=logged,
        advance=lambda steps, row: None,
    )
    assert logged[0]["loss"] == pytest.approx(2.5)
    assert logged[0]["answered"] == 40


def test_what_is_computed_again_is_the_same_and_not_kept():
    again = dataclasses.replace(SIZES, rematerialise=True, layers=8).build(TASK)
    kept = dataclasses.replace(SIZES, layers=8).build(TASK)
    params = jax.jit(kept.init)(jax.random.key(0))

    def compiled(model):
        gradient = jax.jit(jax.grad(model.loss, has_aux=True))
        return gradient.lower(params, batch()).compile()

    ours, theirs = (compiled(model) for model in (again, kept))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        ours(params, batch()),
        theirs(params, batch()),
    )
    needs = [one.memory_analysis().temp_size_in_bytes for one in (ours, theirs)]
    assert needs[0] < 0.6 * needs[1]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_optimizer_moves_every_parameter_and_lowers_the_loss(optimizer):
    training = dataclasses.replace(TRAINING, optimizer=optimizer)
    before, after, losses = trained(MODEL, training, steps=10)
    assert losses[-1] < 0.9 * losses[0]
    assert all(jax.tree.leaves(jax.tree.map(_differs, before, after.params)))


def test_muon_goes_about_as_far_in_every_direction_inside_layers_alone():
    def spread(optimizer: str, *path: str) -> float:
        """Of the first step along a matrix: the farthest direction against the middle one."""
        training = dataclasses.replace(TRAINING, optimizer=optimizer, warmup_steps=0)
        before, after, _ = trained(MODEL, training, steps=1)
        moved = np.asarray(_at(after.params, path) - _at(before, path))
        far = np.linalg.svd(moved.reshape(-1, *moved.shape[-2:])[0], compute_uv=False)
        return float(far.max() / np.median(far))

    inside = ("layers", "mlp", "down", "kernel")
    assert spread("muon", *inside) < 2 < spread("adam", *inside)
    assert spread("muon", "embedding") == pytest.approx(spread("adam", "embedding"), rel=0.2)


def test_lora_leaves_the_rest_untouched():
    before, after, losses = trained(ADAPTED, steps=10)
    assert losses[-1] < losses[0]
    adapters, base = ADAPTED.split(before)
    for state in (after.params, after.target):
        trained_adapters, kept = ADAPTED.split(state)
        assert all(jax.tree.leaves(jax.tree.map(_same, base, kept)))
        assert all(jax.tree.leaves(jax.tree.map(_differs, adapters, trained_adapters)))
    moments = sum(leaf.size for leaf in jax.tree.leaves(after.optimizer))
    assert moments < 3 * sum(leaf.size for leaf in jax.tree.leaves(adapters))


def test_lora_begins_as_the_model_itself_and_can_be_merged_into_it():
    before, after, _ = trained(ADAPTED, steps=10)
    plain = ADAPTED.split(before)[1]
    assert _loss(MODEL, plain) == _loss(ADAPTED, before)
    merged = jax.tree.unflatten(
        jax.tree.structure(jax.jit(MODEL.init)(jax.random.key(0))),
        jax.tree.leaves(with_lora_merged(LoRA(2, 8.0), after.params)),
    )
    np.testing.assert_allclose(_loss(MODEL, merged), _loss(ADAPTED, after.params), rtol=1e-5)
    assert _loss(MODEL, merged) < 0.95 * _loss(MODEL, plain)


def test_lora_needs_something_to_stand_beside():
    with pytest.raises(ValueError, match=r"assistant.lora_rank needs assistant.pretrained"):
        dataclasses.replace(SIZES, lora_rank=2).build(TASK)


def _loss(model: LanguageModel, params) -> float:
    return float(jax.jit(model.loss)(params, batch())[0])


def _at(params, path: tuple[str, ...]) -> jax.Array:
    for name in path:
        params = params[name]
    return jnp.asarray(params[...])


def _same(a, b) -> bool:
    return bool(jnp.array_equal(a, b))


def _differs(a, b) -> bool:
    return not _same(a, b)
