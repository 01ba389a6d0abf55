import contextlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from amplify.errors import AmplifyError
from amplify.people.events import Event
from amplify.people.log import VERSION, Log, export_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.sqlite"


@pytest.fixture
def log(path):
    log = Log(path, clock=lambda: 12.5)
    yield log
    log.close()


def read(path):
    with contextlib.closing(Log(path)) as log:
        return [*log.since()]


def said(text, **facts):
    return {"kind": "draft", "round": 1, "body": {"text": text}, **facts}


def test_events_come_back_in_their_order_as_they_were_appended(log):
    everything = {"item": "1-2", "person": "person-01", "checkpoint": "ab", "seconds": 3.5}
    ids = log.append(said("one", **everything, request="r"), said("zwei ö"))
    assert [*log.since()] == [
        Event(1, 12.5, "draft", 1, **everything, request="r", body={"text": "one"}),
        Event(2, 12.5, "draft", 1, body={"text": "zwei ö"}),
    ]
    assert ids == [1, 2]
    log.append({"kind": "closed", "round": 2})
    assert [event.id for event in log.since(1)] == [2, 3]


@pytest.mark.parametrize("change", ["UPDATE events SET kind = 'other'", "DELETE FROM events"])
def test_nothing_is_ever_changed_or_deleted(log, path, change):
    log.append(said("one"))
    with (
        contextlib.closing(sqlite3.connect(path)) as other,
        pytest.raises(sqlite3.IntegrityError, match="never"),
    ):
        other.execute(change)
    assert [event.body for event in log.since()] == [{"text": "one"}]


def test_what_is_sent_twice_counts_once(log):
    first = log.append(said("one", request="r"))
    assert log.append(said("again", request="r"), said("two")) == [*first, 2]
    decided = log.decide(lambda: [said("a"), said("b")], request="s")
    assert log.decide(lambda: pytest.fail("decided twice"), request="s") == decided[-1:]
    assert [event.body["text"] for event in log.since()] == ["one", "two", "a", "b"]


def test_a_decision_that_fails_appends_nothing_and_may_be_tried_again(log):
    def fails():
        raise LookupError

    with pytest.raises(LookupError):
        log.decide(fails, request="r")
    assert [*log.since()] == []
    assert log.decide(lambda: [said("one")], request="r") == [1]


def test_all_of_several_events_are_appended_or_none(log):
    with pytest.raises(AmplifyError, match="NOT NULL"):
        log.append(said("one"), {"kind": "closed"})
    assert [*log.since()] == []


WRITER = """
import sys
from pathlib import Path
from amplify.people.log import Log
log, name = Log(Path(sys.argv[1])), sys.argv[2]
print("open", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    [id] = log.append({"kind": "told", "round": 1, "person": name, "body": {"number": number}})
    print(number, id, flush=True)
"""


def writer(path, name, count):
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_open_and_append_at_once_lose_nothing(path):
    writers = [writer(path, name, 100) for name in "abc"]  # all make the file
    said = {}
    for process in writers:
        assert process.stdout.readline() == "open\n"
    for process in writers:
        process.stdin.write("go\n")
        process.stdin.flush()
    for name, process in zip("abc", writers, strict=True):
        with process:
            printed = process.stdout.read()
        assert process.returncode == 0
        said |= {
            int(event): (name, int(number))
            for number, event in map(str.split, printed.splitlines())
        }
    events = {event.id: (event.person, event.body["number"]) for event in read(path)}
    assert events == said
    assert [*events] == [*range(1, 301)]


def test_a_decision_sees_all_that_others_appended_before_it(log, path):
    other = Log(path)
    before = log.change()
    other.append(said("one"))
    assert log.change() != before
    seen = []
    log.decide(lambda: seen.extend(log.since()) or [])
    assert [event.body for event in seen] == [{"text": "one"}]
    other.close()


def test_sigkill_keeps_every_event_that_was_acknowledged(path):
    acknowledged = {}
    for run in range(5):
        process = writer(path, f"run {run}", 1_000_000)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "open\n"
        time.sleep(0.02 + 0.03 * run)
        os.kill(process.pid, signal.SIGKILL)
        with process:
            *lines, _ = process.stdout.read().split("\n")  # what is torn was not said
        acknowledged |= {
            int(event): (f"run {run}", int(number)) for number, event in map(str.split, lines)
        }
    events = {event.id: (event.person, event.body["number"]) for event in read(path)}
    assert len(acknowledged) > 20
    assert acknowledged.items() <= events.items()
    assert len(events) - len(acknowledged) <= 5  # one a run was appended and not said any more


