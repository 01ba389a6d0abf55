import json
import random

import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.evaluation.statistics import accuracy
from amplify.people.records import read_records


def write_round(folder, number, facts, rows=()):
    path = folder / f"{number:03d}"
    path.mkdir(parents=True)
    (path / "record.json").write_text(json.dumps({"round": number, **facts}))
    if rows:
        (path / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rounds_are_read_as_far_as_they_have_come(tmp_path):
    stages = {"checkpoint": {"digest": "c0"}}
    write_round(tmp_path, 0, {"status": "done", "parent": None, "stages": stages})
    write_round(tmp_path, 1, {"status": "started", "parent": {"round": 0, "digest": "c0"}})
    (tmp_path / "people").mkdir()
    (tmp_path / "002").mkdir()  # begun, and killed before it had a record
    none, one = read_records(tmp_path)
    assert (none.number, none.parent, none.digest, none.complete) == (0, None, "c0", True)
    assert (one.number, one.parent, one.digest, one.complete) == (1, 0, None, False)
    assert one.verdict is None
    assert one.ledger == {}
    assert one.means == {}


def test_accuracy_is_that_of_the_final_split_with_problems_as_clusters(tmp_path):
    chance = random.Random(0)
    rows = [
        {
            "split": split,
            "problem": f"0:{problem}",
            "alone": chance.random() < 0.6,
            "amplified": chance.random() < 0.9,
        }
        for split in ("select", "final")
        for problem in range(40)
        for _ in range(3)
    ]
    write_round(tmp_path, 1, {"stages": {"evals": {"digest": "e"}}}, rows)
    [record] = read_records(tmp_path)
    for by in ("alone", "amplified"):
        right = np.array([row[by] for row in rows if row["split"] == "final"])
        assert record.means[by] == pytest.approx(accuracy(right, np.repeat(np.arange(40), 3)))
    (record.folder / "evals.jsonl").write_text("{}\n")
    with pytest.raises(AmplifyError, match=r"evals\.jsonl: damaged \(a row has no 'split'\)"):
        _ = record.means
