import json

import pytest

from amplify.people.records import read_records
from amplify.people.results import cost_by_round, total_cost
from tests.people.story import Story


def write_round(folder, number, right, against=None, verdict="promoted"):
    """Of a hundred held-out questions, `right` are answered rightly."""
    path = folder / f"{number:03d}"
    path.mkdir()
    stages = {"evals": {"digest": "e"}}
    if against is not None:
        stages["verdict"] = {"verdict": verdict, "against": against}
    parent = None if against is None else {"round": against, "digest": "d"}
    (path / "record.json").write_text(json.dumps({"parent": parent, "stages": stages}))
    rows = [{"split": "final", "problem": str(n), "alone": n < right} for n in range(100)]
    (path / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def work() -> Story:
    story = Story()
    story.put("a", round=1, overlap=2)
    story.answer("a", "person-01", "x", seconds=30)
    story.answer("a", "person-02", "x", seconds=50)
    story.put("b", round=1)
    story.take("b", "person-01")
    story.add("skipped", 1, "b", "person-01", 5.0, reason="unclear")
    story.put("c", round=2)
    story.answer("c", "person-01", "x", seconds=10)
    return story


def test_what_people_did_is_set_against_what_the_round_gained(tmp_path):
    write_round(tmp_path, 0, 20)
    write_round(tmp_path, 1, 40, against=0)
    write_round(tmp_path, 2, 38, against=1, verdict="rejected")
    records = read_records(tmp_path)
    none, one, two = cost_by_round(work().queue, records)
    assert (none.answers, none.points, none.seconds_per_point) == (0, None, None)
    assert (one.people, one.answers, one.seconds) == (2, 2, 85)  # the skip took its time too
    assert one.points == pytest.approx(20)
    assert one.seconds_per_point == pytest.approx(4.25)
    assert one.answers_per_point == pytest.approx(0.1)
    assert two.points == pytest.approx(-2)
    assert two.seconds_per_point is None  # nothing was gained, so no price can be given
    altogether = total_cost(work().queue, records)
    assert (altogether.round, altogether.answers) == (1, 2)
    assert altogether.points == pytest.approx(20)


def test_a_round_without_evals_has_gained_nobody_knows_what(tmp_path):
    [one, two] = cost_by_round(work().queue, [])
    assert (one.answers, one.points) == (2, None)
    assert two.seconds == 10
    assert total_cost(work().queue, []) is None
