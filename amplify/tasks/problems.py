"""Draws problems, each from its own seed, and keeps the splits apart.

Which split a problem belongs to is decided by what its context says, not by its seed: two seeds
that draw the same facts, in whatever order, land in the same split, so nothing held out is ever
trained on. A problem can be drawn again from its seed alone, which is what makes a simulated
overseer's labels traceable.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, Key, UInt32

from amplify.errors import AmplifyError
from amplify.runtime import processes
from amplify.task_abilities import sizes_of
from amplify.types import Problems, Task

SPLITS = {"select": 0, "final": 1}
"""Held-out splits, each a sixteenth of all contexts; what falls into no bucket here is for
training.
"""
BUCKETS = 16
CANDIDATES = 4096
"""Contexts drawn at a time while looking for those of a split."""
TOGETHER = 64
"""Contexts that are answered at a time at most, or a multiple of it."""
EVALS = 0
"""The stream of seeds that evals draw from; round n draws from stream n."""


def draw_problems(
    task: Task,
    seed: int,
    stream: int,
    split: str,
    count: int,
    depths: Sequence[int],
    *,
    apart: bool = True,
) -> Problems:
    """The first `count` problems of `split` in a stream, with a question of each of `depths` about
    every one.

    Splits have no context in common unless `apart` is False, for tasks that have too few contexts
    to keep any from training: then they only have no draw in common. Raises AmplifyError if the
    task has too few different contexts to fill the split.
    """
    root = jax.random.key(seed)
    found = np.zeros((0,), np.uint32)
    for start in range(0, 1000 * BUCKETS * max(count, CANDIDATES), CANDIDATES):
        indices = np.arange(start, start + CANDIDATES, dtype=np.uint32)
        buckets = indices % BUCKETS
        if apart:
            buckets = jax.device_get(_buckets(task, root, _seeds(stream, indices)))
        wanted = buckets == SPLITS[split] if split in SPLITS else buckets >= len(SPLITS)
        found = np.concatenate([found, indices[wanted]])
        if len(found) >= count:
            return draw_again(task, seed, _seeds(stream, found[:count]), depths)
        if start >= 1000 * CANDIDATES and not len(found):
            break
    raise AmplifyError(f"task {task}: has too few contexts to fill the {split!r} split")


def draw_again(
    task: Task, seed: int, seeds: UInt32[Array, "batch 2"], depths: Sequence[int]
) -> Problems:
    """The problems that these seeds drew before."""
    return _draw(task, jax.random.key(seed), seeds, jnp.asarray(depths, jnp.int32))


def draw_for_training(
    task: Task,
    key: Key[Array, ""],
    count: int,
    depths: Sequence[int],
    size: Int[Array, ""] | None = None,
    *,
    apart: bool = True,
) -> tuple[Int[Array, "batch facts fact_length"], Int[Array, "batch questions question_length"]]:
    """New contexts and questions, inside a compiled step; none that is held out if `apart`.

    With a `size`, contexts of it (see `task_abilities.Sizes`). Consumes the key.
    """

    sizes = sizes_of(task)

    def one(key: Key[Array, ""]) -> tuple[Array, Array]:
        context_key, question_key = jax.random.split(key)

        def draw(attempt: Int[Array, ""]) -> Int[Array, "facts fact_length"]:
            key = jax.random.fold_in(context_key, attempt)
            if size is None or sizes is None:
                return task.draw_context(key)
            return sizes.draw_context(key, size)

        def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
            return state[0] + 1, draw(state[0] + 1)

        def held_out(state: tuple[Array, Array]) -> Array:
            return apart & is_held_out(state[1])

        first = jnp.zeros((), jnp.int32)
        _, context = jax.lax.while_loop(held_out, again, (first, draw(first)))
        keys = jax.vmap(lambda i: jax.random.fold_in(question_key, i))(jnp.arange(len(depths)))
        return context, jax.vmap(lambda k, d: task.draw_question(k, context, d))(
            keys, jnp.asarray(depths, jnp.int32)
        )

    return jax.vmap(one)(jax.random.split(key, count))


def is_held_out(context: Int[Array, "facts fact_length"]) -> Bool[Array, ""]:
    """Whether a context is of a split that is kept from training."""
    return _bucket(context) < len(SPLITS)


def problem_key(root: Key[Array, ""], seed: UInt32[Array, "2"]) -> Key[Array, ""]:
    """What everything random about one problem is drawn from."""
    return jax.random.fold_in(jax.random.fold_in(root, seed[0]), seed[1])


def answer_keys(
    root: Key[Array, ""], seeds: UInt32[Array, "batch 2"], questions: int
) -> Key[Array, "batch questions"]:
    """A key for whatever is sampled while a question is answered: the same however problems are
    batched.
    """

    def one(seed: UInt32[Array, "2"]) -> Key[Array, " questions"]:
        key = jax.random.fold_in(problem_key(root, seed), 2)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(questions))

    return jax.vmap(one)(seeds)


def at_a_time(rows: int, most: int, place: Sharding | None = None) -> int:
    """How many rows a chunk has: `most`, or what holds all of few rows, rounded up to a power of
    two, so that hardly any shapes are compiled, and to the devices that they are spread over.
    """
    devices = 1 if place is None else place.num_devices
    return min(most, max(devices, 1 << (rows - 1).bit_length()))


def in_chunks(
    function: Callable[..., Any],
    size: int,
    *columns: Any,
    advance: Callable[[int], Any],
    place: Sharding | None = None,
) -> Iterator[Any]:
    """Yields `function` of `size` rows at a time as numpy arrays; one shape, so it is compiled
    once.

    The last chunk is filled up with a row, and what that gave is cut off. Of several processes each
    takes its turn, and all have all that came of it. `advance` is told of each chunk's rows when it
    is done. `place`: where the rows lie, on devices of this process.
    """
    columns = jax.device_get(columns)
    rows = len(jax.tree.leaves(columns)[0])
    for start in range(0, rows, size * processes.count()):
        index = np.arange(size) + start + size * processes.number()
        index = np.where(index < rows, index, start)
        result = function(*jax.device_put(_rows(columns, index), place))
        for number, chunk in enumerate(processes.gather(jax.device_get(result))):
            left = rows - start - size * number
            if left > 0:
                yield _rows(chunk, slice(left))
                advance(min(size, left))


def _rows(columns: Any, index: Any) -> Any:
    return jax.tree.map(lambda column: column[index], columns)


def _seeds(stream: int, indices: UInt32[np.ndarray, " n"]) -> UInt32[Array, "n 2"]:
    return jnp.asarray(np.stack([np.full_like(indices, stream), indices], axis=1))


@functools.partial(jax.jit, static_argnums=0)
def _buckets(task: Task, root: Key[Array, ""], seeds: UInt32[Array, "n 2"]) -> Int[Array, " n"]:
    contexts = jax.vmap(lambda seed: _context(task, root, seed))(seeds)
    return jax.vmap(_bucket)(contexts)


@functools.partial(jax.jit, static_argnums=0)
def _draw(
    task: Task,
    root: Key[Array, ""],
    seeds: UInt32[Array, "batch 2"],
    depths: Int[Array, " questions"],
) -> Problems:
    def one(seed: UInt32[Array, "2"]) -> tuple[Array, Array]:
        context = _context(task, root, seed)
        key = jax.random.fold_in(problem_key(root, seed), 1)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(depths)))
        return context, jax.vmap(lambda k, d: task.draw_question(k, context, d))(keys, depths)

    return Problems(seeds, *jax.vmap(one)(seeds))


def _context(
    task: Task, root: Key[Array, ""], seed: UInt32[Array, "2"]
) -> Int[Array, "facts fact_length"]:
    return task.draw_context(jax.random.fold_in(problem_key(root, seed), 0))


def _bucket(context: Int[Array, "facts fact_length"]) -> Int[Array, ""]:
    """A hash of the set of facts, whatever their order, in 0..BUCKETS-1."""
    mixed = jnp.zeros(context.shape[0], jnp.uint32)
    for place in range(context.shape[1]):
        mixed = _mix(mixed * jnp.uint32(31) + context[:, place].astype(jnp.uint32) + jnp.uint32(1))
    return (_mix(jnp.sum(mixed, dtype=jnp.uint32)) % BUCKETS).astype(jnp.int32)


def _mix(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """The finaliser of MurmurHash3 (Appleby, public domain): every bit of the input sways every bit
    of the output.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
