"""The web process and a browser, as a person has them."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip


class Server(NamedTuple):
    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def server(folder: Path, *options: str) -> Iterator[Server]:
    """The web process of an experiment."""
    port = free_port()
    command = [sys.executable, "-m", "amplify.web", str(folder), "--port", str(port), *options]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        yield Server(address, process)
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(address: str, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=1) as response:
                assert response.read() == b"ok"
                return
        except OSError:
            assert time.monotonic() < until, f"{address} does not answer"
            time.sleep(0.05)


def chromium() -> str | None:
    """Where the browser is; None where there is none."""
    known = os.environ.get("CHROMIUM"), shutil.which("chromium"), "/usr/bin/chromium"
    return next((path for path in known if path and Path(path).exists()), None)


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        there = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield there
        there.close()
