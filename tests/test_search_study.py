"""Reinforcement learning beside search at equal samples: hand-made runs with known differences."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from amplify.reading.experiment_file import read_experiment
from amplify.studies import search_table
from amplify.studies.best_of_n import Scored
from amplify.studies.overoptimisation import ARMS, PENALTY, Look, Run
from amplify.studies.search import Search, measure_search, read_search, samples_to_reach
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

NS = [1, 8, 256, 512]
GOLD, PROXY = [0.0, 0.5, 1.5, 2.0], [0.0, 1.0, 2.0, 2.25]


def run(peak: float, end: float, shift: float = 0.0) -> Run:
    """256 samples a step, 8 of each question; search gains 1.5 by 256 samples and 2 by 512."""
    looks = [Look(1, 1.0, 1.5, peak), Look(2, 2.0, 3.0, end)]
    return Run(looks, [], [], Search(256, 8, NS, [gold + shift for gold in GOLD], PROXY), 1.0)


def printed(*parts) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def test_the_best_of_as_many_samples_as_each_look_has_used(tmp_path):
    experiment = read_experiment(tiny_experiment(tmp_path / "x", JUDGED_ESSAYS) / "experiment.toml")
    training = dataclasses.replace(experiment.training, batch=2)
    experiment = dataclasses.replace(experiment, training=training)  # 2 contexts of 4 essays
    proxy = np.arange(16, dtype=np.float32)[None]
    found = read_search(measure_search(experiment, Scored(proxy, 2 * proxy), [1, 2], (1, 16)))
    assert (found.per_step, found.per_question) == (8, 4)
    assert found.ns == [1, 4, 8, 16]
    assert found.gold_of(1) == 15.0
    assert found.gold_of(16) == 30.0  # the best of all
    assert found.gold_of(8) == pytest.approx(2 * (8 * 17 / 9 - 1))  # the best of 8 of 16 numbers
    assert found.proxy_of(8) == pytest.approx(8 * 17 / 9 - 1)


def test_differences_are_paired_by_seed_in_both_readings():
    """Search with 512 samples: 2.0 and 1 more in the second seed; with 8: .5 and 1.5."""
    runs = [run(1.0, 1.2), run(2.0, 2.1, 1.0), run(1.0, 1.3)]
    one, divided = (
        get(runs) for get in (search_table.more_than_one_question, search_table.more_than_divided)
    )
    assert one.estimate == pytest.approx((-0.8 - 0.9 - 0.7) / 3)
    assert divided.estimate == pytest.approx((0.7 + 0.6 + 0.8) / 3)
    half = 4.3027 * 0.1 / 3**0.5  # t with two degrees of freedom, standard deviation .1
    assert one.low == pytest.approx(-0.8 - half, abs=1e-3)
    assert one.high == pytest.approx(-0.8 + half, abs=1e-3)


def test_each_criterion_says_yes_only_if_the_interval_is_above_0():
    def found(*ends: float) -> list[tuple[str, bool]]:
        arms = {arm: [run(1.0, end) for end in ends] for arm in ARMS}
        return [(one.found.split(",")[0], one.met) for one in search_table.criteria(arms)]

    assert found(1.2, 1.3, 1.4) == [("no", False), ("yes", True)]
    assert found(2.2, 2.3, 2.4) == [("yes", True), ("yes", True)]
    assert found(0.4, 0.6, 0.9) == [("no", False), ("no", False)]  # above on average, by chance
    [one, _] = search_table.criteria({arm: [run(1.0, 1.2)] * 3 for arm in ARMS})
    assert one.found == "no, -0.80"


def test_samples_to_reach_some_gold_are_interpolated_between_logarithms():
    searches = [run(1, 1).search, run(1, 1, 1.0).search]  # means: .5, 1, 2, 2.5
    assert samples_to_reach(searches, 1.0) == pytest.approx(8)
    assert samples_to_reach(searches, 1.5) == pytest.approx((8 * 256) ** 0.5)
    assert samples_to_reach(searches, 0.1) == 1
    assert samples_to_reach(searches, 3.0) is None


def test_tables_show_each_seed_both_readings_and_the_break_even():
    runs = {arm: {100 + n: run(1.0, 1.5 + 0.1 * n) for n in range(3)} for arm in ARMS}
    done = {arm: list(of.values()) for arm, of in runs.items()}
    text = printed(search_table.by_seed(runs), search_table.at_equal_samples(done))
    rows = [line.split() for line in text.splitlines()]
    assert [PENALTY, "101", "1.60", "2.00", "-0.40", "0.50", "1.10"] in rows
    assert [PENALTY, "256", "1.00", "1.50", "-0.50", "1.50", "2.00", "-0.50"] in rows
    assert [PENALTY, "512", "1.60", "2.00", "-0.40", "3.00", "2.25", "0.75"] in rows
    said = [*search_table.lines(done)]
    wanted = "one question -0.40 (-0.65 to -0.15); 64 questions, 8 samples each 1.10 (0.85 to 1.35)"
    assert any(wanted in line for line in said)
    # 1.6 is a fifth of the way from 256 samples to 512, which are fewer from 2 questions on
    assert f"{PENALTY}: search reaches RL's 1.60 with 294 samples of a question" in said[-3]
    assert "RL takes fewer from 2 questions on" in said[-3]
    done[PENALTY] = [run(1.0, 9.0)] * 3
    assert "search does not reach RL's 9.00" in [*search_table.lines(done)][-3]
    done[PENALTY] = [run(1.0, -0.5)] * 3
    assert "RL's -0.50 is no more than one sample" in [*search_table.lines(done)][-3]


def test_a_row_for_programs_has_both_readings():
    assert search_table.row(run(1.0, 1.2)) == {
        "samples": 512,
        "search_one_question": 2.0,
        "search_divided": 0.5,
    }
