"""What is behind the pages, in small: a round of permutation questions, a worker that knows the
truth without a model, and both it and the web server as processes to be killed.
"""

import contextlib
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amplify.events import Log
from amplify.people.queue import Queue
from amplify.tasks.permutation import Permutation
from amplify.web.office import EVENTS

TASK = Permutation(symbols=16, bits=4)
ROUND = 1
CHOICES = [str(symbol) for symbol in range(1, TASK.symbols + 1)]


def truth(row: int, question: str) -> str:
    """x^k, where the permutation is that of the row."""
    symbols = [*range(1, TASK.symbols + 1)]
    random.Random(row).shuffle(symbols)
    x, k = map(int, question.split("^"))
    for _ in range(k):
        x = symbols[x - 1]
    return str(x)


class Round:
    """What the round does: puts items up, and closes when they are complete."""

    def __init__(self, folder: Path, items: int, lease: float = 60.0, **facts: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.log, self._queue = folder, Log(folder / EVENTS), Queue()
        self.log.append(
            {"kind": "opened", "round": ROUND, "body": {"lease": lease, "title": "People"}},
            *(self._put(str(row), row, self.question(row), **facts) for row in range(items)),
        )

    @staticmethod
    def question(row: int) -> str:
        chance = random.Random(f"question {row}")
        return f"{chance.randint(1, TASK.symbols)}^{chance.randint(4, 15)}"

    def _put(self, name: str, row: int, question: str, **facts: Any) -> dict[str, Any]:
        body = {"question": question, "row": row, "budget": 3, "choices": CHOICES, **facts}
        return {"kind": "put", "round": ROUND, "item": name, "request": f"put {name}", "body": body}

    def review(self, share: float, overlap: int) -> None:
        """Has a share of all submissions checked."""
        items = [item for item in self.queue.items.values() if item.review_of is None]
        self.log.append(
            *(
                self._put(
                    f"{item.id}-{mine.person}", item.row, item.question,
                    review_of=[item.id, mine.person], overlap=overlap, budget=0,
                )
                for item in items
                for mine in item.submissions
                if random.Random(item.id).random() < share
            )
        )  # fmt: skip

    @property
    def queue(self) -> Queue:
        for event in self.log.since(self._queue.last):
            self._queue.apply(event)
        return self._queue

    def wait(self, seconds: float) -> None:
        """Until all items are complete."""
        end = time.monotonic() + seconds
        while self.queue.open_items(ROUND):
            assert time.monotonic() < end, f"{self.queue.open_items(ROUND)} items are still open"
            time.sleep(0.05)

    def close(self) -> None:
        self.log.append({"kind": "closed", "round": ROUND})


class Process:
    """One of ours, that may be killed and started again."""

    def __init__(self, *command: str, said: Path) -> None:
        self._command, self._said = [sys.executable, "-m", *command], said

    def start(self) -> None:
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(self._command, stdout=said, stderr=said)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float:
        import psutil

        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def working(folder: Path) -> Iterator[tuple[str, Process, Process]]:
    """The address of a web server, it, and a worker."""
    port = free_port()
    web = Process("amplify.web", str(folder), "--port", str(port), said=folder / "web.txt")
    worker = Process("tests.people.staff", str(folder), said=folder / "worker.txt")
    try:
        worker.start()
        web.start()
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        yield address, web, worker
    finally:
        web.kill()
        worker.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_for(address: str) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/healthz", timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody answers at {address}")


def work(folder: Path) -> None:
    """The worker: answers what is pending, and says so once that is on disk."""
    log, queue = Log(folder / EVENTS), Queue()
    while True:
        for event in log.since(queue.last):
            queue.apply(event)
        told = [
            {
                "kind": "told", "round": ROUND, "item": item.id, "person": assignment.person,
                "request": f"told {exchange.event}", "checkpoint": "c" * 64,
                "body": {"number": exchange.number, "text": truth(item.row, exchange.text),
                         "by": "assistant", "confidence": 0.9},
            }
            for item, assignment, exchange in queue.pending(ROUND)
        ]  # fmt: skip
        if told:
            print(*log.append(*told), flush=True)
        else:
            seen = log.change()
            while log.change() == seen:
                time.sleep(0.005)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
