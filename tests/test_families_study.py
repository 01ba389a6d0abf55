"""The study of families: what is measured, paired differences, its table, and tiny cells."""

import inspect
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from amplify.studies import running
from amplify.studies.families import ARMS, PAIRS, Look, Run, difference, measure, read
from amplify.studies.families_table import png, rows, table
from amplify.studies.study import RESULT, cells
from amplify.training import dataset
from tests.tiny import JUDGED_ESSAYS, shipped, tiny_experiment


def made(gold: float, other: float) -> Run:
    """Looks in the middle and at the end, whose values are twice those in the middle."""
    middle = Look(10, 1.0, 2.0, gold / 2, (gold - other) / 2, other / 2, 0.25)
    end = Look(20, 2.0, 4.0, gold, gold - other, other, 0.5)
    return Run([middle, end], 1000, 60.0)


def made_up(seeds: int = 3) -> dict[str, dict[int, Run]]:
    """Reviews of some families only lose .1, .2 and .3 in the others, and twice that with gold."""
    runs: dict[str, dict[int, Run]] = {arm: {} for arm in ARMS}
    for all_, some in PAIRS:
        for seed in range(seeds):
            lost = 0.1 * (seed + 1)
            runs[all_][100 + seed] = made(1.0 + seed, 0.4)
            runs[some][100 + seed] = made(1.0 + seed - 2 * lost, 0.4 - lost)
    return runs


def test_differences_are_paired_by_seed():
    done = {arm: list(of.values()) for arm, of in made_up().items()}
    found = difference(done, PAIRS[0], "other")
    half = 4.3027 * 0.1 / 3**0.5
    np.testing.assert_allclose(found, (-0.2, -0.2 - half, -0.2 + half), atol=1e-4)
    assert difference(done, PAIRS[1], "gold").estimate == pytest.approx(-0.4)
    assert difference(done, PAIRS[1], "focus").estimate == pytest.approx(-0.2)


def test_the_table_prints_each_cell_means_and_differences():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(made_up()))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "some 101 4.00 1.60 1.40 0.20 0.50 60" in lines
    assert "some - all 0.00 -0.40 -0.20 -0.20 0.00" in lines
    console.print(table(made_up(2)))
    assert "Differences take 3 seeds or more" in console.export_text()


def test_a_terminal_of_80_columns_shows_all_names():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(made_up()))
    assert "…" not in console.export_text()


def test_rows_for_programs_hold_each_cell_and_difference():
    found = rows(made_up())
    assert len(found) == 12 + 2
    assert found[0]["other"] == 0.4
    assert [look["step"] for look in found[0]["looks"]] == [10, 20]
    assert json.loads(json.dumps(found)) is not None
    assert len(rows(made_up(2))) == 8


def test_the_figure_is_a_png():
    runs = {arm: list(of.values()) for arm, of in made_up().items()}
    assert png(runs).startswith(b"\x89PNG")


class Round:
    """A round as `measure` reads it."""

    path = Path("nowhere")

    def __init__(self, *left_out: str) -> None:
        self.left_out = left_out
        self.record = {"stages": {"reviews/data": {"reviews": 200}}, "ledger": {"seconds": 3.0}}

    def training_curve(self):
        gold = {"gold": 3.0, "gold_focus": 1.0, "gold_other": 2.0, "outside": 0.5}
        seen = {name: {"essay": of} for name, of in gold.items() if name not in self.left_out}
        first = {"step": 10, "reward": 1.5, "kl": 4.0}
        return [first, {"step": 20, "reward": 1.5, "kl": 4.0, "accuracy": seen}]


class Rounds:
    def __init__(self, one: Round) -> None:
        self.one = one

    def round(self, number: int) -> Round:
        return self.one


def test_looks_hold_both_parts_of_gold():
    found = inspect.unwrap(measure)(Rounds(Round()), 1)
    run = read(json.loads(json.dumps(found)))
    assert run.looks == [Look(20, 1.5, 4.0, 3.0, 1.0, 2.0, 0.5)]
    assert run.reviews == 200


def test_a_cell_without_a_focus_is_refused_in_one_line():
    with pytest.raises(AmplifyError, match="no gold of families in focus") as error:
        inspect.unwrap(measure)(Rounds(Round("gold_focus", "gold_other", "outside")), 1)
    assert "\n" not in str(error.value)


