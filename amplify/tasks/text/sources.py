"""Reads the user's own documents and questions.

Documents come from a folder of text files, a JSONL file or a TFDS data set. Questions come from a
JSONL file, each with its answer and the documents that the answer rests on, hop by hop.
"""

import collections
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amplify.errors import AmplifyError, first_line
from amplify.tasks.text.collection import Document

SUFFIXES = (".txt", ".md")
"""Suffixes of files that are documents."""


class Question(NamedTuple):
    """A question with its answer and the documents that the answer rests on."""

    question: str
    answer: str
    documents: tuple[str, ...]  # titles, hop by hop

    @property
    def hops(self) -> int:
        """Number of documents that the answer rests on."""
        return len(self.documents)


def read_documents(where: str) -> list[Document]:
    """Reads documents from a folder, a JSONL file or a TFDS data set.

    Args:
        where: path of the folder or file, or name or folder of the data set.

    Returns:
        The documents, with distinct titles.

    Raises:
        AmplifyError: if there are no documents, one of them cannot be read, or titles repeat.
    """
    path = Path(where)
    if not where:
        raise AmplifyError("task.documents must name a folder, a .jsonl file or a TFDS data set")
    if path.suffix == ".jsonl":
        found = [_document(row, f"{path}: line {n}", str(n)) for n, row in _lines(path)]
    elif path.is_dir() and not (path / "dataset_info.json").is_file():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        found = [Document(file.stem.replace("_", " "), _text(file)) for file in files]
    elif path.is_file():
        raise AmplifyError(f"{path}: documents are a folder, a .jsonl file or a TFDS data set")
    else:
        found = list(_from_tfds(where))
    found = [_clean(document, where) for document in found if document.text.strip()]
    if not found:
        kinds = " and ".join(SUFFIXES)
        raise AmplifyError(f"{where}: has no documents ({kinds} files, or rows with text)")
    titles = [title for title, _ in found]
    if len(set(titles)) < len(titles):
        [(twice, _)] = collections.Counter(titles).most_common(1)
        raise AmplifyError(f"{where}: several documents have the title {twice!r}")
    return found


def read_questions(where: str, documents: Sequence[Document] | None = None) -> list[Question]:
    """Reads questions from a JSONL file.

    Args:
        where: path of the file.
        documents: the documents that questions may refer to; None: references are not checked.

    Returns:
        The distinct questions.

    Raises:
        AmplifyError: if there are no questions, or one of them is malformed, contradicts an earlier
            one or refers to an unknown document.
    """
    if not where:
        raise AmplifyError("task.questions must name a .jsonl file of questions and answers")
    known = None if documents is None else {title for title, _ in documents}
    questions: dict[str, Question] = {}
    for number, row in _lines(Path(where)):
        line = f"{where}: line {number}"
        question = _validated(_QuestionRow, row, line)
        titles = tuple(_normalize(title, line) for title in question.documents)
        for title in titles:
            if known is not None and title not in known:
                raise AmplifyError(f"{line}: there is no document {title!r}")
        text, answer = (
            " ".join(_normalize(raw, line).split()) for raw in (question.question, question.answer)
        )
        if not text or not answer:
            raise AmplifyError(f"{line}: the {'answer' if text else 'question'} is empty")
        if text in questions and questions[text] != (text, answer, titles):
            raise AmplifyError(f"{line}: {text!r} has another answer, or other documents, above")
        questions[text] = Question(text, answer, titles)
    if not questions:
        raise AmplifyError(f"{where}: has no questions")
    return list(questions.values())


def _clean(document: Document, where: str) -> Document:
    line = f"{where}: document {document.title!r}"
    return Document(_normalize(document.title, line), _normalize(document.text, line))


def _normalize(text: str, line: str) -> str:
    """Composes characters (Unicode NFC). Raises AmplifyError if the text has lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AmplifyError(
            f"{line}: not valid text: character {error.start + 1} is a lone surrogate"
        ) from None
    return unicodedata.normalize("NFC", text)


Text = Annotated[str, Field(min_length=1)]
Row = TypeVar("Row", bound=BaseModel)


class _DocumentRow(BaseModel):
    model_config = ConfigDict(strict=True)
    title: Text | None = None
    text: Text


class _QuestionRow(BaseModel):
    model_config = ConfigDict(strict=True)
    question: Text
    answer: Text
    documents: Annotated[list[str], Field(min_length=1)]


def _document(row: Any, line: str, otherwise: str) -> Document:
    row = _validated(_DocumentRow, row, line)
    return Document(row.title or otherwise, row.text)


def _validated(kind: type[Row], row: Any, line: str) -> Row:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        what = f"{place}: " if place else ""
        raise AmplifyError(f"{line}: {what}{first['msg']}") from None


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields the number, from 1, and the content of each line of a JSONL file."""
    # Not `splitlines`, because JSON strings may contain other line separators.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise AmplifyError(
                    f"{path}: line {number}: not JSON ({first_line(error)})"
                ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AmplifyError(f"{path}: not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise AmplifyError(f"{path}: cannot be read ({error.strerror})") from None


def _from_tfds(where: str) -> Iterator[Document]:
    """Yields the rows of all splits of a TFDS data set, which is prepared if necessary."""
    import tensorflow_datasets as tfds

    try:
        if Path(where).is_dir():
            builder = tfds.builder_from_directory(where)
        else:
            builder = tfds.builder(where, file_format="array_record")
            builder.download_and_prepare()
        sources: Mapping[str, Any] = builder.as_data_source()
    except Exception as error:  # from the network, from TFDS, or from the data set's own code
        raise AmplifyError(
            f"{where}: neither a folder, nor a .jsonl file, nor a TFDS data set that can be read"
            f" ({first_line(error)})"
        ) from None
    texts = [
        name
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Text)
    ]
    others = [name for name in texts if name != "title"]
    if not others:
        raise AmplifyError(f"{where}: the data set has no text")
    column = "text" if "text" in others else others[0]
    rows = (row for source in sources.values() for row in source)
    for number, row in enumerate(rows, start=1):
        title = _as_text(row["title"]) if "title" in texts else str(number)
        yield Document(title, _as_text(row[column]))


def _as_text(value: str | bytes) -> str:
    # TFDS returns str or bytes, depending on the file format.
    return value if isinstance(value, str) else value.decode(errors="replace")
