"""XLA has two threads at least, also on a machine with one core."""

import os
import subprocess
import sys

import pytest

from amplify.runtime import threads

ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import amplify
print(os.environ.get("NPROC"))
"""


def number_of_threads(program: str, **environment: str) -> str:
    known = {name: value for name, value in os.environ.items() if name != threads.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env=known | environment,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot choose cores here")
def test_one_core_gets_two_threads_unless_the_user_said_otherwise():
    assert number_of_threads(ON_ONE_CORE) == "2"
    assert number_of_threads(ON_ONE_CORE, NPROC="3") == "3"


def test_several_cores_are_left_alone(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    threads.reserve()
    assert threads.VARIABLE not in os.environ
