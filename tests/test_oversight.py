"""New kinds of oversight, each one file beside an experiment, run for rounds: nothing else knows of
them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.files.json_lines import read_lines
from amplify.oversight.amplification import distillation
from amplify.oversight.work import without_ones
from amplify.store import Store
from amplify.training import dataset
from tests.killed import killed_and_resumed
from tests.tiny import TOML, tiny_experiment

KINDS = Path(__file__).parent / "oversight"


def overseen_by(folder: Path, kind: str, name: str, settings: str = "") -> Path:
    made = tiny_experiment(folder, f'{TOML}\n[oversight]\nkind = "{kind}.py:{name}"\n{settings}')
    shutil.copy(KINDS / f"{kind}.py", made)
    return made


def trained(folder: Path, number: int) -> dict:
    stages = Store(folder).round(number).record["stages"]
    return {name: entry["digests"] for name, entry in stages.items() if "digests" in entry}


@pytest.fixture(scope="module")
def best_of_four(tmp_path_factory):
    folder = overseen_by(tmp_path_factory.mktemp("best") / "tiny", "best_of", "BestOf")
    main(["round", str(folder), "--n", "2"])
    return folder


def test_best_of_n_trains_on_better_answers_than_the_assistant_gives(best_of_four, capsys):
    main(["compare", str(best_of_four), "--json"])
    rows = json.loads(capsys.readouterr().out)
    alone = {row["round"]: row["alone"] for row in rows if row["split"] == "select"}
    facts = Store(best_of_four).round(1).record["stages"]["distillation/data"]
    assert facts["best_score"] > alone[0]
    main(["compare", str(best_of_four)])
    assert "round 2" in capsys.readouterr().out


def test_its_cost_is_in_the_ledger_and_its_round_has_a_page(best_of_four):
    ledger = Store(best_of_four).round(1).record["ledger"]
    assert ledger["assistant_answers"] == 4 * 96 * 4
    assert ledger["overseer_answers"] == 0
    page = (best_of_four / "001/report.html").read_text(encoding="utf-8")
    assert "distillation/checkpoint" in page


def test_answers_without_a_weight_are_not_learned_from(best_of_four):
    this = Store(best_of_four).round(1)
    weight = np.stack([row["weight"] for row in dataset.read(this.main.data)])
    assert 0 < weight.mean() < 1
    rows = read_lines(this.main.metrics)
    assert rows[-1]["answered"] / (rows[-1]["step"] - rows[-2]["step"]) < weight[0].size * 8


def test_weights_that_are_all_1_are_not_written():
    answers, ones = np.zeros((3, 4, 1), np.int32), np.ones((3, 4))
    assert list(without_ones({"answers": answers, "weight": ones})) == ["answers"]
    written = without_ones({"weight": ones - np.eye(3, 4), "answers": answers})
    assert written["weight"].dtype == np.float32
    with pytest.raises(ValueError, match="finite"):
        without_ones({"weight": np.full((3, 4), np.nan)})


def calls(folder: Path, number: int) -> dict[tuple[str, str, str], int]:
    """The ledger of a round: calls by stage, purpose and part."""
    rows = Store(folder).round(number).record["ledger"]["calls"]
    return {(row["stage"], row["purpose"], row["part"]): row["calls"] for row in rows}


def test_calls_that_a_kind_states_are_in_the_ledger_by_stage_purpose_and_part(best_of_four):
    found = calls(best_of_four, 1)
    assert found["distillation/data", "signal", "assistant"] == 4 * 96 * 4
    assert ("distillation/data", "signal", "overseer") not in found
    assert found["evals", "evals", "overseer"] > 0


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory):
    folder = overseen_by(tmp_path_factory.mktemp("rl") / "tiny", "reinforce", "Reinforce")
    main(["round", str(folder), "--n", "2"])
    return folder


def test_reinforcement_trains_two_roles_and_hands_on_what_its_source_carries(reinforced):
    store = Store(reinforced)
    first, second = (store.round(number) for number in (1, 2))
    assert list(first.roles()) == ["assistant", "baseline"]
    facts = [this.record["stages"]["reinforcement/checkpoint"] for this in (first, second)]
    assert [entry["rounds_before"] for entry in facts] == [0, second.record["parent"]["round"]]
    rows = read_lines(first.main.metrics)
    assert sum(row["reward"] for row in rows) / len(rows) == pytest.approx(
        facts[0]["reward"] / 60, rel=1e-4
    )


def test_calls_in_a_compiled_step_are_counted_exactly(reinforced):
    found = calls(reinforced, 1)
    assert found["reinforcement/checkpoint", "signal", "assistant"] == 60 * 8 * 4


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 25])
def test_a_killed_reinforcement_ends_as_one_that_was_not(reinforced, tmp_path, after, monkeypatch):
    folder = killed_and_resumed(reinforced, tmp_path / "tiny", after, monkeypatch)
    assert trained(folder, 1) == trained(reinforced, 1)
    assert calls(folder, 1) == calls(reinforced, 1)


@pytest.mark.parametrize(
    ("enough", "expected"),
    [
        (0.0, ["first/data", "first/checkpoint", "audit/data"]),
        (1.1, ["first/data", "first/checkpoint", "audit/data", "second/data", "second/checkpoint"]),
    ],
)
def test_phases_follow_from_what_an_audit_found(tmp_path, enough, expected):
    folder = overseen_by(tmp_path / "tiny", "audits", "Audits", f"enough = {enough}")
    main(["round", str(folder), "--n", "2"])
    store = Store(folder)
    for number in (1, 2):
        this = store.round(number)
        assert list(this.record["stages"]) == [*expected, "evals", "verdict"]
        last = [stage for stage in expected if stage.endswith("checkpoint")][-1]
        assert this.roles()["assistant"].stage == last
        assert this.main.data.parent.name == last.partition("/")[0]
        assert this.record["ledger"]["human_answers"] == 20 * 4
        found = calls(folder, number)  # an audit has everything answered again
        assert found["first/data", "signal", "overseer"] == 96 * 4
        assert found["audit/data", "signal", "overseer"] == 96 * 4
        assert found["audit/data", "signal", "people"] == 20 * 4
        assert this.record["ledger"]["training_steps"] == 60 * (len(expected) // 2)


def test_equal_phases_are_one_program(tmp_path):
    experiments = [Store(tiny_experiment(tmp_path / name)).experiment for name in ("a", "b")]
    phases = [distillation(one.assistant, one.training) for one in experiments]
    assert phases[0] == phases[1]
    assert len({*phases}) == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("debates", "oversight.kind must be one of amplification, truth, direct, reward-model,"),
        ("best_of.py:Best", "oversight.kind names Best, which "),
        ("best_of.py:Made", "which must be a frozen dataclass"),
    ],
)
def test_a_kind_that_is_none_is_one_clear_line(tmp_path, kind, said, capsys):
    folder = overseen_by(tmp_path / "tiny", "best_of", "BestOf")
    file = folder / "experiment.toml"
    text = file.read_text(encoding="utf-8").replace("best_of.py:BestOf", kind)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (folder / "000").exists()
