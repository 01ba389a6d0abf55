"""Fifty simulated people at once on the real pages, undisturbed and with servers that are killed.

A worker that knows the truth stands in for a model, so that what is measured is the pages; but for
the last, where a whole round is killed, with its model, its worker and its pages.
"""

import asyncio
import collections
import contextlib
import functools
import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from amplify.cli.commands import main
from amplify.crowd.__main__ import invite_crowd
from amplify.crowd.simulated import Diary, run_crowd
from amplify.crowd.simulated_policy import decide
from amplify.overseers.habits import CrowdConfig
from amplify.people.items import RoundStage
from amplify.people.log import EVENTS, Log
from amplify.people.roster import Roster
from amplify.people.rules import Queue
from amplify.store import Store
from tests.people.staff import Round, check_nothing_is_lost, done, free_port, let_people_work
from tests.people.test_collection import people_experiment

MINUTES = 10
PEOPLE = CrowdConfig(people=50, seconds=1.0, error_rate=0.1, trust=0.1, laziness=0.1)


def report(title, diary, seconds):
    """Seconds that a request took, as the people measured them."""
    submitted = sum(done.form == "submit" for done in diary.done)
    print(f"\n{title}: {submitted} submissions of {PEOPLE.people} people in {seconds:.0f} s")
    taken = collections.defaultdict(list)
    for what, second in diary.seconds:
        taken[what].append(1000 * second)
    taken["all but news"] = [s for what, some in taken.items() if what != "news" for s in some]
    for what, some in taken.items():
        middle, high, most = np.percentile(some, [50, 95, 100])
        print(f"  {what:12} {len(some):6} x  median {middle:6.1f}  p95 {high:6.1f}"
              f"  most {most:7.1f} ms")  # fmt: skip
    return taken


def test_fifty_people_at_once_lose_nothing_and_wait_for_no_page(tmp_path):
    round_, began = Round(tmp_path / "people", 2500, overlap=2), time.monotonic()
    used = {}

    def measure(_, web, worker):
        psutil.cpu_percent()
        while round_.queue.open_items(RoundStage(1)) and time.monotonic() < began + 60 * MINUTES:
            used["web"], used["worker"] = web.cpu_seconds(), worker.cpu_seconds()
            time.sleep(1)
        used["% of all cores"] = psutil.cpu_percent()

    diary = let_people_work(round_, PEOPLE, seconds=60 * MINUTES, apart=True, meanwhile=measure)
    seconds = time.monotonic() - began
    taken = report("undisturbed", diary, seconds)
    print("  CPU seconds, and how busy the computer was:", {k: round(v) for k, v in used.items()})
    check_nothing_is_lost(round_, diary)
    assert len(diary.seconds) > 5000
    high = np.percentile(taken["all but news"], 95)
    print(f"  95 % of pages within {high:.0f} ms (150 wanted)")
    assert high < 150


def test_twenty_kills_lose_nothing_and_the_round_ends_complete(tmp_path):
    round_, began = Round(tmp_path / "people", 900, overlap=2), time.monotonic()
    chance, kills = random.Random(5), collections.Counter()

    def kill(_, web, worker):
        for number in itertools.count():
            time.sleep(chance.uniform(1, 8))
            if number == 20 or not round_.queue.open_items(RoundStage(1)):
                return
            for process in chance.choice([[web], [worker], [web, worker]]):
                process.kill()
                time.sleep(chance.uniform(0, 1))
                process.start()
            kills["kills"] += 1

    diary = let_people_work(round_, PEOPLE, seconds=60 * MINUTES, apart=True, meanwhile=kill)
    report(f"{kills['kills']} kills", diary, time.monotonic() - began)
    assert kills["kills"] == 20
    print(f"  {diary.failures} requests had no answer and were sent again")
    check_nothing_is_lost(round_, diary)


class RestartedRound:
    """A round on a machine where processes are killed: begun again each time, until it is done."""

    def __init__(self, folder: Path) -> None:
        self.port, self.kills = free_port(), collections.Counter[str]()
        self._command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
        self._said = folder / "said.txt"

    def go_on(self, chance: random.Random, kills: int) -> None:
        process = self._start()
        for _ in range(kills):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(4, 14))
                break
            if chance.random() < 0.3 and (web := self._web_of(process)) is not None:
                web.kill()
                self.kills["pages"] += 1
            else:
                process.kill()
                process.wait()
                self.kills["round"] += 1
                process = self._start()
        assert process.wait(600) == 0, self._said.read_text(encoding="utf-8")[-2000:]

    def _start(self) -> subprocess.Popen:
        known = os.environ | {"AMPLIFY_PORT": str(self.port)}
        with self._said.open("ab") as said:
            return subprocess.Popen(self._command, env=known, stdout=said, stderr=said)

    def _web_of(self, process: subprocess.Popen) -> psutil.Process | None:
        children = psutil.Process(process.pid).children()
        return next((child for child in children if "amplify.web" in child.cmdline()), None)


def test_twenty_kills_of_a_round_lose_nothing_and_it_ends_with_the_right_data(tmp_path):
    folder = people_experiment(tmp_path / "mixed", overlap=2, more='people = "real"')
    file = folder / "experiment.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace("items = 40", "items = 300"), encoding="utf-8"
    )
    config = CrowdConfig(people=10, seconds=1.0, error_rate=0.1, trust=0.1, laziness=0.1)
    rounds, diary, began = RestartedRound(folder), Diary(), time.monotonic()

    async def both() -> None:
        task, members = (
            Store(folder).experiment.task,
            invite_crowd(Roster(folder), config.people, time.time()),
        )
        address = f"http://127.0.0.1:{rounds.port}"
        crowd = asyncio.create_task(
            run_crowd(functools.partial(decide, task), config, members, address, diary)
        )
        await asyncio.to_thread(rounds.go_on, random.Random(7), 20)
        crowd.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await crowd

    asyncio.run(both())
    report(f"killed: {dict(rounds.kills)}", diary, time.monotonic() - began)
    assert rounds.kills.total() == 20
    log = Log(folder / EVENTS)
    logged, queue, events = done(log), Queue(log.since()), [*log.since()]
    log.close()
    assert collections.Counter(diary.done) <= logged
    assert max(logged.values()) == 1
    told = collections.Counter(
        (event.item, event.body["number"], event.person) for event in events if event.kind == "told"
    )
    assert max(told.values()) == 1
    for item in queue.items.values():
        assert len(item.submissions) == item.overlap or item.withdrawn, item
    main(["replay", str(folder), "--round", "1"])  # exits if the data is not what it gives
