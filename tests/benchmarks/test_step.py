"""What our seams cost: the training step and amplification beside the same work written bare."""

import functools
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from amplify.reading.experiment_file import read_experiment
from amplify.tasks.problems import draw_problems
from amplify.training.phase import RoleState
from amplify.training.step import averaging_rate
from amplify.trees.chunks import CHUNK, amplify_chunk
from amplify.types import Team
from tests.training import step_of, untrained

ROOT = Path(__file__).parents[2]
EXPERIMENT = read_experiment(ROOT / "rounds/wildcard/experiment.toml")


def in_turn(*functions, times=30) -> list[float]:
    """Median seconds of each function, called one after the other so that a noisy machine strikes
    all alike.
    """
    taken = [[] for _ in functions]
    for _ in range(times):
        for seconds, function in zip(taken, functions, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(function())
            seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in taken]


def show(what: str, seconds: list[float], target: float) -> None:
    ours, bare = seconds
    print(f"\n{what}: {1000 * ours:.2f} ms, bare {1000 * bare:.2f} ms", end="")
    print(f", ratio {ours / bare:.3f} (target {target})")


def test_training_step_against_a_bare_one():
    """Target: at most 1.05 times a bare `jax.jit` function over the same arrays.

    The bare step is the transformer written out in jax.numpy over a dictionary of arrays, with
    optax and the moving average beside it: no flax, no protocols.
    """
    assistant, training = EXPERIMENT.assistant, EXPERIMENT.training
    params = assistant.init(jax.random.key(0))
    problems = draw_problems(EXPERIMENT.task, 0, 1, "train", training.batch, [1, 2] * 8)
    truth = jax.vmap(jax.vmap(EXPERIMENT.task.truth, (None, 0)))(
        problems.contexts, problems.questions
    )
    batch = {"context": problems.contexts, "questions": problems.questions, "answers": truth}
    ours = Stepper(step_of(assistant, training), untrained(assistant, params, training), batch)
    bare = Stepper(bare_step(training), bare_state(training, bare_params(params)), batch)
    first_losses = [float(stepper()["loss"]) for stepper in (ours, bare)]
    np.testing.assert_allclose(*first_losses, rtol=1e-5)  # the same step, or the ratio says nothing
    seconds = in_turn(ours, bare, times=200)
    show("training step", seconds, 1.05)


class Stepper:
    def __init__(self, step, state, batch):
        self.step, self.state, self.batch = step, state, batch

    def __call__(self):
        self.state, metrics = self.step(self.state, self.batch)
        return metrics


def bare_params(params) -> dict:
    return nnx.to_pure_dict(params)


def bare_state(training, params):
    copy = functools.partial(jax.tree.map, jnp.copy)
    optimizer = training.make_optimizer().init(params)
    return RoleState(jnp.zeros((), jnp.int32), copy(params), copy(params), optimizer)


def bare_step(training):
    heads = EXPERIMENT.assistant.config.heads
    optimizer = training.make_optimizer()

    def norm(x, p):
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)
        return x * scale * p["scale"]

    def layer(x, memory, p):
        y = norm(x, p["attention_norm"])
        memory = y if memory is None else memory
        split = lambda z: z.reshape(*z.shape[:-1], heads, -1)  # noqa: E731
        q, k, v = (
            split(s @ p["attention"][n]["kernel"])
            for n, s in (("query", y), ("key", memory), ("value", memory))
        )
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + mixed @ p["attention"]["out"]["kernel"]
        y = jax.nn.relu(norm(x, p["mlp_norm"]) @ p["up"]["kernel"] + p["up"]["bias"])
        return x + y @ p["down"]["kernel"] + p["down"]["bias"]

    def embed(tables, tokens):
        return jnp.sum(tables[jnp.arange(len(tables)), tokens], axis=-2)

    def loss(params, batch):
        memory = embed(params["row"]["tables"], batch["context"])
        memory, _ = jax.lax.scan(lambda x, p: (layer(x, None, p), None), memory, params["encoder"])
        memory = norm(memory, params["memory_norm"])
        x = embed(params["query"]["tables"], batch["questions"])
        x, _ = jax.lax.scan(lambda x, p: (layer(x, memory, p), None), x, params["decoder"])
        logits = norm(x, params["out_norm"]) @ params["out"]["kernel"] + params["out"]["bias"]
        labels = batch["answers"][..., 0]
        value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        agreement = jnp.mean(jnp.argmax(logits, -1) == labels)
        return value, {"loss": value, "agreement": agreement}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, batch)
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        rate = averaging_rate(state.step, training.target_horizon)
        target = optax.incremental_update(params, state.target, rate)
        return RoleState(state.step + 1, params, target, moments), metrics

    return step


def test_amplification_against_its_forward_passes():
    """Target: 10,000 amplified questions cost at most 1.2 times the assistant's own forward passes.

    At depth 2 and more both sub-questions go to the assistant: one encoding of each context, two
    answers to each question.
    """
    task, assistant, overseer = EXPERIMENT.task, EXPERIMENT.assistant, EXPERIMENT.overseer
    params, root = assistant.init(jax.random.key(0)), jax.random.key(0)
    per_context = EXPERIMENT.questions.per_context
    chunks = -(-10_000 // (CHUNK * per_context))
    problems = draw_problems(task, 0, 1, "train", CHUNK, [2, 3] * (per_context // 2))
    keys = jax.random.split(root, problems.questions.shape[:2])

    @jax.jit
    def forward_twice(params, problems):
        memory = assistant.encode(params, problems.contexts)
        first = assistant.answer(params, memory, problems.questions, keys).tokens
        # The second depends on the first, or the compiler would see that they are the same.
        again = (problems.questions + 0 * first).clip(0, 3)
        return first, assistant.answer(params, memory, again, keys).tokens

    def amplify():
        return [
            amplify_chunk(
                Team(task, assistant, overseer),
                1,
                "assistant",
                {"assistant": params},
                root,
                problems,
            ).answers
            for _ in range(chunks)
        ]

    def bare():
        return [forward_twice(params, problems) for _ in range(chunks)]

    amplify(), bare()
    seconds = in_turn(amplify, bare)
    show(f"amplifying {chunks * CHUNK * per_context} questions", seconds, 1.2)
