"""What TensorBoard and Weights & Biases are given, read back from the files that they write."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amplify import sinks
from amplify.cli import commands
from amplify.files.json_lines import read_lines, write_lines
from amplify.report.results import results
from amplify.runtime.progress import Watch, unwatched
from amplify.store import Store
from tests.tiny import TOML, tiny_experiment

LOG = '[log]\ntensorboard = true\nwandb = "team/oversight"\n'

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
"""For processes of their own, which do not share the helper process that wandb has started here."""


def row(step: int) -> dict:
    accuracy = {"alone": {"1 wildcard": step / 100}}
    return {"step": step, "loss": 1 / step, "accuracy": accuracy, "seconds": 0.5}


def events(folder: Path) -> dict[int, dict]:
    """What event files say: values by name, by step. A step's name that is there twice fails."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[int, dict] = {}
    for path in folder.glob("events.out.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                text = b"".join(value.tensor.string_val).decode()
                values = found.setdefault(event.step, {})
                assert value.tag not in values
                values[value.tag] = text or value.simple_value
    return found


def offline_runs(folder: Path, name: str) -> list[list[dict]]:
    """The history of each run of this name that was written offline, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record

    histories = []
    for path in sorted(folder.glob(f"wandb/offline-run-*-{name}/*.wandb")):
        records = map(Record.FromString, leveldb_records(path.read_bytes()))
        rows = [record.history.item for record in records if record.HasField("history")]
        histories.append(
            [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r} for r in rows]
        )
    return histories


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, in blocks of 32 KiB, after a header of W&B's own."""
    at, begun = 7, b""
    while at < len(data):
        if 2**15 - at % 2**15 < 7:  # too short for a record; filled with zeros
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        begun += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield begun
            begun = b""


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return Store(tiny_experiment(tmp_path / "tiny", TOML + LOG))


def train(watch: Watch, done: int, *steps: int, stopped: bool = False) -> None:
    """Trains from step `done` on, with a log row at each of these steps."""
    with watch("distillation", 60, done) as advance:
        for step in steps:
            advance(10, row(step))
        if stopped:
            raise KeyboardInterrupt


def stopped_at_50_and_resumed_at_40(store: Store) -> None:
    """Trains to step 50, is stopped, and resumes from the checkpoint of step 40."""
    watch = sinks.logged(unwatched, store, 1)
    with pytest.raises(KeyboardInterrupt):
        train(watch, 0, 10, 20, 30, 40, 50, stopped=True)
    metrics = store.round(1).phase("distillation").metrics
    metrics.parent.mkdir(parents=True)
    write_lines(metrics, [row(step) for step in (10, 20, 30, 40, 50)])
    train(watch, 40, 50, 60)


def test_log_is_no_part_of_the_experiments_identity(store, tmp_path):
    without = Store(tiny_experiment(tmp_path / "without")).experiment
    assert store.experiment.digest == without.digest
    assert store.experiment == without


def test_a_key_of_log_that_is_unknown_is_rejected(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny", TOML + "[log]\ntensorbord = true\n")
    with pytest.raises(SystemExit) as end:
        commands.main(["round", str(folder), "--n", "1"])
    assert end.value.code == 2
    assert "tensorbord" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["tensorboardX", "wandb"])
def test_a_missing_package_is_said_before_the_round_begins(tmp_path, monkeypatch, capsys, package):
    folder = tiny_experiment(tmp_path / "tiny", TOML + LOG)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == package else there(n))
    with pytest.raises(SystemExit) as end:
        commands.main(["round", str(folder), "--n", "1"])
    assert end.value.code == 2
    key = {"tensorboardX": "log.tensorboard", "wandb": "log.wandb"}[package]
    assert capsys.readouterr().err == (
        f"amplify: {key} needs the package {package}, which is not installed:"
        f" pip install {package}\n"
    )
    assert not (folder / "000").exists()


def test_without_log_nothing_is_wrapped_or_written(tmp_path):
    store = Store(tiny_experiment(tmp_path / "tiny"))
    assert sinks.logged(unwatched, store, 1) is unwatched
    assert sorted(path.name for path in store.path.iterdir()) == ["experiment.toml"]


def test_other_processes_than_the_first_write_nothing(store, monkeypatch):
    monkeypatch.setattr("amplify.runtime.processes.is_first", lambda: False)
    assert sinks.logged(unwatched, store, 1) is unwatched


