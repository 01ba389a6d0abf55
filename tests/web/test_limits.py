"""What one connection may take: over real sockets, with short limits."""

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from amplify.web import limits
from amplify.web.__main__ import server_config
from amplify.web.app import make_app
from tests.web.rounds import put_up

SECONDS = 0.5


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Of a server that gives a request half a second."""
    monkeypatch.setattr(limits, "REQUEST_SECONDS", SECONDS)
    monkeypatch.setattr(limits, "CONNECTIONS", 20)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(server_config(make_app(put_up(tmp_path / "round"))))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join()
    listening.close()


def connected(address, sent=b""):
    one = socket.create_connection(address, timeout=10)
    one.sendall(sent)
    return one


def told(one):
    """What the server says before it closes."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := one.recv(65536):
            said += data
    one.close()
    return said


def is_well(address):
    with contextlib.closing(connected(address, b"GET /healthz HTTP/1.0\r\n\r\n")) as one:
        return told(one).endswith(b"ok")


POST = b"POST /undo HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n"
UNFINISHED = {
    "nothing": b"",
    "empty lines": b"\r\n\r\n",
    "half a line": b"GET /ans",
    "half the headers": b"GET /answer HTTP/1.1\r\nhost: x\r\n",
    "half a body": POST + b"content-length: 100\r\n\r\ntext=",
    "half a chunk": POST + b"transfer-encoding: chunked\r\n\r\n40\r\ntext=",
    "a request and half of another": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /ans",
    "a request and half a body": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    + POST
    + b"content-length: 100\r\n\r\ntext=",
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_request_that_does_not_end_is_ended(address, name):
    began = time.monotonic()
    told(connected(address, UNFINISHED[name]))
    assert time.monotonic() - began < 10 * SECONDS
    assert is_well(address)


@pytest.mark.parametrize("drop", [b"\r\n", b"x: y\r\n"])
def test_a_byte_now_and_then_keeps_no_connection(address, drop):
    one, began = (
        connected(address, b"GET /answer HTTP/1.1\r\n" * (drop != b"\r\n")),
        time.monotonic(),
    )
    with contextlib.suppress(ConnectionError), contextlib.closing(one):
        while time.monotonic() - began < 10 * SECONDS:
            one.sendall(drop)
            time.sleep(SECONDS / 5)
    assert time.monotonic() - began < 10 * SECONDS


HUGE = {
    "one header": b"GET /healthz HTTP/1.1\r\nx: " + b"y" * (1 << 22),
    "many headers": b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * (1 << 19),
    "an address": b"GET /" + b"y" * (1 << 22),
    "whole headers": b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
}


@pytest.mark.parametrize("name", HUGE)
def test_headers_have_a_largest_size(address, name):
    one = socket.create_connection(address, timeout=10)
    with contextlib.suppress(ConnectionError):
        one.sendall(HUGE[name])
    said = told(one)
    assert said == b"" or said.startswith(b"HTTP/1.1 431"), said[:80]
    assert is_well(address)


def test_headers_of_a_usual_size_are_read_again_and_again_on_one_connection(address):
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\ncookie: " + b"y" * 8000 + b"\r\n\r\n"
    with contextlib.closing(connected(address)) as one:
        for _ in range(20):
            one.sendall(request)
            assert b"200 OK" in one.recv(65536)


def test_who_answers_nothing_keeps_nobody_else_out(address):
    idle = [connected(address) for _ in range(200)]
    assert is_well(address)
    time.sleep(3 * SECONDS)
    for one in idle:
        assert told(one) == b""
    assert is_well(address)
