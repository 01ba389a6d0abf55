"""Records and folders of earlier versions: read through the one reader, and gone on from."""

import json
import shutil
from pathlib import Path

import pytest

from amplify.cli.commands import main
from amplify.records.record import digest_of, phases, read_record, stage_named, trained_in
from amplify.store import Store
from tests.tiny import tiny_experiment


def record(folder: Path, number: int, **stages) -> dict:
    """What an earlier version wrote down, read."""
    path = folder / f"{number:03d}"
    path.mkdir()
    written = {"round": number, "experiment": {}, "parent": None, "stages": stages}
    (path / "record.json").write_text(json.dumps(written), encoding="utf-8")
    return read_record(path)


def test_stages_of_an_earlier_version_have_the_names_of_phases(tmp_path):
    found = record(
        tmp_path,
        3,
        overseer={"overseer_digest": "o", "demonstrations": 5},
        data={"digest": "d"},
        checkpoint={"digest": "a", "steps": 10},
        evals={"digest": "e"},
    )
    assert found["stages"] == {
        "imitation/checkpoint": {"demonstrations": 5, "digests": {"overseer": "o"}},
        "distillation/data": {"digest": "d"},
        "distillation/checkpoint": {"steps": 10, "digests": {"assistant": "a"}},
        "evals": {"digest": "e"},
    }
    assert phases(found) == ["imitation", "distillation"]
    assert trained_in(found) == {"overseer": "imitation", "assistant": "distillation"}
    assert (digest_of(found), digest_of(found, "overseer")) == ("a", "o")
    assert digest_of(found, "critic") is None


def test_round_0_of_an_earlier_version_initialised_the_assistant(tmp_path):
    assert trained_in(record(tmp_path, 0, checkpoint={"digest": "a"})) == {"assistant": "initial"}


def test_a_stage_may_be_named_by_its_last_part_where_one_has_it(tmp_path):
    found = record(tmp_path, 3, overseer={}, data={}, checkpoint={}, evals={})
    assert stage_named(found, "data") == "distillation/data"
    assert stage_named(found, "imitation/checkpoint") == "imitation/checkpoint"
    assert stage_named(found, "evals") == "evals"
    assert stage_named(found, "checkpoint") is None
    assert stage_named(found, "lunch") is None


def into_layout_1(round_: Path) -> None:
    """Puts a round's files and its record where earlier versions had them."""
    record = json.loads((round_ / "record.json").read_text(encoding="utf-8"))
    for stage in [*record["stages"]]:
        phase, _, name = stage.rpartition("/")
        if not phase:
            continue
        entry = record["stages"].pop(stage)
        if name == "checkpoint":
            entry["digest"] = entry.pop("digests")["assistant"]
        record["stages"][name] = entry
        if name == "checkpoint":
            shutil.move(round_ / phase / "checkpoint/assistant", round_ / "moved")
            shutil.rmtree(round_ / phase / "checkpoint")
            for path in (round_ / phase).iterdir():
                shutil.move(path, round_ / path.name)
            (round_ / phase).rmdir()
            shutil.move(round_ / "moved", round_ / "checkpoint")
    for later in ("evals", "verdict"):
        if later in record["stages"]:
            record["stages"][later] = record["stages"].pop(later)
    del record["layout"]
    (round_ / "record.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same round in today's layout, and in that of earlier versions."""
    root = tmp_path_factory.mktemp("layouts")
    new = tiny_experiment(root / "new" / "tiny")
    main(["round", str(new), "--n", "1"])
    old = Path(shutil.copytree(new, root / "old" / "tiny"))
    for number in (0, 1):
        into_layout_1(old / f"{number:03d}")
    assert {path.name for path in (old / "001").iterdir()} >= {"data", "checkpoint"}
    return new, old


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--json"],
        ["tree", "--round", "1", "--row", "3", "--json"],
        ["replay", "--round", "1", "--json"],
    ],
)
def test_a_round_of_an_earlier_version_says_what_todays_says(both, command, capsys):
    said = []
    for folder in both:
        main([command[0], str(folder), *command[1:]])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_a_round_follows_one_of_an_earlier_version_as_it_follows_todays(both):
    for folder in both:
        main(["round", str(folder), "--n", "2"])
    one, two = (Store(folder).round(2).record["stages"] for folder in both)
    for stage in one:
        for digest in ("digest", "digests"):
            assert one[stage].get(digest) == two[stage].get(digest)
    for folder in both:
        main(["round", str(folder), "--n", "1", "--redo", "data"])
    one, two = (Store(folder).round(1).record["stages"] for folder in both)
    assert one["distillation/checkpoint"]["digests"] == two["distillation/checkpoint"]["digests"]
