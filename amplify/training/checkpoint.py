"""Checkpoints, by Orbax: a round's finished one, and those of a training that is under way.

Knows trees of arrays and folders, and nothing of what is trained. A checkpoint is an ordinary Orbax
one (`ocp.load(folder)` reads it) with the checksums of its files beside them: TensorStore returns
flipped bits without a word, and Orbax meets a missing file with pages of text. `round` calls it.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from orbax.checkpoint import v1 as ocp

from amplify.errors import AmplifyError
from amplify.runtime import processes
from amplify.training.dataset import clear, put_in_place, whole_folder, workplace_of

CHECKSUMS = "SHA256SUMS"
"""A checkpoint's list of its files; `sha256sum --check SHA256SUMS` reads it."""
NONE = -1
"""The step of no checkpoint."""


def save(
    directory: Path, state: PyTree[Array], batches: grain.DatasetIterator | None = None
) -> None:
    """Saves a finished checkpoint, with the data iterator's place if there is one.

    The folder appears whole or not at all and replaces what is there. Leaves are arrays of any
    dtype but without empty axes, or typed random keys.
    """
    _write(directory, state, None if batches is None else batches.get_state())


def restore(
    directory: Path, like: PyTree[Any], batches: grain.DatasetIterator | None = None
) -> PyTree[Array]:
    """The state of a finished checkpoint; puts the data iterator, if given, where it was then.

    Args:
        like: a tree of arrays or `jax.ShapeDtypeStruct`: structure, shapes, dtypes, and where they
            say so shardings. Without a sharding a leaf goes to the first device.

    Raises:
        AmplifyError: if the checkpoint is missing or damaged, or if a leaf is not as in `like`.
    """
    processes.first(lambda: _verify(directory))
    return _read(directory, like, batches)


def restore_first(directory: Path, parts: Mapping[str, PyTree[Any]]) -> PyTree[Array]:
    """The first of these parts of a finished checkpoint that is there, and nothing else of it.

    Args:
        parts: by key of the checkpoint's tree, what each is like, as in `restore`.

    Raises:
        AmplifyError: as `restore` does, or if none of them is there.
    """
    processes.first(lambda: _verify(directory))
    there = _describe(ocp.metadata(directory.resolve()).metadata)
    for part, like in parts.items():
        if any(name.startswith(f"{part}/") for name in there):
            return _read(directory, {part: like}, None, partial=True)[part]
    raise AmplifyError(f"{directory}: has none of {', '.join(parts)}")


def digest(state: PyTree[Array]) -> str:
    """SHA-256 of every leaf's path, dtype, shape and bytes: a state's identity, wherever it is."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(_plain, state)):
        array = processes.whole(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@contextlib.contextmanager
def training_checkpoints(directory: Path) -> Iterator["TrainingCheckpoints"]:
    """Opens the checkpoints of a training under way; waits for the last to be saved at the end.

    One round at a time: what it finds half-written was left by one that was killed, and goes.
    """
    processes.first(lambda: _make_room(directory))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint") as worker:
        checkpoints = TrainingCheckpoints(directory, worker)
        yield checkpoints
        checkpoints.wait()


def _make_room(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for left_behind in directory.glob(".*.tmp"):
        shutil.rmtree(left_behind)


class TrainingCheckpoints:
    """The newest complete checkpoint of a training under way, in a folder named for its step.

    Orbax saves asynchronously: training is held up while the state is copied from the devices to
    host memory, each process its own shards, and no device holds a copy. Writing, checksums and
    putting the folder in place follow on background threads, where processes meet at barriers of
    the coordination service and not in computations, whose order must be the same in all. A
    checkpoint is removed once a later one is complete.
    """

    def __init__(self, directory: Path, worker: ThreadPoolExecutor) -> None:
        self._directory, self._worker = directory, worker
        self._saving: Future[None] | None = None

    def save(
        self, step: int, state: PyTree[Array], batches: grain.DatasetIterator | None = None
    ) -> None:
        """Begins to save; waits only for the one before, and raises what went wrong with it.

        The state may be donated and the iterator moved on as soon as this returns.
        """
        self.wait()
        directory = self._directory / str(step)
        if processes.is_first():
            clear(workplace_of(directory))  # Orbax has the others wait for its folder
        place = None if batches is None else batches.get_state()
        wait = _begin_to_write(workplace_of(directory) / "new", state, place)
        self._saving = self._worker.submit(self._finish, wait, directory)

    def restore(
        self, like: PyTree[Any], batches: grain.DatasetIterator | None = None
    ) -> PyTree[Array] | None:
        """The newest complete state, the iterator put where it was then; None if there is none.

        A damaged one counts as none: training goes on from an earlier step and ends the same.

        Raises:
            AmplifyError: if a leaf is not as in `like`.
        """
        # All processes go on from the same one; the first has read every byte of it.
        step = processes.gather(np.array(self._newest() if processes.is_first() else NONE))[0]
        return None if step == NONE else _read(self._directory / f"{step}", like, batches)

    @property
    def under_way(self) -> bool:
        """Whether what was begun is still being saved."""
        return self._saving is not None and not self._saving.done()

    def wait(self) -> None:
        """Waits until what was begun is saved; raises what went wrong with it."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _finish(self, wait: Callable[[], None], directory: Path) -> None:
        """What follows once Orbax, in all processes, has written: the first does it alone."""
        workplace = workplace_of(directory)
        try:
            wait()
            if not processes.is_first():
                return
            _write_checksums(workplace / "new")
            put_in_place(workplace, directory)
            for other in self._steps() - {int(directory.name)}:
                shutil.rmtree(self._directory / str(other))
        finally:
            if processes.is_first():
                shutil.rmtree(workplace)

    def _newest(self) -> int:
        for step in sorted(self._steps(), reverse=True):
            if not _damage(self._directory / str(step)):
                return step
        return NONE

    def _steps(self) -> set[int]:
        return {int(path.name) for path in self._directory.iterdir() if path.name.isdecimal()}


