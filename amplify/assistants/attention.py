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

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.lax import optimization_barrier as barrier
from jaxtyping import Array, Float, Int, PyTree

from amplify.assistants import blockwise, cudnn
from amplify.assistants.attention_parts import (
    NOWHERE,
    KeysAndValues,
    LogSumExp,
    Part,
    Places,
    Queries,
    Rules,
)

OUTPUT = "attention output"
"""Name of outputs and log-sum-exps, for policies of `jax.checkpoint`."""


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


def _uses_flash(rules: Rules, query: Queries, part: Part) -> bool:
    """Whether cuDNN can attend to a part, on a device that has it."""
    simple = part.shared or (rules.in_order and query.shape[2] == 1)
    simple = simple and part.places.segments is None
    plain = rules.cap is None and not rules.windowed
    return simple and plain and cudnn.supports(query.dtype, query.shape[-1])


def _forward(
    rules: Rules, query: Queries, places: Places, part: Part, window: Int[Array, ""]
) -> tuple[Queries, LogSumExp]:
    here = functools.partial(blockwise.forward, rules)
    if not _uses_flash(rules, query, part):
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
    here = functools.partial(blockwise.backward, rules)
    if not _uses_flash(rules, query, part):
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
        log_sum += jnp.where(seen == 0, blockwise.UNSEEN, 0).reshape(-1, 1, 1, 1, 1)
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
        log_sum -= jnp.where(seen == 0, 3 * blockwise.UNSEEN, 0).reshape(-1, 1, 1)
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
