"""The study of restarts: how beta is chosen, pairs, criteria, and a tiny study from end to end."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.store import Store
from amplify.studies import running
from amplify.studies.restarts import (
    ARMS,
    AT_ONCE,
    BETAS,
    RESTARTS,
    Run,
    arm_of,
    best_arm,
    criteria,
    pairs,
    tuned_on,
    wanted,
)
from amplify.studies.restarts_table import png, rows, table
from amplify.studies.study import RESULT, cells
from tests.test_cli import refused
from tests.tiny import AUDITED_ESSAYS, shipped, tiny_experiment


def made(gold: float, *, reviews: int = 2000, steps: int = 320) -> Run:
    """Four attempts, of which audits choose the second."""
    return Run([0.5, gold, 0.7, 0.9], [0.4, 2.0, None, 1.0], 1, reviews - 192, 192, steps, 60.0)


def made_up(gains: list[float], **changes) -> dict[str, dict[int, Run]]:
    """Beta .1 is best for restarts and .03 at once; seeds from 100 have these gains."""
    tuning = {"restarts-3": 1.0, "restarts-10": 1.5, "restarts-30": 1.2}
    tuning |= {"at-once-3": 1.4, "at-once-10": 1.3, "at-once-30": 0.8}
    runs = {
        arm: {seed: made(gold + 0.1 * seed) for seed in range(3)} for arm, gold in tuning.items()
    }
    for seed, gain in enumerate(gains, 100):
        runs["at-once-3"][seed] = made(1.0 + 0.5 * (seed - 100))
        runs["restarts-10"][seed] = made(1.0 + 0.5 * (seed - 100) + gain, **changes)
    return runs


def test_each_method_has_the_beta_that_is_best_on_the_seeds_for_tuning():
    runs = made_up([-5.0, -5.0])  # what follows has no say
    assert (best_arm(runs, RESTARTS), best_arm(runs, AT_ONCE)) == ("restarts-10", "at-once-3")
    assert wanted(runs, 9) == ARMS
    assert wanted(runs, 100) == ("restarts-10", "at-once-3")


def test_seeds_that_are_not_done_in_all_arms_do_not_choose_beta():
    runs = made_up([])
    runs["restarts-3"][3] = made(99.0)
    assert tuned_on(runs) == [0, 1, 2]
    assert best_arm(runs, RESTARTS) == "restarts-10"


def test_without_seeds_for_tuning_there_is_no_beta():
    with pytest.raises(AmplifyError, match="seeds 0 to 9 choose beta, and must come first"):
        wanted({arm: {} for arm in ARMS}, 100)
    assert pairs({arm: {} for arm in ARMS}) == []


def test_gains_are_paired_by_seed_with_a_t_interval():
    found = pairs(made_up([0.1, 0.2, 0.3]))
    assert [(pair.seed, round(pair.gain, 9)) for pair in found] == [
        (100, 0.1), (101, 0.2), (102, 0.3),
    ]  # fmt: skip
    [ahead, equal] = criteria(found)
    assert ahead.found == "0.20 (-0.05 to 0.45)"  # 4.3027 x .1 / sqrt 3 on either side
    assert (ahead.met, equal.met, equal.found) == (False, True, "3 of 3")


@pytest.mark.parametrize(
    ("gains", "changes", "met"),
    [
        ([0.3, 0.4, 0.5], {}, [True, True]),
        ([-0.3, -0.4, -0.5], {}, [False, True]),
        ([0.3, 0.4, 0.5], {"reviews": 2001}, [True, False]),
        ([0.3, 0.4, 0.5], {"steps": 400}, [True, False]),
    ],
)
def test_each_criterion_can_fail(gains, changes, met):
    assert [one.met for one in criteria(pairs(made_up(gains, **changes)))] == met


def printed(runs: dict[str, dict[int, Run]]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(runs))
    return console.export_text()


def test_the_table_prints_each_seed_the_choice_of_beta_and_the_mean():
    text = printed(made_up([0.1, 0.2, 0.3]))
    lines = [line.split() for line in text.splitlines()]
    assert ["restarts", "0.1", "1.50", "1.60", "1.70", "1.60", "chosen"] in lines
    assert ["at-once", "0.1", "1.30", "1.40", "1.50", "1.40"] in lines
    one, two = ("1.70 (0.50, 1.70, 0.70, 0.90)", "1.50 (0.50, 1.50, 0.70, 0.90)")
    reviews = "1,808 + 192"
    assert f"101 {one} {two} +0.20 {reviews} {reviews} 320 120".split() in lines
    assert "restarts minus at once, paired by seed: 0.20 (-0.05 to 0.45)" in text
    assert "the last restart minus the first attempt at once: 0.40" in text
    assert "not met  restarts end with more gold" in text
    assert "take 3 new seeds or more" in printed(made_up([0.1, 0.2]))
    assert "take 3 new seeds or more" in printed({arm: {} for arm in ARMS})


def test_rows_for_programs_hold_each_cell_and_criterion():
    found = rows(made_up([0.1, 0.2, 0.3]))
    assert len(found) == 18 + 6 + 2
    assert (found[0]["gold"], found[0]["reviews"]) == (1.0, 2000)
    assert json.loads(json.dumps(found)) == found
    assert len(rows(made_up([0.1]))) == 18 + 2


def test_the_figure_is_a_png():
    runs = made_up([])
    assert png({arm: list(of.values()) for arm, of in runs.items()}).startswith(b"\x89PNG")


def test_the_shipped_study_has_equal_reviews_and_steps(tmp_path):
    shipped(tmp_path, "reward-model", "overoptimise", "restarts")
    study, report = running.open_study(tmp_path / "restarts")
    assert report.arms == ARMS
    assert study.seeds == (*range(10), *range(100, 110))
    reviews, betas = set(), []
    for cell in cells(study, tmp_path / "restarts", [100]):
        oversight = Store(cell.write()).experiment.oversight
        audit = oversight.audit
        assert (audit.on_alarm, audit.restart_at, audit.restarts) == ("restart", "end", 3)
        assert audit.every == Store(cell.path).experiment.training.steps
        reviews.add(oversight.reviews + audit.restarts * audit.relabel + 4 * audit.reviews)
        betas.append(oversight.penalty.beta)
        method = RESTARTS if audit.relabel else AT_ONCE
        assert cell.arm == arm_of(method, oversight.penalty.beta)
    assert reviews == {2000}
    assert betas == [*BETAS, *BETAS]


STUDY = """
report = "restarts"
seeds = [0, 100]

