"""The devices that a process computes on: what they are, what they can do, and what they spent.

Reads jax and the operating system, and nothing of what is computed. A record of a round says what
this module says, so that figures from two machines can be told apart.
"""

import functools
import resource
import sys

import jax

PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
"""Dense bf16 FLOP/s of one device, by how its `device_kind` begins: makers' data sheets (NVIDIA's
without sparsity; cloud.google.com/tpu/docs). The longest beginning that fits counts.
"""


def describe() -> str:
    """How many devices all processes have together, and of which kind: "8 x TPU v5 lite"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def peak_flops() -> float | None:
    """Dense bf16 FLOP/s of all devices together; None if the kind is not known."""
    return _peak_flops(jax.devices()[0].device_kind, jax.device_count())


def _peak_flops(kind: str, count: int) -> float | None:
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] * count if known else None


def peak_memory() -> int:
    """Bytes that one device held at most since the process began, of the device that held most. On
    a CPU, whose memory is the host's: what the process held at most.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peak = max(one.get("peak_bytes_in_use", 0) for one in stats)
    if peak:
        return peak
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def compile_seconds() -> float:
    """Seconds that jax has spent so far in this process on tracing, lowering, compiling and loading
    compiled code.
    """
    return _compile_clock()[0]


@functools.cache
def _compile_clock() -> list[float]:
    """Starts listening at the first call."""
    total = [0.0]

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            total[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    return total
