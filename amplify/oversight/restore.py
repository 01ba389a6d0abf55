"""Restores roles from the checkpoints of rounds. Errors say how to remake what is missing."""

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
from amplify.training.weights import abstract_weights, check_digest, restore_weights
from amplify.types import Roles

STREAMS = {"imitation": 2**32 - 1, "streaming": 2**32 - 2}
"""Random streams of phases, apart from those of problems, which are numbered by round."""


def load_weights(experiment: Experiment, roles: Mapping[str, Handle]) -> Roles:
    """Loads the weights that answer questions, onto the devices of this process.

    Args:
        experiment: its assistant and overseer.
        roles: checkpoints, by role.

    Raises:
        AmplifyError: a checkpoint is missing or damaged.
    """
    assistant = experiment.mesh.bring_here(load_assistant(experiment, roles))
    return {"assistant": assistant, "overseer": load_overseer(experiment, roles)}


def load_overseer(experiment: Experiment, roles: Mapping[str, Handle]) -> PyTree[Array] | None:
    """Loads the overseer's weights, learned or pretrained, onto the devices of this process.

    Args:
        experiment: its overseer and mesh.
        roles: checkpoints, by role; read only if the overseer is learned.

    Returns:
        The weights; None if the overseer has none.

    Raises:
        AmplifyError: the checkpoint is missing or damaged.
    """
    if experiment.learner is not None:
        params = load(experiment, experiment.learner, handle_of(roles, "overseer"))
        return experiment.mesh.bring_here(params)
    if (load_given := loader_of(experiment.overseer)) is not None:
        return load_given(experiment.mesh.here.shardings)
    return None


def load_assistant(experiment: Experiment, roles: Mapping[str, Handle]) -> PyTree[Array]:
    """Loads the weights of the assistant's target network.

    Args:
        experiment: its assistant and mesh.
        roles: checkpoints, by role.

    Raises:
        AmplifyError: the checkpoint is missing or damaged.
    """
    return load(experiment, experiment.assistant, handle_of(roles, "assistant"))


def handle_of(roles: Mapping[str, Handle], role: str) -> Handle:
    """Returns the checkpoint of a role.

    Args:
        roles: checkpoints, by role.
        role: such as "assistant".

    Raises:
        AmplifyError: no round has a checkpoint of the role.
    """
    if role not in roles:
        raise AmplifyError(
            f"no round has a checkpoint of the {role}: rounds of older versions did not keep one of"
            " round 0; begin a new experiment to go on"
        )
    return roles[role]


def load(experiment: Experiment, model: Any, handle: Handle) -> PyTree[Array]:
    """Loads from a role's checkpoint only the weights that answer questions.

    Args:
        experiment: its mesh places the weights.
        model: gives their shapes.
        handle: the checkpoint.

    Raises:
        AmplifyError: the weights are not those that were written.
    """
    like = experiment.mesh.place(abstract_weights(model))
    with handle.round_.redo_hint(handle.stage):
        return restore_weights(handle.checkpoint, like, handle.role, handle.digest)


def load_role(experiment: Experiment, trained: Trained, handle: Handle) -> RoleState:
    """Loads the whole state of a role, to train it further.

    Args:
        experiment: its mesh places the state.
        trained: how the role is trained, which determines the shapes of its state.
        handle: the checkpoint.

    Raises:
        AmplifyError: the weights are not those that were written.
    """
    with handle.round_.redo_hint(handle.stage):
        like = experiment.mesh.place(abstract_role(trained))
        state: RoleState = checkpoint.restore(handle.checkpoint, like)
        check_digest(handle.checkpoint, state.answering, handle.role, handle.digest)
    return state


def load_carried(experiment: Experiment, handle: Handle, abstract: PyTree[Any]) -> PyTree[Array]:
    """Loads what a source saved beside a role's checkpoint, as `Source.carry` returned it.

    Args:
        experiment: its mesh places the arrays.
        handle: the checkpoint.
        abstract: shapes and dtypes, as from `Source.abstract_carry`.
    """
    with handle.round_.redo_hint(handle.stage):
        return checkpoint.restore(handle.carried, experiment.mesh.place(abstract))


def phase_key(experiment: Experiment, phase: str, number: int) -> Key[Array, ""]:
    """Returns the key of a phase in a round; problems have their own seeds.

    Args:
        experiment: its seed is the root.
        phase: the name.
        number: of the round.
    """
    root = jax.random.fold_in(jax.random.key(experiment.seed), _stream(phase))
    return jax.random.fold_in(root, number)


def order_seed(experiment: Experiment, phase: str, number: int) -> int:
    """Returns the seed for the order of a stored signal's rows in a phase of a round."""
    stream = 0 if phase == "distillation" else _stream(phase)
    return (experiment.seed << 32) + (stream + number) % 2**32


def phase_stream(name: str, number: int) -> int:
    """Returns a stream of seeds for problems that only a phase draws, see `problems`.

    Args:
        name: of the phase, or of a part of it.
        number: of the round.
    """
    return (_stream(name) + number) % 2**32


def role_key(experiment: Experiment, role: str) -> Key[Array, ""]:
    """Returns the key of a role's initial weights."""
    if role == "assistant":
        return jax.random.key(experiment.seed)
    return phase_key(experiment, "imitation" if role == "overseer" else role, 0)


def _stream(phase: str) -> int:
    """Lies between the streams of rounds, which are few, and those in `STREAMS`."""
    digest = hashlib.sha256(phase.encode()).digest()
    return STREAMS.get(phase, 2**31 + int.from_bytes(digest[:4], "big") % 2**30)
