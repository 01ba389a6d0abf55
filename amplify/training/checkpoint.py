"""Orbax checkpoints: a round's final one, and those saved during training.

Knows trees of arrays and folders, and nothing of what is trained. A checkpoint is an ordinary Orbax
checkpoint (`ocp.load(folder)` reads it) with a file of checksums: TensorStore does not detect
flipped bits, and Orbax reports a missing file in pages of text.
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
from amplify.files.folders import atomic_folder, make_empty, move_into_place, staging_folder
from amplify.runtime import processes

CHECKSUMS = "SHA256SUMS"
"""Name of the file of checksums, which `sha256sum --check SHA256SUMS` can verify."""
NONE = -1
"""Stands for a step where there is no checkpoint."""


def save(
    directory: Path, state: PyTree[Array], batches: grain.DatasetIterator | None = None
) -> None:
    """Saves a final checkpoint.

    The folder is written atomically and replaces an existing one.

    Args:
        directory: becomes the checkpoint's folder.
        state: arrays of any dtype without empty axes, or typed random keys.
        batches: data iterator whose position is saved too; None: there is none.
    """
    _write(directory, state, None if batches is None else batches.get_state())


def restore(
    directory: Path, like: PyTree[Any], batches: grain.DatasetIterator | None = None
) -> PyTree[Array]:
    """Restores the state of a final checkpoint.

    Args:
        directory: the checkpoint's folder.
        like: a tree of arrays or `jax.ShapeDtypeStruct` with the expected structure, shapes and
            dtypes, and possibly shardings. A leaf without a sharding goes to the first device.
        batches: data iterator whose position is restored too; None: there is none.

    Raises:
        AmplifyError: if the checkpoint is missing or damaged, or differs from `like`.
    """
    processes.first(lambda: _verify(directory))
    return _read(directory, like, batches)


def restore_first(directory: Path, parts: Mapping[str, PyTree[Any]]) -> PyTree[Array]:
    """Restores one part of a final checkpoint: the first of `parts` that it has.

    Args:
        directory: the checkpoint's folder.
        parts: maps top-level keys of the checkpoint's tree to what they are like, as in `restore`.

    Raises:
        AmplifyError: as in `restore`, or if the checkpoint has none of the parts.
    """
    processes.first(lambda: _verify(directory))
    stored = ocp.metadata(directory.resolve())
    names = _describe(stored.metadata)
    for part, like in parts.items():
        if any(name.startswith(f"{part}/") for name in names):
            _check_as_expected(directory, names, {part: like}, partial=True)
            return _load(directory, {part: like}, partial=True)[part]
    raise AmplifyError(f"{directory}: has none of {', '.join(parts)}")


def digest(state: PyTree[Array]) -> str:
    """SHA-256 of every leaf's path, dtype, shape and bytes, wherever the leaves are stored."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(_plain, state)):
        array = processes.to_numpy(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@contextlib.contextmanager
def training_checkpoints(directory: Path) -> Iterator["TrainingCheckpoints"]:
    """Opens the folder of checkpoints saved during training; waits for the last one at the end.

    Removes unfinished checkpoints, which a killed process left behind: only one process, or group
    of processes, may use the folder at a time.

    Args:
        directory: the folder; made if it does not exist.
    """
    processes.first(lambda: _remove_unfinished(directory))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint") as worker:
        checkpoints = TrainingCheckpoints(directory, worker)
        yield checkpoints
        checkpoints.wait()


def _remove_unfinished(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for left_behind in directory.glob(".*.tmp"):
        shutil.rmtree(left_behind)


class TrainingCheckpoints:
    """Checkpoints saved during training, each in a folder named by its step.

    Orbax saves asynchronously: training waits only while each process copies its shards from the
    devices to host memory, and no device holds a second copy. Writing, checksums and renaming run
    on background threads, where processes synchronise by barriers of the coordination service, and
    not by collectives, which all processes must run in the same order. A checkpoint is removed once
    a later one is complete.
    """

    def __init__(self, directory: Path, worker: ThreadPoolExecutor) -> None:
        self._directory, self._worker = directory, worker
        self._saving: Future[None] | None = None

    def save(
        self, step: int, state: PyTree[Array], batches: grain.DatasetIterator | None = None
    ) -> None:
        """Starts to save a checkpoint, after waiting for the previous one.

        The state may be donated and the iterator advanced as soon as this returns.

        Args:
            step: number of training steps taken.
            state: the state.
            batches: data iterator whose position is saved too; None: there is none.

        Raises:
            Exception: the one that saving the previous checkpoint raised, if it did.
        """
        self.wait()
        directory = self._directory / str(step)
        if processes.is_first():
            make_empty(staging_folder(directory))  # Orbax makes the others wait for it
        position = None if batches is None else batches.get_state()
        wait = _begin_to_write(staging_folder(directory) / "new", state, position)
        self._saving = self._worker.submit(self._finish, wait, directory)

    def restore(
        self, like: PyTree[Any], batches: grain.DatasetIterator | None = None
    ) -> PyTree[Array] | None:
        """Restores the newest complete checkpoint.

        A damaged one is skipped: training continues from an earlier step with the same result.

        Args:
            like, batches: as in `checkpoint.restore`.

        Returns:
            The state; None: there is no complete checkpoint.

        Raises:
            AmplifyError: if the checkpoint differs from `like`.
        """
        # All processes use the checkpoint that the first one has verified.
        step = processes.gather(np.array(self._newest() if processes.is_first() else NONE))[0]
        return None if step == NONE else _read(self._directory / f"{step}", like, batches)

    @property
    def under_way(self) -> bool:
        """Whether a checkpoint is still being saved."""
        return self._saving is not None and not self._saving.done()

    def wait(self) -> None:
        """Waits until the last checkpoint is saved; raises what saving it raised."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _finish(self, wait: Callable[[], None], directory: Path) -> None:
        """Waits until all processes have written; the first then adds checksums and renames."""
        staging = staging_folder(directory)
        try:
            wait()
            if not processes.is_first():
                return
            _write_checksums(staging / "new")
            move_into_place(staging, directory)
            for other in self._steps() - {int(directory.name)}:
                shutil.rmtree(self._directory / str(other))
        finally:
            if processes.is_first():
                shutil.rmtree(staging)

    def _newest(self) -> int:
        for step in sorted(self._steps(), reverse=True):
            if not _damage(self._directory / str(step)):
                return step
        return NONE

    def _steps(self) -> set[int]:
        return {int(path.name) for path in self._directory.iterdir() if path.name.isdecimal()}


def _write(directory: Path, state: PyTree[Array], position: dict[str, Any] | None) -> None:
    with atomic_folder(directory) as folder:
        _begin_to_write(folder, state, position)()
        processes.first(lambda: _write_checksums(folder))


def _begin_to_write(
    folder: Path, state: PyTree[Array], position: dict[str, Any] | None
) -> Callable[[], None]:
    """Copies the state to host memory; returns a function that waits until it is written."""
    # Orbax needs absolute paths, and the transfer guard would reject its copies to the host.
    with _uncompressed(), jax.transfer_guard("allow"):
        return ocp.save_async(folder.resolve(), state, custom_metadata={"batches": position}).result


def _uncompressed() -> Any:
    # Compression would make weights smaller by a fourteenth, for a fifth more time.
    context = ocp.Context()
    context.array_options.saving.use_compression = False
    return context


def _read(
    directory: Path, like: PyTree[Any], batches: grain.DatasetIterator | None
) -> PyTree[Array]:
    stored = ocp.metadata(directory.resolve())
    _check_as_expected(directory, _describe(stored.metadata), like)
    state = _load(directory, like)
    if batches is not None:
        batches.set_state(stored.custom_metadata["batches"])
    return state


def _check_as_expected(
    directory: Path, found: dict[str, str], like: PyTree[Any], *, partial: bool = False
) -> None:
    """Checks dtypes and shapes, as `_describe` names them: Orbax silently casts to other dtypes."""
    expected = _describe(like)
    for name in expected if partial else expected | found:
        stored_as, wanted = found.get(name, "missing"), expected.get(name, "nothing of that name")
        if stored_as != wanted:
            raise AmplifyError(f"{directory}: {name} is {stored_as}, expected {wanted}")


def _load(directory: Path, like: PyTree[Any], *, partial: bool = False) -> PyTree[Array]:
    context = ocp.Context()
    context.pytree_options.loading.partial_load = partial
    with context:
        state: PyTree[Array] = ocp.load(directory.resolve(), jax.tree.map(_with_sharding, like))
    return state


def _verify(directory: Path) -> None:
    if damage := _damage(directory):
        raise AmplifyError(f"{directory}: {damage}")


def _damage(directory: Path) -> str | None:
    """Describes what is wrong with a checkpoint's files; None: nothing."""
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
    """Yields a line for each file, in order. Files are read in blocks, several at a time."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    paths = [path for path in paths if path.name != CHECKSUMS]
    with ThreadPoolExecutor(thread_name_prefix="checksum") as workers:
        for path, sha in zip(paths, workers.map(_sha256, paths), strict=True):
            yield f"{sha}  {path.relative_to(directory).as_posix()}\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(tree: PyTree[Any]) -> dict[str, str]:
    """Maps the path of every leaf to its stored dtype and shape, in the tree's order."""
    plain = jax.tree_util.tree_leaves_with_path(jax.tree.map(_abstract, tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype} {leaf.shape}"
        for path, leaf in plain
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """The data of a typed random key; any other leaf as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    shaped = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return jax.eval_shape(_plain, shaped) if _is_key(leaf) else shaped  # tracing takes a while


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(
        jax.devices()[0]
    )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
