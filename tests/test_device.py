"""What a record says of speed and memory, against values worked out by hand."""

import jax
import pytest

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.transformer import forward_flops
from amplify.records import provenance
from amplify.runtime import device
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.types import FAILED
from tests.test_distillation import batch


@pytest.mark.parametrize(
    ("kind", "count", "peak"),
    [
        ("NVIDIA H200", 1, 989e12),
        ("NVIDIA H100 80GB HBM3", 8, 8 * 989e12),
        ("NVIDIA H100 PCIe", 1, 756e12),
        ("TPU v5 lite", 4, 4 * 197e12),
        ("TPU v5", 1, 459e12),
        ("cpu", 2, None),
    ],
)
def test_the_peak_is_that_of_the_longest_name_that_fits(kind, count, peak):
    assert device._peak_flops(kind, count) == peak


def test_a_process_on_a_cpu_holds_some_memory():
    assert 2**26 < device.peak_memory() < 2**40


def test_the_clock_of_compilation_runs_while_something_is_compiled():
    before = device.compile_seconds()
    jax.jit(lambda x: x * before + 12345.0)(1.0)
    assert device.compile_seconds() > before


def test_rates_are_counts_over_the_time_of_training(monkeypatch):
    rows = [
        {"answered": 100, "tokens": 4000, "flops": 6e12, "seconds": 1.5},
        {"answered": 200, "tokens": 8000, "flops": 12e12, "seconds": 0.5},
    ]
    monkeypatch.setattr(device, "peak_flops", lambda: 90e12)
    found = provenance.performance(rows)["performance"]
    assert found["pairs_per_second"] == 150
    assert found["tokens_per_second"] == 6000
    assert found["mfu"] == 0.1
    monkeypatch.setattr(device, "peak_flops", lambda: None)
    assert set(provenance.performance([{"seconds": 0.0}])["performance"]) == {"peak_memory_gib"}


def test_the_flops_of_a_small_transformer_by_hand():
    """Width 2, 1 encoder and 2 decoder layers, MLP 4 wide, 3 rows, 5 queries, 7 tokens, a pointer.

    A product of m x k and k x n takes 2mkn operations.
    """
    sizes = FactTransformerConfig(width=2, heads=1, encoder_layers=1, decoder_layers=2, mlp_ratio=2)
    rows, queries = 3, 5
    encoder = rows * 2 * (4 * 2 * 2 + 2 * 2 * 4) + 2 * (2 * rows * rows * 2)
    memory = rows * 2 * (2 * 2 * 2)
    decoder = queries * 2 * (2 * 2 * 2 + 2 * 2 * 4) + 2 * (2 * queries * rows * 2)
    head = queries * 2 * 2 * 7 + queries * 2 * 2 * 2 + 2 * queries * rows * 2
    assert forward_flops(sizes, rows, queries, 7) == encoder + 2 * (memory + decoder) + head


def test_a_step_counts_its_answers_and_its_work():
    model = FactTransformerConfig(width=16).build(Wildcard(3))
    rows = batch()
    rows["answers"][2, 1:] = FAILED
    _, metrics = jax.jit(model.loss)(jax.jit(model.init)(jax.random.key(0)), jax.device_put(rows))
    assert metrics["answered"] == 8 * 4 - 3
    assert metrics["flops"] == 3 * 8 * forward_flops(model.config, 8, 4, len(model.task.vocabulary))
