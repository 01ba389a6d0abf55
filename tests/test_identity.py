"""Content is identity: what an experiment reads, and what its rounds descend from."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from amplify.cli import commands
from amplify.errors import AmplifyError, round_command
from amplify.experiment import sections
from amplify.reading import content
from amplify.reading.derived import derive
from amplify.reading.experiment_file import read_experiment
from amplify.records import provenance
from amplify.store import Store
from tests.tiny import JUDGED_ESSAYS, TOML, tiny_experiment

TASK = "from amplify.tasks.algorithmic.wildcard import Wildcard\nfrom helper import NAME\n"
TASK += "class Mine(Wildcard):\n    name = NAME\n"
OWN = TOML.replace('"wildcard"', '"mine.py:Mine"')


def digest(folder: Path) -> str:
    return read_experiment(folder / "experiment.toml").digest


def edit(path: Path, was: str, becomes: str) -> None:
    """Changes bytes, and neither the size nor the times that the file system remembers."""
    times = path.stat()
    text = path.read_text(encoding="utf-8")
    assert was in text
    path.write_text(text.replace(was, becomes), encoding="utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def begun(folder: Path, number: int = 1, **facts) -> Store:
    """A round of which nothing is there but its record."""
    store = Store(folder)
    this = store.round(number)
    this.begin(provenance.describe(store.experiment, None) | facts)
    trained = {"digests": {"assistant": f"digest of {number}"}}
    this.stage("distillation/checkpoint", lambda: trained)
    return Store(folder)


@pytest.fixture
def documents(tmp_path) -> Path:
    """An experiment over two documents of its own, answered by people."""
    folder = tiny_experiment(
        tmp_path / "mine",
        """
[task]
kind = "documents"
documents = "docs"
questions = "questions.jsonl"

[assistant]
kind = "language-model"
width = 16
heads = 2
key_heads = 2

