"""Pages that are kept up, by whoever needs them first."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.people.serving import ATTACHED, Borrowed, Where, serving
from tests.people.test_collection import people_experiment

ROOT = Path(__file__).parents[2]


def there(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(holds, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    return people_experiment(tmp_path / "tiny")


def test_a_web_process_that_is_killed_is_started_again(folder):
    with serving(folder, Where(port=0)) as served:
        assert there(served.address)
        [process] = served._running
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        served.keep_up()
        wait_until(lambda: there(served.address))
    assert not there(served.address)


def test_who_comes_second_uses_the_pages_that_are_there_and_keeps_them_when_the_first_leaves(
    folder,
):
    port = free_port()
    serve = [sys.executable, "-m", "amplify", "serve", str(folder), "--port", str(port)]
    first = subprocess.Popen(serve, stdout=subprocess.DEVNULL, cwd=ROOT)
    wait_until(lambda: there(f"http://127.0.0.1:{port}"))
    with serving(folder, Where(port=0)) as second:
        assert isinstance(second, Borrowed)
        assert second.address == f"http://127.0.0.1:{port}"
        second.keep_up()
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 0
        assert not there(second.address)
        second.keep_up()
        wait_until(lambda: there(second.address))


def test_pages_do_not_outlive_who_serves_them_however_it_ends(folder):
    port = free_port()
    serve = [sys.executable, "-m", "amplify", "serve", str(folder), "--port", str(port)]
    first = subprocess.Popen(serve, stdout=subprocess.DEVNULL, cwd=ROOT)
    wait_until(lambda: there(f"http://127.0.0.1:{port}"))
    first.kill()
    first.wait()
    wait_until(lambda: not there(f"http://127.0.0.1:{port}"))


def test_serving_twice_says_where_the_pages_are(folder, capsys):
    with serving(folder, Where(port=0)) as served, pytest.raises(SystemExit, match="2"):
        main(["serve", str(folder)])
    assert f"already served at {served.address}" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_clear_line(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match="2"):
            main(["serve", str(folder), "--port", str(port)])
    line = capsys.readouterr().err
    assert f"127.0.0.1:{port}: cannot be listened on" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("port", ["many", "70000"])
def test_a_port_that_is_none_is_refused(port, monkeypatch):
    monkeypatch.setenv("AMPLIFY_PORT", port)
    with pytest.raises(AmplifyError, match="AMPLIFY_PORT: must be 0 to 65535"):
        Where.from_environment()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def attached(code: str) -> subprocess.Popen:
    """A process that ends with whoever started it, and says so before it goes on."""
    begin = "from amplify.people.serving import end_with_parent; end_with_parent(); print('there');"
    return subprocess.Popen(
        [sys.executable, "-uc", f"import time; {begin} {code}"],
        env=os.environ | {ATTACHED: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_whoever_is_done_before_their_parent_leaves_without_a_word():
    process = attached("time.sleep(0.2)")
    assert process.stdout.readline() == "there\n"
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    process.communicate()


def test_whoever_is_not_done_is_ended_with_their_parent():
    process = attached("time.sleep(60)")
    assert process.stdout.readline() == "there\n"
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
