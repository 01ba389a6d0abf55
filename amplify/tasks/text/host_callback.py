"""Runs string code on the host as part of a compiled function, through `jax.pure_callback`.

For searched tasks, whose engine works on words. The code computes and does no I/O.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int


def on_host(
    function: Callable[..., np.ndarray], shape: tuple[int, ...], *columns: Int[Array, "*b _"]
) -> Int[Array, "..."]:
    """Integers of `shape` for each item; the function is given numpy columns [items, _].

    The function must be pure: it is called as often as the compiler likes.
    """
    lead = columns[0].shape[:-1]

    def call(*columns: Any) -> np.ndarray:
        lead = columns[0].shape[:-1]
        # A callback's arguments are in host memory on every platform: reading them is no transfer.
        with jax.transfer_guard_device_to_host("allow"):
            rows = [np.asarray(column).reshape(-1, column.shape[-1]) for column in columns]
        return np.asarray(function(*rows), np.int32).reshape((*lead, *shape))

    result = jax.ShapeDtypeStruct((*lead, *shape), np.int32)
    return jax.pure_callback(call, result, *columns, vmap_method="broadcast_all")
