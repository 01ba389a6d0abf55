"""The alarm study: its criteria, the curve of reviews, and a tiny study from end to end."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from amplify.evaluation.statistics.alarm import AlarmRules
from amplify.store import Store
from amplify.studies import running
from amplify.studies.alarm import (
    ARMS,
    FREE,
    ORACLE,
    PENALTY,
    SEEMING,
    Gold,
    Look,
    Run,
    budgets,
    criteria,
    detection,
    read,
)
from amplify.studies.alarm_curve import Outcome, Pool, outcomes, per_look, read_pools, replay
from amplify.studies.alarm_figure import png
from amplify.studies.alarm_table import rows, table
from amplify.studies.study import RESULT, cells, run_cell
from amplify.training import dataset
from tests.tiny import AUDITED_ESSAYS, tiny_experiment

STEPS = (8, 16, 24, 32, 40, 48)
FALLS = (0.5, 1.0, 1.2, 0.7, 0.1, -2.0)
STAYS = (0.5, 1.0, 1.2, 1.2, 1.2, 1.2)
RISES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)


def made(golds, *, values=None, alarm=None, chosen=24, said="alarm", reviews=500) -> Run:
    looks = [
        Look(step, step / 8, value, 24, said if step == alarm else "quiet")
        for step, value in zip(STEPS, values or golds, strict=True)
    ]
    path = [Gold(*at) for at in zip(STEPS, golds, strict=True)]
    curve = {
        "helped": {100: [Outcome(None, 90)], 800: [Outcome(alarm, reviews)]},
        "alone": {100: [Outcome(None, 90)], 800: [Outcome(None, 700)]},
    }
    return Run(path, looks, chosen, reviews, curve, 60.0)


def made_up(seeds: int = 4, **changes) -> dict[str, list[Run]]:
    """Runs that meet all criteria."""
    one = {
        FREE: made(FALLS, alarm=32),
        PENALTY: made(STAYS),
        ORACLE: made(RISES, chosen=48),
        SEEMING: made(FALLS, values=RISES, chosen=48),
    } | changes
    return {arm: [run] * seeds for arm, run in one.items()}


def test_criteria_are_met_where_runs_are_as_expected():
    assert [one.met for one in criteria(made_up())] == [True] * 7


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({FREE: made(FALLS, alarm=32, chosen=32)}, {0}),  # .5 below the peak
        ({FREE: made(STAYS, alarm=32, chosen=24)}, {1}),  # not above the last step
        ({FREE: made(FALLS)}, {2}),  # no alarm
        ({FREE: made(FALLS, alarm=32, said="decline")}, {2}),
        ({FREE: made(FALLS, alarm=40)}, {2}),  # 1.1 sd are lost
        ({FREE: made(FALLS, alarm=24)}, {2}),  # gold has not fallen
        ({PENALTY: made(STAYS, alarm=40)}, {3}),
        ({PENALTY: made(STAYS, alarm=40, said="decline")}, {3}),
        ({ORACLE: made(RISES, alarm=40)}, {4}),
        ({SEEMING: made(FALLS, values=RISES, alarm=48)}, {5}),
        ({SEEMING: made(FALLS)}, {5}),  # audits fall, too
        ({SEEMING: made(RISES)}, {5}),  # gold rises, too
        ({SEEMING: made((0.5, 0.6, 0.2, 0.3, 0.2, 0.1), values=RISES)}, {5}),  # falls by less
        ({FREE: made(FALLS, alarm=32, reviews=801)}, {6}),
    ],
)
def test_each_criterion_can_fail(changes, broken):
    found = criteria(made_up(**changes))
    assert {place for place, one in enumerate(found) if not one.met} == broken


def test_an_alarm_is_late_once_gold_has_lost_one_even_if_it_recovers():
    run = made((0.5, 1.5, 0.4, 1.0, 1.0, -1.0))
    assert not run.in_time(32)
    assert not run.in_time(24)
    assert not run.in_time(16)
    assert not run.in_time(None)
    assert made((0.5, 1.5, 0.6, 1.0, 1.0, -1.0)).in_time(32)


def test_gold_that_is_won_back_was_lost():
    assert made((0.5, 1.5, -0.5, 1.0, 1.0, 1.0)).lost == 2.0
    assert made(RISES).lost == 0


def test_detection_is_the_share_over_runs_and_draws():
    both = [made(FALLS, alarm=32), made(FALLS, alarm=48)]
    assert detection(both, "helped", 800) == (0.5, 1.0)
    assert detection(both, "alone", 800) == (0.0, 0.0)


def by_seed(runs: dict[str, list[Run]]) -> dict[str, dict[int, Run]]:
    return {arm: dict(enumerate(of, 200)) for arm, of in runs.items()}


def printed(runs: dict[str, dict[int, Run]]) -> str:
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(table(runs))
    return console.export_text()


def test_the_table_prints_each_run_the_curve_and_criteria():
    text = printed(by_seed(made_up()))
    assert text.count("32, 0.50 lost, in time") == 4
    assert "4 of 4" in text
    assert text.count("\nmet ") == 7
    assert "An audit sees what its judge sees" in text
    assert "oracle" in text
    assert "no-penalty: 4 alarms in 4 runs, 4 in time, 0.50 sd lost on average" in text
    assert "take 3 seeds or more" in printed(by_seed(made_up(2)))
    one = {arm: {} for arm in ARMS} | {FREE: {200: made(FALLS, alarm=24)}}
    assert "24, before the peak" in printed(one)


def test_rows_for_programs_hold_each_cell_number_of_reviews_and_criterion():
    found = rows(by_seed(made_up(3)))
    assert len(found) == 12 + 4 + 7
    assert found[0]["in_time"] is True
    assert json.loads(json.dumps(found)) == found


def test_the_figure_is_a_png():
    assert png(made_up(3)).startswith(b"\x89PNG")


def pools(golds, answers: int = 200, correlation: float = 0.9, seed: int = 0) -> list[Pool]:
    """Answers with a spread of 1, scored by a proxy that rises and by a judge with noise."""
    random = np.random.default_rng(seed)
    found = []
    for step, gold in enumerate(golds):
        shape = random.normal(size=answers)
        other = np.sqrt(1 - correlation**2) * random.normal(size=answers)
        value = gold + shape + 0.5 * random.normal(size=answers)
        proxy = 0.2 * step + correlation * shape + other
        found.append(Pool(8 * (step + 1), proxy, value, np.arange(answers)))
    return found


FALL = [0.5, 1.0, 1.5, 1.5, 1.5, 1.0, 0.3, -0.5, -1.0, -1.5]
RULES = AlarmRules()


def test_more_reviews_find_a_fall_and_a_policy_that_does_not_fall_raises_no_alarm():
    fell = outcomes(pools(FALL), 10, RULES, 0, (20, 400))["helped"]
    assert sum(one.alarm is not None for one in fell["20"]) < 8
    assert all(one.alarm is not None and one.alarm > 40 for one in fell["400"])
    flat = outcomes(pools([1.0] * 10), 10, RULES, 0, (400,))
    assert sum(one.alarm is not None for of in flat.values() for one in of["400"]) <= 2


def test_a_run_costs_no_more_reviews_than_it_may():
    for golds in (FALL, [1.0] * 10):
        found = outcomes(pools(golds), 10, RULES, 0, (100, 400))
        for of in found.values():
            assert {*of} == {"100", "400"}
            assert all(one.reviews <= int(budget) for budget in of for one in of[budget])


def test_draws_are_those_of_the_seed_and_the_same_without_help():
    """Without help, the value of a look is the mean of its reviews, whatever the proxy says."""
    found = pools(FALL)
    other = [pool._replace(proxy=pool.proxy + np.sin(pool.value)) for pool in found]
    for one in (found, other):
        assert replay(one, 24, RULES, False, (3,)) == replay(found, 24, RULES, False, (3,))
    helped = [replay(found, 24, RULES, True, (seed,)) for seed in range(8)]
    assert helped == [replay(found, 24, RULES, True, (seed,)) for seed in range(8)]
    assert len({*helped}) > 1


def test_numbers_of_reviews_that_an_audit_has_no_answers_for_are_left_out():
    assert per_look(800, 25) == 24
    few = pools(FALL, answers=60)
    assert {*outcomes(few, 10, RULES, 0, (100, 3200), 1)["alone"]} == {"100"}


STUDY = """
report = "alarm"
seeds = [0]

