"""The study of all mechanisms of oversight: what a budget affords, and who comes out ahead."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from amplify.evaluation.figures import MISSING
from amplify.evaluation.items import ALL
from amplify.experiment.sections import Prices
from amplify.launch import launch
from amplify.runtime import effort
from amplify.studies import oversight
from amplify.studies.oversight import ARMS, Reached, Run
from amplify.studies.oversight_table import REPORT
from amplify.studies.running import open_study
from amplify.studies.study import cells
from tests.tiny import tiny_experiment

ROUNDS = Path(__file__).parents[1] / "rounds"
PRICES = Prices(read=1.0, look=10.0, ask=4.0, comparison=5.0, answer=2.0)


def reached(effort: dict[str, int], share: float, signal: float | None = None) -> Reached:
    return Reached(effort, 10.0, {"shallow": share, ALL: share / 2}, signal)


@pytest.fixture
def runs():
    """Two rounds of each arm and three seeds. The judge alone costs 100 s, and others more."""

    def cells(*rounds: Reached) -> dict[int, Run]:
        return {seed: Run(PRICES, [reached({}, 0.0), *rounds]) for seed in range(3)}

    def twice(actions: dict[str, int]) -> dict[str, int]:
        return {action: 2 * number for action, number in actions.items()}

    answers, debates = {"answer": 10, "ask": 10}, {"read": 40, "comparison": 6}
    looks = {"look": 5}
    return {
        "truth": cells(reached(answers, 0.9, 1.0), reached(twice(answers), 1.0, 1.0)),
        "amplification": cells(reached(answers, 0.5, 0.6), reached(twice(answers), 0.8, 0.9)),
        "reward-model": cells(reached({"look": 11}, 0.9), reached({"look": 12}, 0.9)),
        "direct": cells(reached(looks, 0.1, 0.5), reached(twice(looks), 0.2, 0.5)),
        "consultancy": cells(reached(debates, 0.3, 0.7), reached(twice(debates), 0.4, 0.8)),
        "debate": cells(reached(debates, 0.6, 0.8), reached(twice(debates), 0.68, 0.9)),
    }


def test_every_arm_is_read_at_what_the_cheapest_one_takes(runs):
    done = {arm: [*of.values()] for arm, of in runs.items()}
    assert oversight.budget(done, PRICES) == 100
    found = {arm: of[0] for arm, of in oversight.accuracies(done, "shallow", PRICES).items()}
    assert found == pytest.approx(
        {
            "truth": 0.9 + 0.1 * 40 / 60,  # rounds end after 60 and 120 s
            "amplification": 0.5 + 0.3 * 40 / 60,
            "reward-model": 0.9 * 100 / 110,  # the first round ends after 110 s
            "direct": 0.2,  # 50 and 100 s
            "consultancy": 0.3 + 0.1 * 30 / 70,  # 70 and 140 s
            "debate": 0.6 + 0.08 * 30 / 70,
        }
    )
    assert oversight.ranking(done, PRICES) == [
        "reward-model", "amplification", "debate", "consultancy", "direct",
    ]  # fmt: skip


def test_the_ranking_is_printed_again_for_each_price_that_changes_it(runs):
    said = shown(runs)
    assert "Ranking: reward-model > amplification > debate > consultancy > direct." in said
    # Looks of 20 s: the budget is 120 s, and the first round of the reward model takes 220 s.
    assert "At look 20 s: amplification > debate > reward-model > consultancy > direct." in said
    assert "At comparison 2.5 s" not in said  # debates get further, and still not that far
    assert "same if any one price" not in said


def test_a_ranking_that_no_price_changes_is_said_to_be_so(runs):
    few = {"comparison": 1}
    same = {
        arm: {0: Run(PRICES, [reached({}, 0.0), reached(few, 0.1 * n)])}
        for n, arm in enumerate(ARMS)
    }
    assert "It is the same if any one price is halved or doubled." in shown(same)


def test_the_table_says_what_was_spent_and_how_often_signals_were_right(runs):
    lines = [line.split() for line in shown(runs).splitlines()]
    first, second = (line for line in lines if line[:1] == ["debate"])
    # all, shallow, signal, hours, device seconds
    assert first[1:] == ["31.7", "63.4", "90.0", "0", "10"]
    assert second[1:] == ["31.7"] * 3
    [model, _] = [line for line in lines if line[:1] == ["reward-model"]]
    assert model[-3:] == [MISSING, "0", "10"]
    assert [line for line in lines if line[:2] == ["truth", "(oracle)"]]


def test_ranks_are_compared_pair_by_pair(runs):
    other = {seed: run._replace(rounds=[*run.rounds]) for seed, run in runs["direct"].items()}
    for seed, run in other.items():  # 20, 30 and 40 % in place of 20 %
        run.rounds[-1] = reached({"look": 10}, 0.2 + 0.1 * seed, 0.5)
    said = shown(runs | {"direct": other})
    # All classes are half: .1714 of consultancy, and .1, .15 and .2. Student's quantile is 4.303.
    assert "consultancy minus direct, paired by seed: 2.1 (-10.3 to 14.6) points" in said


def test_an_interval_of_shares_ends_at_0_and_1():
    assert oversight.share_over_seeds([0.2, 0.9, 1.0])[1:] == (0, 1)
    # Student's, by hand: the standard error is .1 / sqrt(3), and the quantile 4.303.
    found = oversight.share_over_seeds([0.4, 0.5, 0.6])
    assert found == pytest.approx((0.5, 0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)


def test_rows_for_programs_have_every_round(runs):
    rows = json.loads(json.dumps(REPORT.rows(runs)))
    assert len(rows) == 6 * 3 * 3
    assert rows[1]["human_seconds"] == 60


def test_the_figure_is_a_picture(runs):
    done = {arm: [*of.values()] for arm, of in runs.items()}
    assert REPORT.figure(done).startswith(b"\x89PNG")


def test_every_arm_of_the_study_is_an_experiment():
    study, report = open_study(ROUNDS / "oversight")
    assert report is REPORT
    for cell in cells(study, ROUNDS / "oversight", [0]):
        cell.derive()


@pytest.mark.slow
def test_what_is_measured_is_what_the_rounds_record(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny")
    with launch(folder, cluster=False) as (store, run_round):
        for number in range(3):
            run_round(number)
        found = oversight.read(json.loads(json.dumps(oversight.measure(store, 2))))
    untrained, first, second = found.rounds
    assert first.effort == effort.of_record(store.round(1).record)
    assert second.effort["answer"] == 2 * first.effort["answer"] == 2 * 96 * 4
    assert second.effort["ask"]  # of round 1's assistant; before, the environment told it all
    assert found.seconds(found.prices) == [
        pytest.approx(store.experiment.prices.seconds(one.effort)) for one in found.rounds
    ]
    assert set(first.right) == {"1 wildcard", "2 wildcards", "3 wildcards", ALL}
    assert (untrained.effort, untrained.device_seconds, untrained.signal) == ({}, 0.0, None)
    assert 0 < first.device_seconds < second.device_seconds
    assert 0 <= first.signal <= 1


def shown(runs) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(REPORT.table(runs))
    return capture.get()
