"""The documented example of questions about documents of one's own."""

import re
from pathlib import Path

import pytest

import amplify
from amplify.overseers.language_model import LanguageModelOverseer
from amplify.reading.experiment_file import read_experiment
from amplify.tasks.text.sources import read_documents, read_questions
from amplify.words import format_tokens, read_answer, read_question

ROUNDS = Path(__file__).parents[1] / "rounds"
FOLDER = ROUNDS / "documents"

SMALL = f"""
base = "{ROUNDS / "documents-reader"}"

[assistant]
kind = "language-model"
width = 8
heads = 1
key_heads = 1
layers = 1

[questions]
contexts = 32
per_context = 2
deepest = [2]

[training]
steps = 2
batch = 8
warmup_steps = 1
log_every = 2
look_every = 2

[evals]
select = 16
final = 16
"""


def test_every_answer_is_in_a_document_that_the_question_names():
    read = read_documents(str(FOLDER / "documents"))
    documents, questions = dict(read), read_questions(str(FOLDER / "questions.jsonl"), read)
    assert len(documents) == 20
    assert len(questions) == 80
    for question in questions:
        assert question.answer in documents[question.documents[-1]], question
        assert documents.keys() >= {*question.documents}
        if len(question.documents) == 2:
            first, second = question.documents
            assert second in documents[first]


def test_what_the_prompt_shows_can_be_said():
    overseer = read_experiment(FOLDER / "experiment.toml").overseer
    assert isinstance(overseer, LanguageModelOverseer)
    _, _, examples = overseer.backend.instructions.partition("Examples:")
    lines = [line for line in examples.splitlines() if line]
    assert len(lines) > 8
    for line in lines:
        kind, _, text = line.partition(": ")
        read = read_question if kind in ("Question", "Ask") else read_answer
        assert read(overseer.task, text).any(), line


def test_every_form_of_question_that_the_prompt_names_is_asked():
    prompt = (FOLDER / "prompt.txt").read_text(encoding="utf-8")
    forms = re.search(r"Forms of questions: (.*?)\n\n", prompt, re.DOTALL)[1].split("?")
    asked = [one.question for one in read_questions(str(FOLDER / "questions.jsonl"))]
    for form in filter(None, (" ".join(form.split()) for form in forms)):
        pattern = re.escape(form).replace("NAME", r"[A-Z]\w+ [A-Z]\w+") + r"\?"
        assert any(re.fullmatch(pattern, question) for question in asked), form


@pytest.mark.slow
def test_the_variant_without_a_server_runs_and_its_signal_is_read_as_text(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small/experiment.toml").write_text(SMALL, encoding="utf-8")
    this = amplify.open(tmp_path / "small").run(1).round(1)
    frame = this.signal
    truth = {one.question: one.answer for one in read_questions(str(FOLDER / "questions.jsonl"))}
    single = frame[frame["class"] == "1 hop"]
    assert len(single)
    assert [truth[row.question] for row in single.itertuples()] == single.answer.tolist()
    assert all(row.answer in row.context for row in single.itertuples())
    # An untrained assistant does not know who built what, so longer questions have no answer yet.
    task = this.experiment._store.experiment.task
    nothing = format_tokens(task, read_answer(task, "x")[:1] * 0)
    longer = frame[frame["class"] == "2 hops"]
    assert set(longer.answer) == {nothing}
