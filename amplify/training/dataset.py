"""A round's data as a TFDS data set, and the Grain pipeline that feeds it to training.

Knows arrays and files, and nothing of what they mean. The files are an ordinary TFDS data set in
ArrayRecord format: `tfds.builder_from_directory(folder).as_data_source("train")` reads them without
this package and without TensorFlow.

A row is a context with all its questions: `context` int32 [facts, fact_length], `questions`
int32 [questions, question_length], `answers` int32 [questions, answer_length], `classes`
[questions], `problem_seed` int64, and `parent`, the digest of the checkpoint that answered. Nothing
here depends on these columns.

Beside what training reads, a data set may have columns for people: texts, and labels with names.
The digest leaves these and all descriptions out, so that the same numbers have the same digest,
however they are described. Data sets of earlier versions have nothing of this kind.
"""

import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int, Shaped

from amplify.errors import AmplifyError, first_line
from amplify.files import writing
from amplify.files.folders import atomic_folder
from amplify.runtime import processes
from amplify.training import serialization
from amplify.training.serialization import AnyColumns, Columns, Labels, Texts

# tensorflow_datasets takes a third of a second to import, so it is imported where it is needed.

MODULE = "amplify.dataset"
"""What data sets say made them. It is a part of their digests, so it stays the same."""

VERIFIED = 1024
"""Rows whose checksums are verified at a time."""

NO_HOME_PAGE = "about:blank"
"""For a data set without a home page TFDS otherwise claims one in its own catalogue."""

DIGESTS = "digests.json"
"""File in a described data set: the digest of the rows, and the SHA-256 of each other file."""


class Described(NamedTuple):
    """What makes a data set readable without this package."""

    columns: Mapping[str, Texts | Labels]
    """Columns for people. One that has the name of a column of numbers replaces it."""
    descriptions: Mapping[str, str]
    """Of each column, by its name."""
    metadata: Mapping[str, Any]
    """`builder.info.metadata` in TFDS; must be JSON."""


def write(
    directory: Path,
    columns: Columns,
    *,
    name: str,
    description: str,
    version: str = "1.0.0",
    described: Described | None = None,
) -> str:
    """Writes columns as the split `train`, in the order of their rows.

    The folder is written atomically and replaces an existing one. The same columns always give the
    same bytes. Several processes write one shard each: the files and their digest then differ, but
    the rows and their order are the same.

    Args:
        directory: becomes the data set's folder, which contains `dataset_info.json`.
        columns: for each row, an array of numbers of any dtype and shape, or a string.
        name: the data set's name in TFDS: lower case, words joined by underscores.
        description: the data set's description in TFDS.
        version: the data set's version in TFDS.
        described: further columns, and descriptions; None: there are none.

    Returns:
        The digest of `columns`, see `digest`.

    Raises:
        ValueError: if there are no rows, or columns differ in their number of rows.
    """
    further = {} if described is None else described.columns
    lengths = {key: len(column) for key, column in [*columns.items(), *further.items()]}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"every column must have the same number of rows, at least 1: got {lengths}"
        )
    about = {"name": name, "description": description, "version": version}
    with atomic_folder(directory) as folder:
        if described is None:
            _write_files(folder, columns, about)
        else:
            plain = folder.with_name("plain")
            _write_files(plain, columns, about)
            _write_files(folder, {**columns, **further}, about, described)
            processes.first(lambda: _write_digests(plain, folder))
    return digest(directory)


def _write_files(
    folder: Path, columns: AnyColumns, about: Mapping[str, str], described: Described | None = None
) -> None:
    """Writes the files of a data set to a new folder; returns when all processes have."""
    import tensorflow_datasets as tfds

    descriptions = {} if described is None else described.descriptions
    processes.first(folder.mkdir)
    file = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=about["name"], split="train", filetype_suffix="array_record"
    )
    shards = _shards(len(next(iter(columns.values()))))
    size = sum(processes.gather(np.array(_write_shard(file, shards, columns))))
    split = tfds.core.SplitInfo(
        "train", [len(shard) for shard in shards], int(size), filename_template=file
    )
    identity = tfds.core.DatasetIdentity(
        about["name"], tfds.core.Version(about["version"]), str(folder), module_name=MODULE
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=about["description"],
        features=serialization.features(columns, descriptions),
        disable_shuffling=True,
        split_dict=tfds.core.SplitDict([split]),
        homepage=None if described is None else NO_HOME_PAGE,
        metadata=None if described is None else tfds.core.MetadataDict(described.metadata),
    )
    info.set_file_format("array_record")
    processes.first(lambda: info.write_to_directory(folder))


def _write_digests(plain: Path, folder: Path) -> None:
    """Replaces a data set without descriptions, in `plain`, by its digest, in `folder`."""
    digests = {"rows": _digest_of_files(plain), "files": _checksums(folder)}
    writing.write_atomically(folder / DIGESTS, json.dumps(digests, indent=2) + "\n")
    shutil.rmtree(plain)