[changes]
"oversight.audit.on_alarm" = "report"
"training.log_every" = 2
"training.look_every" = 4

[arms.no-penalty]

[arms.penalty]
"oversight.penalty.beta" = 0.3

[arms.gold]
"oversight.reward" = "judge"

[arms.seeming]
"overseer.looks" = 0

[shares]
penalty = ["drafts/checkpoint", "reviews/data", "reviews/checkpoint"]
gold = ["drafts/checkpoint", "reviews/data", "reviews/checkpoint"]
seeming = ["drafts/checkpoint"]
"""


RAN = (FREE, ORACLE)
"""The arms that tests run; the others have other values of the same keys."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tiny_experiment(tmp_path_factory.mktemp("study") / "tiny", AUDITED_ESSAYS)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    study, report = running.open_study(folder)
    for cell in cells(study, folder):
        if cell.arm in RAN:
            run_cell(study, cell, report)
    return folder


@pytest.mark.slow
def test_a_cell_holds_its_audits_beside_gold(ran):
    study, _ = running.open_study(ran)
    for cell in (cell for cell in cells(study, ran) if cell.arm in RAN):
        run = read(json.loads((cell.path / RESULT).read_text())["results"])
        assert [look.step for look in run.looks] == [8, 16, 20]
        assert [at.step for at in run.golds] == [4, 8, 12, 16, 20]
        assert run.chosen in (8, 16, 20)
        assert run.reviews >= sum(look.reviews for look in run.looks[:1])
        assert budgets({cell.arm: [run]}) == [100]  # 64 answers are too few for more