[arms.restarts-3]
"oversight.penalty.beta" = 0.03
[arms.restarts-10]
"oversight.penalty.beta" = 0.1
[arms.restarts-30]
"oversight.penalty.beta" = 0.3
[arms.at-once-3]
"oversight.reviews" = 280
"oversight.audit.relabel" = 0
"oversight.penalty.beta" = 0.03
[arms.at-once-10]
"oversight.reviews" = 280
"oversight.audit.relabel" = 0
"oversight.penalty.beta" = 0.1
[arms.at-once-30]
"oversight.reviews" = 280
"oversight.audit.relabel" = 0
"oversight.penalty.beta" = 0.3

[shares]
restarts-10 = ["drafts/checkpoint", "reviews/data", "reviews/checkpoint"]
restarts-30 = ["drafts/checkpoint", "reviews/data", "reviews/checkpoint"]
at-once-3 = ["drafts/checkpoint"]
at-once-10 = ["drafts/checkpoint"]
at-once-30 = ["drafts/checkpoint"]
"""
AGAIN = """every = 20
answers = 16
reviews = 16
on_alarm = "restart"
restart_at = "end"
restarts = 1
relabel = 80"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    toml = AUDITED_ESSAYS.replace("every = 8\nanswers = 64", AGAIN)
    folder = tiny_experiment(tmp_path_factory.mktemp("study") / "tiny", toml)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    study(folder)
    return folder


def study(folder: Path, *others: str) -> None:
    """Runs a study whose cells for tuning are those of `made_up`."""
    run_cell = running.run_cell

    def run(study, cell, *rest):
        tuned = made_up([])[cell.arm].get(cell.seed)
        return tuned._asdict() if tuned else run_cell(study, cell, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "run_cell", run)
        main(["study", str(folder), *others])


@pytest.mark.slow
def test_new_seeds_run_in_the_chosen_arms_only_with_equal_reviews_and_steps(ran, capsys):
    capsys.readouterr()
    study(ran, "--json")
    found = json.loads(capsys.readouterr().out)
    new = [row for row in found if row["seed"] == 100]
    assert [row["arm"] for row in new] == ["restarts-10", "at-once-3"]
    assert {(row["reviews"], row["steps"], len(row["golds"])) for row in new} == {(312, 40, 2)}
    assert {path.name for path in (ran / "study").iterdir()} == {"restarts-10-100", "at-once-3-100"}
    last = Store(ran / "study" / "at-once-3-100").round(1)
    copied = last.record["stages"]["drafts/checkpoint"]["copied_from"]
    assert Path(copied).parent.name == "restarts-10-100"


@pytest.mark.slow
def test_a_killed_study_resumes_to_the_same_results(ran, tmp_path):
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    last = folder / "study" / "at-once-3-100"
    before = json.loads((last / RESULT).read_text())
    shutil.rmtree(last / "001")
    study(folder)
    after = json.loads((last / RESULT).read_text())
    for one in (before, after):
        del one["results"]["seconds"], one["of"]
    assert after == before


@pytest.mark.slow
def test_new_seeds_alone_are_refused_in_one_line(ran, capsys):
    assert "must come first" in refused(capsys, "study", str(ran), "--seeds", "100")
