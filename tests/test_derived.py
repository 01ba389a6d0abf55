"""Experiments that are derived from others: `--set ... --as ...` and `--seeds`."""

import json
import os
import shutil
import string
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.cli import commands, variants
from amplify.errors import AmplifyError
from amplify.files import toml
from amplify.reading.derived import derive, with_seeds
from amplify.reading.experiment_file import read_experiment
from tests.test_cli import ROOT, refused
from tests.tiny import JUDGED_ESSAYS, TOML, tiny_experiment

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.one_of(
    NAMES,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
TABLES = st.dictionaries(NAMES, st.one_of(VALUES, st.dictionaries(NAMES, VALUES)), max_size=4)


@pytest.fixture
def tiny(tmp_path) -> Path:
    return tiny_experiment(tmp_path / "tiny")


def everything(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@given(TABLES)
def test_what_is_written_as_toml_is_read_as_the_same(table):
    assert tomllib.loads(toml.dumps(table)) == table


def test_a_derived_experiment_says_only_what_differs(tiny):
    changes = {"training.steps": 30, "training.batch": 4, "seed": 2, "overseer.noise": 0.1}
    path = derive(tiny, tiny.with_name("other"), changes).write()
    assert [entry.name for entry in path.iterdir()] == ["experiment.toml"]
    text = (path / "experiment.toml").read_text(encoding="utf-8")
    assert text == (
        "# Derived from tiny; differs in: training.steps, training.batch, seed, overseer.noise\n"
        'base = "../tiny"\nseed = 2\n\n[training]\nsteps = 30\nbatch = 4\n\n'
        "[overseer]\nnoise = 0.1\n"
    )
    derived, base = (read_experiment(one / "experiment.toml").values for one in (path, tiny))
    assert {key: value for key, value in derived.items() if base[key] != value} == changes
    assert sorted(entry.name for entry in tiny.parent.iterdir()) == ["other", "tiny"]


def test_a_key_of_a_table_in_a_section_leaves_the_other_keys_of_the_table(tmp_path):
    folder = tiny_experiment(tmp_path / "judged", JUDGED_ESSAYS)
    changes = {"oversight.reward_model.members": 1, "oversight.fitting.steps": 7}
    oversight = read_experiment(
        derive(folder, tmp_path / "one", changes).write() / "experiment.toml"
    ).oversight
    assert (oversight.reward_model.members, oversight.reward_model.width) == (1, 16)
    assert (oversight.fitting.steps, oversight.fitting.learning_rate) == (7, 1e-2)
    assert oversight.drafts.steps == 60


def test_a_derived_experiment_in_another_folder_finds_its_base_from_anywhere(tiny, monkeypatch):
    (tiny.parent / "far").mkdir()
    (tiny.parent / "link").symlink_to("far", target_is_directory=True)
    monkeypatch.chdir(tiny)
    path = derive(Path(), Path("../link/deep/other"), {"training.steps": 30}).write()
    monkeypatch.chdir("/")
    found = read_experiment(tiny.parent / "far/deep/other/experiment.toml")
    assert path == Path("../link/deep/other")
    assert found.values["training.steps"] == 30


def test_a_derived_experiment_may_use_its_bases_own_code(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace('"wildcard"', '"mine.py:Mine"'))
    (folder / "mine.py").write_text(
        "from amplify.tasks.algorithmic.wildcard import Wildcard\nclass Mine(Wildcard):\n    pass\n"
    )
    path = derive(folder, tmp_path / "other", {"task.letters": 4}).write()
    assert read_experiment(path / "experiment.toml").task.letters == 4


def test_an_experiment_that_is_there_is_continued_and_any_other_is_refused(tiny):
    other = tiny.with_name("other")
    first = derive(tiny, other, {"training.steps": 30})
    first.write()
    (other / "notes.txt").write_text("mine")
    before = everything(tiny.parent)
    derive(tiny, other, {"training.steps": 30}).write()
    for changes in ({"training.steps": 40}, {"training.steps": 30, "seed": 1}):
        with pytest.raises(AmplifyError, match="already there with other contents"):
            derive(tiny, other, changes)
    assert everything(tiny.parent) == before
    (other / "experiment.toml").unlink()
    with pytest.raises(AmplifyError, match="already there and is no experiment"):
        first.write()
    (tiny.parent / "file").write_text("")
    with pytest.raises(AmplifyError, match="already there and is no experiment"):
        derive(tiny, tiny.parent / "file", {"training.steps": 30})


def test_an_experiment_that_cannot_be_written_leaves_nothing(tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        derive(tiny, tiny.with_name("other"), {"training.steps": 30}).write()
    assert [entry.name for entry in tiny.parent.iterdir()] == ["tiny"]


def test_experiments_of_seeds_have_the_same_held_out_questions(tiny):
    own, *others = with_seeds(tiny, [0, 2, 5])
    assert own == tiny
    assert [one.path.name for one in others] == ["tiny-seed-2", "tiny-seed-5"]
    for seed, one in zip((2, 5), others, strict=True):
        found = read_experiment(one.write() / "experiment.toml")
        assert (found.seed, found.evals_seed) == (seed, 0)
    again = with_seeds(tiny.with_name("tiny-seed-5"), [7])[0]
    assert read_experiment(again.write() / "experiment.toml").evals_seed == 0


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("training.steps=500", "training.steps", 500),
        ("training.learning_rate=1e-3", "training.learning_rate", 1e-3),
        ("overseer.kind=learned", "overseer.kind", "learned"),
        ('overseer.kind="learned"', "overseer.kind", "learned"),
        ("evals.apart = false", "evals.apart", False),
        ("questions.deepest=[1, 2]", "questions.deepest", [1, 2]),
        ("overseer.prompt=a=b.txt", "overseer.prompt", "a=b.txt"),
        ("task.name=1979-05-27", "task.name", "1979-05-27"),
        ("task.name=1\nseed=2", "task.name", "1\nseed=2"),
        ("task.name=", "task.name", ""),
    ],
)
def test_a_setting_is_toml_or_a_bare_word(setting, key, value):
    assert variants.read_settings([setting]) == {key: value}


@given(st.text(string.printable, max_size=20))
def test_any_text_for_seeds_is_seeds_or_one_clear_line(text):
    said = ""
    try:
        seeds = variants.read_seeds(text)
    except AmplifyError as error:
        said, seeds = str(error), []
    assert said.startswith("--seeds: must be ") != bool(seeds)
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "training.steps=500"], "--set: needs --as FOLDER"),
        (["--as", "{new}"], "--as: needs --set KEY=VALUE"),
        (["--set", "training.steps", "--as", "{new}"], "must be KEY=VALUE"),
        (["--set", "=3", "--as", "{new}"], "must be KEY=VALUE"),
        (["--set", "seed=1", "--set", "seed=2", "--as", "{new}"], "seed is given twice"),
        (["--set", "seed=1", "--set", "seed.x=2", "--as", "{new}"], "seed.x is given twice"),
        (
            ["--set", "training.stepz=5", "--as", "{new}"],
            "training.stepz; did you mean training.steps?",
        ),
        (["--set", "a.b.c=5", "--as", "{new}"], "--set: unknown key a"),
        (["--set", "base=../x", "--as", "{new}"], "--set: unknown key base"),
        (["--set", "training=5", "--as", "{new}"], "--set: training must be a table"),
        (
            ["--set", "training.steps=many", "--as", "{new}"],
            "--set: training.steps must be a whole number, got 'many'",
        ),
        (["--set", "training.batch=97", "--as", "{new}"], "--set: training.batch must be at most"),
        (["--set", f"seed={'9' * 5000}", "--as", "{new}"], "--set: seed must have at most"),
        (["--set", "training.steps=5", "--as", "{tiny}"], "needs a folder of its own"),
        (["--set", "training.steps=5", "--as", "{tiny}/.."], "is no experiment"),
        (["--seeds", "0,1,x"], "--seeds: must be whole numbers, such as 0,1,2, got '0,1,x'"),
        (["--seeds", "0,,1"], "--seeds: must be whole numbers"),
        (["--seeds", ""], "--seeds: must be whole numbers"),
        (["--seeds", "1,1"], "--seeds: must be different numbers"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "4294967296"], "--seeds: must be less than 4294967296"),
        (["--seeds", "0,1", "--redo", "evals"], "--redo: works on one experiment"),
    ],
)
def test_bad_variants_are_one_line_and_nothing_is_written(tiny, capsys, arguments, said):
    new = tiny.with_name("new")
    before = everything(tiny.parent)
    filled = [one.replace("{new}", str(new)).replace("{tiny}", str(tiny)) for one in arguments]
    assert said in refused(capsys, "round", str(tiny), "--n", "1", *filled)
    assert everything(tiny.parent) == before
    assert not new.exists()


