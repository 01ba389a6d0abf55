"""Distillation: the JIT-compiled step that trains the next assistant on a round's answers, and its
loop.

The step donates its state and makes no trip to the host; batches are put on the device while it
runs. Beside the weights it keeps the target network, their exponential moving average: that is what
answers sub-questions and is evaluated. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575),
section 2.3.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float, Int, PyTree

from amplify.device import compile_seconds
from amplify.errors import AmplifyError
from amplify.experiment import Training
from amplify.mesh import ONE_DEVICE, Mesh
from amplify.types import Assistant, TrainsPart


class TrainState(NamedTuple):
    step: Int[Array, ""]  # steps taken
    params: PyTree[Array]
    target: PyTree[Array]  # moving average of params
    optimizer: PyTree[Array]


@runtime_checkable
class HasStep(Protocol):
    @property
    def step(self) -> Int[Array, ""]:
        """Steps taken."""


State = TypeVar("State", bound=HasStep)

LogRow = dict[str, Any]
"""`{"step", "loss", ..., "answered", "seconds"}`: means over, and numbers of, the questions that
were trained on since the row before; what a look at held-out problems found stands beside them.
"""

Metrics = dict[str, Float[Array, ""]]

ANSWERED = "answered"
"""The metric that counts the questions with an answer: what other metrics are means over. A
question to which no answer was obtained counts nowhere.
"""
COUNTS = (ANSWERED, "tokens", "flops")
"""Metrics that are added up, over microbatches and over steps; all others are means."""
TrainStep = Callable[[TrainState, dict[str, Array]], tuple[TrainState, Metrics]]


def begin(assistant: Assistant, parent: PyTree[Array], training: Training) -> TrainState:
    """The state before the first step: the parent's weights, copied, and a fresh optimizer."""
    copy = functools.partial(jax.tree.map, jnp.copy)
    trained, _ = split(assistant, parent)
    return TrainState(
        jnp.zeros((), jnp.int32), copy(parent), copy(parent), _optimizer(training).init(trained)
    )


@functools.cache
def abstract_state(assistant: Assistant, training: Training) -> TrainState:
    """Shapes and dtypes of the state, nothing allocated."""
    return jax.eval_shape(lambda: begin(assistant, assistant.init(jax.random.key(0)), training))


@functools.cache
def make_step(assistant: Assistant, training: Training, mesh: Mesh = ONE_DEVICE) -> TrainStep:
    """The training step: compiled once for an experiment, whatever the round and the batch. Donates
    the state.
    """
    step = functools.partial(update, assistant, training)
    return mesh.compile_step(
        step, donates=0, returns=lambda: (abstract_state(assistant, training), None)
    )


