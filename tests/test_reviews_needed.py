"""The study of reviews needed: interpolation, ratios, and its table."""

import inspect
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from amplify.store import Store
from amplify.studies import running
from amplify.studies.reviews_needed import (
    ARMS,
    AUDITED,
    COMPARISONS,
    JUDGED,
    MODEL,
    Needed,
    Run,
    measure,
    needed,
    ratio,
)
from amplify.studies.reviews_needed_table import png, rows, table
from amplify.studies.study import cells
from tests.oversight.test_audited_rounds import estimated
from tests.tiny import shipped


def made_up(seeds: int = 3, spread: float = 0.1) -> dict[str, list[Run]]:
    """The judge takes 10,000 reviews to gain 1; a reward model gains 1 with every factor of 10."""
    found: dict[str, list[Run]] = {}
    for arm in ARMS:
        method, _, comparisons = arm.partition("-")
        found[arm] = []
        for seed in range(seeds):
            shift = spread * (seed - (seeds - 1) / 2)
            if method == JUDGED:
                path = [(n, n / 10_000 * (1 + shift)) for n in range(1000, 25_000, 1000)]
                found[arm].append(Run(path, 0, path[-1][1], 60.0))
                continue
            gold = float(np.log10(int(comparisons) / 100))
            audits = 400 if method == AUDITED else 0
            run = Run([(0, gold)], int(comparisons) + audits, gold + (method == AUDITED), 60.0)
            found[arm].append(run)
    return found


def test_reviews_needed_are_interpolated():
    runs = made_up(spread=0.0)
    assert needed(runs, JUDGED, 1.0).reviews == pytest.approx(10_000)
    assert needed(runs, JUDGED, 0.05).reviews == pytest.approx(500)  # before the first look
    assert needed(runs, MODEL, 1.0).reviews == pytest.approx(1000)
    assert needed(runs, MODEL, 0.7).reviews == pytest.approx(10**2.7)
    assert needed(runs, MODEL, 9.0) is None
    assert needed(runs, AUDITED, 1.0) == Needed(600.0, at_most=True)
    assert needed(runs, AUDITED, 2.0).reviews == pytest.approx(1400)


def test_a_ratio_has_an_interval_over_seeds():
    found = ratio(made_up(), MODEL, 1.0)
    assert found.estimate == pytest.approx(10)
    assert 5 < found.low < 10 < found.high < 20
    wider = ratio(made_up(spread=0.3), MODEL, 1.0)
    assert wider.low < found.low < found.high < wider.high
    assert ratio(made_up(), MODEL, 9.0) is None


def test_there_is_no_ratio_if_the_target_depends_on_one_seed():
    runs = made_up(spread=0.0)
    last = f"{MODEL}-{COMPARISONS[-1]}"
    runs[last] = [runs[last][0]._replace(gold=gold) for gold in (2.0, 2.0, 9.0)]
    assert needed(runs, MODEL, 3.0) is not None
    assert ratio(runs, MODEL, 3.0) is None


def test_the_table_prints_each_cell_and_the_reviews_needed():
    console = Console(width=200, record=True, file=io.StringIO())
    runs = {arm: dict(enumerate(of, 100)) for arm, of in made_up().items()}
    console.print(table(runs))
    text = console.export_text()
    assert "10,000" in text
    assert "600 or fewer" in text
    assert "or more" in text
    found = rows(runs)
    assert len(found) == 27 + 6
    assert json.loads(json.dumps(found))[-1]["method"] == AUDITED
    assert len(rows({arm: dict(enumerate(of)) for arm, of in made_up(2).items()})) == 18


def test_the_figure_is_a_png():
    assert png(made_up()).startswith(b"\x89PNG")


class Round:
    """A round as `measure` reads it."""

    path = Path("nowhere")

    def __init__(self, judged: bool, audited: bool) -> None:
        found = {"proxy": 1.0, "audited": estimated(1.0, 25)}
        lower = {"proxy": 2.0, "audited": estimated(0.5, 20)}
        audits = {"audit_8/data": {"audit": found}, "audit_16/data": {"audit": lower}}
        stages = {"reviews/data": {"reviews": 200}} | (audits if audited else {})
        self.record = {"stages": stages, "ledger": {"seconds": 3.0}}
        self.judged = judged

    def training_curve(self):
        calls = {"calls/judge, scores": 40} if self.judged else {}
        return [
            {"step": step, "accuracy": {"gold": {"essay": step / 10}}, **calls}
            for step in (4, 8, 12, 16)
        ]


class Rounds:
    def __init__(self, one: Round) -> None:
        self.one = one

    def round(self, number: int) -> Round:
        return self.one


@pytest.mark.parametrize(
    ("judged", "audited", "reviews", "gold"),
    [(False, False, 200, 1.6), (False, True, 245, 0.8), (True, False, 0, 1.6)],
)
def test_comparisons_audits_and_scores_are_counted(judged, audited, reviews, gold):
    found = inspect.unwrap(measure)(Rounds(Round(judged, audited)), 1)
    assert (found["reviews"], found["gold"]) == (reviews, gold)
    assert found["path"][-1] == (160 if judged else 0, 1.6)


def test_the_shipped_study_has_valid_cells(tmp_path):
    shipped(tmp_path, "reward-model", "overoptimise", "reviews-needed")
    study, report = running.open_study(tmp_path / "reviews-needed")
    assert report.arms == ARMS
    for cell in cells(study, tmp_path / "reviews-needed", [100]):
        experiment = Store(cell.write()).experiment
        method, _, comparisons = cell.arm.partition("-")
        oversight = experiment.oversight
        assert oversight.reward == ("judge" if method == JUDGED else "reward-model")
        assert oversight.penalty.beta == (0.3 if method == MODEL else 0)
        assert oversight.audit.every == (8 if method == AUDITED else 0)
        assert oversight.reviews == int(comparisons or 1000)
