"""The web process: how it starts, what it refuses, and that nothing acknowledged is lost."""

import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest

from amplify.errors import AmplifyError
from amplify.people.log import VERSION
from amplify.web.app import make_app
from tests.web.processes import free_port, server, wait_for
from tests.web.rounds import ITEMS, Browser, events, invited, item, put_up, served, text_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "amplify.web", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def refusal(*arguments):
    """The one line in which the process says why it does not start."""
    result = run(*arguments)
    assert result.returncode == 2, result
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("amplify: ")
    return line


def test_a_log_of_a_newer_version_is_refused(tmp_path):
    folder = put_up(tmp_path)
    database = sqlite3.connect(folder / "events.sqlite")
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    assert "written by a newer Amplify" in refusal(folder, "--port", free_port())


def test_a_damaged_log_is_refused(tmp_path):
    folder = put_up(tmp_path, *(item(f"i{n}", "Which?" * 50) for n in range(100)))
    path = folder / "events.sqlite"
    content = bytearray(path.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    path.write_bytes(content)
    assert "damaged" in refusal(folder, "--port", free_port())
    path.write_text("no database at all, however one looks at it" * 100)
    with pytest.raises(AmplifyError, match="put back a copy of it"):
        make_app(folder)


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: cannot listen there" in refusal(tmp_path, "--port", port)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--port", "70000"), "cannot listen there"),
        (("--host", "192.0.2.1"), "cannot listen there"),
        (("--port", "many"), "--port"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, complaint):
    result = run(tmp_path, *arguments)
    assert result.returncode == 2
    assert complaint in result.stderr


def test_there_must_be_a_folder(tmp_path):
    assert "no such folder" in refusal(tmp_path / "none")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_says_nothing_listens_here_only_and_stops_when_told(tmp_path, how):
    folder, port = put_up(tmp_path), free_port()
    command = [sys.executable, "-m", "amplify.web", str(folder), "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        wait_for(f"http://127.0.0.1:{port}")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as response:
            assert "server" not in response.headers
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=1)
        process.send_signal(how)
        said = process.communicate(timeout=10)
    assert said == (b"", b"")


def test_what_was_acknowledged_outlives_a_kill(tmp_path):
    """The process is killed while a person submits one answer after another."""
    folder = put_up(tmp_path, *(item(f"i{n:03}", f"Question {n}?") for n in range(60)))
    [member] = invited(folder)
    acknowledged = []
    for kill_after in (7, 23):
        with server(folder) as (address, process), httpx.Client(base_url=address) as client:
            browser = Browser(client, member)
            page = browser.open()
            for n in range(kill_after):
                name = re.search(r'data-item="(.*?)"', page)[1]
                page = browser.send("submit", answer=f"{kill_after}-{n}").text
                acknowledged.append((name, f"{kill_after}-{n}"))
            process.kill()
            process.wait()
    there = [(event.item, event.body["answer"]) for event in events(folder, "submitted")]
    assert there == acknowledged
    assert len({name for name, _ in there}) == 30


def test_on_a_full_disk_nothing_before_is_lost_and_what_was_typed_is_in_the_box(tmp_path, caplog):
    folder = put_up(tmp_path, *ITEMS)
    with served(folder) as client:
        browser = Browser(client, invited(folder)[0])
        browser.open()
        browser.send("submit", answer="the Tamble")
        connection = client.app.state.service.log._connection
        [(pages,)] = connection.execute("PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {pages}")
        text = "the bed of the river " * 90
        codes = set()
        for _ in range(20):  # until what was free in the last pages is full
            response = browser.send("ask", text=text)
            codes.add(response.status_code)
            if response.status_code == 507:
                break
            browser.send("undo")
        assert response.status_code == 507
        assert "the disk of the computer that runs this is full" in text_of(response.text).lower()
        assert f'value="{text}"' in response.text
        assert "full" in caplog.text, "whoever runs it is told"
        part = browser.send("ask", text=text, htmx=True)
        assert part.status_code == 507
        assert part.text.startswith('<p id="problem"')
        connection.execute("PRAGMA max_page_count = 100000")
        assert browser.send("ask", text=text).status_code == 200
    assert [event.body["answer"] for event in events(folder, "submitted")] == ["the Tamble"]
