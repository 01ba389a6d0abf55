"""Runs the web process, and that of simulated people if there are any, while they are needed.

A process that dies is started again. Whoever serves an experiment holds a lock with the address of
the pages in it, so a round that starts under `amplify serve` uses the pages that are already up.
"""

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amplify.errors import AmplifyError, first_line
from amplify.files.locks import ProcessLock
from amplify.files.writing import make_private_folder
from amplify.people.log import EVENTS, Log
from amplify.runtime.progress import say

HOST, PORT = "127.0.0.1", 8765
"""Default address of the pages; those of simulated people are on any free port."""
STARTING = 30.0
"""Seconds within which a web process must answer for the first time."""
MOST_BASES = 100
"""Experiments that an experiment may be based on, one on the other."""
ATTACHED = "AMPLIFY_ATTACHED"
"""Environment variable that marks a process which must not outlive the one that started it."""
TOO_OFTEN = 10
"""A process is given up after this many restarts within as many seconds."""


class Where(NamedTuple):
    """Where pages are served."""

    host: str = HOST
    port: int = PORT  # 0: any that is free
    share: bool = False  # through a proxy, as in a notebook

    @classmethod
    def from_environment(cls) -> "Where":
        """From AMPLIFY_HOST, AMPLIFY_PORT and AMPLIFY_SHARE, for rounds.

        Raises:
            AmplifyError: one of them is not valid.
        """
        port = os.environ.get("AMPLIFY_PORT", str(PORT))
        if not port.isdecimal() or len(port) > 5 or int(port) > 65535:
            raise AmplifyError(f"AMPLIFY_PORT: must be 0 to 65535, got {port[:40]!r}")
        host = checked_host(os.environ.get("AMPLIFY_HOST", HOST), "AMPLIFY_HOST")
        return cls(host, int(port), os.environ.get("AMPLIFY_SHARE", "") not in ("", "0"))

    @property
    def address(self) -> str:
        """URL at which a browser on this computer finds the pages."""
        host = self.host
        if listens_everywhere(host):
            host = "::1" if ":" in host else HOST
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def checked_host(host: str, what: str) -> str:
    """Returns a host to listen on.

    Args:
        host: a name or an IP address.
        what: the option that it came from, for the error.

    Raises:
        AmplifyError: it is empty, which would mean every network.
    """
    if not host.strip():
        raise AmplifyError(
            f"{what}: must be an address of this computer, such as {HOST}; got {host!r}"
            " (0.0.0.0 or :: to be reached from every network)"
        )
    return host


def listens_everywhere(host: str) -> bool:
    """Whether pages on this host can be reached from every network that the computer is in."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # binding to it fails later, with a message
    addresses = [ipaddress.ip_address(place[4][0]) for place in found]
    return any((getattr(one, "ipv4_mapped", None) or one).is_unspecified for one in addresses)


class Served:
    """The processes that serve an experiment."""

    def __init__(self, address: str, commands: Sequence[Sequence[str]]) -> None:
        self.address = address
        self._commands: list[list[str]] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._deaths: list[list[float]] = []
        for command in commands:
            self.start(command)

    def start(self, command: Sequence[str]) -> None:
        """Starts a process that `keep_up` and `stop` look after."""
        self._commands.append(list(command))
        self._running.append(_start(command))
        self._deaths.append([])

    def keep_up(self) -> None:
        """Starts processes again that died.

        Raises:
            AmplifyError: one reported an error of its own, or dies again and again.
        """
        for place, process in enumerate(self._running):
            if process.poll() is None:
                continue
            if process.returncode == 2:  # an error, which it has printed
                raise AmplifyError(
                    f"{_name(self._commands[place])} stopped with an error; see above"
                )
            now = time.monotonic()
            recent = [died for died in self._deaths[place] if now - died < TOO_OFTEN]
            self._deaths[place] = [*recent, now]
            if len(recent) >= TOO_OFTEN:
                raise AmplifyError(
                    f"{_name(self._commands[place])} keeps crashing (exit code"
                    f" {process.returncode}); nothing that people submitted is lost"
                )
            _let_go(process)
            self._running[place] = _start(self._commands[place])

    def run(self) -> None:
        """Keeps the processes up until interrupted."""
        while True:
            self.keep_up()
            time.sleep(0.5)

    def stop(self) -> None:
        """Ends the processes; kills those that do not end within five seconds."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _let_go(process)


class Borrowed(Served):
    """Pages that another process serves. If that one stops, this one takes over."""

    def __init__(self, address: str, claim: Callable[[], list[str] | None]) -> None:
        super().__init__(address, [])
        self._claim: Callable[[], list[str] | None] | None = claim

    def keep_up(self) -> None:
        if self._claim is not None and (command := self._claim()) is not None:
            self._claim = None
            self.start(command)
        super().keep_up()


