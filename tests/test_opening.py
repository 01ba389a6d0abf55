"""Reading an experiment file costs next to nothing; what takes longer is checked before round 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import checkpoint_folder
from tests.documents import asked_rows, jsonl, written

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.parent.name for path in ROOT.glob("rounds/*/experiment.toml"))

SEARCH = """
[task]
kind = "search"
regions = 64
{task}
[assistant]
kind = "language-model"
{assistant}
[overseer]
kind = "simulated"
"""
DOCUMENTS = """
[task]
kind = "documents"
documents = "../documents.jsonl"
questions = "../questions.jsonl"
{task}
[assistant]
kind = "language-model"
[overseer]
kind = "language-model"
pretrained = "../checkpoint"
prompt = "../prompt.txt"
{overseer}
"""


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of files that experiments in folders beside them name."""
    jsonl(tmp_path / "documents.jsonl")
    written(tmp_path / "questions.jsonl", asked_rows())
    row = {"question": "Who?", "answer": "Nobody", "documents": ["Nowhere"]}
    written(tmp_path / "nowhere.jsonl", [row])
    (tmp_path / "prompt.txt").write_text("Ask: or Conclude:", encoding="utf-8")
    checkpoint_folder(tmp_path / "checkpoint", positions=2048, texts=["is it big?"] * 9)
    return tmp_path


def with_file(folder: Path, toml: str, **lines: str) -> Path:
    lines = {"task": "", "assistant": "", "overseer": ""} | lines
    folder.mkdir()
    (folder / "experiment.toml").write_text(toml.format(**lines), encoding="utf-8")
    return folder


OPEN = """
import sys
from pathlib import Path

from amplify.runtime.device import compile_seconds
from amplify.overseers import continuation
from amplify.store import Store
from amplify.models.pretrained import pretrained
from amplify.models.pretrained import wording
from amplify.tasks.text import documents
from amplify.tasks.text import search
from amplify.tasks.text import retrieval

def heavy(*arguments, **options):
    raise AssertionError("something was built")

for module, name in [
    (documents, "Collection"),
    (documents, "read_documents"),
    (search, "Collection"),
    (search, "generate"),
    (retrieval, "train_tokenizer"),
    (retrieval, "load_tokenizer"),
    (wording, "open_tokenizer"),
    (pretrained, "open_tokenizer"),
    (pretrained, "load"),
]:
    assert hasattr(module, name)
    setattr(module, name, heavy)
for folder in sys.argv[1:]:
    experiment = Store(Path(folder)).experiment
    assert experiment.task.classes and experiment.task.max_depth, folder
assert compile_seconds() == 0
print("opened", len(sys.argv[1:]))
"""

ROUND = """
import contextlib
import sys

from amplify.cli import commands

for folder in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        commands.main(["round", folder, "--n", "1"])
        print("a round was run")
"""


def python(script: str, *folders: Path) -> subprocess.CompletedProcess:
    """Runs a script in a process of its own, where no arguments are type-checked: to check that
    something is a task is to ask for its vocabulary.
    """
    command = [sys.executable, "-c", script, *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_nothing_is_built_or_compiled_to_open_an_experiment(own):
    lines = {"task": 'tokenizer = "../checkpoint"', "assistant": 'pretrained = "../checkpoint"'}
    folders = [ROOT / "rounds" / name for name in EXPERIMENTS if name != "search-pretrained"]
    folders.append(with_file(own / "search", SEARCH, **lines))
    folders.append(with_file(own / "documents", DOCUMENTS, **lines))
    ran = python(OPEN, *folders)
    assert ran.stdout == f"opened {len(folders)}\n", ran.stderr


@pytest.mark.slow
def test_what_does_not_fit_is_one_line_before_anything_is_written(own):
    wrong = [
        (SEARCH, {"task": "passage_length = 3"}, "task.passage_length must be at least 19 for"),
        (SEARCH, {"task": "answer_length = 1"}, "task.answer_length must be at least 10 for"),
        (SEARCH, {"assistant": 'pretrained = "../checkpoint"'}, "the tokenizer has no single"),
        (
            DOCUMENTS,
            {"task": "question_length = 2"},
            "task.question_length must be at least 11 for",
        ),
        (DOCUMENTS, {"overseer": "line = 2000"}, "tokens, but the model has 2048 positions"),
        (
            DOCUMENTS.replace("questions.jsonl", "nowhere.jsonl"),
            {},
            "nowhere.jsonl: line 1: there is no document 'Nowhere'",
        ),
    ]
    folders = [
        with_file(own / str(number), toml, **lines) for number, (toml, lines, _) in enumerate(wrong)
    ]
    there = sorted(own.rglob("*"))
    ran = python(ROUND, *folders)
    assert ran.stdout == ""
    said = ran.stderr.splitlines()
    assert len(said) == len(wrong), ran.stderr
    for line, folder, (_, _, expected) in zip(said, folders, wrong, strict=True):
        assert line.startswith(f"amplify: {folder}/experiment.toml: ")
        assert expected in line
    assert sorted(own.rglob("*")) == there
