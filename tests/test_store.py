import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines, write_lines
from amplify.files.writing import write_atomically
from amplify.store import Store
from tests.tiny import TOML, tiny_experiment


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny_experiment(tmp_path / "tiny")


def write_round(folder: Path, number: int, verdict: str | None = None) -> None:
    store = Store(folder)
    this = store.round(number)
    this.begin({"experiment": store.experiment.values})
    this.stage("distillation/checkpoint", lambda: {"digests": {"assistant": "d"}})
    if verdict is not None:
        this.stage("verdict", lambda: {"verdict": verdict, "against": 0})


def test_a_rejected_or_inconclusive_round_does_not_move_best(folder):
    for number, verdict in enumerate([None, "promoted", "rejected", "inconclusive"]):
        write_round(folder, number, verdict)
    store = Store(folder)
    assert [store.best_before(n).number for n in (1, 2, 3, 4)] == [0, 1, 1, 1]


def test_rounds_stop_after_as_many_unpromoted_rounds_as_patience_says(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", TOML + "\n[gate]\npatience = 2\n")
    verdicts = [None, "rejected", "promoted", "inconclusive", "rejected"]
    for number, verdict in enumerate(verdicts):
        write_round(folder, number, verdict)
    store = Store(folder)
    assert [store.no_longer_improves(n) for n in range(5)] == [False, False, False, False, True]


def test_a_stage_that_is_done_is_not_done_again(folder):
    write_round(folder, 1)

    def fail():
        raise AssertionError("done twice")

    Store(folder).round(1).stage("distillation/checkpoint", fail)


def test_a_stage_that_fails_is_not_recorded(folder):
    write_round(folder, 1)
    with pytest.raises(ZeroDivisionError):
        Store(folder).round(1).stage("evals", lambda: {"x": 1 / 0})
    assert not Store(folder).round(1).done("evals")


def test_an_experiment_that_changed_after_its_rounds_is_refused_by_key(folder):
    write_round(folder, 1)
    changed = TOML.replace("steps = 60", "steps = 61").replace("letters = 3", "letters = 4")
    (folder / "experiment.toml").write_text(changed)
    with pytest.raises(AmplifyError) as error:
        Store(folder)
    said = str(error.value)
    assert "task.letters (3 -> 4), training.steps (60 -> 61)" in said
    settings = "--set task.letters=4 --set training.steps=61"
    assert said.endswith(f"round {folder} --n 1 {settings} --as {folder}-2")


def test_a_comment_or_a_default_spelt_out_is_no_change(folder):
    write_round(folder, 1)
    (folder / "experiment.toml").write_text("# a comment\nseed = 0\n" + TOML)
    assert Store(folder).rounds() == [1]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"stages": 3}', "null"])
def test_a_damaged_record_is_named_with_what_to_do(folder, damage):
    write_round(folder, 1)
    (folder / "001" / "record.json").write_text(damage)
    with pytest.raises(AmplifyError, match=r"001/record.json: damaged record .*: rm "):
        Store(folder)


def test_a_second_process_is_refused_and_told_who_holds_the_experiment(folder):
    with (
        Store(folder).lock(),
        pytest.raises(AmplifyError, match=f"pid {os.getpid()}"),
        Store(folder).lock(),
    ):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(folder):
    program = f"""
import sys, time
from pathlib import Path
from amplify.store import Store
with Store(Path({str(folder)!r})).lock():
    print("held", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(AmplifyError, match=f"pid {process.pid}"), Store(folder).lock():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Store(folder).lock():
        assert (folder / ".lock").read_text() == str(os.getpid())


def _rewrite_for_ever(path: str) -> None:
    while True:
        for letter in "ab":
            write_atomically(Path(path), letter * 100_000)


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path):
    path = tmp_path / "file"
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        process = context.Process(target=_rewrite_for_ever, args=(str(path),))
        process.start()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.05)
        process.kill()
        process.join()
        assert path.read_text() in ("a" * 100_000, "b" * 100_000)


def test_lines_read_back_and_a_changed_one_is_noticed(tmp_path):
    path, rows = tmp_path / "rows.jsonl", [{"a": 1}, {"a": 0.1}]
    digest = write_lines(path, rows)
    assert read_lines(path, digest) == rows
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(AmplifyError, match=r"missing or damaged .not what was written"):
        read_lines(path, digest)
    assert json.loads(path.read_text().splitlines()[0]) == {"a": 2}
