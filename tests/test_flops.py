"""FLOPs and bytes, against values computed by hand."""

import jax
import pytest

from amplify.models.decoder import flops
from amplify.models.decoder.layers import Architecture
from amplify.models.language_model import LanguageModelConfig
from amplify.tasks.algorithmic.wildcard import Wildcard
from tests.test_distillation import batch

TINY = Architecture(
    vocabulary=10, positions=32, width=4, heads=2, key_heads=1, head_width=2, hidden=6,
    windows=(0, 0, 0),
)  # fmt: skip
LLAMA = Architecture(
    vocabulary=32_000, positions=2048, width=2048, heads=32, key_heads=4, head_width=64,
    hidden=5632, windows=(0,) * 22,
)  # fmt: skip
"""TinyLlama 1.1B."""


def test_weights_of_the_layers():
    # Queries and outputs 4 x 4, keys and values 4 x 2, an MLP of three 4 x 6: 16 + 16 + 8 + 8 + 72.
    assert flops.matrix_weights(TINY) == 3 * 120
    assert flops.matrix_weights(LLAMA) == 968_884_224  # 1.10 billion less two embeddings, norms
    ungated = Architecture(**(vars(TINY) | {"gated": False}))
    assert flops.matrix_weights(ungated) == 3 * 96


def test_pairs_attended_to():
    assert flops.causal_pairs(4) == 1 + 2 + 3 + 4
    assert flops.causal_pairs(0) == 0
    # A context of 3 (6 pairs), and two questions of 2 tokens: each token sees it, 6, and 3 own.
    assert flops.training_pairs(3, 2, 2) == 6 + 2 * (6 + 3)


def test_flops_of_a_training_step():
    # 6 x 360 x 7 + 6 x 10 x 4 x 2 + 12 x 3 x 4 x 24
    assert flops.training_flops(TINY, tokens=7, targets=2, pairs=24) == 15_120 + 480 + 3_456


def test_bytes_of_an_answered_token():
    # 360 + 40 weights; a token of the cache takes 2 x 3 x 1 x 2 = 12 numbers.
    assert flops.decoding_bytes(TINY, 2, 5, 3, 4, 2) == 2 * (400 + 2 * 12 * (5 + 3 * 4))


def test_bytes_of_a_model_of_usual_size():
    """64 questions of 32 tokens on a context of 2,048, in bfloat16: 2.07 GB of weights."""
    weights = 2 * (968_884_224 + 32_000 * 2048)
    cache = 2 * (2 * 22 * 4 * 64) * (2048 + 64 * 32)
    assert flops.decoding_bytes(LLAMA, 1, 2048, 64, 32, 2) == weights + cache
    assert round(weights / 1e9, 2) == 2.07


def test_a_step_of_a_language_model_counts_its_tokens_and_its_work():
    """Of 2 contexts of 8 facts with 4 questions each, padding left out."""
    model = LanguageModelConfig(width=16, heads=2, key_heads=1, layers=2).build(Wildcard(3))
    rows = batch(2)
    _, metrics = jax.jit(model.loss)(jax.jit(model.init)(jax.random.key(0)), jax.device_put(rows))
    laid_out = model.lay_out(rows)
    tokens, pairs = 0, 0
    for context, positions in zip(laid_out["context"], laid_out["positions"], strict=True):
        length = int((context >= 0).sum())
        tokens, pairs = tokens + length, pairs + flops.causal_pairs(length)
        for position in positions[positions > 0].tolist():
            tokens, pairs = tokens + 1, pairs + length + position
    targets = int((laid_out["targets"] >= 0).sum())
    assert metrics["tokens"] == tokens
    assert metrics["answered"] == 8
    work = flops.training_flops(model.architecture, tokens, targets, pairs)
    assert float(metrics["flops"]) == pytest.approx(work, rel=1e-6)
