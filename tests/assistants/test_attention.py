"""Attention, by every path, against a softmax over all scores at once; and what it compiles to."""

import dataclasses
import math
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.models import scoring
from amplify.models.attention import blockwise, cudnn
from amplify.models.attention.attention import attend
from amplify.models.attention.attention_parts import (
    PADDING,
    AttentionOptions,
    KVBlock,
    TokenPositions,
)
from amplify.models.decoder import causal_lm
from amplify.models.language_model import LanguageModelConfig
from amplify.types import Task

BATCH, KEY_HEADS, N, LENGTH, GROUP, WIDTH, BEFORE = 2, 2, 3, 7, 2, 8, 5


@dataclasses.dataclass(frozen=True)
class Case:
    """Which of the things that attention knows are there."""

    cap: float | None = None
    window: int = 0
    segments: bool = False
    past: tuple[int, ...] | None = (5, 3)  # tokens of each row's past
    is_causal: bool = False


CASES = {
    "past": Case(),
    "no past": Case(past=None),
    "an empty past": Case(past=(5, 0)),
    "segments": Case(segments=True),
    "cap": Case(cap=2.0),
    "window": Case(window=4),
    "all": Case(cap=2.0, window=4, segments=True),
    "context": Case(past=None, is_causal=True),
    "context, cap and window": Case(past=None, is_causal=True, cap=2.0, window=3),
}


