"""A round's data as a TFDS data set, and the Grain pipeline that feeds it to training.

Knows arrays and files and nothing of what they mean. The files are an ordinary TFDS data set in
ArrayRecord format: `tfds.builder_from_directory(folder).as_data_source("train")` reads them
anywhere, without this package and without TensorFlow. `round` calls it.

A row is a whole context with all its questions: `context` int32 [facts, fact_length], `questions`
int32 [questions, question_length], `answers` int32 [questions, answer_length], `classes` int32
[questions], `problem_seed` int64, and `parent`, the digest of the checkpoint that answered. Nothing
here depends on that set.
"""

import contextlib
import functools
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jaxtyping import Int, Shaped

from amplify.errors import AmplifyError, first_line
from amplify.files import writing
from amplify.runtime import processes

# tensorflow_datasets takes a third of a second to import: only who touches a data set pays for it.

MODULE = "amplify.dataset"
"""What data sets say made them. It is a part of their digests, so it stays the same."""

Columns = Mapping[str, Shaped[np.ndarray, "rows ..."]]


def write(
    directory: Path, columns: Columns, *, name: str, description: str, version: str = "1.0.0"
) -> str:
    """Writes columns as the split `train`, in the order of their rows. Returns the files' digest.

    The folder appears whole or not at all and replaces what is there. The same columns give the
    same bytes, in any process on any day. Several processes write a shard each: then the files, and
    so their digest, are others, and the rows and their order the same.

    Args:
        directory: becomes the data set's folder, with `dataset_info.json` in it.
        columns: numbers of any dtype and further shape, or one string a row.
        name: what TFDS calls it: lower case, words joined by underscores.

    Raises:
        ValueError: if there are no rows, or not as many in every column.
    """
    import tensorflow_datasets as tfds

    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"expected as many rows, and at least one, in every column: got {lengths}")
    [rows] = set(lengths.values())
    with whole_folder(directory) as folder:
        processes.first(folder.mkdir)
        file = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split="train", filetype_suffix="array_record"
        )
        shards = _shards(rows)
        size = sum(processes.gather(np.array(_write_shard(file, shards, columns))))
        split = tfds.core.SplitInfo(
            "train", [len(shard) for shard in shards], int(size), filename_template=file
        )
        identity = tfds.core.DatasetIdentity(
            name, tfds.core.Version(version), str(folder), module_name=MODULE
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            description=description,
            features=features(columns),
            disable_shuffling=True,
            split_dict=tfds.core.SplitDict([split]),
        )
        info.set_file_format("array_record")
        processes.first(lambda: info.write_to_directory(folder))
    return digest(directory)


def read(directory: Path) -> Sequence[dict[str, Any]]:
    """The rows of a data set, decoded as they are asked for: arrays, and text as UTF-8 bytes.

    Every record's checksum is verified first, which takes 15 microseconds a row.

    Raises:
        AmplifyError: if the data set is missing or damaged.
    """
    import tensorflow_datasets as tfds

    if not directory.is_dir():
        raise AmplifyError(f"{directory}: no data set here")
    try:
        source = tfds.builder_from_directory(directory).as_data_source(split="train")
        source.data_source.__getitems__(range(len(source)))
        source[0]
    except Exception as error:  # TFDS and ArrayRecord report damage as whatever they stumble over
        raise AmplifyError(f"{directory}: damaged data set ({first_line(error)})") from error
    return source


def batches(
    directory: Path,
    columns: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    optional: Sequence[str] = (),
    lay_out: Callable[[Columns], Columns] = dict,
) -> grain.DatasetIterator:
    """Endless batches of what `write` wrote, every epoch in a new order, what is left over dropped.

    The iterator goes on exactly where it was after `set_state(get_state())`, or when saved beside a
    model. Batch i is a pure function of data, seed and i: the state is the number i, and there is
    no thread that could run ahead of it.

    The rows are decoded once, before the first batch, for a round's fit in memory many times over.
    A batch is then one gather of 20 microseconds. Grain's own shuffling, batching and prefetching
    of rows takes 900, and 16 threads from the training step.

    Args:
        columns: of numbers; each becomes an array [batch_size, ...].
        optional: columns that are read too where the data set has them.
        seed: 0 to 2**64 - 1.
        lay_out: makes the columns that batches are taken from, of those read, row by row.

    Raises:
        AmplifyError: if the data set is missing or damaged, lacks a column, or is too small.
    """
    given = _decode(directory, columns, optional)
    count = len(given[columns[0]])
    epoch_batches = count // batch_size
    if epoch_batches == 0:
        raise AmplifyError(f"{directory}: {count} rows are too few for batches of {batch_size}")
    rows = lay_out(given)
    order = functools.lru_cache(maxsize=1)(functools.partial(epoch_order, seed, count))

    def batch(number: int) -> dict[str, Shaped[np.ndarray, "batch ..."]]:
        epoch, place = divmod(number, epoch_batches)
        taken = order(epoch)[place * batch_size : (place + 1) * batch_size]
        return {name: column[taken] for name, column in rows.items()}

    numbers = grain.MapDataset.range(sys.maxsize)  # as good as endless
    unhurried = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(numbers.map(batch).to_iter_dataset(unhurried))


