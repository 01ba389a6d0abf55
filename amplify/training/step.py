"""The JIT-compiled training step: it makes a batch, where the signal is made while training, and
updates every role that the phase trains.

The step donates its state and makes no trip to the host; stored batches are put on the device while
it runs. Beside a role's weights it may keep a target network, their exponential moving average.
Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.3.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify import calls, processes
from amplify.mesh import ONE_DEVICE, Mesh
from amplify.model_abilities import trainable_of
from amplify.training.phase import Metrics, Phase, Roles, RoleState, Trained, Update

ANSWERED = "answered"
"""The metric that counts a batch's answered questions."""
ASSISTANT_ANSWERS = "assistant_answers"
"""The metric that counts sub-questions that the assistant answered for the overseer."""
COUNTS = (ANSWERED, ASSISTANT_ANSWERS, "tokens", "flops")
"""Metrics that add up, beside those that count calls (see `calls.metric`); all others are means
over the answered questions.
"""


class TrainState(NamedTuple):
    """A phase in training."""

    step: Int[Array, ""]  # steps taken
    roles: dict[str, RoleState]
    source: PyTree[Array]  # of a signal that is made while training; else None


def begin(
    phase: Phase, before: Mapping[str, RoleState], source: PyTree[Array] = None
) -> TrainState:
    """The state before a phase's first step.

    Args:
        before: the roles that it trains, as they were left; copied.
        source: state of the phase's source; copied.
    """
    roles = {trained.role: begin_role(trained, before[trained.role]) for trained in phase.trains}
    return TrainState(jnp.zeros((), jnp.int32), roles, _copy(source))


def begin_role(trained: Trained, before: RoleState) -> RoleState:
    """The weights that answered before, copied, with a fresh optimizer unless it is kept."""
    if trained.keeps_optimizer:
        return _copy(before)
    return fresh_role(trained, before.answering)


def fresh_role(trained: Trained, params: PyTree[Array]) -> RoleState:
    """A role that begins with these parameters, copied."""
    own, _ = trainable_of(trained.model).split(params)
    target = None if trained.horizon == 1 else _copy(params)
    optimizer = trained.options.make_optimizer().init(own)
    return RoleState(jnp.zeros((), jnp.int32), _copy(params), target, optimizer)


