"""What a round's verdict makes of evals and training as they lie in its folder."""

import dataclasses
import json

import numpy as np
import pytest

from amplify import judging, report
from amplify.errors import AmplifyError
from amplify.evaluation.measuring import context_digest
from amplify.evaluation.statistics.gate import spent_error_rate
from amplify.store import Store
from tests.test_report import CLASSES, Page, item, learning, printed, write_experiment


def judged(store: Store, before: int, after: int, measure: str = "alone") -> dict:
    gate = dataclasses.replace(store.experiment.gate, measure=measure)
    store.experiment = dataclasses.replace(store.experiment, gate=gate)
    return judging.judge_round(store.experiment, store.round(before), store.round(after))


def set_metrics(store: Store, number: int, rows: list[dict]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    store.round(number).main.metrics.write_text(text)


def two_questions(number: int) -> list[dict]:
    """512 draws of two contexts with a question each, one of which the first round gets right."""
    return [
        item(split, CLASSES[0], f"0:{draw}", alone=bool(number) and draw % 2 == 0,
             question=f"q{draw % 2}") | {"context": f"region {draw % 2}"}
        for split in ("select", "final")
        for draw in range(512)
    ]  # fmt: skip


def test_two_questions_that_were_drawn_512_times_promote_nothing(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=2, items=two_questions)
    verdict = judged(store, 0, 1)
    assert verdict["verdict"] == "inconclusive"
    assert verdict["reason"].startswith("too few contexts to tell: +50.0 points in 2 contexts")
    assert verdict["comparison"]["items"] == 2
    assert verdict["comparison"]["p_value"] is None


def test_wherever_there_are_too_few_contexts_it_is_said_instead_of_an_interval(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=2, items=two_questions)
    rows = {(row["round"], row["split"], row["class"]): row for row in report.results(store)}
    last = rows[1, "final", CLASSES[0]]
    assert (last["n"], last["contexts"], last["alone"]) == (2, 2, 0.5)
    assert last["interval"] is None
    for shown in (report.rounds_table(store), report.comparison([store])):
        text = " ".join(printed(shown).split())
        assert "2 held-out questions about 2 contexts" in text
        assert "'too few': too few contexts to tell" in text
        assert "±" not in text
    [page, *_] = report.write_comparison([store])
    for path in (page, report.write_round_page(store, store.round(1))):
        text = Page(path).text
        assert "too few contexts to tell" in text
        assert "A question about a context counts once" in text


def test_older_evals_without_digests_are_clustered_by_problem(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=2)
    verdict = judged(store, 0, 1)
    assert verdict["verdict"] == "promoted"
    assert verdict["comparison"]["contexts"] == 40


def test_older_evals_are_paired_with_newer_ones(tmp_path):
    def items(number):
        digests = {"context": "c"} if number else {}
        rows = learning(number)
        return [row | {key: f"{key}{row['problem']}" for key in digests} for row in rows]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=items)
    assert judged(store, 0, 1)["comparison"]["contexts"] == 40
    assert "unpaired" not in printed(report.comparison([store]))


def test_the_gate_compares_the_measure_that_it_is_told_to(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=4)
    for measure, verdict in (("alone", "promoted"), ("amplified", "inconclusive")):
        found = judged(store, 2, 3, measure)
        before, after = (
            np.mean([row[measure] for row in learning(number) if row["split"] == "select"])
            for number in (2, 3)
        )
        assert (found["measure"], found["verdict"]) == (measure, verdict)
        assert found["comparison"]["delta"] == pytest.approx(after - before)


def test_the_gate_compares_shares_between_nought_and_one(tmp_path):
    def items(number):
        return [{**row, "jury": 0.2 + 0.1 * number} for row in learning(number)]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=items)
    assert judged(store, 0, 1, "jury")["comparison"]["delta"] == pytest.approx(0.1)


def test_a_round_without_the_gate_s_measure_is_refused_by_its_name(tmp_path):
    def items(number):
        return [
            {**row, "reward": 7.0, **({"jury": 1} if number else {})} for row in learning(number)
        ]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=items)
    with pytest.raises(
        AmplifyError, match=r"001/evals.jsonl: no question has a value of jury, .* and in round 0$"
    ):
        judged(store, 0, 1, "jury")
    with pytest.raises(AmplifyError, match="reward must be 0 to 1 for the gate to compare it"):
        judged(store, 0, 1, "reward")


def test_a_promoted_round_passes_its_error_rate_on_and_a_gap_ends_that(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=4)
    shares = [spent_error_rate(number, 0.05) for number in range(1, 4)]
    assert judged(store, 0, 1)["error_rate"] == pytest.approx(shares[0])
    assert judged(store, 1, 2)["error_rate"] == pytest.approx(shares[0] + shares[1])
    assert judged(store, 1, 3)["error_rate"] == pytest.approx(shares[2])  # round 2 was not promoted


def test_an_assistant_that_did_not_learn_is_told_from_its_training_curve(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=2, items=lambda number: learning(0))
    set_metrics(store, 1, [{"step": 1, "agreement": 0.9}, {"step": 2, "agreement": 0.3}])
    verdict = judged(store, 0, 1)
    assert verdict["agreement"] == 0.3
    assert verdict["reason"].startswith("did not learn what it was given: reproduces 30 %")
    set_metrics(store, 1, [{"step": 1, "loss": 0.1}])
    assert judged(store, 0, 1)["agreement"] is None


def test_where_there_is_no_room_left_the_page_says_so_and_names_no_smallest_effect(tmp_path):
    def all_right(number):
        return [row | {"alone": True} for row in learning(number)]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=all_right)
    text = " ".join(Page(report.write_round_page(store, store.round(1))).text.split())
    assert "no room left: all 240 items scored 1 before and after" in text
    assert "in four of five cases" not in text
    assert "no room left" in printed(report.rounds_table(store), width=200)


def test_a_context_s_digest_is_of_what_it_says_in_whatever_order():
    facts = np.array([[3, 1], [2, 7], [2, 5]])
    same = context_digest(facts[[2, 0, 1]])
    assert same == context_digest(facts) == context_digest(facts.astype(np.int32))
    others = [facts + 1, facts.T, facts[:2], facts[:, ::-1]]
    assert len({same, *map(context_digest, others)}) == 5
