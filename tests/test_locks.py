"""One process holds a lock, others are told which, and its end frees it."""

import signal
import subprocess
import sys
import threading

import pytest

from amplify.files import writing
from amplify.files.locks import ProcessLock

HOLD = """
import sys, time
from pathlib import Path
from amplify.files.locks import ProcessLock
lock = ProcessLock(Path(sys.argv[1]))
print(lock.take("somebody else"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def other(path):
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"True\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_the_lock(path, other):
    with ProcessLock(path) as lock:
        assert not lock.take("me")
        assert lock.holder() == "somebody else"


def test_a_killed_process_leaves_no_stale_lock(path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with ProcessLock(path) as lock:
        assert lock.take("me")
        assert lock.holder() == "me"


def test_who_waits_gets_the_lock_once_it_is_free(path):
    got = threading.Event()

    def wait():
        with ProcessLock(path) as lock:
            lock.wait("second")
            got.set()

    with ProcessLock(path) as lock:
        assert lock.take("a first holder with a long name")
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    thread.join(10)
    assert got.is_set()
    assert ProcessLock(path).holder() == "second"


def test_a_lock_that_nobody_ever_took_has_no_holder(path):
    assert ProcessLock(path).holder() == ""


def test_a_file_that_could_not_be_replaced_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    writing.write_atomically(path, "old", private=True)
    with pytest.raises(TypeError), writing.replacing(path, "wb") as file:
        file.write("no bytes")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
    assert path.stat().st_mode & 0o777 == 0o600
