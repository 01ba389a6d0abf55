import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from amplify import inspection
from amplify import round as page
from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines
from amplify.models.fact_transformer import FactTransformer
from amplify.oversight.draws import draw_round
from amplify.oversight.restore import load_assistant
from amplify.records.round_folder import read_evals
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.training.step import stored_step
from tests.tiny import TOML, tiny_experiment

STAGES = ["distillation/data", "distillation/checkpoint", "evals", "verdict"]


def run_rounds(folder: Path, last: int) -> Store:
    store = Store(folder)
    for number in range(last + 1):
        if not store.round(number).complete:
            page.run(store, number, unwatched)
    return store


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """Two rounds, not to be written to."""
    folder = tiny_experiment(tmp_path_factory.mktemp("rounds") / "tiny")
    main(["round", str(folder), "--n", "2"])
    return folder


@pytest.fixture
def copied(ran, tmp_path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "tiny"))


def outcome(folder: Path) -> dict:
    """All that a run leaves behind, but for how long it took and when."""
    found = {}
    for number in Store(folder).rounds():
        this = Store(folder).round(number)
        for stage, facts in this.record["stages"].items():
            timeless = {k: v for k, v in facts.items() if not k.endswith("seconds")}
            found[number, stage] = json.dumps(timeless, sort_keys=True)
        for path in (this.evals, this.main.interactions):
            found[number, path.name] = path.read_bytes() if path.exists() else None
        if this.main.metrics.exists():
            rows = read_lines(this.main.metrics)
            found[number, "metrics"] = [(r["step"], r["loss"], r["agreement"]) for r in rows]
    return found


def test_a_round_leaves_what_the_design_promises(ran):
    folder = ran / "002"
    there = {path.name for path in folder.iterdir()}
    assert there == {"distillation", "evals.jsonl", "record.json", "report.html", "trees.html"}
    phase = {path.name for path in (folder / "distillation").iterdir()}
    assert phase == {"data", "checkpoint", "interactions.jsonl", "metrics.jsonl"}
    assert [path.name for path in (folder / "distillation/checkpoint").iterdir()] == ["assistant"]
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "done"
    assert list(record["stages"]) == STAGES
    asked = 96 * 4
    assert record["ledger"]["overseer_answers"] == asked
    # At depth 2 both sub-questions go to the assistant, at depth 1 both to the environment.
    assert record["ledger"]["assistant_answers"] == asked // 2 * 2
    assert record["ledger"]["training_steps"] == 60
    assert record["parent"] == Store(ran).round(record["parent"]["round"]).identity


def test_the_data_set_is_read_by_a_process_that_never_heard_of_amplify(ran):
    program = """
import sys
import tensorflow_datasets as tfds
rows = tfds.builder_from_directory(sys.argv[1]).as_data_source("train")
assert len(rows) == 96, len(rows)
row = rows[95]
print(row["context"].shape, row["questions"].shape, row["answers"].shape, len(row["parent"]))
assert "amplify" not in sys.modules and "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(ran / "001" / "distillation" / "data")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(8, 4) (4, 3) (4, 1) 64"


def test_the_first_rounds_labels_are_true_and_half_of_the_second_are_at_depth_two(ran):
    store = Store(ran)
    problems = draw_round(store.experiment, 1)
    task = store.experiment.task
    rows = inspection.dataset.read(store.round(1).main.data)
    truth = jax.vmap(jax.vmap(task.truth, (None, 0)))(problems.contexts, problems.questions)
    assert [row["answers"].tolist() for row in rows] == truth.tolist()
    wildcards = [
        (row["questions"] == 3).sum(axis=-1)
        for row in inspection.dataset.read(store.round(2).main.data)
    ]
    assert (np.sort(wildcards, axis=1) == [1, 1, 2, 2]).all()


def test_evals_ask_the_same_held_out_items_in_every_round(ran):
    store = Store(ran)
    items = [read_evals(store.round(number)) for number in (0, 1, 2)]
    asked = [
        [(item["problem"], item["question"], item["split"]) for item in some] for some in items
    ]
    assert asked[0] == asked[1] == asked[2]
    assert len(set(asked[0])) == len(asked[0])
    assert all(item["ceiling"] for item in items[0])
    by_split = {
        split: {i["problem"] for i in items[0] if i["split"] == split}
        for split in ("select", "final")
    }
    assert not by_split["select"] & by_split["final"]


def test_the_same_seed_gives_bit_identical_rounds(ran, tmp_path):
    again = tiny_experiment(tmp_path / "tiny")
    run_rounds(again, 2)
    assert outcome(again) == outcome(ran)


def test_another_seed_gives_another_assistant(ran, tmp_path):
    other = tiny_experiment(tmp_path / "tiny", "seed = 1\n" + TOML)
    run_rounds(other, 0)
    assert Store(other).round(0).identity != Store(ran).round(0).identity


@pytest.mark.parametrize("stage", [*STAGES, "data", "checkpoint"])
def test_a_stage_done_again_comes_out_the_same(ran, copied, stage):
    store = Store(copied)
    store.round(2).undo(stage)
    assert not store.round(2).complete
    page.run(store, 2, unwatched)
    assert outcome(copied) == outcome(ran)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_changes_nothing_in_the_end(ran, tmp_path):
    """The whole twenty kills of `make bench` in small."""
    folder = tiny_experiment(tmp_path / "tiny")
    kills = kill_and_resume(folder, last=2, kills=3, seed=0)
    assert kills == 3
    assert outcome(folder) == outcome(ran)


def kill_and_resume(folder: Path, last: int, kills: int, seed: int, between=(3.0, 8.0)) -> int:
    """Runs rounds in a process of its own, killed at random moments and started again; returns how
    often it was.
    """
    command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", str(last)]
    dice, killed = random.Random(seed), 0
    while True:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        if killed < kills:
            wait_for(
                folder / f"{last:03d}/distillation/checkpoint/assistant",
                dice.uniform(*between),
                process,
            )
            process.send_signal(signal.SIGKILL)
        _, complaint = process.communicate()
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL, complaint.decode()
        killed += 1


def wait_for(path: Path, seconds: float, process: subprocess.Popen) -> None:
    """Until there is such a file, but no longer than so many seconds, nor than the process runs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None and not path.exists():
        time.sleep(0.01)