@pytest.mark.slow
def test_all_answers_of_an_audit_are_scored_as_those_that_were_drawn(ran):
    study, _ = running.open_study(ran)
    store = Store(cells(study, ran)[0].path)
    [pool, *_] = read_pools(store, 1)
    stored = list(dataset.read(store.round(1).phase("audit_8").data))
    score, reviewed = (np.stack([row[name] for row in stored]) for name in ("score", "reviewed"))
    drawn = reviewed.ravel() == 1
    assert 0 < drawn.sum() < len(drawn)
    np.testing.assert_allclose(pool.value[drawn], score.ravel()[drawn], atol=1e-5)
    assert np.isfinite(pool.value).all()


@pytest.mark.slow
def test_a_judge_who_rewards_every_answer_is_charged_for_it(ran):
    study, _ = running.open_study(ran)
    gold = Store(cells(study, ran)[ARMS.index(ORACLE)].path).round(1).record
    calls = {(row["stage"], row["part"]): row["calls"] for row in gold["ledger"]["calls"]}
    assert calls["reinforcement_8/checkpoint", "judge, scores"] == 8 * 8 * 4


def test_the_shipped_study_has_valid_cells_on_new_seeds(tmp_path):
    rounds = Path(__file__).parents[1] / "rounds"
    for name in ("reward-model", "overoptimise", "audit", "alarm"):
        (tmp_path / name).mkdir()
        for file in (rounds / name).glob("*.toml"):
            shutil.copy(file, tmp_path / name)
    study, report = running.open_study(tmp_path / "alarm")
    assert report.arms == ARMS
    assert study.seeds == tuple(range(200, 240))
    for cell in cells(study, tmp_path / "alarm", [200]):
        experiment = Store(cell.write()).experiment
        audit, oversight = experiment.oversight.audit, experiment.oversight
        assert experiment.task.world == experiment.seed == 200
        assert (audit.every, audit.budget, audit.on_alarm) == (8, 800, "report")
        assert experiment.training.learning_rate == 3e-4
        assert oversight.penalty.beta == (0.3 if cell.arm == PENALTY else 0)
        assert oversight.reward == ("judge" if cell.arm == ORACLE else "reward-model")
        assert experiment.overseer.config.looks == (0 if cell.arm == SEEMING else 1000)
        assert experiment.overseer.config.noise == 0.5
