"""Audits of a policy during reinforcement learning: the phases of a round, and its record."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.evaluation.statistics.alarm import Watch, reviews_used
from amplify.evaluation.statistics.audits import draw, estimate
from amplify.models.reward_model import RewardModel
from amplify.oversight import reward_model
from amplify.oversight.audits.audit import (
    Audit,
    best_step,
    decide,
    read_history,
    restarts,
)
from amplify.oversight.audits.auditor import _item_keys
from amplify.oversight.reinforcement.rollouts import Normaliser, Penalty, Rollouts, RolloutState
from amplify.oversight.restore import load_role
from amplify.reading.experiment_file import read_experiment
from amplify.records.round_folder import Handle, RoundFolder
from amplify.report import audits
from amplify.store import Store
from amplify.training import dataset
from amplify.training.phase import Begin
from tests.killed import killed_and_resumed
from tests.tiny import AUDITED_ESSAYS, tiny_experiment

PEAK = 24


def estimated(value: float, reviews: int = 24) -> dict:
    return {
        "value": value,
        "standard_error": 1.1 / reviews**0.5,
        "freedom": reviews - 1.0,
        "reviews": reviews,
        "items": 512,
        "tuning": 0.0,
    }


def rises_and_falls(step: int) -> float:
    return 1.0 * step / PEAK if step <= PEAK else 1.0 - 1.5 * (step - PEAK) / PEAK


def rises(step: int) -> float:
    return step / 40


def phases_of(
    on_alarm: str,
    value: Callable[[int], float],
    steps: int = 40,
    restarts: int = 1,
    budget: int = 800,
    **others,
) -> tuple[list, dict]:
    """Runs through the phases of a round whose audits find these values, with a rising proxy."""
    experiment = read_audited()
    audit = Audit(every=8, on_alarm=on_alarm, restarts=restarts, budget=budget, **others)
    training = dataclasses.replace(experiment.training, steps=steps)
    experiment = dataclasses.replace(experiment, training=training)
    oversight = dataclasses.replace(experiment.oversight, audit=audit)
    this = RoundFolder(Path("nowhere"), 2)
    this.record = {"parent": {"round": 1}, "stages": {}}
    found, start = [], 0
    for phase in oversight.phases(experiment, this):
        found.append(phase)
        kind, _, count = phase.name.partition("_")
        facts = {}
        if kind in ("reviews", "restart") and count:
            start = int(count)
        if kind == "audit":
            step = int(count) - start
            facts = {"audit": {"proxy": step / 8, "audited": estimated(value(step))}}
        if kind == "check":
            best = decide(this.record, audit.rules, start).best_step
            facts = {
                "check": {
                    "best_step": best,
                    "best": estimated(value(best - start), 80),
                    "current": estimated(value(int(count) - start), 80),
                }
            }
        this.record["stages"] |= {f"{phase.name}/data": facts, f"{phase.name}/checkpoint": {}}
    resumed = [phase.name for phase in oversight.phases(experiment, this)]
    assert resumed == [phase.name for phase in found]
    return found, this.record


def read_audited():
    return _EXPERIMENT[0]


_EXPERIMENT: list = []


@pytest.fixture(scope="module", autouse=True)
def _experiment(tmp_path_factory):
    folder = tiny_experiment(tmp_path_factory.mktemp("read") / "tiny", AUDITED_ESSAYS)
    _EXPERIMENT[:] = [read_experiment(folder / "experiment.toml")]


def names(phases: list) -> list[str]:
    return [phase.name for phase in phases]


def test_every_segment_continues_the_one_before_it_and_is_audited():
    phases, _ = phases_of("report", rises)
    assert names(phases) == [
        "reviews",
        *(f"{kind}_{step}" for step in range(8, 41, 8) for kind in ("reinforcement", "audit")),
    ]
    trained = [phase for phase in phases if phase.name.startswith("reinforcement")]
    assert [phase.continues for phase in trained] == [False, True, True, True, True]
    assert trained[0].begins == (Begin("assistant", "reference"),)
    assert not any(phase.begins for phase in trained[1:])


def test_there_are_no_audits_beyond_the_budget_and_training_goes_on():
    """A look has 24 reviews, the check 160. Another look may have 44."""
    for budget, audited in ((323, 40), (324, 48)):
        phases, record = phases_of("report", rises_and_falls, steps=48, budget=budget)
        looks = [name for name in names(phases) if name.startswith("audit")]
        assert looks[-1] == f"audit_{audited}"
        assert "check_40" in names(phases)
        assert "reinforcement_48" in names(phases)
        assert reviews_used(*read_history(record)) <= budget


def test_the_last_segment_may_be_shorter():
    phases, _ = phases_of("report", rises, steps=20)
    trained = [phase for phase in phases if phase.name.startswith("reinforcement")]
    assert [phase.schedule.steps for phase in trained] == [8, 8, 4]
    assert trained[-1].name == "reinforcement_20"


def test_all_segments_share_one_compiled_step():
    phases, _ = phases_of("report", rises, steps=20)
    trained = [phase for phase in phases if phase.name.startswith("reinforcement")]
    assert len({phase.program for phase in trained}) == 1


def test_an_alarm_that_is_only_reported_changes_nothing():
    phases, record = phases_of("report", rises_and_falls)
    trained = [name for name in names(phases) if name.startswith("reinforcement")]
    assert trained[-1] == "reinforcement_40"
    assert decide(record, Audit().rules).status == "alarm"
    assert best_step(record) == PEAK


def test_an_alarm_stops_training():
    phases, record = phases_of("stop", rises_and_falls)
    last = names(phases)[-1]
    assert last.startswith("check_")
    assert PEAK < int(last.partition("_")[2]) <= 40
    assert decide(record, Audit().rules).status == "alarm"


def test_after_an_alarm_the_best_audited_policy_returns():
    phases, _ = phases_of("return", rises_and_falls)
    last = phases[-1]
    assert (last.name, last.schedule.steps) == ("best_audited", 0)
    assert last.begins == (Begin("assistant", f"reinforcement_{PEAK}/assistant"),)


def test_without_an_alarm_the_best_audited_policy_returns_too():
    phases, _ = phases_of("return", rises)
    assert names(phases)[-2:] == ["audit_40", "best_audited"]
    assert phases[-1].begins[0].checkpoint.startswith("reinforcement_")


def test_a_restart_relabels_and_begins_with_the_reference_policy_again():
    phases, record = phases_of("restart", rises_and_falls)
    found = names(phases)
    (restart,) = [name for name in found if name.startswith("reviews_")]
    alarm = int(restart.partition("_")[2])
    after = phases[found.index(restart) + 1 :]
    assert (after[0].name, after[0].continues) == (f"reinforcement_{alarm + 8}", False)
    assert after[0].begins == (Begin("assistant", "reference"),)
    assert after[2].continues
    assert found[-1] == "best_audited"
    assert len(read_history(record, since=alarm).looks) == sum(
        phase.name.startswith("audit") for phase in after
    )


def test_restarts_are_limited():
    for number in (0, 2):
        phases, _ = phases_of("restart", rises_and_falls, restarts=number)
        found = names(phases)
        assert sum(name.startswith("reviews_") for name in found) == number
        assert found[-1] == "best_audited"


@pytest.mark.parametrize(("relabel", "between"), [(500, "reviews"), (0, "restart")])
def test_training_may_begin_again_without_an_alarm(relabel, between):
    """With reviews of the policy that it ends with, or against the same reward model."""
    phases, record = phases_of(
        "restart", rises, steps=16, restarts=2, restart_at="end", relabel=relabel
    )
    assert [name for name in names(phases) if not name.startswith("reinforcement")] == [
        "reviews", "audit_8", "audit_16", f"{between}_16", "audit_24", "audit_32",
        f"{between}_32", "audit_40", "audit_48", "best_audited",
    ]  # fmt: skip
    assert restarts(record) == [16, 32]
    begun = [phase.name for phase in phases if Begin("assistant", "reference") in phase.begins]
    trained = [name for name in begun if name.startswith("reinforcement")]
    assert trained == ["reinforcement_8", "reinforcement_24", "reinforcement_40"]
    if not relabel:
        [begins, _] = [phase for phase in phases if phase.name.startswith("restart")]
        assert (begins.schedule.steps, begins.begins) == (0, (Begin("assistant", "reference"),))


def test_the_policy_that_returns_is_not_chosen_by_means_over_a_restart():
    """One audit of each of three attempts, of which the first is the best."""
    values = {8: 1.0, 16: 0.0, 24: 0.7}
    record = {
        "stages": {
            name: {"audit": {"proxy": 1.0, "audited": estimated(values[step])}} if audit else {}
            for step in values
            for name, audit in ((f"audit_{step}/data", True), (f"restart_{step}/checkpoint", False))
        }
    }
    assert best_step(record) == 8


def test_audits_of_different_policies_draw_the_same_items():
    seeds = np.stack([np.full(64, 9), np.arange(64)], axis=1).astype(np.uint32)
    probability = np.full(512, 0.1)
    one, two = (draw(probability, _item_keys(seeds, 8, 40), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = draw(probability, _item_keys(seeds, 8, 48), seed=3)
    assert (one != other).any()
    reordered = draw(probability, _item_keys(seeds[::-1], 8, 40), seed=3)
    np.testing.assert_array_equal(reordered.reshape(64, 8)[::-1], one.reshape(64, 8))


def test_an_adaptive_penalty_is_carried_to_the_next_phase():
    experiment = read_audited()
    model = RewardModel(experiment.oversight.reward_model, experiment.task)
    source = Rollouts(experiment, model, Penalty(beta=0.1, target_kl=6.0))
    state = RolloutState(Normaliser(jnp.zeros(2), jnp.ones(2)), jnp.float32(0.17))
    assert source.carry(state) == {"assistant": jnp.float32(0.17)}
    assert dataclasses.replace(source, penalty=Penalty(beta=0.1)).carry(state) == {}


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ("every = 8\nbudget = 0", "oversight.audit.budget"),
        ("every = 8\nbudget = 70", "oversight.audit.budget = 70 does not suffice for 3 audits"),
        ("every = -1", "oversight.audit.every"),
        ("every = 8\nreviews = 0", "oversight.audit.reviews"),
        ("every = 8\nreviews = nan", "oversight.audit.reviews"),
        ('every = 8\ndraw = "worst"', "oversight.audit.draw"),
        ('every = 8\non_alarm = "panic"', "oversight.audit.on_alarm"),
        ("every = 8\nerror_rate = 1.0", "oversight.audit.error_rate"),
        ("every = 8\nrelabel = -1", "oversight.audit.relabel"),
        ('every = 8\nrestart_at = "end"', 'needs oversight.audit.on_alarm = "restart"'),
        ("every = 8\ncheck_reviews = 1", "oversight.audit.check_reviews"),
    ],
)
def test_what_cannot_be_audited_is_rejected_when_the_file_is_read(tmp_path, audit, said):
    toml = AUDITED_ESSAYS.replace("every = 8", audit)
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    folder = tiny_experiment(tmp_path_factory.mktemp("audited") / "tiny", AUDITED_ESSAYS)
    main(["round", str(folder), "--n", "2"])
    return folder


@pytest.mark.slow
def test_a_round_keeps_every_audit_and_ends_with_the_best_policy(audited):
    this = Store(audited).round(1)
    stages = this.record["stages"]
    assert [name for name in stages if name.startswith(("reinf", "audit", "best"))] == [
        "reinforcement_8/checkpoint",
        "audit_8/data",
        "reinforcement_16/checkpoint",
        "audit_16/data",
        "reinforcement_20/checkpoint",
        "audit_20/data",
        "best_audited/checkpoint",
    ]
    best = best_step(this.record)
    chosen, kept = (
        stages[f"{phase}/checkpoint"]["digests"]["assistant"]
        for phase in ("best_audited", f"reinforcement_{best}")
    )
    assert chosen == kept
    assert this.roles()["assistant"].digest == kept
    rows = audits.of_round(this, this.training_curve())
    assert [row.step for row in rows] == [8, 16, 20]
    assert all(row.gold is not None and row.reviews > 0 for row in rows)
    assert "3 audits of" in audits.summary(rows, this)


@pytest.mark.slow
def test_an_estimate_can_be_made_again_from_the_stored_audit(audited):
    this = Store(audited).round(1)
    rows = list(dataset.read(this.phase("audit_8").data))
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    reviewed = columns["reviewed"].ravel() == 1
    assert (columns["score"].ravel()[~reviewed] == 0).all()
    found = estimate(
        columns["proxy"].ravel(),
        columns["score"].ravel(),
        reviewed,
        columns["probability"].ravel().astype(float),
        cluster=np.repeat(np.arange(len(rows)), columns["proxy"].shape[1]),
    )
    recorded = this.record["stages"]["audit_8/data"]["audit"]
    assert found.value == pytest.approx(recorded["audited"]["value"], abs=1e-5)
    assert found.reviews == recorded["audited"]["reviews"]
    assert float(columns["proxy"].mean()) == pytest.approx(recorded["proxy"], abs=1e-6)


@pytest.mark.slow
def test_reviews_of_audits_are_in_the_ledger(audited):
    record = Store(audited).round(1).record
    calls = {(row["stage"], row["part"]): row["calls"] for row in record["ledger"]["calls"]}
    for step in (8, 16, 20):
        facts = record["stages"][f"audit_{step}/data"]
        assert calls[f"audit_{step}/data", "judge, scores"] == facts["reviews"]
        assert calls[f"audit_{step}/data", "assistant"] == 64


@pytest.mark.slow
def test_the_training_curve_runs_on_through_all_segments(audited):
    steps = [row["step"] for row in Store(audited).round(1).training_curve()]
    assert steps == [8, 16, 20]


@pytest.mark.slow
def test_the_optimizer_continues_through_all_segments(audited):
    store = Store(audited)
    experiment, this = store.experiment, store.round(1)
    trained = experiment.oversight.roles(experiment)[0]
    state = load_role(experiment, trained, Handle("assistant", this, "reinforcement_20"))
    assert int(state.step) == 20


@pytest.mark.slow
@pytest.mark.parametrize("after", [125, 130, 138])
def test_a_killed_round_ends_as_one_that_was_not(audited, tmp_path, after, monkeypatch):
    """Killed in the first segment, at the first step of the second, and in the last."""
    folder = killed_and_resumed(audited, tmp_path / "tiny", after, monkeypatch)
    one, two = (
        {
            stage: {key: entry.get(key) for key in ("digest", "digests", "audit")}
            for stage, entry in Store(at).round(1).record["stages"].items()
        }
        for at in (folder, audited)
    )
    assert one == two


@pytest.mark.slow
def test_a_restarted_round_learns_from_reviews_of_the_policy_that_raised_the_alarm(
    audited, tmp_path, monkeypatch
):
    """The alarm is made up: 20 steps of a tiny policy do not lead to over-optimisation."""
    folder = tmp_path / "tiny"
    shutil.copytree(audited, folder)
    for number in (1, 2):
        shutil.rmtree(folder / f"{number:03d}")
    toml = AUDITED_ESSAYS.replace("every = 8", 'every = 8\non_alarm = "restart"\nrelabel = 80')
    shutil.rmtree(folder / "000")
    (folder / "experiment.toml").write_text(toml, encoding="utf-8")

    def alarmed(record, rules, since=0, until=None):
        looks = read_history(record, since, until).looks
        status = "alarm" if since == 0 and len(looks) == 2 else "quiet"
        return Watch(status, "made up", looks[-1].step, looks[0].step)

    monkeypatch.setattr(reward_model, "decide", alarmed)
    main(["round", str(folder), "--n", "1"])
    this = Store(folder).round(1)
    stages = this.record["stages"]
    assert stages["reviews_16/data"]["reviews"] == 80
    rows = list(dataset.read(this.phase("reviews_16").data))
    assert len(rows) == (200 + 80) / 4
    first = list(dataset.read(this.phase("reviews").data))
    np.testing.assert_array_equal(rows[20]["answers"], first[0]["answers"])
    assert "reinforcement_36/checkpoint" in stages
    assert json.loads((this.path / "record.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_round_begins_again_against_the_same_reward_model(tmp_path):
    again = 'on_alarm = "restart"\nrestart_at = "end"\nrelabel = 0\nrestarts = 1'
    toml = AUDITED_ESSAYS.replace("every = 8", f"every = 20\n{again}")
    main(["round", str(tiny_experiment(tmp_path / "tiny", toml)), "--n", "1"])
    this = Store(tmp_path / "tiny").round(1)
    stages, digests = this.record["stages"], {}
    for name in ("drafts", "restart_20", "reinforcement_20", "reinforcement_40"):
        digests |= {
            (name, *one): of for *one, of in stages[f"{name}/checkpoint"]["digests"].items()
        }
    assert digests["restart_20", "assistant"] == digests["drafts", "reference"]
    assert digests["reinforcement_20", "assistant"] != digests["reinforcement_40", "assistant"]
    assert [row["step"] for row in this.training_curve()] == [10, 20, 30, 40]
    assert sum(entry.get("reviews", 0) for entry in stages.values()) > 200  # and two audits
    assert [name for name in stages if name.startswith("reviews")] == [
        "reviews/data",
        "reviews/checkpoint",
    ]
