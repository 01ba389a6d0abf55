"""What makes a signal readable without this package: texts beside tokens, names of classes, and a
description of each column.

Rounds write it into their data sets (see `stages`); `signals` shows the same texts as a table.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Shaped

from amplify import words
from amplify.training.dataset import Described
from amplify.training.serialization import Labels, Texts
from amplify.types import FAILED, Task

DESCRIPTIONS: Mapping[str, str] = {
    "context": "Tokens of the facts or passages that the questions are about, padded with 0.",
    "questions": "Tokens of each question, padded with 0.",
    "answers": (
        "Tokens of the answer to each question, padded with 0: what the assistant is trained to"
        " give. All 0: don't know. All -1: no answer was obtained, and nothing is trained."
    ),
    "classes": "Class of each question, such as its depth.",
    "weight": "Multiplies the loss of each answer; 0 if no answer was obtained.",
    "problem_seed": "The stream and index of the seed from which context and questions are drawn.",
    "parent": "Digest of the checkpoint of the assistant that answered sub-questions.",
    "context_texts": "The facts or passages of the context as text.",
    "question_texts": "Each question as text.",
    "answer_texts": "The answer to each question as text; empty if no answer was obtained.",
}
"""Of the columns that signals have. An oversight of one's own may describe others, see `Made`."""

UNDESCRIBED = "Made by the experiment's oversight, which does not describe it."
"""What is said of any other column."""


def describe(
    task: Task,
    columns: Mapping[str, Shaped[np.ndarray, "rows ..."]],
    descriptions: Mapping[str, str],
) -> Described:
    """Returns what a round's data set contains for its readers.

    Texts are stored beside tokens, not as labels whose names are tokens: a pretrained tokenizer has
    100,000 words and more, and its tokens are pieces of words, which do not read as text. The whole
    vocabulary is in the data set's metadata: TFDS reads this file only when asked. For the 2,048
    words of `rounds/search` it has 21 kB, while `features.json` has 4 kB for any vocabulary.

    Args:
        task: formats tokens as text.
        columns: of the signal, with one leading axis of rows.
        descriptions: of columns that are not in `DESCRIPTIONS`.
    """
    known = {**DESCRIPTIONS, **descriptions}
    further: dict[str, Texts | Labels] = {
        name: Texts([as_texts(task, row) for row in columns[tokens]])
        for name, (tokens, as_texts) in TEXTS.items()
        if tokens in columns
    }
    if "classes" in columns:
        further["classes"] = Labels(columns["classes"], label_names(task.classes))
    return Described(
        further,
        {name: known.get(name, UNDESCRIBED) for name in [*columns, *further]},
        {"vocabulary": list(task.vocabulary), "classes": list(task.classes)},
    )


def fact_texts(task: Task, facts: Int[np.ndarray, "facts fact_length"]) -> list[str]:
    """Formats a context as texts, without facts that are padding.

    Args:
        task: the task that it belongs to.
        facts: its tokens.
    """
    return [words.format_tokens(task, fact) for fact in facts if fact.any()]


def texts(task: Task, rows: Int[np.ndarray, "questions length"]) -> list[str]:
    """Formats questions or answers as texts.

    Args:
        task: the task that they belong to.
        rows: their tokens; an answer of FAILED gives "".
    """
    return ["" if row[0] == FAILED else words.format_tokens(task, row) for row in rows]


TEXTS = {
    "context_texts": ("context", fact_texts),
    "question_texts": ("questions", texts),
    "answer_texts": ("answers", texts),
}
"""For each column of texts, the column of tokens that it shows, and the function that does."""


def label_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns names of labels as TFDS can store them: one a line, all different, none empty.

    Args:
        names: the names; white space in them becomes single spaces.
    """
    lines = [" ".join(name.split()) or str(label) for label, name in enumerate(names)]
    if len({*lines}) == len(lines):
        return tuple(lines)
    return tuple(f"{label} {name}" for label, name in enumerate(lines))
