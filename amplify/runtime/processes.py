"""Multi-process execution: one or more processes per host, with a shared folder.

Every process runs the same program; `mesh` shards what they compute together. The first process
owns the folder: only it writes, and the others wait until it has. A process that fails exits at
once, without jax's shutdown barrier, so that the others notice. Knows nothing of rounds.
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
"""Environment variables: host:port of the first process, number of processes, this one's index."""
HEARTBEAT_TIMEOUT = 30
"""Seconds without a heartbeat after which a process counts as dead (jax's default is 100). Until
then, its peers may hang in a collective.
"""
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination service")
"""Substrings of the errors that a process gets when another one has died."""


def join(cluster: bool = False) -> None:
    """Initialises jax's distributed runtime if there are other processes, unless it is running.

    Must be called before jax is used. There are others if the environment variables say so.

    Args:
        cluster: whether this is one of several processes of a cluster that jax can detect by
            itself.

    Raises:
        AmplifyError: if environment variables are missing, or the others cannot be reached.
    """
    is_configured = ADDRESS in os.environ
    if not (is_configured or cluster) or jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would intercept SIGTERM
    try:
        total, index = None, None  # jax asks the cluster
        if is_configured:
            total, index = _whole_number(COUNT), _whole_number(NUMBER)
        jax.distributed.initialize(
            os.environ.get(ADDRESS), total, index, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise AmplifyError(f"cannot join the other processes: {first_line(error)}") from None
    with exit_on_failure():
        barrier()


def _whole_number(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise AmplifyError(f"{ADDRESS} is set, so {variable} must be a whole number: got {value!r}")
    return int(value)


def count() -> int:
    """Number of processes."""
    return jax.process_count()


def number() -> int:
    """Index of this process, from 0."""
    return jax.process_index()


def devices() -> int:
    """Number of devices of all processes together."""
    return jax.device_count()


def are_several() -> bool:
    """Whether there is more than one process."""
    return count() > 1


def is_first() -> bool:
    """Whether this is the first process, which owns the folder."""
    return number() == 0


def barrier() -> None:
    """Waits until all processes have called it."""
    gather(np.zeros(1, np.int32))


def first(work: Callable[[], Any]) -> None:
    """Runs a function in the first process only; the others wait until it has returned.

    Args:
        work: the function.

    Raises:
        AmplifyError: in the other processes, if it failed in the first.
        Exception: in the first process, the one that it raised.
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
        raise AmplifyError("the first process failed; its own error message says why")


def compile_before_running(function: Any) -> Any:
    """Wraps a jitted function so that no process runs it before all have compiled it.

    A process that finds it in the compilation cache would be minutes ahead of the others, and on
    CPUs the first collective of a program times out after 30 seconds.

    Args:
        function: the result of `jax.jit`, always called with the same shapes.
    """
    if not are_several():
        return function
    compiled = None

    def run(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            compiled = function.lower(*arguments).compile()
            barrier()
        return compiled(*arguments)

    return run


def gather(tree: PyTree[np.ndarray]) -> list[PyTree[np.ndarray]]:
    """Returns the trees of all processes, in their order, in every process.

    Args:
        tree: arrays of the same shapes in all processes.
    """
    if not are_several():
        return [tree]
    leaves, structure = jax.tree.flatten(tree)
    flat = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves]
    with jax.transfer_guard("allow"):
        rows = multihost_utils.process_allgather(
            np.concatenate(flat)
        )  # one collective for all leaves

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


def to_numpy(leaf: Any) -> np.ndarray:
    """Copies an array, which may be sharded over several processes, to the host."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(jax.device_get(leaf))
    with jax.transfer_guard("allow"):
        return multihost_utils.process_allgather(leaf, tiled=True)


@contextlib.contextmanager
def exit_on_failure() -> Iterator[None]:
    """Makes a process that fails in the block exit without jax's shutdown barrier.

    The other processes then notice at once.

    Raises:
        AmplifyError: if another process has died.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if not are_several():
            raise
        atexit.register(_exit_now)
        if isinstance(error, (ValueError, RuntimeError)) and any(w in str(error) for w in LOST):
            raise AmplifyError(
                f"another process has died ({first_line(error)}); run the same command again in"
                " every process to continue"
            ) from None
        raise


def _exit_now() -> None:
    """Ends the process before jax waits minutes at its shutdown barrier."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