def test_a_seed_that_was_not_run_is_named_with_the_command_that_runs_it(tiny, capsys):
    said = refused(capsys, "compare", str(tiny), "--seeds", "0,7")
    assert f"{tiny}-seed-7: seed 7 of {tiny} was not run yet; run: " in said
    assert "--n 1 --seeds 7" in said


def test_seeds_that_cannot_be_written_leave_no_derived_base(tiny, capsys):
    (tiny.parent / "new-seed-1").mkdir()
    (tiny.parent / "new-seed-1/notes.txt").write_text("mine")
    before = everything(tiny.parent)
    arguments = ["--set", "training.steps=30", "--as", str(tiny.with_name("new"))]
    said = refused(capsys, "round", str(tiny), "--n", "1", *arguments, "--seeds", "0,1")
    assert "new-seed-1: is already there and is no experiment" in said
    assert everything(tiny.parent) == before
    assert not tiny.with_name("new").exists()


def test_an_option_that_a_tasks_own_code_cannot_bear_leaves_nothing(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace('"wildcard"', '"mine.py:Mine"'))
    (folder / "mine.py").write_text(SPREAD)
    before = everything(tmp_path)
    arguments = ["--n", "1", "--set", "task.spread=0", "--as", str(tmp_path / "other")]
    said = refused(capsys, "round", str(folder), *arguments)
    assert f"{folder}/mine.py:" in said
    assert "must use its key" in said
    assert "task.spread = 0" in said
    assert everything(tmp_path) == before
    with pytest.raises(AmplifyError, match="must use its key"):
        derive(folder, tmp_path / "other", {"task.spread": 0})
    path = derive(folder, tmp_path / "other", {"task.spread": 1}).write()
    with pytest.raises(AmplifyError, match=f"^{tmp_path}/tiny/mine.py:.* must use its key"):
        derive(path, tmp_path / "third", {"task.spread": 0})


