"""Makes a CPU refuse what an accelerator refuses: reading an array without saying so.

Under a transfer guard of "disallow", an accelerator raises where a `jax.Array` is read by anything
but `jax.device_get`. On a CPU the array lies in the host's memory and nothing is ever transferred,
so the guard never fires. `forbidden()` makes it fire: it checks the guard wherever jax hands out an
array's numbers, and takes away the buffer protocol, through which numpy would read a CPU array
without asking jax (an accelerator's array has none).
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import jax
from jax._src.array import ArrayImpl
from jax._src.lib import guard_lib

# CPython's `PyTypeObject.tp_as_buffer`, and `PyBufferProcs.bf_getbuffer`, the first of its fields.
# The fields before it are as old as Python 3.8.
_TP_AS_BUFFER = 20 * ctypes.sizeof(ctypes.c_void_p)


@contextlib.contextmanager
def forbidden() -> Iterator[None]:
    """While this lasts, the thread that asks for it must read arrays through `jax.device_get`."""
    numbers = ArrayImpl._value
    ArrayImpl._value = property(lambda array: _checked(numbers, array))
    getbuffer = _getbuffer_of(ArrayImpl)
    before, getbuffer.value = getbuffer.value, None
    try:
        with jax.transfer_guard_device_to_host("disallow"):
            yield
    finally:
        getbuffer.value = before
        ArrayImpl._value = numbers


def _checked(numbers: property, array: jax.Array) -> Any:
    state = guard_lib.thread_local_state()
    level = state.device_to_host
    level = guard_lib.global_state().device_to_host if level is None else level
    if level == guard_lib.TransferGuardLevel.DISALLOW and not state.explicit_device_get:
        raise jax.errors.JaxRuntimeError(
            "INVALID_ARGUMENT: Disallowed device-to-host transfer:"
            f" shape={array.shape}, dtype={array.dtype}"
        )
    return numbers.__get__(array)


def _getbuffer_of(kind: type) -> ctypes.c_void_p:
    table = ctypes.c_void_p.from_address(id(kind) + _TP_AS_BUFFER).value
    assert table is not None
    return ctypes.c_void_p.from_address(table)