def _copy(tree: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(jnp.copy, tree)


@functools.cache
def abstract_role(trained: Trained) -> RoleState:
    """Shapes and dtypes of a role's state, nothing allocated."""
    return jax.eval_shape(lambda: fresh_role(trained, trained.model.init(jax.random.key(0))))


def abstract_state(phase: Phase) -> TrainState:
    """Shapes and dtypes of the state, nothing allocated."""
    return TrainState(
        jax.eval_shape(lambda: jnp.zeros((), jnp.int32)),
        {trained.role: abstract_role(trained) for trained in phase.trains},
        None if phase.source is None else phase.source.abstract(),
    )


Step = Callable[[TrainState], tuple[TrainState, Metrics]]


def make_step(
    phase: Phase,
    frozen: Roles,
    root: Key[Array, ""],
    batches: Iterator[dict[str, np.ndarray]] | None = None,
    mesh: Mesh = ONE_DEVICE,
) -> Step:
    """The step of a phase. Donates the state.

    Args:
        frozen: parameters of the roles that the phase does not train.
        root: what a source is given keys from, one a step.
        batches: of a stored signal, without end; taken one ahead of the device.
    """
    if batches is not None:
        stored = stored_step(phase, mesh)
        return lambda state: stored(frozen, state, mesh.place_rows(next(batches)))
    assert phase.source is not None
    if phase.source.traced:
        traced = traced_step(phase, mesh)
        return lambda state: traced(root, frozen, state)
    return functools.partial(_driven_step, phase, mesh, root, frozen)


@functools.cache
def stored_step(phase: Phase, mesh: Mesh = ONE_DEVICE) -> Callable[..., tuple[TrainState, Metrics]]:
    """The step on a stored batch, `(frozen, state, batch)`: compiled once, whatever the round."""

    def step(
        frozen: Roles, state: TrainState, batch: dict[str, Array]
    ) -> tuple[TrainState, Metrics]:
        updates = {trained.role: Update(batch) for trained in phase.trains}
        return update_roles(phase, frozen, state, updates)

    return mesh.compile_step(step, donates=1, returns=lambda: (abstract_state(phase), None))


@functools.cache
def traced_step(phase: Phase, mesh: Mesh = ONE_DEVICE) -> Callable[..., tuple[TrainState, Metrics]]:
    """The step on what a traced source makes, `(root, frozen, state)`."""

    def step(root: Key[Array, ""], frozen: Roles, state: TrainState) -> tuple[TrainState, Metrics]:
        assert phase.source is not None
        key = jax.random.fold_in(root, state.step)
        source, updates, facts = phase.source.next(frozen, state.roles, state.source, key)
        state, updates = _in_order((state._replace(source=source), updates))
        state, metrics = update_roles(phase, frozen, state, updates)
        return state, metrics | facts

    return mesh.compile_step(step, donates=2, returns=lambda: (abstract_state(phase), None))


def _driven_step(
    phase: Phase, mesh: Mesh, root: Key[Array, ""], frozen: Roles, state: TrainState
) -> tuple[TrainState, Metrics]:
    """The step on what a source makes that is called from Python: it may ask servers and people."""
    assert phase.source is not None
    with jax.transfer_guard("allow"), calls.counting(calls.SIGNAL) as asked:
        key = jax.random.fold_in(root, state.step)
        source, updates, facts = phase.source.next(frozen, state.roles, state.source, key)
    state, metrics = _compiled_update(phase, mesh)(frozen, state._replace(source=source), updates)
    for name, number in calls.as_metrics(asked.parts).items():
        facts = {**facts, name: facts.get(name, 0) + number}
    return state, metrics | facts


@functools.cache
def _compiled_update(phase: Phase, mesh: Mesh) -> Callable[..., tuple[TrainState, Metrics]]:
    step = functools.partial(update_roles, phase)
    return mesh.compile_step(step, donates=1, returns=lambda: (abstract_state(phase), None))


def update_roles(
    phase: Phase, frozen: Roles, state: TrainState, updates: Mapping[str, Update]
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent of each role that the phase trains."""
    roles, logged = dict(state.roles), []
    for trained in phase.trains:
        roles, updates = _in_order((roles, updates))
        role = trained.role
        roles[role], metrics = update_if(trained, frozen, roles[role], updates[role])
        logged.append(metrics)
    return TrainState(state.step + 1, roles, state.source), logged[0]


def _in_order(tree: PyTree[Any]) -> PyTree[Any]:
    """The same tree, all of it computed before anything that depends on a part.

    Where several processes work together, what they tell each other must have the same order in
    all of them, and a program that does two unrelated things at a time has none.
    """
    return jax.lax.optimization_barrier(tree) if processes.are_several() else tree


def update_if(
    trained: Trained, frozen: Roles, state: RoleState, wanted: Update
) -> tuple[RoleState, Metrics]:
    """`update`, or the same state and metrics of zero where it is not wanted."""
    train = functools.partial(update, trained, frozen, state, wanted.batch)
    if wanted.where is None:
        return train()
    _, shapes = jax.eval_shape(train)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.cond(wanted.where, train, lambda: (state, zeros))


def update(
    trained: Trained, frozen: Roles, state: RoleState, batch: Any
) -> tuple[RoleState, Metrics]:
    """One step of gradient descent, and of the target network after it."""
    trainable = trainable_of(trained.model)
    own, kept = trainable.split(state.params)

    def loss(own: PyTree[Array], batch: Any) -> tuple[Array, Metrics]:
        return trained.objective(trainable.join(own, kept), frozen, batch)

    metrics, gradients = mean_gradients(loss, own, batch, trained.accumulate)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        updates, moments = trained.options.make_optimizer().update(gradients, state.optimizer, own)
    own = optax.apply_updates(own, updates)
    target = _average(trained, state, own)
    return RoleState(state.step + 1, trainable.join(own, kept), target, moments), metrics


def _average(trained: Trained, state: RoleState, own: PyTree[Array]) -> PyTree[Array] | None:
    """The target network after a step; None where there is none."""
    if state.target is None:
        return None
    rate = averaging_rate(state.step, trained.horizon)
    trainable = trainable_of(trained.model)
    before, kept = trainable.split(state.target)
    return trainable.join(optax.incremental_update(own, before, rate), kept)


def mean_gradients(
    loss: Callable[[PyTree[Array], Any], tuple[Array, Metrics]],
    trained: PyTree[Array],
    batch: Any,
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

    def microbatch(total: Any, rows: Any) -> tuple[Any, None]:
        gradients, metrics = gradient(trained, rows)
        counts, means = split_counts(metrics)
        answered = counts[ANSWERED]
        sums = jax.tree.map(lambda leaf: leaf * answered.astype(leaf.dtype), (means, gradients))
        return jax.tree.map(jnp.add, total, (counts, sums)), None

    # Microbatch i takes rows i, i + parts, ...: wherever rows are spread over devices, it is too.
    rows = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0), batch
    )
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    gradients, metrics = jax.eval_shape(gradient, trained, first)
    counts, means = split_counts(metrics)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (counts, (means, gradients))
    )
    (counts, sums), _ = jax.lax.scan(microbatch, zeros, rows)
    answered = jnp.maximum(counts[ANSWERED], 1)
    means, gradients = jax.tree.map(lambda leaf: leaf / answered.astype(leaf.dtype), sums)
    return counts | means, gradients


def split_counts(metrics: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics that are added up, and those that are means."""
    counts = {
        name: value
        for name, value in metrics.items()
        if name in COUNTS or name.startswith(calls.METRIC)
    }
    return counts, {name: value for name, value in metrics.items() if name not in counts}


def averaging_rate(step: Int[Array, ""], horizon: int) -> Float[Array, ""]:
    """The new weights' share in the target network: 1 / horizon, more at first (a warm-started
    counter).
    """
    return jnp.maximum(1 / horizon, 9 / (10 + step.astype(jnp.float32)))
