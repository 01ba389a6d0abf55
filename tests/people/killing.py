"""Rounds whose process is killed while people work."""

import subprocess
import sys
import time
from pathlib import Path

from amplify.people.events import Event
from amplify.people.log import EVENTS, Log
from amplify.people.rules import Queue


def events(folder: Path, kind: str | None = None) -> list[Event]:
    """The events of an experiment's log, all or of one kind."""
    log = Log(folder / EVENTS)
    try:
        return [event for event in log.since() if kind in (None, event.kind)]
    finally:
        log.close()


def kill_after(folder: Path, submitted: int, stage: str) -> None:
    """Runs round 1 in a process of its own, and kills it once a stage has so many answers."""
    command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 600
        while _answers(folder, stage) < submitted:
            assert time.monotonic() < until, "nobody answers"
            assert process.poll() is None, "the round ended by itself"
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def _answers(folder: Path, stage: str) -> int:
    if not (folder / EVENTS).exists():
        return 0
    items = Queue(events(folder)).items.values()
    return sum(len(item.submissions) for item in items if item.asked_in.stage == stage)
