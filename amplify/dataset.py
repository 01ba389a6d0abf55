"""A round's data as a TFDS data set, and the Grain pipeline that feeds it to training.

Knows arrays and files and nothing of what they mean. A row is a whole context with all its questions. The files are an
ordinary TFDS data set in ArrayRecord format: `tfds.builder_from_directory(folder).as_data_source("train")` reads them
anywhere, without this package and without TensorFlow.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jaxtyping import Shaped

from amplify.errors import AmplifyError, first_line

# tensorflow_datasets takes a third of a second to import: only the commands that touch a data set pay for it.

Columns = Mapping[str, Shaped[np.ndarray, "rows ..."]]


def write(directory: Path, columns: Columns, *, name: str, description: str) -> str:
    """Writes columns, row by row in their order, as the `train` split; replaces what is there. Returns its digest.

    The folder appears whole or not at all. The same columns give the same bytes.

    Args:
        directory: becomes the data set's folder, with `dataset_info.json` in it.
        columns: integer arrays of any further shape, or one string a row.
    """
    import tensorflow_datasets as tfds

    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(temporary), module_name="amplify"
    )
    features = tfds.features.FeaturesDict({key: _feature(column) for key, column in columns.items()})
    info = tfds.core.DatasetInfo(builder=identity, description=description, features=features)
    # One shard: a round's rows are few, and rows of one shard keep their order.
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2**62, file_format="array_record")
    writer.initialize_splits(["train"])
    rows = len(next(iter(columns.values())))
    writer.add_examples({"train": ({key: _item(c, i) for key, c in columns.items()} for i in range(rows))})
    writer.close_all()
    _sync(temporary)
    shutil.rmtree(directory, ignore_errors=True)
    temporary.rename(directory)
    _sync(directory.parent)
    return digest(directory)


def read(directory: Path) -> Sequence[dict[str, Any]]:
    """The rows of a data set, read as they are asked for. Raises AmplifyError if it is missing or damaged."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(directory)).as_data_source(split="train")
    except Exception as error:  # TFDS reports damage as whatever it stumbles over
        raise AmplifyError(f"{directory}: missing or damaged data set ({first_line(error)})") from error


def batches(directory: Path, columns: Sequence[str], *, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Endless batches of these columns, every row once an epoch in a new order; leftover rows wait for the next epoch.

    The rows are decoded once, before the first batch (a round's fit in memory many times over), so that a batch is
    one gather. The iterator can be saved beside a model and goes on exactly where it was.
    """
    rows = read(directory)
    decoded = rows.__getitems__(range(len(rows)))
    held = {key: np.stack([row[key] for row in decoded]) for key in columns}
    order = grain.MapDataset.range(len(rows)).shuffle(seed=seed).repeat().batch(batch_size)
    gathered = order.map(lambda index: {key: column[index] for key, column in held.items()})
    return iter(gathered.to_iter_dataset())


def digest(directory: Path) -> str:
    """SHA-256 of a data set's files and their names."""
    total = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def _feature(column: Shaped[np.ndarray, "rows ..."]) -> Any:
    import tensorflow_datasets as tfds

    if column.dtype.kind == "U":
        return tfds.features.Text()
    return tfds.features.Tensor(shape=column.shape[1:], dtype=column.dtype.type)


def _item(column: Shaped[np.ndarray, "rows ..."], row: int) -> Any:
    return str(column[row]) if column.dtype.kind == "U" else column[row]


def _sync(directory: Path) -> None:
    for path in (*directory.glob("*"), directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
