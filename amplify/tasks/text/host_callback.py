"""Runs host-side string code inside a compiled function, through `jax.pure_callback`.

Used by retrieval tasks, whose search works on words. The code must not do I/O.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int


def call_on_host(
    function: Callable[..., np.ndarray], shape: tuple[int, ...], *columns: Int[Array, "*b _"]
) -> Int[Array, "..."]:
    """Calls a NumPy function on the host from a compiled function.

    Args:
        function: takes NumPy arrays of shape [items, _], one per column; returns integers of shape
            [items, *shape]. It must be pure, because XLA decides how often it is called.
        shape: of the function's result for an item.
        *columns: arrays with the same leading axes.

    Returns:
        The function's results, with the columns' leading axes.
    """
    lead = columns[0].shape[:-1]

    def call(*columns: Any) -> np.ndarray:
        lead = columns[0].shape[:-1]
        # A callback's arguments are in host memory on every platform: no transfer takes place.
        with jax.transfer_guard_device_to_host("allow"):
            rows = [np.asarray(column).reshape(-1, column.shape[-1]) for column in columns]
        return np.asarray(function(*rows), np.int32).reshape((*lead, *shape))

    result = jax.ShapeDtypeStruct((*lead, *shape), np.int32)
    return jax.pure_callback(call, result, *columns, vmap_method="broadcast_all")
