"""The JIT-compiled training step, which updates every role that a phase trains.

Where the signal is made while training, the step also makes its batch. It donates its state and
does not wait for the host: stored batches are transferred to the device while it runs. A role may
have a target network, an exponential moving average of its weights (Christiano, Shlegeris and
Amodei 2018, arXiv:1810.08575, section 2.3).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.models.abilities import trainable_of
from amplify.runtime import calls, effort, processes
from amplify.training.mesh import ONE_DEVICE, Mesh
from amplify.training.phase import Metrics, Phase, RoleState, Trained, Update
from amplify.types import Roles

ANSWERED = "answered"
"""Metric: number of answered questions in a batch."""
ASSISTANT_ANSWERS = "assistant_answers"
"""Metric: number of sub-questions that the assistant answered for the overseer."""
COUNTS = (ANSWERED, ASSISTANT_ANSWERS, "tokens", "flops")
"""Metrics that are summed, as are those that count calls (see `calls.metric`); all others are means
over the answered questions.
"""


class TrainState(NamedTuple):
    """The training state of a phase."""

    step: Int[Array, ""]  # number of steps taken
    roles: dict[str, RoleState]
    source: PyTree[Array]  # state of the phase's source; None: the signal is stored


def begin(
    phase: Phase, before: Mapping[str, RoleState], source: PyTree[Array] = None
) -> TrainState:
    """Makes the state before a phase's first step.

    Args:
        phase: the phase.
        before: the roles that it trains, in the state that they were left in; copied.
        source: state of the phase's source; copied.
    """
    roles = {
        one.role: begin_role(one, before[one.role], continues=phase.continues)
        for one in phase.trains
    }
    return TrainState(jnp.zeros((), jnp.int32), roles, _copy(source))


def begin_role(trained: Trained, before: RoleState, *, continues: bool = False) -> RoleState:
    """Copies the weights that answered questions before, with a new optimizer unless it is kept."""
    if continues or trained.keeps_optimizer:
        return _copy(before)
    return fresh_role(trained, before.answering)


def fresh_role(trained: Trained, params: PyTree[Array]) -> RoleState:
    """Makes the state of a role that begins with these parameters, which are copied."""
    own, _ = trainable_of(trained.model).split(params)
    target = None if trained.horizon == 1 else _copy(params)
    optimizer = trained.options.make_optimizer().init(own)
    return RoleState(jnp.zeros((), jnp.int32), _copy(params), target, optimizer)


def _copy(tree: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(jnp.copy, tree)


@functools.cache
def abstract_role(trained: Trained) -> RoleState:
    """Returns the shapes and dtypes of a role's state, without allocating it."""
    return jax.eval_shape(lambda: fresh_role(trained, trained.model.init(jax.random.key(0))))


def abstract_state(phase: Phase) -> TrainState:
    """Returns the shapes and dtypes of a phase's state, without allocating it."""
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
    """Makes the training step of a phase, which donates its state.

    Args:
        phase: the phase.
        frozen: parameters of the roles that the phase does not train.
        root: folded with the step's number into the key that a source gets.
        batches: endless batches of a stored signal, each taken while the device computes the last;
            None: the phase has a source.
        mesh: the devices.
    """
    phase = phase.program
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
    """Makes the step `(frozen, state, batch)` on a stored batch, compiled once for all rounds."""

    def step(
        frozen: Roles, state: TrainState, batch: dict[str, Array]
    ) -> tuple[TrainState, Metrics]:
        updates = {trained.role: Update(batch) for trained in phase.trains}
        return update_roles(phase, frozen, state, updates)

    return mesh.compile_step(step, donates=1, returns=lambda: (abstract_state(phase), None))


