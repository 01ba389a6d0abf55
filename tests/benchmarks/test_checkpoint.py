"""What a training checkpoint of a large state costs: time that training stands still, time until it
is complete, and memory beside the state.
"""

import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from amplify.training import checkpoint

LLAMA = 4 * 4 * 1_100_048_384
"""Bytes in training of a Llama of 1.1 B parameters: weights, target network, Adam's two moments."""


class Memory:
    """The largest resident set while a block runs, beside that before it, in bytes."""

    def __enter__(self):
        self.before = self.largest = resident()
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self):
        while not self.over.wait(0.002):
            self.largest = max(self.largest, resident())

    def __exit__(self, *_):
        self.over.set()
        self.watcher.join()

    @property
    def extra(self) -> int:
        return self.largest - self.before


def resident() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from /proc")
@pytest.mark.parametrize("megabytes", [256, 768])
def test_what_a_training_checkpoint_costs(megabytes, tmp_path):
    """Target: the device holds no copy of the state, and training stands still no longer than it
    takes to copy it to host memory.
    """
    leaves = {f"{number}": jnp.full((2**23,), number) for number in range(megabytes // 32)}
    state = jax.block_until_ready(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), leaves))
    size = sum(leaf.nbytes for leaf in state.values())
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = jax.block_until_ready(step(state))
    then = jax.tree.map(lambda leaf: float(leaf[0]), state)
    del leaves
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        saved.save(1, {"small": jnp.zeros(())})  # what is only slow the first time
        saved.wait()
        with Memory() as saving:
            began = time.perf_counter()
            saved.save(2, state)
            blocked = time.perf_counter() - began
            steps = 0
            while saved.under_way:
                state = jax.block_until_ready(step(state))
                steps += 1
            saved.wait()
            complete = time.perf_counter() - began
        began = time.perf_counter()
        restored = saved.restore(jax.eval_shape(lambda: state))
        restoring = time.perf_counter() - began
    for name, leaf in restored.items():
        assert (leaf == then[name]).all()
    began = time.perf_counter()
    list(checkpoint._checksums(tmp_path / "training/2"))
    hashing = time.perf_counter() - began
    print(
        f"\n{size / 1e9:.2f} GB on {jax.devices()[0].device_kind}: training stood still for"
        f" {blocked:.3f} s, complete after {complete:.1f} s (of which checksums {hashing:.1f}) and"
        f" {steps} steps; {saving.extra / 1e9:.2f} GB of memory beside the state at most,"
        f" {saving.extra / size:.2f} times its size; verified and restored in {restoring:.1f} s"
    )
    print(
        f"extrapolated, not measured, for {LLAMA / 1e9:.1f} GB with the same disk and processors:"
        f" seconds * {LLAMA / size:.0f} (bytes / bytes here), that is"
        f" {complete * LLAMA / size:.0f} s until complete, {restoring * LLAMA / size:.0f} s to"
        " verify and restore. Where the device is no CPU, training stands still for bytes of a host"
        " / rate of copying to host memory, and that memory holds the bytes of a host once more"
        " until they are written."
    )
