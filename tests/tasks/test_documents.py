"""Questions over documents of one's own: where they come from, what is refused, what is found."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.answers import normalize
from amplify.errors import AmplifyError
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.tasks.text.collection import Document
from amplify.tasks.text.documents import Documents
from amplify.tasks.text.encyclopedia import ENTITIES_PER_REGION
from amplify.tasks.text.sources import read_documents, read_questions
from amplify.tasks.text.splitting import split_passages
from amplify.tasks.text.text_tokenizer import train_tokenizer
from amplify.training import dataset
from amplify.trees.amplification import contexts_for
from amplify.words import format_tokens, read_question
from tests.documents import DOCUMENTS, WORLD, asked_rows, jsonl, written


def folder_of_texts(path: Path) -> Path:
    (path / "some/where").mkdir(parents=True)
    for number, (title, text) in enumerate(DOCUMENTS):
        place = path / "some/where" if number % 2 else path
        (place / f"{title.replace(' ', '_')}.txt").write_text(text, encoding="utf-8")
    (path / "notes.csv").write_text("no,document", encoding="utf-8")
    return path


def tfds(path: Path) -> Path:
    titles, texts = (np.array(column) for column in zip(*DOCUMENTS, strict=True))
    columns = {"title": titles, "text": texts, "length": np.arange(len(texts))}
    dataset.write(path, columns, name="articles", description="")
    return path


@pytest.mark.parametrize(
    ("make", "name"), [(folder_of_texts, "texts"), (jsonl, "texts.jsonl"), (tfds, "texts")]
)
def test_the_same_documents_are_read_from_a_folder_from_jsonl_and_from_tfds(make, name, tmp_path):
    read = read_documents(str(make(tmp_path / name)))
    assert sorted(read) == sorted(DOCUMENTS)


def test_rows_without_a_title_are_called_by_their_number(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"text": "One."}, {"text": "Two."}])
    assert read_documents(str(path)) == [("1", "One."), ("2", "Two.")]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Documents:
    folder = tmp_path_factory.mktemp("own")
    questions = written(folder / "questions.jsonl", asked_rows())
    documents = jsonl(folder / "documents.jsonl")
    return Documents(documents=str(documents), questions=str(questions))


def test_questions_are_drawn_with_the_hops_asked_for_and_those_held_out_are_not_trained_on(task):
    known = {row["question"]: row for row in asked_rows()}
    trained = draw_problems(task, 0, 1, "train", 24, (1, 2))
    held_out = draw_problems(task, 0, 0, "final", 8, (1, 2))
    texts = {}
    for name, drawn in {"train": trained, "final": held_out}.items():
        rows = np.asarray(drawn.questions)
        texts[name] = [[format_tokens(task, row) for row in questions] for questions in rows]
        for one, several in texts[name]:
            assert len(known[one]["documents"]) == 1
            first = known[several]["documents"][0]
            assert first == known[one]["documents"][0]
            # A document that nobody asked two hops about gives a question of one.
            number = WORLD.numbers[first]
            assert (len(known[several]["documents"]) == 2) == bool(number % 2)
    first_asked = {
        name: {known[one]["documents"][0] for one, _ in rows} for name, rows in texts.items()
    }
    assert not first_asked["train"] & first_asked["final"]
    classes = vmap_questions(task.class_of)(held_out.contexts, held_out.questions)
    for rows, numbers in zip(texts["final"], np.asarray(classes), strict=True):
        hops = [len(known[text]["documents"]) - 1 for text in rows]
        assert numbers.tolist() == hops
    assert task.classes == ("1 hop", "2 hops")


def test_what_an_answer_rests_on_is_found_and_what_is_missing_is_noticed(task):
    drawn = draw_problems(task, 0, 0, "final", 8, (1, 1))
    found = contexts_for(task, drawn.contexts, drawn.questions)
    supported = vmap_questions(task.supports)
    assert bool(jnp.all(supported(found, drawn.questions)))
    assert not bool(jnp.any(supported(jnp.zeros_like(found), drawn.questions)))


def test_the_truth_is_right_in_any_case_and_another_answer_is_not(task):
    drawn = draw_problems(task, 0, 0, "final", 4, (1, 2))
    truth = vmap_questions(task.truth)(drawn.contexts, drawn.questions)
    right = vmap_questions(task.is_right)
    assert bool(jnp.all(right(drawn.contexts, drawn.questions, truth)))
    assert not bool(jnp.any(right(drawn.contexts, drawn.questions, jnp.roll(truth, 1, axis=0))))
    assert normalize("The  Moon.") == normalize("moon")
    question, answer = np.asarray(drawn.questions)[0, 0], np.asarray(truth)[0, 0]
    loud = jnp.asarray(
        [*map(task.vocabulary.index, task.parse_answer(format_tokens(task, answer).upper()))]
    )
    padded = jnp.zeros(task.answer_length, jnp.int32).at[: len(loud)].set(loud)
    assert bool(task.is_right(drawn.contexts[0], jnp.asarray(question), padded))


def test_any_question_can_be_asked_and_a_search_gives_a_sentence(task):
    asked = jnp.asarray(read_question(task, "Who is Zelto's uncle?"))
    assert format_tokens(task, np.asarray(asked)) == "Who is Zelto's uncle?"
    context = jnp.ones((1, 1), jnp.int32)
    assert not bool(jnp.any(task.truth(context, asked)))
    title, text = DOCUMENTS[11]
    search = jnp.asarray(read_question(task, f"search: {title} born"))
    assert bool(task.is_primitive(search))
    told = task.environment(context, search, jax.random.key(0))
    assert format_tokens(task, np.asarray(told)) in text
    with pytest.raises(ValueError, match="a question is any text"):
        task.parse("search: ")


def test_long_documents_are_split_between_sentences_and_nothing_is_lost():
    text = " ".join(f"Sentence {n} says that {n} follows {n - 1}." for n in range(40))
    text += " " + "endless " * 60
    tokenizer = train_tokenizer([text], 400)
    pieces = split_passages(text, tokenizer, 24)
    assert " ".join(pieces).split() == text.split()
    assert all(len(tokenizer.encode(piece)) <= 24 for piece in pieces)
    assert all(piece.endswith(".") for piece in pieces if "says" in piece and "end" not in piece)


BAD_DOCUMENTS = {
    "empty folder": (lambda p: p.mkdir(), "has no documents"),
    "empty file": (lambda p: p.write_text(""), "has no documents"),
    "not json": (lambda p: p.write_text('{"text": "a"}\nwhat\n'), "line 2: not JSON"),
    "no text": (lambda p: p.write_text('{"title": "a"}\n'), "line 1: text: Field required"),
    "text no string": (lambda p: p.write_text('{"text": 3}\n'), "line 1: text: Input should be"),
    "no table": (lambda p: p.write_text("3\n"), "line 1: Input should be"),
    "same title": (
        lambda p: p.write_text('{"title": "A", "text": "b"}\n' * 2),
        "several documents have the title 'A'",
    ),
    "not utf-8": (lambda p: p.write_bytes(b'{"text": "gr\xfcn"}'), "not UTF-8 (byte 12)"),
    "not there": (lambda p: None, "cannot be read (No such file"),
}


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_bad_documents_are_refused_in_a_line_that_names_them(case, tmp_path):
    make, expected = BAD_DOCUMENTS[case]
    path = tmp_path / ("documents" if "folder" in case else "documents.jsonl")
    make(path)
    with pytest.raises(AmplifyError) as caught:
        read_documents(str(path))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "good.txt").write_text("Good.", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"gr\xfcn")
    with pytest.raises(AmplifyError, match=r"bad\.txt: not UTF-8 \(byte 2\)"):
        read_documents(str(tmp_path))


def test_what_is_neither_folder_nor_file_nor_data_set_is_refused(tmp_path):
    with pytest.raises(AmplifyError, match="no_such_data_set: neither a folder"):
        read_documents("no_such_data_set")
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(AmplifyError, match=r"are a folder, a \.jsonl file or a TFDS data set"):
        read_documents(str(tmp_path / "a.csv"))
    dataset.write(tmp_path / "n", {"x": np.arange(3)}, name="numbers", description="")
    with pytest.raises(AmplifyError, match="has no text"):
        read_documents(str(tmp_path / "n"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "Who?", "answer": "He"}, "line 1: documents: Field required"),
        ({"question": "Who?", "answer": "He", "documents": []}, "line 1: documents: List should"),
        ({"question": "Who?", "answer": "", "documents": ["A"]}, "line 1: answer: String should"),
        (
            {"question": "Who?", "answer": "He", "documents": ["B"]},
            "line 1: there is no document 'B'",
        ),
    ],
)
def test_bad_questions_are_refused_in_a_line_that_names_them(row, expected, tmp_path):
    path = written(tmp_path / "questions.jsonl", [row])
    with pytest.raises(AmplifyError) as caught:
        read_questions(str(path), [Document("A", "b")])
    assert f"{path}: {expected}" in str(caught.value)


def test_no_questions_are_refused(tmp_path):
    path = written(tmp_path / "questions.jsonl", [])
    with pytest.raises(AmplifyError, match="has no questions"):
        read_questions(str(path), [])


def test_the_tests_have_questions_about_every_document():
    assert {row["documents"][0] for row in asked_rows()} == {title for title, _ in DOCUMENTS}
    assert len(DOCUMENTS) == 64 * ENTITIES_PER_REGION


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_a_string_may_have_any_line_break_in_it_but_the_one_between_rows(mark, tmp_path):
    path = tmp_path / "a.jsonl"
    escaped = json.dumps(f"a{mark}b", ensure_ascii=ord(mark) < 32)
    rows = f'{{"text": {escaped}}}\r\n{{"text": "c"}}\n'
    path.write_text(rows, encoding="utf-8", newline="")
    assert [text for _, text in read_documents(str(path))] == [f"a{mark}b", "c"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "\\ud800 hello"}', "no text|valid string"),
        ('{"title": "\\udfff", "text": "a"}', "no text|valid string"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"text": ' + "9" * 5001 + "}", "line 1: "),
    ],
)
def test_what_is_no_text_is_refused_in_a_line(line, said, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(AmplifyError, match=said) as caught:
        read_documents(str(path))
    assert "\n" not in str(caught.value)


def test_texts_are_read_in_their_composed_form(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"title": "Cafe\u0301", "text": "Cafe\u0301s."}])
    assert read_documents(str(path)) == [("Caf\u00e9", "Caf\u00e9s.")]
    asked = {"question": "Cafe\u0301?", "answer": "e\u0301", "documents": ["Cafe\u0301"]}
    [question] = read_questions(str(written(tmp_path / "q", [asked])), read_documents(str(path)))
    assert question == ("Caf\u00e9?", "\u00e9", ("Caf\u00e9",))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"question": " ", "answer": "He"}], "line 1: the question is empty"),
        ([{"question": "Who?", "answer": "\n"}], "line 1: the answer is empty"),
        (
            [{"question": "Who?", "answer": "He"}, {"question": "Who?", "answer": "She"}],
            "line 2: 'Who?' has another answer",
        ),
    ],
)
def test_a_question_has_one_answer(rows, expected, tmp_path):
    path = written(tmp_path / "questions.jsonl", [row | {"documents": ["A"]} for row in rows])
    with pytest.raises(AmplifyError) as caught:
        read_questions(str(path), [Document("A", "b")])
    assert f"{path}: {expected}" in str(caught.value)
