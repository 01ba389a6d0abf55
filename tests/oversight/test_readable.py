"""What a signal says to people: texts, classes and descriptions."""

import numpy as np

from amplify.oversight.readable import DESCRIPTIONS, describe, label_names
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.types import FAILED
from amplify.words import read_answer, read_question

TASK = Wildcard(3)


def columns(**more):
    question, answer = read_question(TASK, "a**"), read_answer(TASK, "+2")
    failed = np.full_like(answer, FAILED)
    context = np.zeros((1, TASK.facts, TASK.fact_length), np.int32)
    context[0, 0] = [TASK.vocabulary.index(word) for word in ("a", "a", "b", "-1")]
    return {
        "context": context,
        "questions": np.stack([question, question, question])[None],
        "answers": np.stack([answer, failed, answer * 0])[None],
        **more,
    }


def test_tokens_are_texts_and_what_was_not_answered_is_empty():
    found = describe(TASK, columns(), {}).columns
    assert found["question_texts"].rows == [["a**"] * 3]
    assert found["answer_texts"].rows == [["+2", "", TASK.vocabulary[0]]]
    [facts] = found["context_texts"].rows
    assert facts == ["aab = -1"]


def test_classes_have_the_names_of_the_task():
    found = describe(TASK, columns(classes=np.array([[0, 1, 2]])), {}).columns["classes"]
    assert [found.names[label] for label in found.rows[0]] == [*TASK.classes]


def test_every_column_is_described():
    given = columns(weight=np.ones((1, 3)), score=np.ones((1, 3)), length=np.ones(1))
    described = describe(TASK, given, {"score": "The judge's score."})
    assert {*given, *described.columns} == {*described.descriptions}
    assert described.descriptions["weight"] == DESCRIPTIONS["weight"]
    assert described.descriptions["score"] == "The judge's score."
    assert "does not describe" in described.descriptions["length"]


def test_a_signal_without_contexts_or_classes_has_no_texts_for_them():
    kept = {"answers": columns()["answers"]}
    assert {*describe(TASK, kept, {}).columns} == {"answer_texts"}


def test_names_of_labels_are_lines_of_a_file():
    assert label_names(["1 hop", " a\nb "]) == ("1 hop", "a b")
    assert label_names(["", "b"]) == ("0", "b")
    assert label_names(["a", "a "]) == ("0 a", "1 a")