def test_the_shipped_study_has_equal_reviews_of_other_drafts(tmp_path):
    shipped(tmp_path, "reward-model", "overoptimise", "families")
    study, report = running.open_study(tmp_path / "families")
    assert report.arms == ARMS
    for cell in cells(study, tmp_path / "families", [100]):
        experiment = Store(cell.write()).experiment
        oversight, reviewed = experiment.oversight, cell.arm.partition("-")[0]
        assert oversight.reviews == 1000
        assert experiment.task.focus == (0, 1, 2, 3)
        assert oversight.reviews_of == ("drafts" if reviewed == "all" else "focused-drafts")
        assert oversight.penalty.beta == (0.3 if cell.arm.endswith("penalty") else 0)


STUDY = """
report = "families"
seeds = [100]
follow_seed = ["task.world"]

[arms.all]
"oversight.reviews_of" = "drafts"
[arms.some]
[arms.all-penalty]
"oversight.reviews_of" = "drafts"
"oversight.penalty.beta" = 0.3
[arms.some-penalty]
"oversight.penalty.beta" = 0.3

[shares]
some = ["drafts/checkpoint"]
all-penalty = ["drafts/checkpoint", "reviews/data", "reviews/checkpoint"]
some-penalty = ["drafts/checkpoint"]
"""
FOCUSED = JUDGED_ESSAYS.replace("blind_family = 1", "blind_family = 1\nfocus = [0]").replace(
    "reviews = 200", 'reviews = 200\nreviews_of = "focused-drafts"'
)


@pytest.mark.slow
def test_a_tiny_study_reviews_one_family_only_and_resumes(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny", FOCUSED)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    main(["study", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["arm"] for row in found] == [*ARMS]
    assert {row["reviews"] for row in found} == {200}
    for row in found:
        assert row["focus"] + row["other"] == pytest.approx(row["gold"], abs=1e-3)
    made = [(folder / "study" / f"{arm}-100" / RESULT).stat().st_mtime_ns for arm in ARMS]
    for arm, largest in zip(ARMS, (8, 4, 8, 4), strict=True):
        data = Store(folder / "study" / f"{arm}-100").round(1).phase("reviews").data
        written = {int(claim) for row in dataset.read(data) for claim in row["answers"].ravel()}
        assert written == {*range(1, largest + 1)}
    main(["study", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out) == found
    assert made == [(folder / "study" / f"{arm}-100" / RESULT).stat().st_mtime_ns for arm in ARMS]
    main(["compare", str(folder / "study" / "some-100")])
    assert "gold, others" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("focus = [0]", "", "needs a task with a focus: set task.focus"),
        ("focus = [0]", "focus = [0, 2]", "task.focus must have numbers of families, 0 to 1"),
        ("focus = [0]", "focus = []", "task.focus must have different numbers of 1 to 1"),
        ("focus = [0]", "focus = [-1]", "task.focus.0 must be greater than or equal to 0"),
        ("reviews = 200", "reviews = 200\naudit = { every = 4 }", "oversight.audit.every = 0"),
        ("reviews = 200", 'reviews = 200\nreward = "judge"', 'oversight.reward = "reward-model"'),
        ('"focused-drafts"', '"focused"', "oversight.reviews_of"),
    ],
)
def test_what_cannot_be_reviewed_is_refused_in_one_line(tmp_path, old, new, said):
    folder = tiny_experiment(tmp_path / "tiny", FOCUSED.replace(old, new))
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_reviewed_drafts_do_not_depend_on_how_they_are_batched(tmp_path):
    from amplify.oversight.reviews.samples import write_drafts
    from amplify.tasks.problems import draw_problems

    folder = tiny_experiment(tmp_path / "tiny", FOCUSED)
    experiment = read_experiment(folder / "experiment.toml")
    problems = draw_problems(experiment.task, 0, 1, "train", 6, experiment.all_depths)
    whole = write_drafts(experiment, problems, 2, "focused-drafts").answers
    assert whole.shape == (6, 4, 2, 5)
    assert {*whole.ravel().tolist()} <= {1, 2, 3, 4}
    assert len(np.unique(whole.reshape(-1, 5), axis=0)) > 20
    some = jax.tree.map(lambda column: column[2:5], problems)
    part = write_drafts(experiment, some, 2, "focused-drafts").answers
    np.testing.assert_array_equal(part, whole[2:5])
    drafts = write_drafts(experiment, problems, 2, "drafts").answers
    assert drafts.max() > 4
