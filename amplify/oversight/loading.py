"""Roles as rounds left them, read back. Errors say how to make again what is not there."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Key, PyTree

from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.models.abilities import loader_of
from amplify.records.round_folder import Handle
from amplify.training import checkpoint
from amplify.training.phase import RoleState, Trained
from amplify.training.step import abstract_role
from amplify.types import Weights

STREAMS = {"imitation": 2**32 - 1, "streaming": 2**32 - 2}
"""Streams of random numbers apart from those of problems, which are numbered by rounds."""


def load_weights(experiment: Experiment, roles: Mapping[str, Handle]) -> Weights:
    """Those that answer, on the devices of this process."""
    assistant = experiment.mesh.bring_here(load_assistant(experiment, roles))
    return Weights(assistant, load_overseer(experiment, roles))


def load_overseer(experiment: Experiment, roles: Mapping[str, Handle]) -> PyTree[Array] | None:
    """The weights of the overseer, if it has any: learned, or from somewhere else. They are on the
    devices of this process.
    """
    if experiment.learner is not None:
        params = load(experiment, experiment.learner, role_of(roles, "overseer"))
        return experiment.mesh.bring_here(params)
    if (load_given := loader_of(experiment.overseer)) is not None:
        return load_given(experiment.mesh.here.shardings)
    return None


def load_assistant(experiment: Experiment, roles: Mapping[str, Handle]) -> PyTree[Array]:
    """The weights of the assistant that answer: its target network's."""
    return load(experiment, experiment.assistant, role_of(roles, "assistant"))


def role_of(roles: Mapping[str, Handle], role: str) -> Handle:
    """Raises AmplifyError if no round has trained the role."""
    if role not in roles:
        raise AmplifyError(
            f"no round has a checkpoint of the {role}: rounds of older versions did not keep one of"
            " round 0; begin a new experiment to go on"
        )
    return roles[role]


def load(experiment: Experiment, model: Any, handle: Handle) -> PyTree[Array]:
    """The weights of a role that answer, and nothing else of its checkpoint."""
    like = experiment.mesh.place(jax.eval_shape(model.init, jax.random.key(0)))
    with handle.round_.redo_hint(handle.stage):
        weights = checkpoint.restore_first(handle.checkpoint, {"target": like, "params": like})
        _check(handle, weights)
    return weights


def load_role(experiment: Experiment, trained: Trained, handle: Handle) -> RoleState:
    """All of a role's state, to train it further."""
    with handle.round_.redo_hint(handle.stage):
        like = experiment.mesh.place(abstract_role(trained))
        state: RoleState = checkpoint.restore(handle.checkpoint, like)
        _check(handle, state.answering)
    return state


def load_carried(experiment: Experiment, handle: Handle, abstract: PyTree[Any]) -> PyTree[Array]:
    """What a source carried beside a role's checkpoint."""
    with handle.round_.redo_hint(handle.stage):
        return checkpoint.restore(handle.carried, experiment.mesh.place(abstract))


def _check(handle: Handle, weights: PyTree[Array]) -> None:
    if checkpoint.digest(weights) != handle.digest:
        raise AmplifyError(f"{handle.checkpoint}: not the {handle.role} that was written")


def phase_key(experiment: Experiment, phase: str, number: int) -> Key[Array, ""]:
    """What is random in a phase of a round; problems have seeds of their own."""
    root = jax.random.fold_in(jax.random.key(experiment.seed), _stream(phase))
    return jax.random.fold_in(root, number)


def order_seed(experiment: Experiment, phase: str, number: int) -> int:
    """What the order of a stored signal's rows is drawn from, in one phase of one round."""
    stream = 0 if phase == "distillation" else _stream(phase)
    return (experiment.seed << 32) + (stream + number) % 2**32


def role_key(experiment: Experiment, role: str) -> Key[Array, ""]:
    """What a role's untrained weights are drawn from."""
    if role == "assistant":
        return jax.random.key(experiment.seed)
    return phase_key(experiment, "imitation" if role == "overseer" else role, 0)


def _stream(phase: str) -> int:
    """Between those of rounds, which are few, and those of `STREAMS`."""
    digest = hashlib.sha256(phase.encode()).digest()
    return STREAMS.get(phase, 2**31 + int.from_bytes(digest[:4], "big") % 2**30)
