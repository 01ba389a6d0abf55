"""The README's worked example is the file that is there, and works."""

import re
from pathlib import Path

import huggingface_hub
import pytest

from amplify import round as page
from amplify.overseers.language_model import LanguageModelOverseer
from amplify.reading.derived import HEADING
from amplify.reading.experiment_file import read_experiment
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.tasks.text.encyclopedia import generate
from amplify.words import read_answer, read_question
from tests.checkpoints import checkpoint_folder
from tests.tasks import test_conformance as conformance
from tests.tiny import TOML, tiny_experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TALLY = (ROOT / "rounds/tally/tally.py").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tiny_experiment(
        tmp_path / "tiny", TOML.replace('"wildcard"\nletters = 3', '"tally.py:Tally"\nbits = 8')
    )
    (folder / "tally.py").write_text(TALLY, encoding="utf-8")
    return folder


def test_the_worked_example_is_in_the_readme_word_for_word_and_has_forty_lines_of_code():
    assert f"```python\n{TALLY}```" in README
    code = [line for line in TALLY.splitlines()[1:] if line.strip()]
    assert len([line for line in code if not line.startswith(("import ", "from "))]) <= 40


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.slow
def test_the_lines_of_python_in_the_readme_run(tmp_path, monkeypatch):
    tiny_experiment(tmp_path / "rounds/wildcard")
    monkeypatch.chdir(tmp_path)
    [lines] = re.findall(r"```python\n(import amplify\n.*?)```", README, re.DOTALL)
    assert len(lines.splitlines()) <= 11
    names: dict = {}
    exec(lines, names)
    assert names["experiment"].best.number <= 3
    assert len(names["answers"].texts[0]) == len(names["problems"].texts[0])


def test_the_worked_example_passes_what_every_task_must(folder):
    task = Store(folder).experiment.task
    assert task.bits == 8
    for name, check in vars(conformance).items():
        if name.startswith("test_") and "broken" not in name:
            check(task)


def test_the_worked_example_runs_a_round(folder):
    store = Store(folder)
    for number in (0, 1):
        page.run(store, number, unwatched)
    assert store.round(1).complete


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Every checkpoint on the hub is one tiny folder."""
    texts = [f" {text}" for _, text in generate(512, 0).documents]
    checkpoint_folder(tmp_path / "checkpoint", texts=texts, tokens=1500, positions=4096)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / "checkpoint")
    )


@pytest.mark.usefixtures("hub")
def test_every_experiment_here_can_be_read_and_opens_with_its_command():
    files = sorted((ROOT / "rounds").glob("*/experiment.toml"))
    assert len(files) >= 3
    for file in files:
        text = file.read_text(encoding="utf-8")
        if text.startswith(HEADING):  # left by --as or --seeds
            continue
        assert read_experiment(file).values["seed"] == 0
        assert re.match(r"(#.*\n)+# Run: +make (rounds?|regression)\b", text), file


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"\]\(([^)#:]+)\)", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_the_prompt_for_overseers_shows_can_be_said():
    overseer = read_experiment(ROOT / "rounds/search-overseen/experiment.toml").overseer
    assert isinstance(overseer, LanguageModelOverseer)
    _, _, examples = overseer.backend.instructions.partition("Examples:")
    lines = [line for line in examples.splitlines() if line]
    assert len(lines) > 8
    for line in lines:
        kind, _, text = line.partition(": ")
        read = read_question if kind in ("Question", "Ask") else read_answer
        assert read(overseer.task, text).any(), line
