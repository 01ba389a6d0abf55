"""Rounds whose contexts are found by a search, from the questions to the table."""

import json

import pytest

from amplify import dataset
from amplify.cli import main
from amplify.store import Store
from amplify.tasks.search import Search
from amplify.words import shown

TOML = """
[task]
kind = "search"
regions = 64
hops = 2
{task}

[assistant]
kind = "language-model"
width = 8
heads = 1
key_heads = 1
layers = 1

[overseer]
kind = "simulated"

[questions]
contexts = 16
per_context = 4

[training]
steps = 2
batch = 8
warmup_steps = 1
log_every = 1
look_every = 1
checkpoint_every = 1
{training}

[evals]
select = 8
final = 8
"""


def experiment(folder, task: str = "", training: str = ""):
    folder.mkdir()
    text = TOML.format(task=task, training=training)
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = experiment(tmp_path_factory.mktemp("searched") / "search")
    main(["round", str(folder), "--n", "1"])
    return folder


def test_a_row_holds_the_passages_that_its_questions_found(searched):
    task = Store(searched).experiment.task
    assert isinstance(task, Search)
    row = dataset.read(searched / "001/data")[0]
    assert row["context"].shape == (task.passages, task.passage_length)
    passages = {shown(task, passage) for passage in row["context"]}
    for question, answer in zip(row["questions"], row["answers"], strict=True):
        asked, said = shown(task, question), shown(task, answer)
        assert any(said in passage for passage in passages), (asked, said)


def test_evals_say_whether_the_search_found_what_was_needed(searched):
    lines = (searched / "001/evals.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(row["found"] for row in rows)
    assert all(row["ceiling"] for row in rows)  # told the truth, the overseer is right


def test_recall_stands_beside_accuracy(searched, capsys):
    main(["round", str(searched), "--n", "1"])
    assert "passages found" in capsys.readouterr().out
    main(["compare", str(searched), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert all(row["found"] == 1 for row in rows if row["n"])
    assert all("alone_if_found" in row for row in rows)


def test_a_passage_that_is_missed_lowers_recall(tmp_path, capsys):
    folder = experiment(tmp_path / "shy", task="follow_ups = 0\npassages = 1")
    main(["round", str(folder), "--n", "1"])
    capsys.readouterr()
    main(["compare", str(folder), "--json"])
    rows = json.loads(capsys.readouterr().out)
    recall = {row["class"]: row["found"] for row in rows if row["split"] == "final"}
    assert 0 == recall["2 hops"] < recall["1 hop"] < 1


def test_trees_and_questions_by_hand_are_read_in_words(searched, capsys, monkeypatch):
    main(["tree", str(searched), "--round", "1", "--row", "3", "--json"])
    tree = json.loads(capsys.readouterr().out)
    assert tree["steps"][0]["question"].startswith("search:")
    asked = iter([tree["question"], "what?", ""])
    monkeypatch.setattr("amplify.cli.output.input", lambda *_: next(asked))
    main(["ask", str(searched), "--amplify"])
    said = capsys.readouterr()
    assert "Questions such as" in said.out
    assert tree["answer"] in said.out
    assert "a question is such as" in " ".join(said.err.split())


def test_streaming_is_refused_where_contexts_are_found(tmp_path, capsys):
    folder = experiment(tmp_path / "streaming", training='targets = "streaming"')
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    assert "for tasks whose contexts are given" in capsys.readouterr().err
    assert not (folder / "000").exists()


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("passages = 0", "task.passages must be greater than or equal to 1"),
        ("seed = 1\npassage_length = 8", "task.passage_length must be at least"),
        ("seed = 1\nquestion_length = 8", "task.question_length must be at least"),
        ("seed = 1\nanswer_length = 8", "task.answer_length must be at least"),
    ],
)
def test_sizes_that_cannot_work_are_one_clear_line(task, said, tmp_path, capsys):
    folder = tmp_path / "search"
    folder.mkdir()
    text = TOML.format(task=task, training="")
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
