"""Attention over a shared past and a sequence of its own, merged by log-sum-exp.

Sequences see themselves and a past that all of one batch row share. Each of the two parts is
attended to on its own; the outputs are then averaged with weights that follow from the log-sum-exp
of the scores. The gradient of a part needs no more than the merged output and log-sum-exp. This is
FlashAttention (Dao et al. 2022, arXiv:2205.14135) with two blocks of keys, as in cascade inference
(Ye et al. 2024, flashinfer.ai/2024/02/02/cascade-inference.html).

Attention scores of all pairs never exist at once. On NVIDIA devices, cuDNN's kernels attend to a
context and to a past, where they can: in half precision, without a cap on scores, and where no
window cuts off what is seen. Everywhere else XLA computes the scores, for a block of queries at a
time. Which of the two is used is decided when a function is lowered for a platform, so that
`jax.export` on one machine gives the right code for another.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Bool, Float, Int, PyTree

from amplify.assistants import cudnn

NOWHERE = -1
"""Position of what is only there to fill up a shape."""
UNSEEN = -1e30
"""Score of what may not be seen."""
OUTPUT = "attention output"
"""Name of outputs and log-sum-exps, for policies of `jax.checkpoint`."""
MAX_SCORE_BYTES = 2**26
"""Scores that XLA computes at a time take no more than this, in bytes."""
BLOCK = 128
"""Queries of a context for which XLA computes scores at a time, with the keys up to the last."""
MAX_BLOCKS = 32
"""Bounds the size of the compiled program."""

Queries = Float[Array, "batch key_heads n length group head_width"]
"""Of n sequences; `group` query heads share a key head."""
LogSumExp = Float[Array, "batch key_heads n length group"]
"""Of each query's scores, in float32."""
KeysAndValues = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Of one layer."""


class Places(NamedTuple):
    """Where tokens stand."""

    positions: Int[Array, "batch #n length"]  # NOWHERE: padding
    segments: Int[Array, "batch n length"] | None = None  # tokens see their own segment alone

    def of(self, tokens: slice) -> "Places":
        """Of some tokens."""
        segments = None if self.segments is None else self.segments[:, :, tokens]
        return Places(self.positions[:, :, tokens], segments)


class Part(NamedTuple):
    """Keys and values, and where their tokens stand.

    Those of the sequences themselves have an axis `n`, those of a shared past have not.
    """

    keys: Float[Array, "batch key_heads *n seen head_width"]
    values: Float[Array, "batch key_heads *n seen head_width"]
    places: Places

    @property
    def shared(self) -> bool:
        return self.keys.ndim == 4

    def until(self, end: int) -> "Part":
        """The first tokens."""
        return Part(self.keys[..., :end, :], self.values[..., :end, :], self.places.of(slice(end)))


@dataclasses.dataclass(frozen=True)
class Rules:
    """What of attention is known when it is compiled."""

    scale: float  # of the scores
    cap: float | None = None  # scores are squeezed into -cap..cap
    windowed: bool = True  # False: the window is wider than whatever is seen
    in_order: bool = False  # the sequence has no past, and its padding comes last

    def flash(self, query: Queries, part: Part) -> bool:
        """Whether cuDNN can attend to a part, on a device that has it."""
        simple = part.shared or (self.in_order and query.shape[2] == 1)
        simple = simple and part.places.segments is None
        plain = self.cap is None and not self.windowed
        return simple and plain and cudnn.supports(query.dtype, query.shape[-1])


def attend(
    rules: Rules,
    query: Queries,
    places: Places,
    own: Part,
    past: Part | None,
    window: Int[Array, ""] | int,
) -> Queries:
    """What each query gathers from its own sequence and from the past.

    Args:
        rules: see there.
        query: of n sequences behind the same past.
        places: of the queries. A token sees those at its own position and before, of its segment.
        own: keys and values of the sequences.
        past: those that all n sequences of a batch row see in front of them; padding comes last.
        window: how many tokens back a token sees, itself counted.

    Returns:
        Of the shape and dtype of `query`; anything, but finite, where a query is padding.
    """
    parts = (own,) if past is None else (own, past)
    return _attend(rules, query, places, parts, jnp.asarray(window))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    rules: Rules, query: Queries, places: Places, parts: tuple[Part, ...], window: Int[Array, ""]
) -> Queries:
    return _merged(rules, query, places, parts, window)[0]


def _merged(
    rules: Rules, query: Queries, places: Places, parts: tuple[Part, ...], window: Int[Array, ""]
) -> tuple[Queries, LogSumExp]:
    """The output, and the log-sum-exp of all scores."""
    outs, log_sums = zip(
        *(_forward(rules, query, places, part, window) for part in parts), strict=True
    )
    if len(parts) == 1:
        return outs[0].astype(query.dtype), log_sums[0]
    log_sum = functools.reduce(jnp.logaddexp, log_sums)
    out = sum(
        jnp.exp(of_part - log_sum)[..., None] * out.astype(jnp.float32)
        for out, of_part in zip(outs, log_sums, strict=True)
    )
    return jnp.asarray(out, query.dtype), log_sum


def _attend_forward(
    rules: Rules, query: Queries, places: Places, parts: tuple[Part, ...], window: Int[Array, ""]
) -> tuple[Queries, tuple]:
    # What follows from places alone is the same in all layers. JAX would compute it once, outside
    # the scan over layers, as large as the scores, and keep it: the barrier makes it depend on x.
    query, places, parts = barrier((query, places, parts))
    out, log_sum = (
        checkpoint_name(part, OUTPUT) for part in _merged(rules, query, places, parts, window)
    )
    return out, (query, places, parts, window, out, log_sum)


def _attend_backward(rules: Rules, kept: tuple, gradient: Queries) -> tuple:
    query, places, parts, window, out, log_sum = kept
    gradient, places, parts = barrier((gradient, places, parts))
    given = out, log_sum, gradient
    d_queries, d_keys, d_values = zip(
        *(_backward(rules, query, places, part, window, given) for part in parts), strict=True
    )
    d_parts = tuple(
        part._replace(keys=keys, values=values, places=_zero(part.places))
        for part, keys, values in zip(parts, d_keys, d_values, strict=True)
    )
    return functools.reduce(jnp.add, d_queries), _zero(places), d_parts, _zero(window)


def _zero(integers: PyTree[Array]) -> PyTree[np.ndarray]:
    """The gradient of what has none."""
    return jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), jax.dtypes.float0), integers)


_attend.defvjp(_attend_forward, _attend_backward)


# One part: cuDNN's kernels, or XLA.


def _forward(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> tuple[Queries, LogSumExp]:
    here = functools.partial(_forward_in_blocks, rules)
    if not rules.flash(query, part):
        return here(query, places, part, window)
    return jax.lax.platform_dependent(
        query, places, part, window, cuda=functools.partial(_forward_flash, rules), default=here
    )


def _backward(
    rules: Rules,
    query: Queries,
    places: Places,
    part: Part,
    window: Int[Array, ""],
    given: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    """Gradients of queries, keys and values; `given` are output, log-sum-exp and the output's
    gradient.
    """
    here = functools.partial(_backward_in_blocks, rules)
    if not rules.flash(query, part):
        return here(query, places, part, window, given)
    flash = functools.partial(_backward_flash, rules)
    return jax.lax.platform_dependent(query, places, part, window, given, cuda=flash, default=here)


def _forward_flash(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> tuple[Queries, LogSumExp]:
    seen = _seen(part)
    out, log_sum = cudnn.forward(
        _to_flash(query, part), *_keys_and_values(part), _at_least_one(seen), scale=rules.scale
    )
    out, log_sum = _from_flash(out, query.shape, part), _from_flash(log_sum, query.shape[:-1], part)
    if seen is not None:  # what was gathered from an empty past counts nothing
        log_sum += jnp.where(seen == 0, UNSEEN, 0).reshape(-1, 1, 1, 1, 1)
    return out, log_sum


def _backward_flash(
    rules: Rules,
    query: Queries,
    places: Places,
    part: Part,
    window: Int[Array, ""],
    given: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    seen, (out, log_sum, gradient) = _seen(part), (_to_flash(array, part) for array in given)
    if seen is not None:  # an empty past has no gradient: its weights become zero
        log_sum -= jnp.where(seen == 0, 3 * UNSEEN, 0).reshape(-1, 1, 1)
    d_query, d_keys, d_values = cudnn.backward(
        _to_flash(query, part),
        *_keys_and_values(part),
        _at_least_one(seen),
        log_sum,
        out,
        gradient,
        scale=rules.scale,
    )
    d_keys, d_values = (array.reshape(part.keys.shape) for array in (d_keys, d_values))
    return _from_flash(d_query, query.shape, part), d_keys, d_values


def _keys_and_values(part: Part) -> KeysAndValues:
    """As the kernels read them: without an axis for sequences, of which there is one if any."""
    shape = (*part.keys.shape[:2], *part.keys.shape[-2:])
    return part.keys.reshape(shape), part.values.reshape(shape)


def _seen(part: Part) -> Int[Array, " batch"] | None:
    """How many tokens a shared past has; None: each token sees those up to itself."""
    if not part.shared:
        return None
    return jnp.sum(part.places.positions[:, 0] != NOWHERE, axis=-1, dtype=jnp.int32)


def _at_least_one(seen: Int[Array, " batch"] | None) -> Int[Array, " batch"] | None:
    """The kernels would divide by zero."""
    return None if seen is None else jnp.maximum(seen, 1)


def _to_flash(array: Float[Array, "..."], part: Part) -> Float[Array, "..."]:
    """Queries, or something of each, as the kernels read them.

    A past looks the same to all queries: those that share a key head become one long sequence, and
    its keys are read once for all of them.
    """
    batch, key_heads, n, length, group, *rest = array.shape
    if part.shared:
        return array.reshape(batch, key_heads, n * length * group, *rest)
    return jnp.moveaxis(array, 4, 2).reshape(batch, key_heads * group, length, *rest)


def _from_flash(
    array: Float[Array, "..."], shape: tuple[int, ...], part: Part
) -> Float[Array, "..."]:
    if part.shared:
        return array.reshape(shape)
    batch, key_heads, n, length, group, *rest = shape
    return jnp.moveaxis(array.reshape(batch, key_heads, group, n, length, *rest), 2, 4)


# XLA, a block of queries at a time.


def _forward_in_blocks(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> tuple[Queries, LogSumExp]:
    outs: list[Array] = []
    log_sums: list[Array] = []
    for tokens, seen in _blocks(rules, query, part):
        block = query[:, :, :, tokens]
        if outs:  # one after the other, so that the scores of one block exist at a time
            block, outs[-1] = barrier((block, outs[-1]))
        scores = _scores(rules, block, places.of(tokens), seen, window)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = _times(weights.astype(query.dtype), seen.values) / total
        outs.append(out.astype(query.dtype))
        log_sums.append((top + jnp.log(total))[..., 0])
    return _joined(outs), _joined(log_sums)


def _backward_in_blocks(
    rules: Rules,
    query: Queries,
    places: Places,
    part: Part,
    window: Int[Array, ""],
    given: tuple[Queries, LogSumExp, Queries],
) -> tuple[Queries, Array, Array]:
    d_keys, d_values = (jnp.zeros(part.keys.shape, jnp.float32) for _ in range(2))
    blocks = list(_blocks(rules, query, part))
    d_queries: list[Array] = []
    for tokens, seen in blocks:
        block = query[:, :, :, tokens]
        if d_queries:
            block, d_queries[-1], d_keys = barrier((block, d_queries[-1], d_keys))
        out, log_sum, gradient = (array[:, :, :, tokens] for array in given)
        scores = _scores(rules, block, places.of(tokens), seen, window)
        weights = jnp.exp(scores - log_sum[..., None])
        d_weights = _against(gradient, seen.values)
        along = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
        d_scores = weights * (d_weights - along) * rules.scale
        if rules.cap is not None:
            d_scores *= 1 - jnp.square(jnp.where(scores == UNSEEN, 0, scores) / rules.cap)
        d_scores = d_scores.astype(query.dtype)
        d_queries.append(_times(d_scores, seen.keys).astype(query.dtype))
        here = _by_key(d_scores, block, seen), _by_key(weights.astype(query.dtype), gradient, seen)
        if len(blocks) == 1:
            d_keys, d_values = here
        else:
            end = seen.keys.shape[-2]
            d_keys, d_values = (
                total.at[..., :end, :].add(more)
                for total, more in zip((d_keys, d_values), here, strict=True)
            )
    return _joined(d_queries), d_keys.astype(query.dtype), d_values.astype(query.dtype)


def _blocks(rules: Rules, query: Queries, part: Part) -> Iterator[tuple[slice, Part]]:
    """Which queries are attended from together, and what they see."""
    length, seen = query.shape[3], part.keys.shape[-2]
    size = 4 * query.size // query.shape[-1] * seen
    count = max(-(-size // MAX_SCORE_BYTES), length // BLOCK if rules.in_order else 1)
    step = -(-length // max(1, min(count, length, MAX_BLOCKS)))
    for start in range(0, length, step):
        end = min(start + step, length)
        yield slice(start, end), part.until(end) if rules.in_order else part


def _scores(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> Float[Array, "batch key_heads n length group seen"]:
    """In float32; far below all others where nothing may be seen."""
    scores = _against(query, part.keys) * rules.scale
    if rules.cap is not None:
        scores = rules.cap * jnp.tanh(scores / rules.cap)
    sees = _sees(rules, places, part.places, window)
    return scores + jnp.where(sees, 0.0, UNSEEN)[:, None, :, :, None]


def _sees(
    rules: Rules, queries: Places, keys: Places, window: Int[Array, ""]
) -> Bool[Array, "batch n length seen"]:
    ages = queries.positions[..., None] - keys.positions[..., None, :]
    sees = (ages >= 0) & (keys.positions != NOWHERE)[..., None, :]
    if rules.windowed:
        sees &= ages < window
    if queries.segments is not None and keys.segments is not None:
        sees &= queries.segments[..., None] == keys.segments[..., None, :]
    return sees


def _times(
    weights: Float[Array, "batch key_heads n length group seen"],
    values: Float[Array, "batch key_heads *n seen head_width"],
) -> Queries:
    """Weighted sums, in float32, one product for each sequence; where all n share the values, one
    for all: this is what makes many questions about one context cheap.
    """
    values = compact(values)
    rows = weights.reshape(*values.shape[:-2], -1, weights.shape[-1])
    product = jnp.matmul(rows, values, preferred_element_type=jnp.float32)
    return product.reshape(*weights.shape[:-1], values.shape[-1])


def _against(
    queries: Queries, keys: Float[Array, "batch key_heads *n seen head_width"]
) -> Float[Array, "batch key_heads n length group seen"]:
    """Inner products, in float32; of the keys as they lie: a cache is not transposed, or copied."""
    keys = compact(keys)
    rows = queries.reshape(*keys.shape[:-2], -1, queries.shape[-1])
    product = jnp.einsum("...qw,...sw->...qs", rows, keys, preferred_element_type=jnp.float32)
    return product.reshape(*queries.shape[:-1], keys.shape[-2])


def compact(array: Float[Array, "*b seen head_width"]) -> Float[Array, "*c seen head_width"]:
    """Without leading axes of length 1. Products then read a cache as it lies in memory: where XLA
    finds such an axis, it updates a second copy of the cache, of another shape.
    """
    return array.reshape(*(size for size in array.shape[:-2] if size > 1), *array.shape[-2:])


def _by_key(
    weights: Float[Array, "batch key_heads n length group seen"],
    queries: Queries,
    part: Part,
) -> Float[Array, "batch key_heads *n seen head_width"]:
    """Sums over queries, in float32."""
    left, right = (
        array.reshape(*part.keys.shape[:-2], -1, array.shape[-1]) for array in (weights, queries)
    )
    return jnp.einsum("...qs,...qw->...sw", left, right, preferred_element_type=jnp.float32)


def _joined(blocks: list[Float[Array, "..."]]) -> Float[Array, "..."]:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=3)
