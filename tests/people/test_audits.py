"""People who compare answers and then score some in audits: one round, killed in an audit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from amplify import replay
from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.evaluation.statistics.audits import estimate
from amplify.oversight.audits import auditor
from amplify.oversight.audits.audit import read_history
from amplify.oversight.work import Work
from amplify.people import round_loop
from amplify.people.items import Item, RoundStage
from amplify.people.rules import Queue
from amplify.people.trees import read_trees
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.training import dataset
from amplify.training.phase import Phase
from tests.people.killing import events, kill_after
from tests.people.session import people_at_work
from tests.tiny import AUDITED_BY_PEOPLE, tiny_experiment

SCALE = tuple(str(score) for score in range(11))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A round that was killed while people scored answers of its first audit, and run again."""
    folder = tiny_experiment(tmp_path_factory.mktemp("audits") / "tiny", AUDITED_BY_PEOPLE)
    kill_after(folder, 8, "audit_10/data")
    closed = [event.body["stage"] for event in events(folder, "closed")]
    assert closed == ["reviews/data"]
    main(["round", str(folder), "--n", "1"])
    return folder


def stages_of(folder: Path) -> dict[str, dict]:
    """The entries in the record of the stages in which people were asked, in order."""
    stages = Store(folder).round(1).record["stages"]
    return {name: entry for name, entry in stages.items() if "human_answers" in entry}


def audits_of(folder: Path) -> dict[str, dict]:
    return {name: entry for name, entry in stages_of(folder).items() if "audit" in entry}


def columns_of(folder: Path, stage: str) -> dict[str, np.ndarray]:
    rows = list(dataset.read(folder / "001" / stage))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def asked_in(folder: Path, stage: str) -> list[Item]:
    queue = Queue(events(folder))
    items = [queue.items[name] for name in queue.stages[RoundStage(1, stage)].items]
    return [item for item in items if item.review_of is None]


@pytest.mark.slow
def test_people_score_the_answers_that_were_drawn_one_at_a_time(ran):
    audits = audits_of(ran)
    assert len(audits) == 2
    for stage, made in audits.items():
        columns, items = columns_of(ran, stage), asked_in(ran, stage)
        assert all(item.choices == SCALE and item.budget == 0 for item in items)
        assert all(item.question.startswith("How good is this answer, from 0") for item in items)
        there = {(item.row, item.column): item for item in items}
        assert len(there) == len(items)
        for row, column in np.argwhere(columns["reviewed"] == 1):
            said = there.pop((int(row), int(column))).submissions[0].answer
            assert float(said) == columns["score"][row, column]
        assert all(item.withdrawn is not None for item in there.values())
        assert (columns["score"][columns["reviewed"] == 0] == 0).all()
        np.testing.assert_allclose(columns["probability"], 24 / 64, rtol=1e-6)
        assert made["reviews"] == columns["reviewed"].sum() > 10


@pytest.mark.slow
def test_the_estimate_is_on_peoples_scale(ran):
    looks = read_history(Store(ran).round(1).record).looks
    for (stage, made), look in zip(audits_of(ran).items(), looks, strict=True):
        columns = columns_of(ran, stage)
        rows, per_context = columns["score"].shape
        found = estimate(
            columns["proxy"].ravel(),
            columns["score"].ravel(),
            columns["reviewed"].ravel() == 1,
            columns["probability"].ravel().astype(np.float64),
            cluster=np.repeat(np.arange(rows), per_context),
        )
        assert look.audited == found
        assert made["audit"]["audited"]["value"] == found.value
        assert 2 < found.value < 10


@pytest.mark.slow
def test_each_answer_is_asked_for_once_also_after_a_kill(ran):
    queue = Queue(events(ran))
    assert [stage.stage for stage in queue.stages] == list(stages_of(ran))
    assert all(stage.closed is not None for stage in queue.stages.values())
    items = [item for item in queue.items.values() if item.withdrawn is None]
    assert {len(item.submissions) for item in items} == {1}


@pytest.mark.slow
def test_the_ledger_counts_comparisons_and_scores_as_peoples_answers(ran):
    ledger = Store(ran).round(1).record["ledger"]
    calls = {row["stage"]: row["calls"] for row in ledger["calls"] if row["part"] == "people"}
    each = {stage: made["human_answers"] for stage, made in stages_of(ran).items()}
    assert calls == each
    submitted = events(ran, "submitted")
    assert ledger["human_answers"] == sum(each.values()) == len(submitted)
    seconds = sum(event.seconds or 0 for event in events(ran))
    assert ledger["human_seconds"] == pytest.approx(seconds, abs=0.3)
    assert not any(row["part"].startswith("judge") for row in ledger["calls"])


@pytest.mark.slow
def test_every_stage_is_replayed_bit_for_bit_without_asking_anybody(ran, capsys):
    store, before = Store(ran), len(events(ran))
    for stage, made in stages_of(ran).items():
        found = replay.replay(store, 1, unwatched, stage.partition("/")[0])
        assert found.same, stage
        assert found.by_people == made["reviews"]
    assert len(events(ran)) == before
    with pytest.raises(AmplifyError, match=r"--phase: must be a phase of round 1 .*audit_10"):
        replay.replay(store, 1, unwatched, "audit_11")
    with pytest.raises(SystemExit):
        main(["replay", str(ran), "--round", "1", "--phase", "audit_10", "--checkpoint", "0"])
    assert "leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_round_that_is_run_again_asks_nobody_and_is_the_same(ran, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(ran, again)
    shutil.rmtree(again / "001")
    main(["round", str(again), "--n", "1"])
    one, two = (Store(folder).round(1).record["stages"] for folder in (ran, again))
    assert list(one) == list(two)
    for stage in one:
        for key in ("digest", "digests", "audit", "check"):
            assert one[stage].get(key) == two[stage].get(key), stage
    assert len(events(again)) == len(events(ran))


@pytest.mark.slow
def test_the_trees_of_reviews_are_shown_and_audits_keep_their_own(ran):
    assert {tree.root["answer"] for tree in read_trees(ran).all} == {"A", "B"}
    for stage, made in audits_of(ran).items():
        path = (ran / "001" / stage).with_name("interactions.jsonl")
        trees = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(trees) == made["reviews"]
        assert all(tree["answer"] in SCALE and tree["person"] for tree in trees)


@pytest.mark.slow
def test_a_check_asks_about_both_policies_at_once_in_mixed_order(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(round_loop, "serving", people_at_work)
    shutil.copytree(ran, tmp_path / "again")
    store = Store(tmp_path / "again")
    experiment, this = store.experiment, store.round(1)
    monkeypatch.setattr(auditor, "best_look", lambda looks: looks[0])
    roles = store.roles_before(this, "audit_20/data")
    work = Work(experiment, this, store.parent_of(this), roles, unwatched)
    made = experiment.oversight.signal(Phase("check_20", (), experiment.training.schedule), work)
    assert made.facts["check"]["best_step"] == 10
    assert [made.facts["check"][one]["reviews"] for one in ("current", "best")] == [16, 16]
    assert made.columns["reviewed"].sum(axis=1).tolist() == [1] * 32
    asked = asked_in(tmp_path / "again", "check_20/data")
    of_current = [item.row < 16 for item in asked]
    assert 4 < sum(of_current[:16]) < 12
    assert made.facts["human_answers"] >= 32
    assert made.facts["check"]["current"]["value"] == 0  # these people give the first of the scale
    assert made.facts["check"]["current"]["standard_error"] is None