def arrays(case: Case):
    """Random queries, keys and values; where they stand; and which queries are not padding."""
    n = 1 if case.is_causal else N
    draw = iter(jax.random.split(jax.random.key(0), 5))
    query = 2 * jax.random.normal(next(draw), (BATCH, KEY_HEADS, n, LENGTH, GROUP, WIDTH))
    own = [jax.random.normal(next(draw), (BATCH, KEY_HEADS, n, LENGTH, WIDTH)) for _ in "kv"]
    old = [jax.random.normal(next(draw), (BATCH, KEY_HEADS, BEFORE, WIDTH)) for _ in "kv"]
    counts = np.array(case.past or (0, 0))
    there = np.ones((BATCH, n, LENGTH), bool)
    if case.is_causal:
        there[1, 0, 5:] = False
    else:
        there[0, 1, :2] = there[1, 2, :4] = False
    positions = counts[:, None, None] + np.cumsum(there, -1) - 1
    positions = jnp.asarray(np.where(there, positions, PADDING))
    segments = jnp.broadcast_to(jnp.arange(LENGTH) // 3, positions.shape)
    places = TokenPositions(positions, segments if case.segments else None)
    before = np.where(np.arange(BEFORE) < counts[:, None], np.arange(BEFORE), PADDING)
    prefix_positions = TokenPositions(jnp.asarray(before)[:, None])
    return query, own, old if case.past else None, places, prefix_positions, there


def reference(case: Case, query, own, old, places, prefix_positions):
    """One softmax over everything, from the definition."""
    keys, values = own
    positions = jnp.broadcast_to(places.positions, query.shape[:1] + query.shape[2:4])
    seen = positions
    if old is not None:
        wide = [jnp.repeat(part[:, :, None], query.shape[2], axis=2) for part in old]
        keys, values = (jnp.concatenate(both, axis=3) for both in zip(wide, own, strict=True))
        before = jnp.broadcast_to(prefix_positions.positions, (*positions.shape[:2], BEFORE))
        seen = jnp.concatenate([before, positions], axis=-1)
    scores = jnp.einsum("bknlgw,bknsw->bknlgs", query, keys) * 0.3
    if case.cap:
        scores = case.cap * jnp.tanh(scores / case.cap)
    ages = positions[..., None] - seen[..., None, :]
    sees = (ages >= 0) & (seen != PADDING)[..., None, :]
    if case.window:
        sees &= ages < case.window
    if case.segments:
        same = places.segments[..., None] == places.segments[..., None, :]
        sees &= jnp.pad(same, [(0, 0)] * 3 + [(BEFORE, 0)], constant_values=True)
    scores = jnp.where(sees[:, None, :, :, None], scores, -1e30)
    return jnp.einsum("bknlgs,bknsw->bknlgw", jax.nn.softmax(scores, axis=-1), values)


def ours(case: Case, query, own, old, places, prefix_positions):
    options = AttentionOptions(0.3, case.cap, windowed=case.window > 0, is_causal=case.is_causal)
    past = KVBlock(*old, prefix_positions) if old is not None else None
    return attend(options, query, places, KVBlock(*own, places), past, case.window)


def assert_as_reference(case: Case) -> None:
    """Outputs, and gradients with respect to queries, keys and values."""
    query, own, old, places, prefix_positions, there = arrays(case)
    mask = there[:, None, :, :, None, None]
    weights = jnp.where(mask, jax.random.normal(jax.random.key(1), query.shape), 0)

    def total(function, query, own, old):
        out = function(case, query, own, old, places, prefix_positions)
        return jnp.sum(weights * out), out

    results = [
        jax.jit(jax.value_and_grad(lambda *given, f=f: total(f, *given), (0, 1, 2), has_aux=True))(
            query, own, old
        )
        for f in (ours, reference)
    ]
    (_, out), gradients = results[0]
    assert np.isfinite(out).all()
    (_, expected), expected_gradients = results[1]
    np.testing.assert_allclose(jnp.where(mask, out, 0), jnp.where(mask, expected, 0), atol=2e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, expected_gradients
    )


@pytest.mark.parametrize("name", CASES)
def test_it_is_a_softmax_over_the_past_and_the_sequence_itself(name):
    assert_as_reference(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_queries_may_be_taken_in_blocks(name, monkeypatch):
    """Of three tokens, the last block smaller than the others."""
    case = CASES[name]
    monkeypatch.setattr(blockwise, "BLOCK", 3)
    n = 1 if case.is_causal else N
    monkeypatch.setattr(blockwise, "MAX_SCORE_BYTES", 4 * BATCH * KEY_HEADS * GROUP * n * 7 * 3)
    assert_as_reference(case)


def plain_forward(query, keys, values, seen, *, scale):
    """What cuDNN's documentation says of its kernel."""
    weights, log_sum = _weights(query, keys, seen, scale, None)
    out = jnp.einsum("bhls,bhsw->bhlw", weights, _for_each_head(values, query))
    if seen is not None:  # garbage where nothing can be seen
        out = jnp.where((seen == 0)[:, None, None, None], jnp.nan, out)
        log_sum = jnp.where((seen == 0)[:, None, None], jnp.nan, log_sum)
    return out, log_sum


def plain_backward(query, keys, values, seen, log_sum, out, gradient, *, scale):
    """The gradient of FlashAttention 2, Algorithm 2."""
    weights, _ = _weights(query, keys, seen, scale, log_sum)
    wide_keys, wide_values = _for_each_head(keys, query), _for_each_head(values, query)
    d_weights = jnp.einsum("bhlw,bhsw->bhls", gradient, wide_values)
    d_scores = weights * (d_weights - jnp.sum(out * gradient, axis=-1, keepdims=True)) * scale
    d_keys = jnp.einsum("bhls,bhlw->bhsw", d_scores, query)
    d_values = jnp.einsum("bhls,bhlw->bhsw", weights, gradient)
    grouped = (*keys.shape[:2], -1, *keys.shape[2:])
    d_keys, d_values = (part.reshape(grouped).sum(2) for part in (d_keys, d_values))
    return jnp.einsum("bhls,bhsw->bhlw", d_scores, wide_keys), d_keys, d_values


def _weights(query, keys, seen, scale, log_sum):
    scores = scale * jnp.einsum("bhlw,bhsw->bhls", query, _for_each_head(keys, query))
    if seen is None:
        sees = jnp.tri(query.shape[2], keys.shape[2], dtype=bool)[None, None]
    else:
        sees = jnp.arange(keys.shape[2])[None, None, None] < seen[:, None, None, None]
    scores = jnp.where(sees, scores, -jnp.inf)
    if log_sum is None:
        log_sum = jax.nn.logsumexp(scores, axis=-1)
    return jnp.exp(scores - log_sum[..., None]), log_sum


def _for_each_head(keys, query):
    return jnp.repeat(keys, query.shape[1] // keys.shape[1], axis=1)


@pytest.fixture
def flash(monkeypatch):
    """What is lowered for CUDA, run here: the kernels are replaced by their definitions."""
    called = []

    def counted(function):
        def kernel(*arrays, scale):
            called.append(function)
            return function(*arrays, scale=scale)

        return kernel

    monkeypatch.setattr(cudnn, "supports", lambda dtype, head_width: True)
    monkeypatch.setattr(cudnn, "forward", counted(plain_forward))
    monkeypatch.setattr(cudnn, "backward", counted(plain_backward))
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, cuda, default: cuda(*arrays))
    return called


@pytest.mark.parametrize("name", ["past", "an empty past", "segments", "context"])
def test_flash_kernels_are_given_the_right_questions(name, flash):
    assert_as_reference(CASES[name])
    assert plain_forward in flash
    assert plain_backward in flash


@pytest.mark.parametrize("name", ["cap", "window", "all", "context, cap and window"])
def test_flash_kernels_are_not_asked_what_they_cannot_do(name, flash):
    assert_as_reference(CASES[name])
    assert not flash


def test_what_the_kernels_support():
    assert cudnn.supports(jnp.bfloat16, 64)
    assert cudnn.supports(jnp.float16, 128)
    assert not cudnn.supports(jnp.float32, 64)
    assert not cudnn.supports(jnp.bfloat16, 60)
    assert not cudnn.supports(jnp.bfloat16, 256)


# What whole models are compiled to.


@dataclasses.dataclass(frozen=True)
class Shapes(Task):
    """As much of a task as a language model asks for."""

    facts: int = 1
    fact_length: int = 253
    question_length: int = 15
    answer_length: int = 4
    vocabulary: tuple[str, ...] = tuple("abcdefgh")
    max_depth: ClassVar = 1
    classes: ClassVar = ("",)


CONTEXTS, QUESTIONS, HEADS = 2, 6, 4
MODEL = LanguageModelConfig(width=32, heads=HEADS, key_heads=2, layers=2, dtype="bfloat16").build(
    Shapes()
)
CONTEXT = MODEL.context_length
PAST_SCORES = CONTEXTS * HEADS * QUESTIONS * CONTEXT
"""Those of one token of each question."""


def inputs(contexts: int = CONTEXTS):
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    ints = [
        jax.ShapeDtypeStruct(shape, jnp.int32)
        for shape in [(contexts, 1, 253), (contexts, QUESTIONS, 15), (contexts, QUESTIONS, 4)]
    ]
    batch = dict(zip(("context", "questions", "answers"), ints, strict=True))
    return params, batch | {"past": jax.eval_shape(MODEL.encode, params, batch["context"])}


def prefill(params, batch):
    return MODEL.encode(params, batch["context"])


def answer(params, batch):
    return MODEL.answer(params, batch["past"], batch["questions"], None)


def train(params, batch):
    rows = {name: batch[name] for name in ("context", "questions", "answers")}
    return jax.grad(lambda params: MODEL.loss(params, rows)[0])(params)


def lowered(function, platform: str) -> str:
    """For a platform, of which no device is needed."""
    return jax.jit(function).trace(*inputs()).lower(lowering_platforms=(platform,)).as_text()


def largest_in_float32(text: str) -> int:
    """Numbers in the largest tensor that has an axis as long as a context."""
    found = re.findall(r"tensor<([0-9x]+)xf32>", text)
    shapes = [tuple(map(int, shape.split("x"))) for shape in found]
    return max((math.prod(shape) for shape in shapes if CONTEXT in shape), default=0)


@pytest.mark.parametrize(
    ("function", "forward", "backward", "scores"),
    [
        (prefill, 1, 0, CONTEXTS * HEADS * CONTEXT**2),
        (train, 1 + 2, 1 + 2, PAST_SCORES * 8),
        (answer, 2 * 2 + 2, 0, PAST_SCORES),
    ],
)
def test_on_cuda_scores_of_a_context_or_past_never_exist(function, forward, backward, scores):
    """Two layers, the last of which does not attend within a context. Questions are read by either
    of two branches, and answered in a loop.
    """
    text = lowered(function, "cuda")
    assert text.count("@__cudnn$fmhaSoftmax(") == forward
    assert text.count("@__cudnn$fmhaSoftmaxBackward(") == backward
    assert largest_in_float32(text) < scores
    assert "fmha" not in lowered(function, "cpu")
    assert "fmha" not in lowered(function, "tpu")


def test_what_is_exported_elsewhere_has_the_kernels():
    calls = ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in calls]
    exported = jax.export.export(jax.jit(train), platforms=["cuda"], disabled_checks=allowed)
    text = exported(*inputs()).mlir_module()
    assert all(name in text for name in calls)


def test_weights_are_cast_once():
    """Outside all loops: none is converted inside of one."""
    text = lowered(answer, "cuda")
    inside = "\n".join(re.findall(r"\bdo \{.*?\n    \}", text, re.DOTALL))
    cast = re.compile(r"stablehlo.convert .*tensor<(?:2x)?32x\d+xf32>\) -> tensor<.*xbf16>")
    assert cast.search(text)
    assert not cast.search(inside)


@pytest.mark.parametrize("contexts", [1, CONTEXTS])
def test_a_cache_is_updated_in_place_while_answering(contexts):
    """In the compiled loop nothing of the size of a layer's cache is copied."""
    compiled = jax.jit(answer).lower(*inputs(contexts)).compile().as_text()
    body = re.findall(r"body=%?([\w.\-]+)", compiled)
    assert len(body) == 1  # layers are unrolled: the only loop is the one over tokens
    text = re.search(rf"^%?{re.escape(body[0])} \(.*?^\}}", compiled, re.DOTALL | re.MULTILINE)
    room = 16 + 4 - 1
    cache = math.prod((contexts, 2, QUESTIONS, room, 8))
    carried = re.findall(r"= bf16\[([0-9,]+)\]\S* get-tuple-element", text[0])
    copied = re.findall(r"= \w+\[([0-9,]+)\]\S* copy\(", text[0])
    assert sum(size(shape) == cache for shape in carried) == 2 * 2  # keys and values of two layers
    assert not any(size(shape) == cache for shape in copied)


def size(shape: str) -> int:
    return math.prod(map(int, shape.split(",")))


def rows():
    draw = np.random.default_rng(0)
    return {
        name: draw.integers(1, 8, given.shape).astype(np.int32)
        for name, given in inputs()[1].items()
        if name != "past"
    }


@pytest.mark.parametrize(("unrolled", "rematerialise"), [(8, True), (0, False)])
def test_layers_may_be_scanned_and_computed_again(unrolled, rematerialise, monkeypatch):
    """In float32, in which the order of sums hardly matters."""
    config = dataclasses.replace(MODEL.config, dtype="float32")
    plain = config.build(Shapes())
    other = dataclasses.replace(config, rematerialise=rematerialise).build(Shapes())
    params, batch = jax.jit(MODEL.init)(jax.random.key(0)), rows()
    expected = jax.jit(jax.value_and_grad(plain.loss, has_aux=True))(params, batch)
    monkeypatch.setattr(causal_lm, "MAX_UNROLLED", unrolled)
    given = jax.jit(jax.value_and_grad(other.loss, has_aux=True))(params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), given, expected)


