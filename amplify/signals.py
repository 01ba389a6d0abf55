"""A round's stored signal as a table for people: a row for each question, with texts.

The command `data` writes it as Parquet or JSONL, and the Python interface returns it as a data
frame. Signals are read a few contexts at a time, so a table may be larger than memory.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from amplify.errors import AmplifyError
from amplify.files.writing import check_output, replacing
from amplify.oversight.readable import TEXTS, UNDESCRIBED, fact_texts, texts
from amplify.oversight.work import WEIGHT
from amplify.records.record import ASSISTANT, signals, trained_in
from amplify.records.round_folder import RoundFolder
from amplify.store import Store
from amplify.task_abilities import knows_truth, search_of
from amplify.training import dataset
from amplify.types import FAILED, Task

# pyarrow takes a tenth of a second to import, so it is imported where it is needed.

SUFFIXES = (".parquet", ".jsonl")

CONTEXTS = 512
"""Contexts in a row group."""

DESCRIPTIONS: Mapping[str, str] = {
    "context_number": "Index of the context in the signal; `--row` of `amplify tree`.",
    "question_number": "Index of the question about the context; `--question` of `amplify tree`.",
    "class": "Class of the question, such as its depth.",
    "context": "What is read before answering: facts or passages, one a line.",
    "question": "The question.",
    "answer": (
        "The answer that the assistant is trained to give; null if none was obtained, and then"
        " nothing is trained on the row."
    ),
    "right": (
        "Whether the answer is right, which training does not read; null if none was obtained."
        " There is no such column if nobody knows, or each question finds a context of its own."
    ),
    "weight": "Multiplies the loss of the answer. All weights are 1 if there is no such column.",
    "context_tokens": "Tokens of each fact or passage, padded with 0.",
    "question_tokens": "Tokens of the question, padded with 0.",
    "answer_tokens": "Tokens of the answer, padded with 0; all -1 if none was obtained.",
    "problem": "Stream and index of the seed from which the context is drawn, as in evals.",
    "parent": "Digest of the checkpoint of the assistant that answered sub-questions.",
}
"""Of the columns that are not described by the data set."""


class Signal(NamedTuple):
    """The stored signal of a phase."""

    round_: RoundFolder
    phase: str
    digest: str


def find_signal(store: Store, number: int, phase: str | None = None) -> Signal:
    """Finds the signal that a phase of a round stored.

    Args:
        store: the experiment's folder.
        number: the round's number.
        phase: the phase's name; None: the one that last trained the assistant.

    Raises:
        AmplifyError: if the round stored no signal, or this phase did not.
    """
    this = store.round(number)
    stored = signals(this.record) if number >= 0 else {}
    if not stored:
        there = [str(n) for n in store.rounds() if signals(store.round(n).record)]
        raise AmplifyError(
            f"{store.path}: round {number} has no data; rounds that have:"
            f" {', '.join(there) or 'none'}"
        )
    main = trained_in(this.record).get(ASSISTANT, "")
    chosen = phase if phase is not None else main if main in stored else [*stored][-1]
    if chosen not in stored:
        raise AmplifyError(
            f"{store.path}: round {number} has no phase {chosen!r} with data; phases that have:"
            f" {', '.join(stored)}"
        )
    return Signal(this, chosen, stored[chosen])


def export(store: Store, signal: Signal, out: Path) -> int:
    """Writes a signal to a file, atomically.

    Args:
        store: the experiment's folder.
        signal: one of its signals.
        out: a file whose name ends in .parquet or .jsonl.

    Returns:
        The number of rows.

    Raises:
        AmplifyError: if the name ends otherwise or is that of a folder, or the signal is damaged.
    """
    check_output(out, SUFFIXES, "data")
    schema, batches = _read(store, signal)
    count = 0
    with replacing(out, "wb") as file:
        write = _parquet_writer(file, schema) if out.suffix == ".parquet" else _jsonl_writer(file)
        with write as write_batch:
            for batch in batches:
                write_batch(batch)
                count += batch.num_rows
    return count


def as_frame(store: Store, signal: Signal) -> Any:
    """Returns a signal as a pandas data frame.

    What a Parquet file says about columns and origin is in `frame.attrs`.

    Args:
        store: the experiment's folder.
        signal: one of its signals.

    Raises:
        AmplifyError: if the signal is damaged.
    """
    import pyarrow

    schema, batches = _read(store, signal)
    frame = pyarrow.Table.from_batches(batches, schema).to_pandas()
    frame.attrs = _origin(store, signal) | {"columns": _descriptions(schema)}
    return frame


def _read(store: Store, signal: Signal) -> tuple[Any, Iterator[Any]]:
    """Returns the schema of a signal's table, and its record batches."""
    import pyarrow

    folder, task = signal.round_.phase(signal.phase).data, store.experiment.task
    with signal.round_.redo_hint(_stage(signal)):
        dataset.verify(folder, signal.digest)
        source: Any = dataset.read(folder)
    stored = source.dataset_info.features
    if not {"context", "questions", "answers"} <= {*stored}:
        raise AmplifyError(
            f"{folder}: not a signal of questions with answers; its columns are {', '.join(stored)}"
        )
    per_question = stored["questions"].shape[0]
    others = [name for name in stored if name not in KNOWN]
    judge = _judge(task)
    names = [name for name in DESCRIPTIONS if SOURCES.get(name, name) in {*stored, ""}]
    if judge is None:
        names.remove("right")
    fields = [pyarrow.field(name, _types(pyarrow)[name]) for name in names]
    fields += [_field_like(pyarrow, name, stored[name], per_question) for name in others]
    described = [
        field.with_metadata(
            {"description": DESCRIPTIONS.get(field.name) or _said(stored[field.name])}
        )
        for field in fields
    ]
    origin = {key: str(value) for key, value in _origin(store, signal).items()}
    schema = pyarrow.schema(described, metadata=origin)

    def batches() -> Iterator[Any]:
        for start in range(0, len(source), CONTEXTS):
            places = range(start, min(start + CONTEXTS, len(source)))
            rows = [
                row for place in places for row in _rows(task, judge, place, source[place], others)
            ]
            yield pyarrow.RecordBatch.from_pylist(rows, schema=schema)

    return schema, batches()


