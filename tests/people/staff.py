"""What is around the pages, in small: a round of permutation questions, a worker that knows the
truth without a model, both it and the web server as processes to be killed, and a crowd.
"""

import asyncio
import collections
import contextlib
import dataclasses
import functools
import json
import pickle
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from amplify.crowd.__main__ import invite_crowd
from amplify.crowd.simulated import Diary, Done, run_crowd
from amplify.crowd.simulated_policy import decide
from amplify.overseers.habits import CrowdConfig
from amplify.people.items import RoundStage
from amplify.people.log import Log
from amplify.people.roster import Roster
from amplify.people.rules import Queue
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.web.service import EVENTS
from tests.people.worker import ROUND, SYMBOLS

TASK = Permutation(symbols=SYMBOLS, bits=4)
CHOICES = [str(symbol) for symbol in range(1, SYMBOLS + 1)]


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
        return f"{chance.randint(1, SYMBOLS)}^{chance.randint(4, 15)}"

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
        while self.queue.open_items(RoundStage(ROUND)):
            assert time.monotonic() < end, (
                f"{self.queue.open_items(RoundStage(ROUND))} items are still open"
            )
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
    worker = Process("tests.people.worker", str(folder), said=folder / "worker.txt")
    try:
        worker.start()
        web.start()
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        yield address, web, worker
    finally:
        web.kill()
        worker.kill()


def let_people_work(
    round: Round,
    config: CrowdConfig,
    *,
    seconds: float,
    apart: bool = False,
    meanwhile: Callable[[str, Process, Process], object] = lambda address, web, worker: None,
) -> Diary:
    """Until all items are complete; then the round is closed, and everybody goes home.

    Args:
        apart: the people are a process of their own, without the tests' checks of all signatures.
    """
    with ThreadPoolExecutor() as threads, working(round.folder) as (address, web, worker):

        def manage() -> None:
            try:
                meanwhile(address, web, worker)
                round.wait(seconds)
            finally:
                round.close()

        managed = threads.submit(manage)
        if apart:
            given = [json.dumps(dataclasses.asdict(config)), str(2 * seconds)]
            command = [
                sys.executable,
                "-m",
                "tests.people.staff",
                str(round.folder),
                address,
                *given,
            ]
            said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            diary = pickle.loads(said)
        else:
            diary = answer_all(round.folder, address, config, 2 * seconds)
        managed.result()
    return diary


def answer_all(folder: Path, address: str, config: CrowdConfig, seconds: float) -> Diary:
    """What the people do, and note."""
    members = invite_crowd(Roster(folder), config.people, time.time())
    crowd = run_crowd(functools.partial(decide, TASK), config, members, address, diary := Diary())
    asyncio.run(asyncio.wait_for(crowd, seconds))
    return diary


def done(log: Log) -> collections.Counter[Done]:
    """What people did, as the log has it."""
    kinds = {
        "asked": ("ask", "text"),
        "submitted": ("submit", "answer"),
        "skipped": ("skip", "reason"),
    }
    return collections.Counter(
        Done(kinds[event.kind][0], event.item or "", event.person or "",
             event.body[kinds[event.kind][1]])
        for event in log.since()
        if event.kind in kinds
    )  # fmt: skip


def check_nothing_is_lost(round: Round, diary: Diary) -> None:
    """Every acknowledged event is there, and no item was answered twice by anybody or by more than
    were wanted.
    """
    logged = done(round.log)
    assert collections.Counter(diary.done) == logged
    told = [event.id for event in round.log.since() if event.kind == "told"]
    printed = (round.folder / "worker.txt").read_text().split()
    assert {*map(int, printed)} <= {*told}
    answered = collections.Counter(
        (event.item, event.body["number"], event.person)
        for event in round.log.since()
        if event.kind == "told"
    )
    assert max(answered.values()) == 1
    submissions = [(one.item, one.person) for one in logged.elements() if one.form == "submit"]
    assert len({*submissions}) == len(submissions)
    submitted = collections.Counter(item for item, _ in submissions)
    for item in round.queue.items.values():
        assert submitted[item.id] == len(item.submissions) == item.overlap, item
    assert (round.folder / "web.txt").read_text() == ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_for(address: str) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/healthz", timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody answers at {address}")


def main() -> None:
    folder, address, config, seconds = sys.argv[1:]
    diary = answer_all(Path(folder), address, CrowdConfig(**json.loads(config)), float(seconds))
    print(f"  the crowd used {time.process_time():.0f} CPU seconds", file=sys.stderr)
    sys.stdout.buffer.write(pickle.dumps(diary))


if __name__ == "__main__":
    main()