def test_attention_is_not_computed_again_on_the_way_back(monkeypatch):
    """Scanned: one kernel for contexts and one for pasts, forward and backward."""
    monkeypatch.setattr(causal_lm, "MAX_UNROLLED", 0)
    model = dataclasses.replace(MODEL.config, rematerialise=True).build(Shapes())

    def train(params, batch):
        given = {name: batch[name] for name in ("context", "questions", "answers")}
        return jax.grad(lambda params: model.loss(params, given)[0])(params)

    text = lowered(train, "cuda")
    assert text.count("@__cudnn$fmhaSoftmax(") == 2
    assert text.count("@__cudnn$fmhaSoftmaxBackward(") == 2


def test_a_loss_in_parts_is_the_loss(monkeypatch):
    params, batch = jax.jit(MODEL.init)(jax.random.key(0)), rows()
    whole = jax.jit(jax.value_and_grad(MODEL.loss, has_aux=True))(params, batch)
    monkeypatch.setattr(scoring, "MAX_LOGIT_BYTES", 4 * CONTEXTS * 5 * 8)
    parts = jax.jit(jax.value_and_grad(MODEL.loss, has_aux=True))(params, batch)
    assert whole[0][1]["agreement"] == parts[0][1]["agreement"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-3), whole, parts)
