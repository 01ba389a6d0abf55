"""A server on this machine that speaks as OpenAI's does, well or badly, for tests."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple


class Response(NamedTuple):
    """What is sent back: parts of a body may be sent with pauses between them, by a generator."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


def completion(text: Any, **choice: Any) -> Response:
    """A well-formed reply."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    whole = {"model": "served", "choices": [{"message": message, **choice}], "usage": usage}
    return Response(json.dumps(whole).encode())


class FakeServer:
    """Answers each request with what `respond` makes of its body and number, from 0."""

    def __init__(self) -> None:
        self.respond: Callable[[dict[str, Any], int], Response] = lambda body, n: completion("")
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.address = ""

    @property
    def asked(self) -> int:
        return len(self.bodies)


@contextlib.contextmanager
def fake_server() -> Iterator[FakeServer]:
    state = FakeServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = state.asked
                state.bodies.append(body)
                state.headers.append({k.lower(): v for k, v in self.headers.items()})
            said = state.respond(body, number)
            with contextlib.suppress(OSError):  # whoever asked may have gone
                if said.status == 0:  # no HTTP at all
                    self.wfile.write(said.body)
                    return
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for part in [said.body] if isinstance(said.body, bytes) else said.body:
                    self.wfile.write(part)
                    self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # with 5, what is asked at once waits a second to be asked again
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{running.server_port}/v1"
        yield state
        running.shutdown()
