"""Checkpoints, by Orbax: a round's finished one, and those of a training that is under way.

Knows pytrees and folders and nothing of what is trained. Orbax writes to a temporary name and
renames, so a folder that is there is complete.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Array, PyTree
from orbax.checkpoint import v1 as ocp

from amplify.errors import AmplifyError, first_line


def save(
    directory: Path, state: PyTree[Array], batches: grain.DatasetIterator | None = None
) -> None:
    """Saves a finished checkpoint, with the data iterator if given; replaces what is there."""
    ocp.save_checkpointables(directory.resolve(), _parts(state, batches), overwrite=True)


def restore(directory: Path, like: PyTree[Any]) -> PyTree[Array]:
    """The state of a finished checkpoint, with the shapes and dtypes of `like`, a tree of
    `jax.ShapeDtypeStruct`.

    Raises AmplifyError if it is missing, damaged or of another shape.
    """
    try:
        return ocp.load_checkpointables(directory.resolve(), _parts(_placed(like), None))["state"]
    except Exception as error:  # Orbax and TensorStore report damage as whatever they stumble over
        raise AmplifyError(
            f"{directory}: missing or damaged checkpoint ({first_line(error)})"
        ) from error


def digest(state: PyTree[Array]) -> str:
    """SHA-256 of every leaf's path, dtype, shape and bytes: a state's identity, however it is
    stored.
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


class TrainingCheckpoints:
    """The checkpoints of a training under way: the newest two, saved while it goes on."""

    def __init__(self, checkpointer: ocp.training.Checkpointer) -> None:
        self._checkpointer = checkpointer
        self._saving: ocp.AsyncResponse | None = None

    def save(self, step: int, state: PyTree[Array], batches: grain.DatasetIterator) -> None:
        """Begins to save; waits only for the one before. The state may be donated as soon as this
        returns.
        """
        self.wait()
        # A copy: Orbax reads from the device's buffers after this returns, and the next step
        # overwrites them.
        kept = jax.tree.map(jax.numpy.copy, state)
        self._saving = self._checkpointer.save_checkpointables_async(
            step, _parts(kept, batches), force=True
        )

    def restore(self, like: PyTree[Array], batches: grain.DatasetIterator) -> PyTree[Array] | None:
        """The newest complete state, the iterator put where it was then; None if there is none."""
        if self._checkpointer.latest is None:
            return None
        abstract = _parts(_placed(like), batches)
        return self._checkpointer.load_checkpointables(self._checkpointer.latest, abstract)["state"]

    def wait(self) -> None:
        if self._saving is not None:
            self._saving.result()
            self._saving = None


@contextlib.contextmanager
def training_checkpoints(directory: Path) -> Iterator[TrainingCheckpoints]:
    """Opens the checkpoints under `directory`; what a killed process left half-written is cleared
    away.
    """
    keep = ocp.training.preservation_policies.LatestN(2)
    with ocp.training.Checkpointer(
        directory.resolve(), preservation_policy=keep, cleanup_tmp_directories=True
    ) as checkpointer:
        checkpoints = TrainingCheckpoints(checkpointer)
        yield checkpoints
        checkpoints.wait()


def _parts(state: PyTree[Any], batches: grain.DatasetIterator | None) -> dict[str, Any]:
    return {"state": state} if batches is None else {"state": state, "data": batches}


def _placed(like: PyTree[Any]) -> PyTree[jax.ShapeDtypeStruct]:
    """`like` as shapes on the first device; how several devices share a state is not known here
    yet.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like
    )
