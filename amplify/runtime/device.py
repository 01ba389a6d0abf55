"""The devices that a process computes on: their kind, peak FLOP/s and memory, and compile time.

A round's record contains these values, so that figures from different machines can be told apart.
"""

import functools
import resource
import sys
import time

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
"""Dense bf16 FLOP/s of one device, by prefix of its `device_kind`; the longest match wins.

From the manufacturers' data sheets (NVIDIA's without sparsity; cloud.google.com/tpu/docs).
"""


def describe() -> str:
    """Returns the number of devices of all processes, and their kind, such as "8 x TPU v5 lite"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def peak_flops() -> float | None:
    """Returns the dense bf16 FLOP/s of all devices together; None if their kind is unknown."""
    return _peak_flops(jax.devices()[0].device_kind, jax.device_count())


def _peak_flops(kind: str, count: int) -> float | None:
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] * count if known else None


def peak_memory() -> int:
    """Returns the peak memory of a local device since the process began, in bytes.

    Of several devices, the largest peak counts. On CPUs, this is the peak memory of the process.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peak = max(one.get("peak_bytes_in_use", 0) for one in stats)
    if peak:
        return peak
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def compile_seconds() -> float:
    """Returns the seconds that jax has spent on compilation in this process since the first call.

    This includes tracing, lowering, and loading compiled programs from the cache.
    """
    return _compile_clock()[0]


def working_seconds() -> float:
    """Returns the seconds of a monotonic clock that stands still while jax compiles."""
    return time.monotonic() - compile_seconds()


@functools.cache
def _compile_clock() -> list[float]:
    """A running total, updated by a listener that the first call registers."""
    total = [0.0]

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            total[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    return total