def read(directory: Path) -> Sequence[dict[str, Any]]:
    """The rows of a data set, decoded as they are asked for: arrays, and text as UTF-8 bytes.

    Every record's checksum is verified first, which takes 15 microseconds per row.

    Raises:
        AmplifyError: if the data set is missing or damaged.
    """
    import tensorflow_datasets as tfds

    if not directory.is_dir():
        raise AmplifyError(f"{directory}: no data set here")
    try:
        source = tfds.builder_from_directory(directory).as_data_source(split="train")
        for start in range(0, len(source), VERIFIED):
            source.data_source.__getitems__(range(start, min(start + VERIFIED, len(source))))
        source[0]
    except Exception as error:  # damage makes TFDS and ArrayRecord raise many kinds
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
    """Iterates endlessly over batches of a data set, shuffled anew in every epoch.

    Rows that are left over at the end of an epoch are dropped. Batch i is a pure function of data,
    seed and i. The iterator's state is the number i, so that it continues exactly where it was
    after `set_state(get_state())`, or when saved with a checkpoint.

    All rows are decoded once, before the first batch: a round's data fits in memory many times
    over. A batch is then one gather of 20 microseconds. Grain's own shuffling, batching and
    prefetching takes 900 microseconds, and 16 threads that the training step could use.

    Args:
        directory: the data set's folder.
        columns: names of columns of numbers; each becomes an array [batch_size, ...].
        batch_size: rows in a batch; 1 or more.
        seed: seed of the shuffling; 0 to 2**64 - 1.
        optional: names of columns that are read too if the data set has them.
        lay_out: maps the columns that were read to those that batches are taken from, with the same
            rows.

    Returns:
        A Grain iterator of dicts of arrays.

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
        epoch, position = divmod(number, epoch_batches)
        taken = order(epoch)[position * batch_size : (position + 1) * batch_size]
        return {name: column[taken] for name, column in rows.items()}

    numbers = grain.MapDataset.range(sys.maxsize)  # practically endless
    no_threads = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(numbers.map(batch).to_iter_dataset(no_threads))


def epoch_order(seed: int, rows: int, epoch: int) -> Int[np.ndarray, " rows"]:
    """Returns the order of an epoch's rows.

    It is computed from raw random bits, which are the same in all versions of NumPy.

    Args:
        seed: 0 to 2**64 - 1.
        rows: number of rows.
        epoch: number of the epoch, from 0.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(rows)
    return np.argsort(bits, kind="stable")


def verify(directory: Path, expected: str) -> None:
    """Checks the files of a data set.

    Args:
        directory: the data set's folder.
        expected: its digest, as `write` returned it.

    Raises:
        AmplifyError: if the data set is missing or damaged.
    """
    if not directory.is_dir():
        raise AmplifyError(f"{directory}: missing data set")
    if digest(directory) != expected:
        raise AmplifyError(f"{directory}: damaged data set (not the files that were written)")


def digest(directory: Path) -> str:
    """Returns the SHA-256 that identifies the columns of numbers in a data set.

    It is that of the files, and their names, of a data set with these columns and no descriptions.
    If any file is not as it was written, it is another one.
    """
    try:
        digests = json.loads((directory / DIGESTS).read_text(encoding="utf-8"))
        if digests["files"] == _checksums(directory):
            return str(digests["rows"])
    except FileNotFoundError:
        pass  # there are no descriptions
    except (ValueError, KeyError, TypeError):
        pass  # damaged
    return _digest_of_files(directory)


def _digest_of_files(directory: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                total.update(piece)
    return total.hexdigest()


def _checksums(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.iterdir()):
        if path.name != DIGESTS:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _shards(rows: int) -> list[range]:
    """The rows that each process writes: one shard per process."""
    count = min(rows, processes.count())
    return [range(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def _write_shard(file: Any, shards: list[range], columns: AnyColumns) -> int:
    """Writes the shard of this process, if it has one; returns the bytes of its records."""
    number = processes.number()
    if number >= len(shards):
        return 0
    path = file.sharded_filepath(shard_index=number, num_shards=len(shards))
    rows = slice(shards[number].start, shards[number].stop)
    return _write_records(str(path), {name: column[rows] for name, column in columns.items()})


def _write_records(path: str, columns: AnyColumns) -> int:
    """Writes one ArrayRecord file; returns the bytes of all records."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(path, "group_size:1")  # so that any row can be read alone
    size = 0
    for record in serialization.records(columns):
        writer.write(record)
        size += len(record)
    writer.close()
    return size


def _decode(
    directory: Path, columns: Sequence[str], optional: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
    """Decodes columns of numbers as TFDS does, but six times as fast."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    source: Any = read(directory)
    stored = source.dataset_info.features
    known = sorted(
        name
        for name, feature in stored.items()
        if isinstance(feature, tfds.features.Tensor) and feature.np_dtype != np.object_
    )
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
