"""A copy of an experiment that is running: a round can be resumed from it at any time."""

import contextlib
import json
import shutil
import sqlite3
import stat
import time

import pytest

from amplify.errors import AmplifyError
from amplify.files import copies
from amplify.files.copies import copy, keep_copy


@pytest.fixture
def experiment(tmp_path):
    """Round 1 has its data and is being trained."""
    folder = tmp_path / "mine"
    for name, text in {
        "experiment.toml": "seed = 0",
        ".lock": "123",
        "001/record.json": json.dumps({"stages": {"distillation/data": {}}}),
        "001/distillation/data/rows": "abc",
        "001/distillation/training/20/weights": "w20",
        "001/distillation/.metrics.jsonl.tmp": "half",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "drive/mine"


def contents(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_copy_has_all_files_but_those_of_running_processes(experiment, target):
    copy(experiment, target)
    everything = contents(experiment)
    del everything[".lock"], everything["001/distillation/.metrics.jsonl.tmp"]
    assert contents(target) == everything
    (experiment / "001/distillation/data/rows").write_text("abcd")
    copy(experiment, target)
    assert (target / "001/distillation/data/rows").read_text() == "abcd"


def test_unchanged_files_are_not_copied_again(experiment, target, monkeypatch):
    copy(experiment, target)
    copied = []
    monkeypatch.setattr(shutil, "copy2", lambda source, new: copied.append(source))
    copy(experiment, target)
    assert not copied


def test_deleted_training_checkpoints_are_deleted_in_the_copy_and_nothing_else_is(
    experiment, target
):
    copy(experiment, target)
    shutil.rmtree(experiment / "001")
    copy(experiment, target)
    assert [*contents(target)] == [
        "001/distillation/data/rows", "001/record.json", "experiment.toml",
    ]  # fmt: skip


def test_a_record_in_the_copy_says_no_more_than_the_files_beside_it_hold(
    experiment, target, monkeypatch
):
    """A stage that ends while files are copied is in the next copy."""
    record = experiment / "001/record.json"
    before, copy_file = record.read_text(), copies._copy_file

    def copy_file_and_finish(source, new):
        copy_file(source, new)
        record.write_text(json.dumps({"stages": {"distillation/data": {}, "evals": {}}}))

    monkeypatch.setattr(copies, "_copy_file", copy_file_and_finish)
    copy(experiment, target)
    assert (target / "001/record.json").read_text() == before
    monkeypatch.undo()
    copy(experiment, target)
    assert (target / "001/record.json").read_text() == record.read_text()


def test_an_interrupted_copy_leaves_the_earlier_record(experiment, target, monkeypatch):
    copy(experiment, target)
    before = (target / "001/record.json").read_text()
    (experiment / "001/record.json").write_text("{}")
    (experiment / "001/evals.jsonl").write_text("items")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space"):
        copy(experiment, target)
    assert (target / "001/record.json").read_text() == before


def test_what_people_said_is_copied_while_it_is_written_and_is_private(experiment, target):
    with contextlib.closing(sqlite3.connect(experiment / "events.sqlite")) as log:
        log.execute("PRAGMA journal_mode = WAL")
        log.execute("CREATE TABLE events (said TEXT)")
        log.execute("INSERT INTO events VALUES ('committed')")
        log.commit()
        log.execute("INSERT INTO events VALUES ('not yet')")
        copy(experiment, target)
    with contextlib.closing(sqlite3.connect(target / "events.sqlite")) as found:
        assert found.execute("SELECT said FROM events").fetchall() == [("committed",)]
    assert stat.S_IMODE((target / "events.sqlite").stat().st_mode) == 0o600
    copy(experiment, target)  # also while no process has it open
    with contextlib.closing(sqlite3.connect(target / "events.sqlite")) as found:
        assert found.execute("SELECT said FROM events").fetchall() == [("committed",)]


def test_a_new_machine_goes_on_from_the_copy(experiment, target):
    keep_copy(experiment, target)()
    copied = contents(target)
    shutil.rmtree(experiment)
    keep_copy(experiment, target)()
    assert contents(experiment) == copied == contents(target)


def test_an_experiment_with_rounds_is_not_overwritten_by_its_copy(experiment, target):
    keep_copy(experiment, target)()
    (experiment / "001/distillation/data/rows").write_text("newer")
    keep_copy(experiment, target)()
    assert (target / "001/distillation/data/rows").read_text() == "newer"


def test_a_copy_with_more_rounds_is_not_overwritten(experiment, target):
    copy(experiment, target)
    shutil.copytree(target / "001", target / "002")
    before = contents(target)
    with pytest.raises(AmplifyError, match="has round 002, which"):
        keep_copy(experiment, target)
    assert contents(target) == before


def test_copies_are_made_while_the_experiment_runs_also_after_one_failed(
    experiment, target, capsys
):
    target.parent.write_text("in the way")
    stop = keep_copy(experiment, target, seconds=0.01)
    until = time.monotonic() + 30
    while "not copied" not in capsys.readouterr().err:
        assert time.monotonic() < until
        time.sleep(0.01)
    target.parent.unlink()
    while not (target / "001/record.json").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    stop()