def update(
    assistant: Assistant, training: Training, state: TrainState, batch: dict[str, Array]
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent, and of the target network after it."""
    trained, kept = split(assistant, state.params)

    def loss(trained: PyTree[Array], batch: dict[str, Array]) -> tuple[Array, Metrics]:
        return assistant.loss(join(assistant, trained, kept), batch)

    metrics, gradients = mean_gradients(loss, trained, batch, training.accumulate)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        updates, moments = _optimizer(training).update(gradients, state.optimizer, trained)
    trained = optax.apply_updates(trained, updates)
    rate = _averaging_rate(state.step, training.target_horizon)
    before, target_kept = split(assistant, state.target)
    target = join(assistant, optax.incremental_update(trained, before, rate), target_kept)
    return TrainState(state.step + 1, join(assistant, trained, kept), target, moments), metrics


def split(assistant: Assistant, params: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
    """What of the parameters is trained, and what is not."""
    return assistant.split(params) if isinstance(assistant, TrainsPart) else (params, ())


def join(assistant: Assistant, trained: PyTree[Array], kept: PyTree[Array]) -> PyTree[Array]:
    return assistant.join(trained, kept) if isinstance(assistant, TrainsPart) else trained


def mean_gradients(
    loss: Callable[[PyTree[Array], dict[str, Array]], tuple[Array, Metrics]],
    trained: PyTree[Array],
    batch: dict[str, Array],
    parts: int,
) -> tuple[Metrics, PyTree[Array]]:
    """Metrics and gradients of a batch, accumulated over microbatches.

    Args:
        loss: a mean over the answered questions of its rows, which its metrics count.
        trained: what the gradients are of.
        batch: columns with one leading axis of rows, a multiple of `parts`.
        parts: how many microbatches.

    Returns:
        Means over the answered questions of the whole batch, however they are spread over the
        microbatches.
    """
    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        gradients, metrics = gradient(trained, batch)
        return metrics, gradients

    def microbatch(total: Any, rows: dict[str, Array]) -> tuple[Any, None]:
        gradients, metrics = gradient(trained, rows)
        counts, means = _split_counts(metrics)
        answered = counts[ANSWERED]
        sums = jax.tree.map(lambda leaf: leaf * answered.astype(leaf.dtype), (means, gradients))
        return jax.tree.map(jnp.add, total, (counts, sums)), None

    # Microbatch i takes rows i, i + parts, ...: wherever rows are spread over devices, it is too.
    rows = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0), batch
    )
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    gradients, metrics = jax.eval_shape(gradient, trained, first)
    counts, means = _split_counts(metrics)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (counts, (means, gradients))
    )
    (counts, sums), _ = jax.lax.scan(microbatch, zeros, rows)
    answered = jnp.maximum(counts[ANSWERED], 1)
    means, gradients = jax.tree.map(lambda leaf: leaf / answered.astype(leaf.dtype), sums)
    return counts | means, gradients


def _split_counts(metrics: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics that are added up, and those that are means."""
    counts = {name: value for name, value in metrics.items() if name in COUNTS}
    return counts, {name: value for name, value in metrics.items() if name not in COUNTS}


def on_batches(
    assistant: Assistant,
    training: Training,
    batches: Iterator[dict[str, np.ndarray]],
    mesh: Mesh = ONE_DEVICE,
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """The step that takes its batch from an endless iterator, one ahead of the device."""
    step = make_step(assistant, training, mesh)
    return lambda state: step(state, mesh.place_rows(next(batches)))


def train(
    step: Callable[[State], tuple[State, Metrics]],
    training: Training,
    state: State,
    *,
    look: Callable[[State], Mapping[str, Any]],
    save: Callable[[State, list[LogRow]], None],
    log: list[LogRow],
    advance: Callable[[int], Any],
) -> State:
    """Trains from `state.step` to the last step.

    Args:
        step: what is done at each; donates its argument.
        look: what else to log of a state; called every `look_every` steps.
        save: called with the state and the log every `checkpoint_every` steps but the last, whose
            state is returned.
        log: rows `{"step", "loss", ..., "seconds"}`, one every `log_every` steps, appended to;
            `seconds` are those that the row's steps took, without those that compiling them and
            `look` took.
        advance: told of every `log_every` steps, for a progress bar.

    Raises:
        AmplifyError: if the loss is no longer finite.
    """
    interval: list[Metrics] = []
    since = _clock()
    with jax.transfer_guard("disallow"):
        for number in range(steps_taken(state) + 1, training.steps + 1):
            state, metrics = step(state)
            interval.append(metrics)
            if number % training.log_every == 0 or number == training.steps:
                jax.block_until_ready(interval)
                log.append(_log_row(number, interval, max(_clock() - since, 0.0)))
                if number % training.look_every == 0 or number == training.steps:
                    log[-1].update(look(state))
                interval, since = [], _clock()
                advance(training.log_every)
            if number % training.checkpoint_every == 0 and number < training.steps:
                save(state, log)
    return state


def _clock() -> float:
    """Seconds, without those that this process spent on compiling."""
    return time.monotonic() - compile_seconds()


def steps_taken(state: HasStep) -> int:
    """How many steps a state has been trained for, read from its device."""
    return int(jax.device_get(state.step))


def _log_row(step: int, interval: list[Metrics], seconds: float) -> LogRow:
    counts, means = _split_counts(_columns(jax.device_get(interval)))
    answered = counts[ANSWERED]
    weights = answered if answered.any() else None  # without any answer every step counts alike
    row = {name: float(np.average(values, weights=weights)) for name, values in means.items()}
    if not math.isfinite(row["loss"]):
        raise AmplifyError(
            f"the loss is {row['loss']} at step {step}: try a smaller training.learning_rate"
        )
    row |= {name: round(values.sum()) for name, values in counts.items()}
    return {"step": step, **row, "seconds": round(seconds, 3)}


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def _optimizer(training: Training) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=training.learning_rate,
        warmup_steps=min(training.warmup_steps, training.steps - 1),
        decay_steps=training.steps,
        end_value=training.learning_rate * training.final_learning_rate,
    )
    if training.optimizer == "adam":
        descent = optax.adam(schedule, b2=training.b2)
    else:
        descent = optax.contrib.muon(
            schedule,
            adam_b2=training.b2,
            consistent_rms=0.2,  # steps as large as Adam's: Liu et al. 2025 (arXiv:2502.16982)
            muon_weight_dimension_numbers=_matrices_of_layers,
        )
    return optax.chain(optax.clip_by_global_norm(training.gradient_clip), descent)


def _matrices_of_layers(params: PyTree[Array]) -> PyTree[Any]:
    """The axes of those parameters that Muon is for, stacked over layers; None for others. Jordan
    et al. 2024 (kellerjordan.github.io/posts/muon).
    """
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)

    def of(path: tuple[Any, ...], leaf: Array) -> Any:
        return axes if "kernel" in jax.tree_util.keystr(path) and leaf.ndim == 3 else None

    return jax.tree_util.tree_map_with_path(of, params)


def _averaging_rate(step: Int[Array, ""], horizon: int) -> Float[Array, ""]:
    """The new weights' share in the target network: 1 / horizon, more at first (a warm-started
    counter).
    """
    return jnp.maximum(1 / horizon, 9 / (10 + step.astype(jnp.float32)))