def test_a_full_disk_is_said_and_loses_nothing(log, path):
    log._connection.execute("PRAGMA max_page_count = 12")

    def fill():
        while True:
            log.append(said("x" * 500))

    with pytest.raises(AmplifyError, match=r"events.sqlite: could not be written \(.*full.*\)"):
        fill()
    kept = len([*log.since()])
    assert kept > 5
    assert len(read(path)) == kept
    log._connection.execute("PRAGMA max_page_count = 1000")  # somebody made room
    log.append(said("again"))
    assert [event.id for event in read(path)] == [*range(1, kept + 2)]


@pytest.mark.parametrize("existing", [False, True])
def test_the_log_is_its_owners_alone_with_all_files_beside_it(path, tmp_path, existing):
    old = os.umask(0)
    try:
        if existing:
            before = Log(path)
            before.append(said("one"))
            for file in tmp_path.iterdir():
                file.chmod(0o666)
        log = Log(path)
        log.append(said("one"))
        export_events(log, tmp_path / "events.jsonl")
        export_events(log, tmp_path / "events.parquet")
    finally:
        os.umask(old)
    files = {file.name: file for file in tmp_path.iterdir()}
    assert {"events.sqlite", "events.sqlite-wal", "events.sqlite-shm"} < files.keys()
    for file in files.values():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    log.close()
    if existing:
        before.close()


def test_halves_of_characters_are_read_as_replacements_and_whole_ones_as_they_are(log):
    texts = "\ud800 hello", "\ud83d\ude00 \N{GRINNING FACE}", {"\udc00": ["\udfff"]}
    for text in texts:  # as older versions let them in
        row = (1.0, "draft", 1, json.dumps({"text": text}))
        log._connection.execute("INSERT INTO events (at, kind, round, body) VALUES (?,?,?,?)", row)
    replacement = "\N{REPLACEMENT CHARACTER}"
    assert [event.body["text"] for event in log.since()] == [
        f"{replacement} hello", "\N{GRINNING FACE} \N{GRINNING FACE}", {replacement: [replacement]},
    ]  # fmt: skip


def test_a_log_of_a_newer_version_is_refused(log, path):
    log._connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(
        AmplifyError, match=rf"newer Amplify \(version {VERSION + 1} .*; update Amplify"
    ):
        Log(path)


def in_one_line(error):
    return "\n" not in str(error.value) and "events.sqlite" in str(error.value)


def test_a_file_that_is_no_log_is_refused_in_one_line(path):
    path.write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(AmplifyError, match="damaged") as error:
        Log(path)
    assert in_one_line(error)


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_log_is_refused_in_one_line(path, damage):
    log = Log(path)
    for _ in range(100):
        log.append(said("x" * 500))
    log.close()
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] if damage == "truncated" else
                     whole[:half] + b"\xff" * 8192 + whole[half + 8192:])  # fmt: skip
    with pytest.raises(AmplifyError, match="put back a copy") as error:
        Log(path)
    assert in_one_line(error)


def test_where_no_file_can_be_the_error_says_so(tmp_path):
    with pytest.raises(AmplifyError, match="unable to open"):
        Log(tmp_path / "nowhere" / "events.sqlite")


def test_jsonl_and_parquet_hold_all_that_the_log_does(log, tmp_path):
    log.append(said("one", item="1-2", seconds=1.5), {"kind": "closed", "round": 1})
    events = [*log.since()]
    assert export_events(log, tmp_path / "events.jsonl") == 2
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [Event(**json.loads(line)) for line in lines] == events
    assert "person" not in json.loads(lines[0])
    assert export_events(log, tmp_path / "events.parquet") == 2
    rows = pyarrow.parquet.read_table(tmp_path / "events.parquet").to_pylist()
    assert [Event(**{**row, "body": json.loads(row["body"])}) for row in rows] == events
    with pytest.raises(AmplifyError, match=r"as \.jsonl or \.parquet"):
        export_events(log, tmp_path / "events.csv")
    assert {path.name for path in tmp_path.glob("*events*")} >= {"events.jsonl", "events.parquet"}
    assert not [*tmp_path.glob(".*.tmp")]


def test_an_empty_log_can_be_exported(log, tmp_path):
    assert export_events(log, tmp_path / "events.parquet") == 0
    assert pyarrow.parquet.read_table(tmp_path / "events.parquet").num_rows == 0