[overseer]
kind = "human"
others = "nobody"
items = 4
guide = "guide.txt"
""",
    )
    (folder / "docs").mkdir()
    (folder / "docs/Battle.txt").write_text("Waterloo was fought in 1815 near Brussels.")
    (folder / "docs/Town.md").write_text("Brussels is a town in Belgium.")
    (folder / "guide.txt").write_text("Be careful.")
    rows = [
        {"question": "When was it fought?", "answer": "1815", "documents": ["Battle"]},
        {"question": "Where is Brussels?", "answer": "Belgium", "documents": ["Town"]},
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("file", "was", "becomes"),
    [
        ("docs/Battle.txt", "1815", "1999"),
        ("questions.jsonl", "Belgium", "Flander"),
        ("guide.txt", "careful", "hurried"),
    ],
)
def test_an_edited_file_is_another_experiment_and_is_named(documents, file, was, becomes):
    before = digest(documents)
    begun(documents)
    edit(documents / file, was, becomes)
    assert digest(documents) != before
    with pytest.raises(AmplifyError) as error:
        Store(documents)
    assert f"{documents / file} was edited after round 1 was run" in str(error.value)
    assert "\n" not in str(error.value)
    edit(documents / file, becomes, was)
    assert digest(documents) == before
    assert Store(documents).rounds() == [1]


def test_a_document_that_is_added_or_renamed_is_another_experiment(documents):
    before = digest(documents)
    (documents / "docs/notes.swp").write_text("no document")
    assert digest(documents) == before
    (documents / "docs/More.txt").write_text("More.")
    added = digest(documents)
    (documents / "docs/More.txt").rename(documents / "docs/Less.txt")
    assert len({before, added, digest(documents)}) == 3


def test_the_advice_for_an_edited_file_makes_an_experiment_that_has_it(documents):
    begun(documents)
    edit(documents / "docs/Battle.txt", "1815", "1999")
    edited = digest(documents)
    with pytest.raises(AmplifyError) as error:
        Store(documents)
    follow(str(error.value))
    edit(documents / "docs/Battle.txt", "1999", "1815")
    assert Store(documents).rounds() == [1]
    new = documents.with_name("mine-2")
    assert sorted(path.name for path in new.iterdir()) == ["docs", "experiment.toml"]
    assert digest(new) == edited


def test_the_advice_for_edited_code_of_the_base_copies_that_file_only(tmp_path):
    base = tiny_experiment(tmp_path / "base", TOML.replace('"wildcard"', '"mine.py:Mine"'))
    code = (
        "from amplify.tasks.algorithmic.wildcard import Wildcard\nclass Mine(Wildcard):\n    pass\n"
    )
    (base / "mine.py").write_text(code)
    folder = tiny_experiment(tmp_path / "tiny", 'base = "../base"\ntraining.steps = 80\n')
    begun(folder)
    (base / "mine.py").write_text(f"{code}\n# edited\n")
    edited = digest(folder)
    with pytest.raises(AmplifyError) as error:
        Store(folder)
    follow(str(error.value))
    (base / "mine.py").write_text(code)
    assert Store(folder).rounds() == [1]
    new = tmp_path / "tiny-2"
    assert sorted(path.name for path in new.iterdir()) == ["experiment.toml", "mine.py"]
    assert digest(new) == edited


def follow(advice: str) -> None:
    """Runs the command of an error about a changed experiment."""
    [command] = re.findall(r"a folder of its own: (.*?), (?:write|and undo)", advice)
    subprocess.run(command, shell=True, check=True)


@pytest.mark.parametrize("named", ["path", "dot"])
def test_the_advice_for_a_changed_key_is_an_experiment_that_says_only_that(
    tmp_path, monkeypatch, named
):
    folder = tiny_experiment(tmp_path / "tiny's")
    begun(folder)
    before = digest(folder)
    edit(folder / "experiment.toml", "steps = 60", "steps = 80")
    edited = digest(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(AmplifyError) as error:
        Store(folder if named == "path" else Path())
    [command] = re.findall(r"undo the change here, and run: (.*)$", str(error.value))
    edit(folder / "experiment.toml", "steps = 80", "steps = 60")
    assert digest(folder) == before
    experiment, new = settings_of(command)
    assert digest(derive(experiment, new, {"training.steps": 80}).write()) == edited
    assert new.resolve() == tmp_path / "tiny's-2"


def settings_of(command: str) -> tuple[Path, Path]:
    """The experiment and the new folder of a command that runs it with 80 steps."""
    _, of = command.split(" round ", 1)
    experiment, *options, folder = shlex.split(of)
    assert options == ["--n", "1", "--set", "training.steps=80", "--as"]
    return Path(experiment), Path(folder)


def test_the_advice_for_another_kind_is_an_experiment_with_all_that_differs(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny")
    begun(folder)
    with (folder / "experiment.toml").open("a") as file:
        file.write('\n[oversight]\nkind = "truth"\n')
    with pytest.raises(
        AmplifyError, match=r"write there what differs \(oversight.kind\), and undo"
    ):
        Store(folder)


def test_the_weights_configuration_and_tokenizer_of_a_checkpoint_are_content(tmp_path):
    names = ["config.json", "tokenizer.json", "merges.txt", "model.safetensors"]
    for name in [*names, "README.md", "pytorch_model.bin"]:
        (tmp_path / name).write_text("0")
    seen = {content.combine_hashes(content.files_read("pretrained", str(tmp_path)))}
    for name in names:
        edit(tmp_path / name, "0", "1")
        seen.add(content.combine_hashes(content.files_read("pretrained", str(tmp_path))))
    assert len(seen) == 1 + len(names)
    (tmp_path / "README.md").write_text("1")
    assert content.combine_hashes(content.files_read("pretrained", str(tmp_path))) in seen
    assert "model.safetensors" not in content.files_read("tokenizer", str(tmp_path))


def test_weights_that_lie_beside_those_that_are_read_are_no_content(tmp_path):
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        (tmp_path / name).write_text("0")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shards = {"model-1.safetensors", "model-2.safetensors"}
    read = content.files_read("pretrained", str(tmp_path))
    assert set(read) == {*shards, "model.safetensors.index.json"}
    (tmp_path / "model.safetensors").write_text("0")
    assert not shards & set(content.files_read("pretrained", str(tmp_path)))


def test_a_large_file_is_read_once_and_again_when_it_changed(tmp_path, monkeypatch):
    path, reads = tmp_path / "model.safetensors", []
    file_digest = content.hashlib.file_digest
    monkeypatch.setattr(
        content.hashlib, "file_digest", lambda *of: reads.append(1) or file_digest(*of)
    )
    path.write_bytes(b"0" * content.LARGE)
    first = content.sha256_of(path)
    assert content.sha256_of(path) == first
    assert len(reads) == 1
    path.write_bytes(b"1" * content.LARGE)
    os.utime(path, ns=(0, 0))
    assert content.sha256_of(path) != first


@pytest.fixture
def own(tmp_path) -> Path:
    folder = tiny_experiment(tmp_path / "own", OWN)
    (folder / "mine.py").write_text(TASK)
    (folder / "helper.py").write_text("from deeper.names import NAME\n")
    (folder / "deeper").mkdir()
    (folder / "deeper/__init__.py").write_text("")
    (folder / "deeper/names.py").write_text('NAME = "first"\n')
    (folder / "notes.py").write_text("1 / 0\n")
    return folder


def test_modules_that_a_task_imports_from_its_folder_are_content(own):
    before = read_experiment(own / "experiment.toml")
    assert before.task.name == "first"
    assert set(before.files["task.source"]) == {
        "mine.py", "helper.py", "deeper/__init__.py", "deeper/names.py",
    }  # fmt: skip
    begun(own)
    edit(own / "notes.py", "1", "2")
    assert digest(own) == before.digest
    edit(own / "deeper/names.py", "first", "other")
    assert digest(own) != before.digest
    assert read_experiment(own / "experiment.toml").task.name == "other"
    with pytest.raises(AmplifyError, match=r"deeper/names.py was edited after round 1"):
        Store(own)
    assert not list(own.rglob("__pycache__"))


def test_a_module_that_a_function_imports_is_content_and_is_found_then(own):
    lazy = "def lazily():\n    from later import NUMBER\n    return NUMBER\n"
    (own / "mine.py").write_text(TASK + lazy)
    (own / "later.py").write_text("NUMBER = 7\n")
    read = read_experiment(own / "experiment.toml")
    assert "later.py" in read.files["task.source"]
    assert sys.modules[type(read.task).__module__].lazily() == 7


def test_modules_of_the_same_name_in_two_experiments_are_not_mixed_up(own, tmp_path):
    other = Path(shutil.copytree(own, tmp_path / "other"))
    edit(other / "deeper/names.py", "first", "other")
    names = [read_experiment(f / "experiment.toml").task.name for f in (own, other, own)]
    assert names == ["first", "other", "first"]


def test_a_task_file_works_through_base(own, tmp_path):
    derived = tiny_experiment(tmp_path / "derived", 'base = "../own"\n')
    assert read_experiment(derived / "experiment.toml").task.name == "first"
    assert digest(derived) == digest(own)


@pytest.mark.parametrize("place", ["{elsewhere}/mine.py", "../elsewhere/mine.py", "a/../../x.py"])
def test_a_task_file_outside_the_folder_is_refused_and_not_run(tmp_path, place):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (elsewhere / "mine.py", tmp_path / "x.py"):
        file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    toml = TOML.replace('"wildcard"', f'"{place.format(elsewhere=elsewhere)}:Mine"')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError, match="must name a file in the experiment's folder or its"):
        read_experiment(folder / "experiment.toml")
    (folder / "mine.py").symlink_to(elsewhere / "mine.py")
    (folder / "experiment.toml").write_text(OWN)
    with pytest.raises(AmplifyError, match=f"is a link to {elsewhere}"):
        read_experiment(folder / "experiment.toml")
    assert not (tmp_path / "ran").exists()


def test_comparing_runs_no_code_of_the_folder(own):
    begun(own)
    (own / "mine.py").write_text(f"open({str(own / 'ran')!r}, 'w')\n")
    store = Store(own, runs_code=False)
    assert store.experiment.task.classes == ("1 wildcard", "2 wildcards", "3 wildcards")
    assert store.experiment.values["training.steps"] == 60
    assert [measure.name for measure in store.experiment.measures] == [
        "alone",
        "amplified",
        "ceiling",
    ]
    assert not (own / "ran").exists()


def test_postponed_annotations_work_in_a_task_file(tmp_path):
    folder = tiny_experiment(tmp_path / "own", OWN.replace("letters = 3", "letters = 3\nmore = 2"))
    (folder / "mine.py").write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "from typing import Annotated\nfrom pydantic import Field\n"
        "from amplify.tasks.algorithmic.wildcard import Wildcard\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Wildcard):\n"
        "    more: Annotated[int, Field(ge=1)] = 1\n"
    )
    assert read_experiment(folder / "experiment.toml").task.more == 2


def test_a_round_from_before_gates_had_a_measure_can_be_continued(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny")
    begun(folder)
    path = folder / "001/record.json"
    record = json.loads(path.read_text())
    del record["experiment"]["gate.measure"], record["measures"]
    del record["experiment"]["evals.seed"]
    path.write_text(json.dumps(record))
    store = Store(folder)
    store.check_current()
    assert store.experiment.gate.measure == "alone"
    assert store.experiment.digest == record["experiment_digest"]
    with (folder / "experiment.toml").open("a") as toml:
        toml.write('[gate]\nmeasure = "amplified"\n')
    with pytest.raises(AmplifyError, match=r"gate.measure \('alone' -> 'amplified'\)"):
        Store(folder)


def test_a_round_from_before_a_table_had_a_key_can_be_continued(tmp_path, monkeypatch):
    """The key belongs to a table in a section, and implies 16 where it is missing."""
    monkeypatch.setitem(sections.ADDED_KEYS, "oversight.reward_model.width", 16)
    folder = tiny_experiment(tmp_path / "tiny", JUDGED_ESSAYS)
    begun(folder)
    path = folder / "001/record.json"
    record = json.loads(path.read_text())
    del record["experiment"]["oversight.reward_model"]["width"]
    path.write_text(json.dumps(record))
    Store(folder).check_current()
    edit(folder / "experiment.toml", "width = 16\n\n[oversight.fit", "width = 32\n\n[oversight.fit")
    with pytest.raises(AmplifyError, match=r"oversight.reward_model.width \(16 -> 32\)"):
        Store(folder)


def test_the_digest_leaves_out_added_keys_of_tables_with_the_value_that_is_implied(
    tmp_path, monkeypatch
):
    folder = tiny_experiment(tmp_path / "tiny", JUDGED_ESSAYS)
    values = {**read_experiment(folder / "experiment.toml").values}
    older = {**values, "oversight.reward_model": {**values["oversight.reward_model"]}}
    del older["oversight.reward_model"]["width"]
    assert sections.identity_values(values) != sections.identity_values(older)
    monkeypatch.setitem(sections.ADDED_KEYS, "oversight.reward_model.width", 16)
    assert sections.identity_values(values) == sections.identity_values(older)
    monkeypatch.setitem(sections.ADDED_KEYS, "oversight.reward_model.width", 8)
    assert sections.identity_values(values) != sections.identity_values(older)


def test_a_table_that_an_experiment_does_not_have_gets_no_added_keys(tmp_path, monkeypatch):
    monkeypatch.setitem(sections.ADDED_KEYS, "oversight.reward_model.width", 16)
    folder = tiny_experiment(tmp_path / "tiny")
    begun(folder)
    Store(folder).check_current()


@pytest.mark.parametrize(
    ("toml", "known"), [(TOML, "4e695df061650786"), (JUDGED_ESSAYS, "88d043c7876003bc")]
)
def test_digests_of_experiments_stay_as_they_were(tmp_path, toml, known):
    """Those of rounds that were run: another digest would begin the experiment anew."""
    assert digest(tiny_experiment(tmp_path / "tiny", toml)).startswith(known)


def test_a_record_of_an_earlier_version_can_be_compared_and_not_continued(documents):
    begun(documents)
    path = documents / "001/record.json"
    record = json.loads(path.read_text())
    del record["identity"], record["files"]
    record["experiment"]["task.documents (content)"] = "by names and sizes"
    path.write_text(json.dumps(record))
    store = Store(documents)
    with pytest.raises(
        AmplifyError, match=r"another version of Amplify, which recorded task.documents"
    ):
        store.check_current()
    del record["experiment"]["task.documents (content)"], record["experiment"]["training.b2"]
    path.write_text(json.dumps(record))
    with pytest.raises(
        AmplifyError, match=r"another version of Amplify, .* \(content\), training.b2 differently:"
    ):
        Store(documents).check_current()
    record["experiment"]["training.steps"] = 61
    path.write_text(json.dumps(record))
    with pytest.raises(AmplifyError, match=r"training.steps \(61 -> 1000\)"):
        Store(documents)


def lineage(folder: Path) -> None:
    """Rounds 1 and 2, each trained from the one before."""
    begun(folder, 0)
    begun(folder, 1, parent={"round": 0, "digest": "digest of 0"})
    begun(folder, 2, parent={"round": 1, "digest": "digest of 1"})


COMMANDS = [
    ["round", "{}", "--n", "2"],
    ["rounds", "{}"],
    ["compare", "{}"],
    ["tree", "{}", "--round", "2", "--row", "0"],
    ["replay", "{}", "--round", "2"],
    ["export", "{}", "{}/out", "--round", "2"],
    ["ask", "{}", "--round", "2"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_parent_that_is_not_the_recorded_one_is_noticed_by_every_command(
    tmp_path, capsys, command, change
):
    folder = tiny_experiment(tmp_path / "tiny")
    lineage(folder)
    if change == "gone":
        shutil.rmtree(folder / "001")
    else:
        edit(folder / "001/record.json", "digest of 1", "digest of X")
    with pytest.raises(SystemExit) as end:
        commands.main([part.format(folder) for part in command])
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{folder}: round 2 was trained from round 1, which" in line
    assert f"rm -r {folder}/002 && {round_command(folder, 2)}" in line
    assert (folder / "001").exists() == (change == "another")


def test_a_parent_that_is_being_made_again_is_waited_for(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny")
    lineage(folder)
    Store(folder).round(1).undo("checkpoint")
    store = Store(folder)
    with pytest.raises(AmplifyError, match=re.escape(f"to rerun it: {round_command(folder, 1)}")):
        store.parent_of(store.round(2))


def claimed(folder: Path) -> bool:
    """Whether a training state that is there is still there when a training begins."""
    store = Store(folder)
    state = store.round(1).phase("distillation").training / "30"
    store.round(1).claim_training(store.experiment, "distillation")
    return state.exists()


@pytest.mark.parametrize(
    "change", [{"learning_rate": "1e-3"}, {"parent": "another"}, {"data": "another"}]
)
def test_a_training_state_belongs_to_its_experiment_parent_and_data(
    tmp_path, capsys, monkeypatch, change
):
    monkeypatch.setattr("amplify.records.lineage.check_parents", lambda *_: None)
    folder = tiny_experiment(tmp_path / "tiny")

    def begin(learning_rate: str = "1e-2", parent: str = "one", data: str = "one") -> None:
        """As after `rm 001/record.json`: what else is there stays."""
        (folder / "001/record.json").unlink(missing_ok=True)
        (folder / "experiment.toml").write_text(TOML.replace("1e-2", learning_rate))
        store = Store(folder)
        this = store.round(1)
        this.begin(provenance.describe(store.experiment, {"round": 0, "digest": parent}))
        this.stage("distillation/data", lambda: {"digest": data})

    begin()
    assert not claimed(folder)
    (folder / "001/distillation/training/30").mkdir()
    assert claimed(folder)
    assert capsys.readouterr().err == ""
    begin(**change)
    assert not claimed(folder)
    assert capsys.readouterr().err.count("\n") == 1


def test_each_stage_says_what_code_made_it(tmp_path, monkeypatch):
    folder = tiny_experiment(tmp_path / "tiny")
    made = {"commit": "first", "dirty": False}
    monkeypatch.setattr(provenance, "commit", lambda _: dict(made))
    begun(folder)
    made |= {"commit": "second", "dirty": True}
    this = Store(folder).round(1)
    this.stage("evals", dict)
    stages = Store(folder).round(1).record["stages"]
    told = {name: (entry["commit"], entry["dirty"]) for name, entry in stages.items()}
    assert told == {"distillation/checkpoint": ("first", False), "evals": ("second", True)}
    assert {"python", "versions", "device"} <= set(stages["evals"])


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *settings, *arguments], check=True, capture_output=True)


def test_stages_record_the_commit_of_the_code_that_is_run():
    """Where the tests run in a checkout, which the code is found at the top of."""
    assert (provenance.PACKAGE / "__init__.py").is_file()
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        pytest.skip("the tests do not run in a git checkout")
    provenance.commit.cache_clear()
    assert re.fullmatch("[0-9a-f]{40}", provenance.made_by()["commit"])


def test_only_the_commit_of_this_project_is_recorded(tmp_path):
    """Not that of whatever repository a virtual environment happens to lie in."""
    package = tmp_path / "site-packages/amplify"
    package.mkdir(parents=True)
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    assert provenance.commit(package) == {"commit": None, "dirty": None}
    ours = tmp_path / "checkout"
    (ours / "amplify").mkdir(parents=True)
    (ours / "amplify/code.py").write_text("1\n")
    (ours / "pyproject.toml").write_text('[project]\nname = "amplify"\n')
    git(ours, "init")
    git(ours, "add", ".")
    git(ours, "commit", "-m", "ours")
    provenance.commit.cache_clear()
    found = provenance.commit(ours / "amplify")
    assert len(found["commit"]) == 40
    assert found["dirty"] is False
    for file in ("amplify/new.py", "amplify/code.py"):
        (ours / file).write_text("2\n")
        provenance.commit.cache_clear()
        assert provenance.commit(ours / "amplify")["dirty"] is True
        git(ours, "add", ".")
        git(ours, "commit", "-m", "more")
    (ours / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    provenance.commit.cache_clear()
    assert provenance.commit(ours / "amplify")["commit"] is None
    provenance.commit.cache_clear()
