"""Fifty simulated people at once on the real pages, undisturbed and with servers that are killed.

A worker that knows the truth stands in for a model, so that what is measured is the pages.
"""

import collections
import itertools
import random
import time

import numpy as np
import psutil

from amplify.people.habits import CrowdConfig
from tests.people.staff import Round, check_nothing_is_lost, let_people_work

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
        while round_.queue.open_items(1) and time.monotonic() < began + 60 * MINUTES:
            used["web"], used["worker"] = web.cpu_seconds(), worker.cpu_seconds()
            time.sleep(1)
        used["% of all cores"] = psutil.cpu_percent()

    diary = let_people_work(round_, PEOPLE, seconds=60 * MINUTES, meanwhile=measure)
    seconds = time.monotonic() - began
    taken = report("undisturbed", diary, seconds)
    used["crowd and test"] = time.process_time()
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
            if number == 20 or not round_.queue.open_items(1):
                return
            for process in chance.choice([[web], [worker], [web, worker]]):
                process.kill()
                time.sleep(chance.uniform(0, 1))
                process.start()
            kills["kills"] += 1

    diary = let_people_work(round_, PEOPLE, seconds=60 * MINUTES, meanwhile=kill)
    report(f"{kills['kills']} kills", diary, time.monotonic() - began)
    assert kills["kills"] == 20
    print(f"  {diary.failures} requests had no answer and were sent again")
    check_nothing_is_lost(round_, diary)
