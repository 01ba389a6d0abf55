"""Rounds whose contexts are found by a search, from the questions to the table."""

import json
import shutil

import pytest
import torch
import transformers

from amplify.cli.commands import main
from amplify.store import Store
from amplify.tasks.text.encyclopedia import generate
from amplify.tasks.text.search import Search
from amplify.training import dataset
from amplify.words import format_tokens
from tests.checkpoints import checkpoint_folder

pytestmark = pytest.mark.slow

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
    row = dataset.read(searched / "001/distillation/data")[0]
    assert row["context"].shape == (task.passages, task.passage_length)
    passages = {format_tokens(task, passage) for passage in row["context"]}
    for question, answer in zip(row["questions"], row["answers"], strict=True):
        asked, said = format_tokens(task, question), format_tokens(task, answer)
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
    main(["compare", str(folder)])
    for page in (folder / "compare.html", folder / "001/report.html"):
        text = page.read_text(encoding="utf-8")
        assert "<th>passages found</th><th>alone, if found</th>" in text
        assert f"{100 * recall['1 hop']:.1f} <small>" in text


def test_trees_and_questions_by_hand_are_read_in_words(searched, capsys, monkeypatch):
    main(["tree", str(searched), "--round", "1", "--row", "3", "--json"])
    tree = json.loads(capsys.readouterr().out)
    assert tree["steps"][0]["question"].startswith("search:")
    asked = iter([tree["question"], "what?", ""])
    monkeypatch.setattr("amplify.terminal.output.input", lambda *_: next(asked))
    main(["ask", str(searched), "--amplify"])
    said = capsys.readouterr()
    assert "Questions such as" in said.out
    asked_of = tree["question"].rstrip("?").split()[-1]
    passages = said.out.partition("from:")[2]
    assert asked_of in passages  # what the answer rests on
    assert tree["answer"] in said.out
    assert "a question is such as" in " ".join(said.err.split())


def test_streaming_is_refused_where_contexts_are_found(tmp_path, capsys):
    folder = experiment(tmp_path / "streaming", training='targets = "streaming"')
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    assert "for a task that searches for its contexts" in capsys.readouterr().err
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


PRETRAINED = """
[task]
kind = "search"
regions = 64
hops = 2
tokenizer = "../checkpoint"
passage_length = 60
question_length = 50
answer_length = 40

[assistant]
kind = "language-model"
pretrained = "../checkpoint"
chat = {chat}
lora_rank = {rank}

[overseer]
kind = "simulated"

[questions]
contexts = 16
per_context = 4

[training]
steps = 4
batch = 8
accumulate = 2
warmup_steps = 1
log_every = 1
look_every = 4
checkpoint_every = 1

[evals]
select = 8
final = 8
"""


def pretrained_experiment(folder, *, chat: bool, rank: int = 0, **checkpoint):
    texts = [f" {text}" for _, text in generate(64, 0).documents]
    checkpoint_folder(
        folder / "checkpoint", texts=texts, tokens=700, positions=1024, chat=chat, **checkpoint
    )
    (folder / "search").mkdir()
    text = PRETRAINED.format(chat=str(chat).lower(), rank=rank)
    (folder / "search/experiment.toml").write_text(text, encoding="utf-8")
    return folder / "search"


def test_a_checkpoint_searches_in_its_own_spelling_and_is_adapted(tmp_path):
    folder = pretrained_experiment(tmp_path, chat=True, rank=4)
    main(["round", str(folder), "--n", "1"])
    experiment = Store(folder).experiment
    model, task = experiment.assistant, experiment.task
    row = dataset.read(folder / "001/distillation/data")[0]
    laid_out = model.lay_out({key: row[key][None] for key in ("context", "questions", "answers")})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    read = tokenizer.decode([token for token in laid_out["context"][0] if token >= 0])
    assert read.startswith("<|user|> ")
    assert format_tokens(task, row["context"][0]) in read
    line = laid_out["tokens"][0, 0]
    asked = tokenizer.decode([token for token in line if token >= 0])
    assert "?</s><|assistant|> " in asked
    main(["export", str(folder), str(tmp_path / "out"), "--round", "1"])
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    before = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    changed = [
        name
        for (name, new), old in zip(exported.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    ]
    assert changed
    assert all("_proj" in name for name in changed)


def test_a_checkpoint_without_a_chat_template_is_one_clear_line(tmp_path, capsys):
    folder = pretrained_experiment(tmp_path, chat=False)
    file = folder / "experiment.toml"
    text = file.read_text(encoding="utf-8").replace("chat = false", "chat = true")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    assert "has no chat template; assistant.chat must be false" in capsys.readouterr().err


def test_a_tokenizer_with_more_tokens_than_the_model_is_one_clear_line(tmp_path, capsys):
    folder = pretrained_experiment(tmp_path, chat=False)
    checkpoint_folder(tmp_path / "other", texts=["a b c"], tokens=300)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "checkpoint" / name, tmp_path / "other" / name)
    file = folder / "experiment.toml"
    text = file.read_text(encoding="utf-8").replace("../checkpoint", "../other")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    assert "the tokenizer has 700 tokens, but the model 260" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../nowhere", "not a name"])
def test_a_checkpoint_that_is_not_there_is_one_clear_line(name, tmp_path, capsys):
    folder = experiment(tmp_path / "search", task=f'tokenizer = "{name}"')
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err
    assert f"{name}: no such folder" in line
    assert line.count("\n") == 1