@contextlib.contextmanager
def serving(experiment: Path, where: Where, *, crowd: bool = False) -> Iterator[Served]:
    """Serves an experiment's pages while the block runs.

    Args:
        experiment: its folder.
        where: host and port.
        crowd: whether simulated people answer, too.

    Raises:
        AmplifyError: the address cannot be listened on, or no page answers.
    """
    folder = experiment / "people"
    make_private_folder(folder)
    with ProcessLock(folder / ".serving") as lock:
        if listens_everywhere(where.host):
            say(
                f"warning: on {where.host} the pages can be reached from every network that this"
                " computer is in, and links are sent unencrypted; anybody who has a link can use it"
            )
        place = where._replace(port=where.port or _free_port(where.host))
        served = _served(experiment, place, lock)
        if crowd:
            address = ["--address", served.address]
            served.start(_module("amplify.crowd", str(experiment), *address))
        try:
            _wait_for(served)
            yield served
        finally:
            served.stop()


def _served(experiment: Path, where: Where, lock: ProcessLock) -> Served:
    """Our own pages or, if another process serves this experiment, that one's."""
    command, address = _web(experiment, where), where.address
    if lock.take(address):
        _check_free(where.host, where.port)
        return Served(address, [command])
    theirs = lock.holder()
    there = urllib.parse.urlsplit(theirs)
    same_place = _web(
        experiment, where._replace(host=there.hostname or HOST, port=there.port or PORT)
    )
    return Borrowed(theirs, lambda: same_place if lock.take(theirs) else None)


def _web(experiment: Path, where: Where) -> list[str]:
    share = ["--share"] if where.share else []
    place = ["--host", where.host, "--port", str(where.port)]
    return _module("amplify.web", str(experiment), *place, *share)


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _name(command: Sequence[str]) -> str:
    return {"amplify.web": "the web process"}.get(command[2], "the process of simulated people")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts a process in a group of its own: interrupting a round leaves the pages up.

    Its standard input closes when this process ends, however that ends; then it ends, too.
    """
    attached = os.environ | {ATTACHED: "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=attached, start_new_session=True)


def _wait_for(served: Served) -> None:
    end = time.monotonic() + STARTING
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{served.address}/healthz", timeout=1):
                return
        except (OSError, urllib.error.URLError):
            served.keep_up()
            time.sleep(0.05)
    raise AmplifyError(f"{served.address}: the web process does not respond")


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def end_with_parent() -> None:
    """Ends this process once the one that started it is gone, if that was `serving`."""
    if os.environ.get(ATTACHED) != "1":
        return

    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would outlive the interpreter
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _check_free(host: str, port: int) -> None:
    _bind(host, port)


def _free_port(host: str) -> int:
    return _bind(host, 0)


def _bind(host: str, port: int) -> int:
    """Returns a port that can be listened on.

    Raises:
        AmplifyError: none can.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise AmplifyError(
                f"{host[:100]}:{port}: cannot be listened on ({reason}); choose another with"
                " AMPLIFY_PORT and AMPLIFY_HOST, or --port and --host"
            ) from None
        return int(probe.getsockname()[1])


# Which experiments have people


def check_people(experiment: Path) -> None:
    """Checks that people oversee an experiment, or did so before. Writes nothing.

    Raises:
        AmplifyError: they do not, or the folder has no readable experiment file.
    """
    kind = _overseer_kind(experiment)
    if kind == "human" or kind.partition(":")[0].endswith(".py") or _has_events(experiment):
        return
    raise AmplifyError(
        f"{experiment}: no people oversee this experiment: its overseer.kind is {kind!r}, and this"
        ' command needs "human"'
    )


def _overseer_kind(experiment: Path) -> str:
    """overseer.kind in the experiment's file, or in that of its base."""
    folder = experiment
    for _ in range(MOST_BASES):
        path = folder / "experiment.toml"
        try:
            table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AmplifyError(
                f"{path}: no such file; an experiment is a folder with an experiment.toml"
            ) from None
        except (ValueError, OSError) as error:
            raise AmplifyError(f"{path}: cannot be read as TOML: {first_line(error)}") from None
        overseer, base = table.get("overseer"), table.get("base")
        kind = overseer.get("kind") if isinstance(overseer, dict) else None
        if isinstance(kind, str) or not isinstance(base, str) or "\0" in base:
            return str(kind or "")
        folder = folder / base
    raise AmplifyError(f"{experiment}: base leads back to this experiment")


def _has_events(experiment: Path) -> bool:
    if not (experiment / EVENTS).is_file():
        return False
    log = Log(experiment / EVENTS)
    try:
        return next(log.since(), None) is not None
    finally:
        log.close()
