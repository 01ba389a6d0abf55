"""Draws problems, each from its own seed, and assigns them to disjoint splits.

The split of a problem depends on the content of its context, not on its seed: two seeds that draw
the same facts, in any order, fall into the same split, so that held-out contexts are never trained
on. A problem can be redrawn from its seed alone, which makes a simulated overseer's labels
traceable.
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
"""Hash bucket of each held-out split. The other buckets are for training."""
BUCKETS = 16
"""Hash buckets, each of about a sixteenth of all contexts."""
CANDIDATES = 4096
"""Contexts drawn at a time while filling a split."""
CONTEXTS_PER_CHUNK = 64
"""Contexts answered at a time: chunks have at most this many, or a multiple of it."""
EVALS_STREAM = 0
"""Stream of seeds from which evals draw; round n draws from stream n."""


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
    """Draws the first problems of a split in a stream of seeds.

    Args:
        task: draws contexts and questions.
        seed: the experiment's.
        stream: the stream of seeds, `EVALS_STREAM` or a round's number.
        split: "train", or a key of `SPLITS`.
        count: number of problems.
        depths: one question of each of these depths is drawn per context.
        apart: whether splits have no contexts in common. False for tasks with too few contexts to
            hold any out: then splits only have no draws in common.

    Returns:
        `count` problems with `len(depths)` questions each.

    Raises:
        AmplifyError: if the task has too few different contexts to fill the split.
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
            return redraw_problems(task, seed, _seeds(stream, found[:count]), depths)
        if start >= 1000 * CANDIDATES and not len(found):
            break
    what = f"evals.{split}" if split in SPLITS else "training"
    raise AmplifyError(
        f"{task}: has too few different contexts for {what} ({count}): ask for fewer, or set"
        " evals.apart = false, so that contexts may be in several splits"
    )


def redraw_problems(
    task: Task, seed: int, seeds: UInt32[Array, "batch 2"], depths: Sequence[int]
) -> Problems:
    """Redraws problems from their seeds.

    Args:
        task: the task that drew them.
        seed: the experiment's.
        seeds: `Problems.seeds`.
        depths: as when they were first drawn.
    """
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
    """Draws contexts and questions for training. Called inside a compiled step.

    Args:
        task: draws contexts and questions.
        key: consumed.
        count: number of contexts.
        depths: one question of each of these depths is drawn per context.
        size: of the contexts, see `task_abilities.Sizes`; None: as `Task.draw_context` draws them.
        apart: whether held-out contexts are redrawn until they are not.

    Returns:
        The contexts, and `len(depths)` questions about each.
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
            keys, jnp.stack([jnp.int32(depth) for depth in depths])
        )

    return jax.vmap(one)(jax.random.split(key, count))


def is_held_out(context: Int[Array, "facts fact_length"]) -> Bool[Array, ""]:
    """Whether a context belongs to a held-out split.

    Args:
        context: the facts, in any order.
    """
    return _bucket(context) < len(SPLITS)


def problem_key(root: Key[Array, ""], seed: UInt32[Array, "2"]) -> Key[Array, ""]:
    """The key for everything random about one problem.

    Args:
        root: the experiment's key.
        seed: the problem's row of `Problems.seeds`.
    """
    return jax.random.fold_in(jax.random.fold_in(root, seed[0]), seed[1])


def answer_keys(
    root: Key[Array, ""], seeds: UInt32[Array, "batch 2"], questions: int
) -> Key[Array, "batch questions"]:
    """Keys for sampling while questions are answered. They do not depend on how problems are
    batched.

    Args:
        root: the experiment's key.
        seeds: `Problems.seeds`.
        questions: number of questions per problem.
    """

    def one(seed: UInt32[Array, "2"]) -> Key[Array, " questions"]:
        key = jax.random.fold_in(problem_key(root, seed), 2)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(questions))

    return jax.vmap(one)(seeds)


def chunk_rows(rows: int, most: int, place: Sharding | None = None) -> int:
    """The number of rows of a chunk.

    Args:
        rows: number of rows in total. If it is small, it is rounded up to a power of two, so that
            few shapes are compiled, and at least to the number of devices.
        most: upper limit.
        place: sharding of the rows.
    """
    devices = 1 if place is None else place.num_devices
    return min(most, max(devices, 1 << (rows - 1).bit_length()))


def map_in_chunks(
    function: Callable[..., Any],
    size: int,
    *columns: Any,
    advance: Callable[[int], Any],
    place: Sharding | None = None,
) -> Iterator[Any]:
    """Applies a function to chunks of rows. All chunks have one shape, so it is compiled once.

    The last chunk is padded with copies of its first row, whose results are dropped. Several
    processes take turns, and each receives all results.

    Args:
        function: takes the columns of a chunk.
        size: rows of a chunk.
        *columns: trees of arrays with a leading axis of rows.
        advance: called with the number of rows of each finished chunk.
        place: sharding of the rows, over devices of this process.

    Yields:
        The function's result for each chunk, as NumPy arrays.
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


def columns_in_chunks(
    function: Callable[..., Any],
    *columns: Any,
    advance: Callable[[int], Any] = lambda rows: None,
    place: Sharding | None = None,
) -> dict[str, np.ndarray]:
    """Applies a function to chunks of rows, and joins the columns that it returns.

    Args:
        function: takes the columns of a chunk; returns other columns, by name.
        *columns: as in `map_in_chunks`.
        advance: as in `map_in_chunks`.
        place: sharding of the rows, over devices of this process.
    """
    size = chunk_rows(len(jax.tree.leaves(columns)[0]), CONTEXTS_PER_CHUNK, place)
    chunks = list(map_in_chunks(function, size, *columns, advance=advance, place=place))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


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
    """A hash of the facts that does not depend on their order, in 0..BUCKETS-1."""
    mixed = jnp.zeros(context.shape[0], jnp.uint32)
    for place in range(context.shape[1]):
        mixed = _mix(mixed * jnp.uint32(31) + context[:, place].astype(jnp.uint32) + jnp.uint32(1))
    return (_mix(jnp.sum(mixed, dtype=jnp.uint32)) % BUCKETS).astype(jnp.int32)


def _mix(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """The finalizer of MurmurHash3 (Appleby, public domain): every input bit affects every output
    bit.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