def test_training_goes_on_from_its_last_checkpoint_and_not_from_the_start(ran, copied):
    store = Store(copied)
    store.round(2).undo("checkpoint")

    class KilledError(Exception):
        pass

    def die_after(steps):
        from contextlib import contextmanager

        @contextmanager
        def watch(what, total, done=0):
            def advance(more, row=None):
                nonlocal done
                done += more
                if what == "distillation" and done >= steps:
                    raise KilledError

            yield advance

        return watch

    with pytest.raises(KilledError):
        page.run(store, 2, die_after(50))
    steps_seen = []

    from contextlib import contextmanager

    @contextmanager
    def watch(what, total, done=0):
        def advance(more, row=None):
            if what == "distillation":
                steps_seen.append(more)

        if what == "distillation":
            steps_seen.append(done)
        yield advance

    page.run(Store(copied), 2, watch)
    assert steps_seen[0] == 40  # the last checkpoint before step 50
    assert sum(steps_seen) == 60
    assert outcome(copied) == outcome(ran)


def test_the_training_step_is_traced_once_over_rounds_and_batches(tmp_path, monkeypatch):
    traced = []
    loss = FactTransformer.loss

    def counted(self, params, batch):
        traced.append(1)
        return loss(self, params, batch)

    monkeypatch.setattr(FactTransformer, "loss", counted)
    stored_step.cache_clear()
    run_rounds(tiny_experiment(tmp_path / "tiny"), 2)
    stored_step.cache_clear()
    assert len(traced) == 1


def test_the_tree_behind_a_row_is_the_one_that_made_its_label(ran):
    store = Store(ran)
    for row, question in ((0, 0), (95, 3), (40, 1)):
        found = inspection.training_tree(store, 2, row, question, 1)
        stored = inspection.dataset.read(store.round(2).main.data)[row]
        shown = inspection.words.format_tokens(store.experiment.task, stored["answers"][question])
        assert found.tree["answer"] == shown
        assert len(found.tree["steps"]) == 2
        assert len(found.tree["facts"]) == len({*found.tree["facts"]}) == 8
        assert "about  aaa" in str(found)
        assert found.tree["facts"][0] in found.write_html().read_text()


def test_sampled_trees_are_those_behind_their_rows(ran):
    store = Store(ran)
    kept = read_lines(store.round(2).main.interactions)
    assert len(kept) == 50
    where = ("row", "column", "class")
    tree = {key: value for key, value in kept[7].items() if key not in where}
    assert tree == inspection.training_tree(store, 2, kept[7]["row"], kept[7]["column"], 1).tree


@pytest.mark.parametrize(
    ("row", "question", "said"), [(96, 0, "0 to 95"), (-1, 0, "0 to 95"), (0, 4, "0 to 3")]
)
def test_a_row_that_is_not_there_is_refused(ran, row, question, said):
    with pytest.raises(AmplifyError, match=said):
        inspection.training_tree(Store(ran), 2, row, question, 1)


def break_file(path: Path) -> None:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "breakage", [break_file, lambda p: shutil.rmtree(p) if p.is_dir() else p.unlink()]
)
@pytest.mark.parametrize(
    ("what", "stage", "use"),
    [
        (
            "distillation/checkpoint/assistant",
            "distillation/checkpoint",
            lambda store: load_assistant(store.experiment, store.round(1).roles()),
        ),
        ("evals.jsonl", "evals", lambda store: read_evals(store.round(1))),
        (
            "distillation/data",
            "distillation/data",
            lambda store: (store.round(1).undo("checkpoint"), page.run(store, 1, unwatched)),
        ),
    ],
)
def test_damage_is_named_with_the_command_that_mends_it_which_does(
    ran, copied, breakage, what, stage, use
):
    breakage(copied / "001" / what)
    with pytest.raises(AmplifyError) as error:
        use(Store(copied))
    assert f"{copied}/001/{what}" in str(error.value)
    assert f"amplify round {copied} --n 1 --redo {stage}" in str(error.value)
    store = Store(copied)
    store.round(1).undo(stage)
    page.run(store, 1, unwatched)
    assert outcome(copied) == outcome(ran)


def test_a_loss_that_is_not_finite_stops_the_round_with_the_step(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace("1e-2", "1e38"))
    with pytest.raises(
        AmplifyError, match=r"the loss is \w+ at step \d+: try a smaller training.learning_rate"
    ):
        run_rounds(folder, 1)
    assert not Store(folder).round(1).done("distillation/checkpoint")


def test_a_report_that_is_missing_or_older_than_its_round_is_written_again(copied):
    page = copied / "002/report.html"
    page.unlink()
    main(["round", str(copied), "--n", "2"])
    assert "round 2" in page.read_text(encoding="utf-8")
    page.write_text("from before", encoding="utf-8")
    main(["round", str(copied), "--n", "2"])
    assert page.read_text(encoding="utf-8") == "from before"
    main(["round", str(copied), "--n", "2", "--redo", "verdict"])
    assert page.read_text(encoding="utf-8") != "from before"