@functools.cache
def traced_step(phase: Phase, mesh: Mesh = ONE_DEVICE) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes the step `(root, frozen, state)` on batches of a traced source."""

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
    """A step whose source is called from Python, and may ask servers and people."""
    assert phase.source is not None
    with jax.transfer_guard("allow"), calls.counting(calls.SIGNAL) as asked:
        key = jax.random.fold_in(root, state.step)
        source, updates, facts = phase.source.next(frozen, state.roles, state.source, key)
    state, metrics = _compiled_update(phase, mesh)(frozen, state._replace(source=source), updates)
    for name, number in calls.as_metrics(asked.counts).items():
        facts = {**facts, name: facts.get(name, 0) + number}
    return state, metrics | facts


@functools.cache
def _compiled_update(phase: Phase, mesh: Mesh) -> Callable[..., tuple[TrainState, Metrics]]:
    step = functools.partial(update_roles, phase)
    return mesh.compile_step(step, donates=1, returns=lambda: (abstract_state(phase), None))


def update_roles(
    phase: Phase, frozen: Roles, state: TrainState, updates: Mapping[str, Update]
) -> tuple[TrainState, Metrics]:
    """Takes one step of gradient descent for each role that the phase trains.

    Args:
        phase: the phase.
        frozen: parameters of the roles that it does not train.
        state: the state before.
        updates: what each role is trained on, by role.

    Returns:
        The next state, and the metrics of the first role.
    """
    roles, logged = dict(state.roles), []
    for trained in phase.trains:
        roles, updates = _in_order((roles, updates))
        role = trained.role
        roles[role], metrics = update_if(trained, frozen, roles[role], updates[role])
        logged.append(metrics)
    return TrainState(state.step + 1, roles, state.source), logged[0]


def _in_order(tree: PyTree[Any]) -> PyTree[Any]:
    """Returns the tree, all of it computed before anything that depends on a part of it.

    All processes must run collectives in the same order; a program with independent parts has no
    fixed order.
    """
    return jax.lax.optimization_barrier(tree) if processes.are_several() else tree


def update_if(
    trained: Trained, frozen: Roles, state: RoleState, work: Update
) -> tuple[RoleState, Metrics]:
    """Applies `update`; where it is skipped, returns the same state, and metrics of zero."""
    train = functools.partial(update, trained, frozen, state, work.batch)
    if work.where is None:
        return train()
    _, shapes = jax.eval_shape(train)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.cond(work.where, train, lambda: (state, zeros))


def update(
    trained: Trained, frozen: Roles, state: RoleState, batch: Any
) -> tuple[RoleState, Metrics]:
    """Takes one step of gradient descent for a role, and updates its target network.

    Args:
        trained: how the role is trained.
        frozen: parameters of the roles that are not trained.
        state: the role's state before.
        batch: arrays with one leading axis of rows.

    Returns:
        The role's next state, and metrics.
    """
    trainable = trainable_of(trained.model)
    own, kept = trainable.split(state.params)

    def loss(own: PyTree[Array], batch: Any) -> tuple[Array, Metrics]:
        return trained.objective(trainable.join(own, kept), frozen, batch)

    metrics, gradients = mean_gradients(loss, own, batch, trained.accumulate)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        updates, moments = trained.options.make_optimizer().update(gradients, state.optimizer, own)
    own = optax.apply_updates(own, updates)
    target = _next_target(trained, state, own)
    return RoleState(state.step + 1, trainable.join(own, kept), target, moments), metrics


def _next_target(trained: Trained, state: RoleState, own: PyTree[Array]) -> PyTree[Array] | None:
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
    """Computes metrics and gradients of a batch, accumulated over microbatches.

    Args:
        loss: returns a mean over the answered questions of its rows, and metrics that count them.
        trained: the parameters that gradients are taken of.
        batch: arrays with one leading axis of rows, a multiple of `parts`.
        parts: number of microbatches; 1 or more.

    Returns:
        Metrics and gradients, means over the answered questions of the whole batch, however these
        are distributed over the microbatches.
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

    # Microbatch i takes rows i, i + parts, ..., so that it is spread over devices as the batch is.
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
    """Splits metrics into those that are summed and those that are means."""
    counts = {
        name: value
        for name, value in metrics.items()
        if name in COUNTS or name.startswith((calls.METRIC, effort.METRIC))
    }
    return counts, {name: value for name, value in metrics.items() if name not in counts}


def averaging_rate(step: Int[Array, ""], horizon: int) -> Float[Array, ""]:
    """Returns the new weights' share in the target network: 1 / horizon, and more at first, so that
    initial weights are soon forgotten.

    Args:
        step: updates before this one.
        horizon: steps to average over.
    """
    return jnp.maximum(1 / horizon, 9 / (10 + step.astype(jnp.float32)))