def _write(directory: Path, state: PyTree[Array], place: dict[str, Any] | None) -> None:
    with whole_folder(directory) as folder:
        _begin_to_write(folder, state, place)()
        processes.first(lambda: _write_checksums(folder))


def _begin_to_write(
    folder: Path, state: PyTree[Array], place: dict[str, Any] | None
) -> Callable[[], None]:
    """Returns as soon as the state is in host memory, with what waits until it is written."""
    # Orbax takes no relative paths, and jax does not know its copies to the host as explicit ones.
    # `place` is plain data and goes where such goes.
    with _uncompressed(), jax.transfer_guard("allow"):
        return ocp.save_async(folder.resolve(), state, custom_metadata={"batches": place}).result


def _uncompressed() -> Any:
    """Weights shrink by a fourteenth for a fifth more work."""
    context = ocp.Context()
    context.array_options.saving.use_compression = False
    return context


def _read(
    directory: Path,
    like: PyTree[Any],
    batches: grain.DatasetIterator | None,
    *,
    partial: bool = False,
) -> PyTree[Array]:
    stored = ocp.metadata(directory.resolve())
    found, expected = _describe(stored.metadata), _describe(like)
    # Orbax itself casts to another dtype without a word.
    for name in expected if partial else expected | found:
        was, wanted = found.get(name, "missing"), expected.get(name, "nothing of that name")
        if was != wanted:
            raise AmplifyError(f"{directory}: {name} is {was}, expected {wanted}")
    context = ocp.Context()
    context.pytree_options.loading.partial_load = partial
    with context:
        state = ocp.load(directory.resolve(), jax.tree.map(_placed, like))
    if batches is not None:
        batches.set_state(stored.custom_metadata["batches"])
    return state


def _verify(directory: Path) -> None:
    if damage := _damage(directory):
        raise AmplifyError(f"{directory}: {damage}")


def _damage(directory: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    if not (directory / CHECKSUMS).is_file():
        return f"no complete checkpoint here (no {CHECKSUMS})"
    written = (directory / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    changed = sorted({*_checksums(directory)} ^ {*written.splitlines(keepends=True)})
    if not changed:
        return None
    return f"damaged checkpoint ({changed[0].split()[-1]} is not what was written)"


def _write_checksums(directory: Path) -> None:
    sums = "".join(_checksums(directory))
    (directory / CHECKSUMS).write_text(sums, encoding="utf-8")


def _checksums(directory: Path) -> Iterator[str]:
    """A line for each file, in order. Files are read in blocks, and several at a time."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    paths = [path for path in paths if path.name != CHECKSUMS]
    with ThreadPoolExecutor(thread_name_prefix="checksum") as workers:
        for path, sha in zip(paths, workers.map(_sha256, paths), strict=True):
            yield f"{sha}  {path.relative_to(directory).as_posix()}\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(tree: PyTree[Any]) -> dict[str, str]:
    """Every leaf's path, dtype and shape, as stored, in the tree's order."""
    plain = jax.tree_util.tree_leaves_with_path(jax.tree.map(_abstract, tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype} {leaf.shape}"
        for path, leaf in plain
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A leaf's numbers: a typed random key's data, anything else as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(_plain, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    here = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
