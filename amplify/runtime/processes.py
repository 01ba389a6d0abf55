"""Several processes that run a round together, one a host or more, on a folder that all see.

Every process runs the same program; what they compute together is spread by `mesh`. The first one
owns the folder: it alone writes, and the others wait until that is done. Whoever fails leaves at
once, so that the others notice, rather than wait for a farewell. Knows nothing of rounds.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from amplify.errors import AmplifyError, first_line

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Environment variables: host:port of the first process, how many there are, and which this is."""
SILENCE = 30
"""Seconds after which a process that is not heard from is taken for dead. Its peers may wait in a
computation that its end does not interrupt, and their devices with them; jax would wait for 100.
"""
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination service")
"""What is in the error of a process whose peer is gone."""


def join(cluster: bool = False) -> None:
    """Joins the other processes, if the environment says that there are any, or if this is one of a
    `cluster` that jax knows by itself. To be called before jax is used.

    Raises:
        AmplifyError: if the environment says too little, or the others are not met.
    """
    told = ADDRESS in os.environ
    if not (told or cluster):
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    try:
        # What is not told, jax asks the cluster.
        of, this = (_whole_number(COUNT), _whole_number(NUMBER)) if told else (None, None)
        jax.distributed.initialize(
            os.environ.get(ADDRESS), of, this, heartbeat_timeout_seconds=SILENCE
        )
    except (ValueError, RuntimeError) as error:
        raise AmplifyError(f"cannot join the other processes: {first_line(error)}") from None
    with together():
        meet()


def _whole_number(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise AmplifyError(f"{ADDRESS} is set, so {variable} must be a whole number: got {value!r}")
    return int(value)


def count() -> int:
    return jax.process_count()


def number() -> int:
    """Which this is, from 0."""
    return jax.process_index()


def devices() -> int:
    """Of all processes together."""
    return jax.device_count()


def are_several() -> bool:
    return count() > 1


def is_first() -> bool:
    """Whether this is the process that owns the folder."""
    return number() == 0


def meet() -> None:
    """Waits until all processes are here."""
    gather(np.zeros(1, np.int32))


def first(work: Callable[[], Any]) -> None:
    """The first process does some work, and the others wait until it is done. If it fails there,
    it fails everywhere.
    """
    failure: BaseException | None = None
    if is_first():
        try:
            work()
        except Exception as error:
            failure = error
    done = gather(np.array([failure is None]))[0]
    if failure is not None:
        raise failure
    if not done:
        raise AmplifyError("the first process failed, and says why")


def compiled_together(function: Any) -> Any:
    """A compiled function that no process runs before all have compiled it.

    Whoever finds it in the cache of compiled code is minutes ahead of the others, and on CPUs the
    first collective of a program waits for half a minute only.

    Args:
        function: what `jax.jit` returned. It is always called with the same shapes.
    """
    if not are_several():
        return function
    compiled = None

    def run(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            compiled = function.lower(*arguments).compile()
            meet()
        return compiled(*arguments)

    return run


def gather(tree: PyTree[np.ndarray]) -> list[PyTree[np.ndarray]]:
    """The tree of every process, in their order, everywhere. They must have the same shapes."""
    if not are_several():
        return [tree]
    leaves, structure = jax.tree.flatten(tree)
    flat = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves]
    with jax.transfer_guard("allow"):
        rows = multihost_utils.process_allgather(np.concatenate(flat))  # all at once: one program

    def unpack(row: np.ndarray) -> PyTree[np.ndarray]:
        parts = np.split(row, np.cumsum([part.size for part in flat])[:-1])
        return jax.tree.unflatten(
            structure,
            [
                part.view(leaf.dtype).reshape(leaf.shape)
                for part, leaf in zip(parts, leaves, strict=True)
            ],
        )

    return [unpack(row) for row in rows]


def whole(leaf: Any) -> np.ndarray:
    """An array's numbers, which may lie on devices of several processes."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(jax.device_get(leaf))
    with jax.transfer_guard("allow"):
        return multihost_utils.process_allgather(leaf, tiled=True)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What processes do together: one that fails here leaves the others without a farewell.

    Raises:
        AmplifyError: if another process is gone.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if not are_several():
            raise
        atexit.register(_leave)
        if isinstance(error, (ValueError, RuntimeError)) and any(w in str(error) for w in LOST):
            raise AmplifyError(
                f"another process is gone ({first_line(error)}); the same command, in every"
                " process, goes on from there"
            ) from None
        raise


def _leave() -> None:
    """Ends the process before jax waits minutes for others that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