def epoch_order(seed: int, rows: int, epoch: int) -> Int[np.ndarray, " rows"]:
    """The order of an epoch's rows. From raw random bits, which NumPy promises never to change."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(rows)
    return np.argsort(bits, kind="stable")


def verify(directory: Path, expected: str) -> None:
    """Raises AmplifyError unless the data set's files are those of the digest."""
    if not directory.is_dir():
        raise AmplifyError(f"{directory}: missing data set")
    if digest(directory) != expected:
        raise AmplifyError(f"{directory}: damaged data set (not the files that were written)")


def digest(directory: Path) -> str:
    """SHA-256 of a data set's files and their names."""
    total = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def features(columns: Columns) -> Any:
    """The TFDS features of a row of these columns."""
    import tensorflow_datasets as tfds

    def feature(column: Shaped[np.ndarray, "rows ..."]) -> Any:
        if column.dtype.kind == "U":
            return tfds.features.Text()
        # As bytes: TFDS's default encoding forgets the dtype of a scalar and halves a float64.
        return tfds.features.Tensor(
            shape=column.shape[1:], dtype=column.dtype.type, encoding=tfds.features.Encoding.BYTES
        )

    return tfds.features.FeaturesDict({name: feature(column) for name, column in columns.items()})


def _shards(rows: int) -> list[range]:
    """The rows that each process writes: one shard a process, for a round's rows are few."""
    count = min(rows, processes.count())
    return [range(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def _write_shard(file: Any, shards: list[range], columns: Columns) -> int:
    """Writes the shard of this process, if it has one; returns the bytes of its records."""
    number = processes.number()
    if number >= len(shards):
        return 0
    path = file.sharded_filepath(shard_index=number, num_shards=len(shards))
    rows = slice(shards[number].start, shards[number].stop)
    return _write_records(str(path), {name: column[rows] for name, column in columns.items()})


def _write_records(path: str, columns: Columns) -> int:
    """Writes one ArrayRecord file; returns the bytes of all records."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(path, "group_size:1")  # so that any row can be read alone
    size = 0
    for record in _records(columns):
        writer.write(record)
        size += len(record)
    writer.close()
    return size


def _records(columns: Columns) -> Iterator[bytes]:
    """Rows as TFDS itself would serialize them, but deterministically and three times as fast.

    TFDS leaves the order of a record's columns to protobuf's hash map, another in every process.
    """
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    encoded = [
        [text.encode() for text in column.tolist()]
        if column.dtype.kind == "U"
        else [row.tobytes() for row in np.asarray(column, column.dtype.type)]
        for column in columns.values()
    ]
    for row in zip(*encoded, strict=True):
        feature = {
            name: tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
            for name, value in zip(columns, row, strict=True)
        }
        example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=feature))
        yield example.SerializeToString(deterministic=True)


def _decode(
    directory: Path, columns: Sequence[str], optional: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
    """What `_records` made of columns of numbers: as TFDS decodes it, but six times as fast."""
    from tensorflow_datasets.proto import tf_example_pb2

    source: Any = read(directory)
    stored = source.dataset_info.features
    known = sorted(name for name in stored if stored[name].np_dtype != np.object_)
    if unknown := [name for name in columns if name not in known]:
        raise AmplifyError(
            f"{directory}: no column of numbers {unknown[0]!r}; there are {', '.join(known)}"
        )
    columns = [*columns, *(name for name in optional if name in known)]
    values: dict[str, list[bytes]] = {name: [] for name in columns}
    for record in source.data_source.__getitems__(range(len(source))):
        row = tf_example_pb2.Example.FromString(record).features.feature
        for name in columns:
            values[name].append(row[name].bytes_list.value[0])
    return {
        name: np.frombuffer(b"".join(values[name]), stored[name].np_dtype).reshape(
            len(source), *stored[name].shape
        )
        for name in columns
    }


@contextlib.contextmanager
def whole_folder(directory: Path) -> Iterator[Path]:
    """Yields a path to make a folder at; it becomes `directory` when the block ends well.

    Until then `directory` is what it was, whatever happens. What a killed process left behind is
    cleared away by the next that writes to the same `directory`. Several processes fill the folder
    together; the first makes and renames it.
    """
    workplace = workplace_of(directory)
    processes.first(lambda: clear(workplace))
    try:
        yield workplace / "new"
        processes.meet()
        processes.first(lambda: put_in_place(workplace, directory))
    finally:
        if processes.is_first():
            shutil.rmtree(workplace)


def workplace_of(directory: Path) -> Path:
    """Where a folder is made before it is put in place."""
    return directory.with_name(f".{directory.name}.tmp")


def clear(workplace: Path) -> None:
    """Makes an empty folder, whatever is there."""
    if workplace.exists():
        shutil.rmtree(workplace)
    workplace.mkdir(parents=True)


def put_in_place(workplace: Path, directory: Path) -> None:
    """Renames the finished `workplace / "new"` to `directory`, once all of it is on disk."""
    for path in workplace.rglob("*"):
        writing.sync(path)
    if directory.exists():
        directory.rename(workplace / "old")
    try:
        (workplace / "new").rename(directory)
    except OSError:
        if (workplace / "old").exists():
            (workplace / "old").rename(directory)
        raise
    writing.sync(directory.parent)