SPREAD = """
import dataclasses
import jax
from amplify.tasks.algorithmic.wildcard import Wildcard

@dataclasses.dataclass(frozen=True)
class Mine(Wildcard):
    spread: int = 1

    def draw_context(self, key):
        return Wildcard.draw_context(self, key if self.spread else jax.random.key(0))
"""


@pytest.mark.slow
def test_rounds_of_several_seeds_are_run_compared_and_resumed(tiny, capsys):
    arguments = [str(tiny), "--n", "1", "--set", "training.steps=20"]
    arguments += ["--as", str(tiny.with_name("short")), "--seeds", "0,3"]
    commands.main(["round", *arguments])
    said = capsys.readouterr().out
    assert "short" in said
    paths = [tiny.with_name(name) for name in ("short", "short-seed-3")]
    assert f"amplify compare {paths[0]} {paths[1]}" in said
    assert not (tiny / "000").exists()
    rows = [
        [json.loads(line) for line in (path / "001/evals.jsonl").read_text().splitlines()]
        for path in paths
    ]
    asked = [[(row["context"], row["question"]) for row in some] for some in rows]
    assert asked[0] == asked[1]
    records = [json.loads((path / "001/record.json").read_text()) for path in paths]
    first, second = (next(iter(record["stages"].values()))["digest"] for record in records)
    assert first != second
    shutil.rmtree(paths[1] / "001")
    commands.main(["round", *arguments])
    assert (paths[1] / "001/record.json").exists()
    assert "resumes" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["SEEDS=0,1,2"], ["--seeds 0,1,2"]),
        (
            ["SET=training.steps=500 seed=1", "AS=rounds/x y"],
            ["--set training.steps=500 --set seed=1", "--as rounds/x y"],
        ),
        ([], []),
    ],
)
@pytest.mark.parametrize("target", ["round", "rounds"])
def test_make_passes_variants_on(target, given, said):
    make = ["make", "--no-print-directory", "AMPLIFY_NO_VENV=1", "PYTHON=echo", target, "N=1"]
    done = subprocess.run([*make, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(one in done.stdout for one in said)
    assert done.stdout.count("--") == sum(one.count("--") for one in said) + (target == "round")


def test_make_compares_with_several():
    make = ["make", "--no-print-directory", "AMPLIFY_NO_VENV=1", "PYTHON=echo", "compare"]
    given = ["WITH=a b", "SEEDS=0,1"]
    done = subprocess.run([*make, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-6:] == ["compare", "rounds/wildcard", "a", "b", "--seeds", "0,1"]


def test_seeds_of_several_experiments_are_found_by_name(tiny):
    other = derive(tiny, tiny.with_name("other"), {"seed": 1}).write()
    for name in ("tiny-seed-1", "other-seed-0"):
        tiny.with_name(name).mkdir()
    found = variants.with_seeds([tiny, other], "0,1")
    assert [path.name for path in found] == ["tiny", "tiny-seed-1", "other-seed-0", "other"]
    assert variants.with_seeds([tiny], None) == [tiny]
    with pytest.raises(AmplifyError, match="--seeds: must be different"):
        variants.with_seeds([tiny], "1,1")
