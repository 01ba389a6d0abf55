"""What is shown of work that takes a while, in a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from amplify import progress
from amplify.progress import Pace
from amplify.runtime import device

ROW = {"step": 50, "loss": 0.12345, "seconds": 0.25}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_time_left_leaves_out_what_passed_before_the_first_report():
    clock = Clock()
    pace = Pace(1000, clock=clock)
    clock.now += 60  # preparing
    pace.advance(100, None)
    assert pace.left is None
    assert pace.describe(100, None) == ""
    clock.now += 10
    pace.advance(100, None)
    assert pace.left == pytest.approx(80)
    assert pace.describe(100, None) == "10/s, 80 s left"


def test_a_first_log_row_tells_the_pace_and_later_ones_count_what_was_measured_between():
    clock = Clock()
    pace = Pace(1000, 500, later=120.0, clock=clock)
    pace.advance(50, ROW)
    assert pace.left == pytest.approx(450 / 200)
    clock.now += 1  # a quarter of it for steps, the rest for a look at held-out questions
    pace.advance(50, ROW)
    assert pace.left == pytest.approx(400 / 50)
    told = pace.describe(50, ROW | {"accuracy": {"alone": {"a": 1.0, "b": 0.5}}})
    assert told == (
        "loss 0.1235, alone 100.0 / 50.0% by class, 200 steps/s, 8.0 s left,"
        " about 2 min for the round"
    )


def test_time_left_leaves_out_what_is_spent_on_compiling_later(monkeypatch):
    now, compiled = [100.0], [5.0]
    monkeypatch.setattr(device.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(device, "compile_seconds", lambda: compiled[0])
    pace = Pace(1000, clock=device.working_seconds)
    pace.advance(100, None)
    now[0] += 70.0  # a look at held-out questions, whose program was compiled in 60 of them
    compiled[0] += 60.0
    pace.advance(100, None)
    assert pace.left == pytest.approx(80)


def test_without_a_terminal_a_log_row_is_a_line_and_other_work_only_now_and_then(monkeypatch):
    console = Console(file=io.StringIO(), width=40)
    watch = progress.lines(console, "round [1]", lambda: None)
    with watch("distillation", 200, 100) as advance:
        advance(50, ROW)
        advance(50, ROW | {"seconds": 0.0})
    with watch("evaluating", 64) as advance:
        advance(16)
        monkeypatch.setattr(progress, "PAUSE", -1.0)
        advance(16)
    lines = console.file.getvalue().splitlines()
    assert lines[:3] == [
        "round [1]: distillation resumes after 100 of 200",
        "round [1]: distillation, 100 of 200: compiling",
        "round [1]: distillation, 150 of 200, loss 0.1235, 200 steps/s, 0.2 s left",
    ]
    assert lines[3].startswith("round [1]: distillation, 200 of 200, loss 0.1235")
    assert lines[4] == "round [1]: evaluating, 0 of 64: compiling"
    assert lines[5].startswith("round [1]: evaluating, 32 of 64, ")
    assert len(lines) == 6


def test_in_a_terminal_a_bar_says_what_compiles_then_the_loss_and_time_left():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with progress.bars(console, "round 2", lambda: 60.0)("distillation", 200, 100) as advance:
        before = console.file.getvalue()
        advance(50, ROW)
    after = console.file.getvalue().removeprefix(before)
    assert "round 2: distillation resumes after 100 of 200" in before
    assert "100/200" in before
    assert "compiling" in before
    assert "150/200" in after
    assert "loss 0.123, 60 s left" in after
    assert "compiling" not in after.rpartition("150/200")[2]
