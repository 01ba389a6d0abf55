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
from jaxtyping import Array, Float, Int, PyTree

from amplify.errors import AmplifyError
from amplify.experiment import Training
from amplify.types import Assistant


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
"""`{"step", "loss", ..., "seconds"}`: means over the steps since the row before; what a look at
held-out problems found stands beside them.
"""

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, dict[str, Array]], tuple[TrainState, Metrics]]


def begin(parent: PyTree[Array], training: Training) -> TrainState:
    """The state before the first step: the parent's weights, copied, and a fresh optimizer."""
    copy = functools.partial(jax.tree.map, jnp.copy)
    return TrainState(
        jnp.zeros((), jnp.int32), copy(parent), copy(parent), _optimizer(training).init(parent)
    )


@functools.cache
def abstract_state(assistant: Assistant, training: Training) -> TrainState:
    """Shapes and dtypes of the state, nothing allocated."""
    return jax.eval_shape(lambda: begin(assistant.init(jax.random.key(0)), training))


@functools.cache
def make_step(assistant: Assistant, training: Training) -> TrainStep:
    """The training step: compiled once for an experiment, whatever the round and the batch. Donates
    the state.
    """
    return jax.jit(functools.partial(update, assistant, training), donate_argnums=0)


def update(
    assistant: Assistant, training: Training, state: TrainState, batch: dict[str, Array]
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent, and of the target network after it."""
    (_, metrics), gradients = jax.value_and_grad(assistant.loss, has_aux=True)(state.params, batch)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        updates, moments = _optimizer(training).update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    rate = _averaging_rate(state.step, training.target_horizon)
    target = optax.incremental_update(params, state.target, rate)
    return TrainState(state.step + 1, params, target, moments), metrics


def on_batches(
    assistant: Assistant, training: Training, batches: Iterator[dict[str, np.ndarray]]
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """The step that takes its batch from an endless iterator, one ahead of the device."""
    step = make_step(assistant, training)
    return lambda state: step(state, jax.device_put(next(batches)))


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
            `seconds` are those that the row's steps took, what `look` took left out.
        advance: told of every `log_every` steps, for a progress bar.

    Raises:
        AmplifyError: if the loss is no longer finite.
    """
    interval: list[Metrics] = []
    since = time.monotonic()
    with jax.transfer_guard("disallow"):
        for number in range(int(jax.device_get(state.step)) + 1, training.steps + 1):
            state, metrics = step(state)
            interval.append(metrics)
            if number % training.log_every == 0 or number == training.steps:
                log.append(_mean(number, interval, since))
                if number % training.look_every == 0 or number == training.steps:
                    log[-1].update(look(state))
                interval, since = [], time.monotonic()
                advance(training.log_every)
            if number % training.checkpoint_every == 0 and number < training.steps:
                save(state, log)
    return state


def _mean(step: int, interval: list[Metrics], since: float) -> LogRow:
    rows = jax.device_get(interval)
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if not math.isfinite(mean["loss"]):
        raise AmplifyError(
            f"the loss is {mean['loss']} at step {step}: try a smaller training.learning_rate"
        )
    return {"step": step, **mean, "seconds": round(time.monotonic() - since, 3)}


def _optimizer(training: Training) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=training.learning_rate,
        warmup_steps=min(training.warmup_steps, training.steps - 1),
        decay_steps=training.steps,
        end_value=training.learning_rate * training.final_learning_rate,
    )
    return optax.chain(
        optax.clip_by_global_norm(training.gradient_clip),
        optax.adam(schedule, b2=training.b2),
    )


def _averaging_rate(step: Int[Array, ""], horizon: int) -> Float[Array, ""]:
    """The new weights' share in the target network: 1 / horizon, more at first (a warm-started
    counter).
    """
    return jnp.maximum(1 / horizon, 9 / (10 + step.astype(jnp.float32)))