def test_tensorboard_has_every_step_of_a_resumed_run_once(tmp_path):
    store = Store(tiny_experiment(tmp_path / "tiny", TOML + "[log]\ntensorboard = true\n"))
    stopped_at_50_and_resumed_at_40(store)
    found = events(store.path / "tensorboard/001/distillation")
    assert list(found) == [10, 20, 30, 40, 50, 60]
    assert found[50] == pytest.approx(
        {"loss": 0.02, "accuracy/alone/1_wildcard": 0.5, "seconds": 0.5}
    )


def test_a_running_tensorboard_is_told_to_forget_what_it_has_read(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    store = Store(tiny_experiment(tmp_path / "tiny", TOML + "[log]\ntensorboard = true\n"))
    stopped_at_50_and_resumed_at_40(store)
    [path] = (store.path / "tensorboard/001/distillation").iterdir()
    begin = Event(step=0, session_log=SessionLog(status=SessionLog.START)).session_log
    assert begin.SerializeToString() in path.read_bytes()[:200]


@pytest.mark.slow
def test_wandb_has_every_step_of_a_resumed_run_once(store):
    """Offline, the folder of the resumed run has all of them: uploaded, it replaces the other."""
    stopped_at_50_and_resumed_at_40(store)
    stopped, resumed = offline_runs(store.path, "001-distillation")
    assert [found["_step"] for found in stopped] == [10, 20, 30, 40, 50]
    assert [found["_step"] for found in resumed] == [10, 20, 30, 40, 50, 60]
    assert resumed[4]["loss"] == 0.02
    assert resumed[4]["accuracy/alone/1 wildcard"] == 0.5


def test_wandb_is_given_only_rows_that_a_resumed_run_does_not_have(store, monkeypatch):
    import wandb

    class Run:
        step = 0
        rows: list

        def __init__(self) -> None:
            self.rows = []

        def log(self, values: dict, step: int, commit: bool) -> None:
            self.rows.append(step)

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None:
            pass

    opened, runs = [], [Run(), Run()]
    runs[1].step = 21  # the server has steps up to 20: the machine was lost with the others

    def init(**options: object) -> Run:
        opened.append(options)
        return runs[len(opened) - 1]

    monkeypatch.setattr(wandb, "init", init)
    stopped_at_50_and_resumed_at_40(store)
    assert [run.rows for run in runs] == [[10, 20, 30, 40, 50], [30, 40, 50, 60]]
    assert [one["resume"] for one in opened] == [None, "allow"]
    assert opened[0]["id"] == opened[1]["id"] == f"{store.experiment.digest[:16]}-001-distillation"
    assert opened[0]["entity"] == "team"
    assert opened[0]["project"] == "oversight"
    assert opened[0]["config"]["training.steps"] == 60


@pytest.mark.slow
def test_without_a_login_the_round_does_not_begin(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", TOML + LOG)
    done = subprocess.run(
        [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"],
        env=ENVIRONMENT | {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("amplify: log.wandb: nobody is logged in")
    assert done.stderr.count("\n") == 1
    assert not (folder / "000").exists()


@pytest.mark.slow
def test_sinks_have_what_a_round_logs_and_its_evals_and_verdict(tmp_path):
    """Killed after its first checkpoint and run again, in processes of their own."""
    folder = tiny_experiment(tmp_path / "tiny", TOML + LOG)
    command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
    environment = ENVIRONMENT | {"WANDB_MODE": "offline"}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if "50 of 60" in line:
            first.kill()
            break
    first.wait()
    first.stderr.close()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumes after" in done.stderr

    logged = read_lines(folder / "001/distillation/metrics.jsonl")
    written = events(folder / "tensorboard/001/distillation")
    assert {step: row["loss"] for step, row in written.items()} == pytest.approx(
        {row["step"]: row["loss"] for row in logged}
    )
    history = offline_runs(folder, "001-distillation")[-1]
    assert [(row["_step"], row["loss"]) for row in history] == [
        (row["step"], row["loss"]) for row in logged
    ]

    rounds = offline_runs(folder, "rounds")[-1]
    judged = Store(folder).round(1).verdict
    assert judged is not None
    assert [row.get("verdict") for row in rounds] == [None, judged["verdict"]]
    pages = events(folder / "tensorboard/rounds")
    assert pages[1]["verdict/text_summary"] == judged["verdict"]
    for found in results(Store(folder)):
        name = f"{found['split']}/alone/{found['class']}"
        assert rounds[found["round"]][name] == found["alone"]
        tag = name.replace(" ", "_")
        assert pages[found["round"]][tag] == pytest.approx(found["alone"])
