"""Restores the weights that answer questions, and nothing else of a role, from its checkpoint."""

import functools
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, PyTree

from amplify.errors import AmplifyError
from amplify.training import checkpoint


@functools.cache
def abstract_weights(model: Any) -> PyTree[Any]:
    """Returns the shapes and dtypes of a model's weights.

    Tracing takes a tenth of a second each time.

    Args:
        model: has a method `init(key)`, and is hashable.
    """
    return jax.eval_shape(model.init, jax.random.key(0))


def restore_weights(folder: Path, like: PyTree[Any], role: str, digest: str) -> PyTree[Array]:
    """Restores a role's target network, or its weights if it has none.

    Args:
        folder: the checkpoint.
        like: `abstract_weights`, with shardings.
        role: its name, for errors.
        digest: of the weights that were written.

    Raises:
        AmplifyError: the weights are not those that were written.
    """
    weights = checkpoint.restore_first(folder, {"target": like, "params": like})
    check_digest(folder, weights, role, digest)
    return weights


def check_digest(folder: Path, weights: PyTree[Array], role: str, digest: str) -> None:
    """Checks that weights are those that were written.

    Args:
        folder: the checkpoint that they come from.
        weights: those that answer.
        role: its name, for errors.
        digest: of the weights that were written.

    Raises:
        AmplifyError: they are not.
    """
    if checkpoint.digest(weights) != digest:
        raise AmplifyError(f"{folder}: not the {role} that was written")