SOURCES = {
    "context_number": "",
    "question_number": "",
    "right": "",
    "class": "classes",
    "question": "questions",
    "answer": "answers",
    "context_tokens": "context",
    "question_tokens": "questions",
    "answer_tokens": "answers",
    "problem": "problem_seed",
}
"""The column of the data set that a column of the table shows, if it has another name; "": none."""

KNOWN = {"context", "questions", "answers", "classes", WEIGHT, "problem_seed", "parent", *TEXTS}


Judge = Callable[[Mapping[str, Any]], Bool[np.ndarray, " questions"]]
"""Says which answers of a context's row are right."""


def _judge(task: Task) -> Judge | None:
    if not knows_truth(task) or search_of(task) is not None:
        return None
    is_right = jax.jit(jax.vmap(task.is_right, (None, 0, 0)))
    return lambda row: np.asarray(is_right(row["context"], row["questions"], row["answers"]))


def _rows(
    task: Task,
    judge: Judge | None,
    place: int,
    stored: Mapping[str, Any],
    others: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a context, one for each question."""
    shared = {
        "context_number": place,
        "context": "\n".join(fact_texts(task, stored["context"])),
        "context_tokens": stored["context"].tolist(),
    }
    if "problem_seed" in stored:
        shared["problem"] = "{}:{}".format(*stored["problem_seed"])
    if "parent" in stored:
        shared["parent"] = stored["parent"].decode()
    right = None if judge is None else judge(stored)
    asked, answered = (texts(task, stored[name]) for name in ("questions", "answers"))
    for number, (question, answer) in enumerate(zip(asked, answered, strict=True)):
        tokens = stored["answers"][number]
        own = {
            "question_number": number,
            "question": question,
            "answer": None if tokens[0] == FAILED else answer,
            "right": None if tokens[0] == FAILED or right is None else bool(right[number]),
            "question_tokens": stored["questions"][number].tolist(),
            "answer_tokens": tokens.tolist(),
        }
        if "classes" in stored:
            own["class"] = task.classes[stored["classes"][number]]
        if WEIGHT in stored:
            own[WEIGHT] = stored[WEIGHT][number].item()
        further = {name: _part(stored[name], number, len(asked)) for name in others}
        yield {**shared, **own, **further}


def _types(pyarrow: Any) -> dict[str, Any]:
    tokens = pyarrow.list_(pyarrow.int32())
    others = {
        "context_number": pyarrow.int64(),
        "question_number": pyarrow.int64(),
        "right": pyarrow.bool_(),
        "weight": pyarrow.float32(),
        "context_tokens": pyarrow.list_(tokens),
        "question_tokens": tokens,
        "answer_tokens": tokens,
    }
    return {name: others.get(name, pyarrow.string()) for name in DESCRIPTIONS}


def _field_like(pyarrow: Any, name: str, feature: Any, per_question: int) -> Any:
    """The field of a column that an oversight of one's own makes."""
    shape = feature.shape[1:] if feature.shape[:1] == (per_question,) else feature.shape
    is_text = feature.np_dtype == np.object_
    kind = pyarrow.string() if is_text else pyarrow.from_numpy_dtype(feature.np_dtype)
    for _ in shape:
        kind = pyarrow.list_(kind)
    return pyarrow.field(name, kind)


def _part(value: Any, number: int, questions: int) -> Any:
    """A question's part of a value, if its first axis is that of questions; else all of it."""
    if isinstance(value, bytes):
        return value.decode()
    value = np.asarray(value)
    return (value[number] if value.shape[:1] == (questions,) else value).tolist()


def _origin(store: Store, signal: Signal) -> dict[str, Any]:
    return {
        "experiment": store.name,
        "round": signal.round_.number,
        "phase": signal.phase,
        "digest": signal.digest,
    }


def _descriptions(schema: Any) -> dict[str, str]:
    return {field.name: field.metadata[b"description"].decode() for field in schema}


def _said(feature: Any) -> str:
    return feature.doc.desc or UNDESCRIBED


def _stage(signal: Signal) -> str:
    stages, stage = signal.round_.record["stages"], f"{signal.phase}/data"
    return stage if stage in stages else f"{signal.phase}/checkpoint"


@contextlib.contextmanager
def _parquet_writer(file: Any, schema: Any) -> Iterator[Callable[[Any], None]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer.write_batch


@contextlib.contextmanager
def _jsonl_writer(file: Any) -> Iterator[Callable[[Any], None]]:
    def write(batch: Any) -> None:
        for row in batch.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    yield write
