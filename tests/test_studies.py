"""Studies: cells that are run once, and the over-optimisation report."""

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.evaluation.statistics.scaling_laws import best_of_n_curve, best_of_n_kl_bound
from amplify.launch import share_programs
from amplify.store import Store
from amplify.studies import running
from amplify.studies.best_of_n import CHUNK, Scored, curve, score_reference
from amplify.studies.overoptimisation import ARMS, ENSEMBLE, FREE, NS, PENALTY, Look, Run, criteria
from amplify.studies.overoptimisation_figure import png
from amplify.studies.overoptimisation_table import rows, table
from amplify.studies.reports import REPORTS
from amplify.studies.search import Search
from amplify.studies.sharing import copy_stage
from amplify.studies.study import RESULT, cells, read_study
from tests.test_cli import refused
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

STUDY = """
report = "overoptimisation"
seeds = [0, 1]

[changes]
"training.look_every" = 5
"training.log_every" = 5

[arms.one-model]
"oversight.reward_model.members" = 1

[arms.penalty]
"oversight.reward_model.members" = 1
"oversight.penalty.beta" = 0.3

[arms.five-models]

[shares]
penalty = ["drafts/checkpoint", "reviews/data", "reviews/checkpoint"]
five-models = ["drafts/checkpoint", "reviews/data"]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tiny_experiment(tmp_path / "tiny", JUDGED_ESSAYS)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    return folder


def test_a_cell_is_an_arm_with_a_seed_and_differs_in_its_keys(tiny):
    follows = STUDY.replace("[changes]", 'follow_seed = ["task.world"]\n[changes]')
    (tiny / "study.toml").write_text(follows, encoding="utf-8")
    found = cells(read_study(tiny), tiny)
    names = [cell.path.name for cell in found]
    assert names[:4] == ["one-model-0", "penalty-0", "five-models-0", "one-model-1"]
    experiment = Store(found[4].write()).experiment
    assert (experiment.seed, experiment.task.world) == (1, 1)
    assert (experiment.oversight.penalty.beta, experiment.training.look_every) == (0.3, 5)
    assert experiment.oversight.reward_model.width == 16  # the base's
    assert found[4].results(1) is None


def test_the_shipped_study_has_valid_cells_on_reported_seeds(tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "rounds/reward-model", tmp_path / "reward-model")
    folder = tmp_path / "overoptimise"
    folder.mkdir()
    for name in ("experiment.toml", "study.toml"):
        shutil.copy(Path(__file__).parents[1] / "rounds/overoptimise" / name, folder)
    study, _ = running.open_study(folder)
    assert study.seeds == tuple(range(100, 110))
    for cell in cells(study, folder, [100]):
        experiment = Store(cell.write()).experiment
        assert experiment.task.world == experiment.seed == 100
        assert experiment.oversight.reviews == 1000
        assert experiment.oversight.penalty.beta == (0.3 if cell.arm == PENALTY else 0)
        assert experiment.oversight.reward_model.members == (5 if cell.arm == ENSEMBLE else 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [0, 1]", "seeds = []", "study.toml: study.seeds"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seeds must be different"),
        ("seeds = [0, 1]", "seeds = 3", "study.seeds"),
        ("seeds = [0, 1]", "seed = [0]", "unknown key study.seed; did you mean study.seeds?"),
        ("overoptimisation", "debate", "got 'debate'"),
        ("[arms.penalty]", "[arms.other]", "shares: penalty is no arm"),
        ("[arms.one-model]", '[arms."../x"]', "study.arms"),
        ("[arms.five-models]", "[arms.six-models]\n[arms.five-models]", "arms must be one-model"),
        ("penalty.beta", "penalty.gamma", "unknown key oversight.penalty.gamma"),
        ("[changes]", "[changes", "cannot be read as TOML"),
    ],
)
def test_a_wrong_study_is_refused_in_one_line(tiny, capsys, old, new, said):
    (tiny / "study.toml").write_text(STUDY.replace(old, new), encoding="utf-8")
    assert said in refused(capsys, "study", str(tiny))
    assert not (tiny / "study").exists()


def test_a_study_needs_its_file_and_valid_seeds(tiny, capsys):
    assert "--seeds: must be different" in refused(capsys, "study", str(tiny), "--seeds", "1,1")
    (tiny / "study.toml").unlink()
    assert "study.toml: no such file" in refused(capsys, "study", str(tiny))


def test_damaged_results_are_reported(tiny):
    cell = cells(read_study(tiny), tiny)[0]
    (cell.write() / RESULT).write_text("{")
    with pytest.raises(AmplifyError, match=r"damaged .* delete it to measure the cell again"):
        cell.results(1)


def test_best_of_n_is_the_mean_over_contexts_of_the_best_by_the_proxy():
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(2, 3, 50)).astype(np.float32)
    found = curve(Scored(proxy, gold), (1, 4, 50))
    assert found["gold"][0] == pytest.approx(gold.mean(), abs=1e-6)
    assert found["gold"][2] == pytest.approx(np.mean(gold[np.arange(3), proxy.argmax(1)]))
    wanted = np.mean([best_of_n_curve(p, p, [4]) for p in proxy.astype(float)])
    assert found["proxy"][1] == pytest.approx(wanted)


def searched(shift: float = 0.0) -> Search:
    """Search gains .1 with every doubling of its samples, and a reward of .2."""
    ns = [*NS[:9], *(256 * step for step in (10, 20, 30, 40))]
    doublings = np.log2(ns)
    return Search(256, 8, ns, (0.1 * doublings + shift).tolist(), (0.2 * doublings).tolist())


def made_up(seeds: int, **changes) -> dict[str, list[Run]]:
    """Runs that meet all criteria of over-optimisation, in which seeds differ a little."""
    wanted = {
        FREE: (1.2, -2.0, 5.0),
        PENALTY: (1.15, 1.12, 2.0),
        ENSEMBLE: (1.8, 0.3, 4.0),
    } | changes
    kl = np.array([best_of_n_kl_bound(n) for n in NS])
    found: dict[str, list[Run]] = {}
    for arm, (peak, end, proxy) in wanted.items():
        found[arm] = []
        for number in range(seeds):
            shift = 0.001 * number * (1 + len(found))
            looks = [
                (10, 0.5, 0.5, 0.4),
                (20, 4.0, 1.5, peak + shift),
                (30, 9.0, 2.0, (peak + end) / 2),
            ]
            looks.append((40, 30.0, proxy, end))
            gold = (np.sqrt(kl) * (0.9 - 0.1 * np.sqrt(kl)) + shift).tolist()
            found[arm].append(
                Run([Look(*at) for at in looks], gold, np.sqrt(kl).tolist(), searched(shift), 60.0)
            )
    return found


def test_criteria_are_met_where_the_table_is_as_expected():
    assert [one.met for one in criteria(made_up(10))] == [True] * 5


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({FREE: (1.2, 0.1, 5.0)}, {0}),  # does not end below 0
        ({FREE: (1.2, -2.0, 2.9)}, {0}),  # the proxy is too low
        ({PENALTY: (1.17, 1.04, 2.0)}, {1}),  # .13 below its own peak
        ({PENALTY: (0.9, 0.9, 2.0)}, {2}),  # .3 below the peak without a penalty
        ({ENSEMBLE: (1.3, 0.3, 4.0)}, {3}),  # raises the peak by .1
    ],
)
def test_each_criterion_can_fail(changes, broken):
    assert {
        place for place, one in enumerate(criteria(made_up(10, **changes))) if not one.met
    } == broken


def test_a_form_that_does_not_hold_does_not_predict():
    runs = made_up(3)
    place = NS.index(1024)
    for run in runs[FREE]:
        run.gold[place] -= 0.5
    assert [one.met for one in criteria(runs)][4] is False


def test_the_peak_is_that_of_gold_not_of_the_proxy():
    [run] = made_up(1)[FREE]
    assert (run.peak.step, run.end.step) == (20, 40)


def by_seed(runs: dict[str, list[Run]]) -> dict[str, dict[int, Run]]:
    return {arm: dict(enumerate(of, 100)) for arm, of in runs.items()}


def printed(runs: dict[str, dict[int, Run]]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(runs))
    return console.export_text()


def test_the_table_prints_each_seed_means_with_intervals_and_criteria():
    text = printed(by_seed(made_up(3)))
    assert text.count("100 ") >= 8  # in three tables
    assert "oracle peak" in text
    assert text.count("\nmet ") == 6
    assert text.count("\nnot met ") == 1  # search with all samples is ahead
    assert "R² " in text
    assert "five-models minus one-model, paired by seed: oracle peak 0.6" in text


def test_seeds_that_are_not_done_in_all_arms_are_left_out_of_means():
    runs = by_seed(made_up(4))
    full = printed(by_seed(made_up(3)))
    del runs[ENSEMBLE][103]
    mean = [line for line in full.splitlines() if " mean " in line]
    assert mean == [line for line in printed(runs).splitlines() if " mean " in line]
    assert "Intervals and criteria take 3 seeds" in printed(by_seed(made_up(2)))


def test_rows_for_programs_hold_each_cell_and_criterion():
    found = rows(by_seed(made_up(3)))
    assert len(found) == 9 + 7
    assert {"arm", "seed", "oracle_peak", "end_proxy"} <= set(found[0])
    assert json.loads(json.dumps(found)) == found


def test_the_figure_is_a_png():
    assert png(made_up(3)).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tiny_experiment(tmp_path_factory.mktemp("study") / "tiny", JUDGED_ESSAYS)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    main(["study", str(folder), "--seeds", "0"])
    return folder


@pytest.mark.slow
def test_shared_stages_are_those_that_the_arm_would_have_run(ran, tmp_path):
    alone = tmp_path / "tiny"
    alone.mkdir()
    for name in ("experiment.toml", "study.toml"):
        shutil.copy(ran / name, alone)
    text = (alone / "study.toml").read_text()
    (alone / "study.toml").write_text(text[: text.index("[shares]")])
    study = read_study(alone)
    for cell, other in zip(cells(study, alone, [0])[1:], cells(study, ran, [0])[1:], strict=True):
        main(["round", str(cell.write()), "--n", "1"])
        one, two = (Store(at.path).round(1) for at in (cell, other))
        assert [*one.record["stages"]] == [*two.record["stages"]]
        for stage, entry in one.record["stages"].items():
            shared = two.record["stages"][stage]
            for key in ("digest", "digests"):
                assert shared.get(key) == entry.get(key), stage
        assert "copied_from" in two.record["stages"]["drafts/checkpoint"]
        assert one.record["ledger"]["calls"] == two.record["ledger"]["calls"]


@pytest.mark.slow
def test_a_finished_cell_is_not_run_again(ran, monkeypatch, capsys):
    again = dataclasses.replace(
        REPORTS["overoptimisation"], measure=lambda *_: pytest.fail("ran again")
    )
    monkeypatch.setitem(REPORTS, "overoptimisation", again)
    main(["study", str(ran), "--seeds", "0", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [(row["arm"], row["seed"]) for row in found] == [(arm, 0) for arm in ARMS]
    assert {step["at_step"] for step in found} <= {5, 10, 15, 20}


@pytest.mark.slow
def test_results_of_an_earlier_version_are_measured_again_without_running_rounds(
    ran, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    file = cells(read_study(folder), folder, [0])[0].path / RESULT
    now = json.loads(file.read_text())
    before = {"of": now["of"], "results": {"looks": [], "gold": [], "proxy": [], "seconds": 1.0}}
    file.write_text(json.dumps(before))
    monkeypatch.setattr("amplify.round.run", lambda *_: pytest.fail("ran a round again"))
    main(["study", str(folder), "--seeds", "0"])
    after = json.loads(file.read_text())
    assert after["version"] == now["version"] == REPORTS["overoptimisation"].version
    for one in (now, after):
        del one["results"]["seconds"]
    assert after == now


@pytest.mark.slow
def test_a_killed_study_resumes_to_the_same_results(ran, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    last = cells(read_study(folder), folder, [0])[-1]
    before = json.loads((last.path / RESULT).read_text())
    shutil.rmtree(last.path / "001")
    (last.path / RESULT).unlink()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("amplify.studies.study.copy_stage", killed)
        with pytest.raises(SystemExit):
            main(["study", str(folder), "--seeds", "0"])
    assert not (last.path / RESULT).exists()
    main(["study", str(folder), "--seeds", "0"])
    after = json.loads((last.path / RESULT).read_text())
    for one in (before, after):
        del one["results"]["seconds"]
    assert after == before


@pytest.mark.slow
def test_answers_do_not_depend_on_how_many_are_sampled(ran):
    store = Store(cells(read_study(ran), ran, [0])[0].path)
    few, many = (score_reference(store, 1, 2, n * CHUNK) for n in (1, 2))
    np.testing.assert_allclose(few.gold, many.gold[:, :CHUNK], atol=1e-5)
    assert many.proxy.mean() == pytest.approx(0, abs=1e-4)
    assert many.proxy.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_only_experiments_with_a_reward_model_have_best_of_n_by_it(tmp_path):
    store = Store(tiny_experiment(tmp_path / "other"))
    with pytest.raises(AmplifyError, match="best-of-n by a reward model needs"):
        score_reference(store, 0, 1, 1)


@pytest.mark.slow
def test_stages_that_are_not_done_cannot_be_shared(ran):
    this = Store(cells(read_study(ran), ran, [0])[0].path).round(1)
    with pytest.raises(AmplifyError, match="no finished stage audit/data to share"):
        copy_stage(this, this, "audit/data")


def test_programs_are_shared_only_by_a_process_that_has_not_imported_jax(monkeypatch):
    """Processes that a test, or a notebook, starts later would inherit the variables."""
    for name in ("JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS", "JAX_EMBEDDED_CONSTANTS_MAX_BYTES"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    share_programs()
    assert dict(os.environ) == before
