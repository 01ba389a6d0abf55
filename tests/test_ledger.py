"""The ledger counts everything: whom a round called how often, by stage, purpose and part."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.evaluation.measuring import evaluate, evaluate_during_training, is_costly
from amplify.files.json_lines import read_lines
from amplify.models.packing import PADDING
from amplify.overseers import continuation
from amplify.overseers.exchanges import FILE, recording, replaying
from amplify.oversight.draws import draw_held_out
from amplify.records import constant_measures, provenance, round_folder
from amplify.records.round_folder import RoundFolder
from amplify.report import costs
from amplify.runtime import calls
from amplify.runtime.calls import Call
from amplify.store import Store
from amplify.trees.chunks import amplify_problems
from tests.checkpoints import checkpoint_folder
from tests.overseers.test_language_model import continued, overseen
from tests.servers import FakeServer, Response, completion, fake_server
from tests.tiny import TOML, tiny_experiment

SMALL = {"contexts = 96": "contexts = 16", "select = 24": "select = 8", "final = 24": "final = 8"}


@pytest.fixture
def server():
    with fake_server() as state:
        state.respond = reply
        yield state


def reply(body: dict, number: int) -> Response:
    return completion(continued(body["messages"][1]["content"]))


def small(folder: Path, server: FakeServer, more: str = "") -> Path:
    """An experiment that a server oversees; `more` are keys of `[evals]`."""
    overseen(folder, server)
    file = folder / "experiment.toml"
    text = file.read_text(encoding="utf-8")
    for was, now in SMALL.items():
        text = text.replace(was, now)
    file.write_text(f"{text}{more}\n", encoding="utf-8")
    return folder


@pytest.fixture
def clean(monkeypatch):
    """A check-out without changes, whose code can be told to be the same later."""
    monkeypatch.setattr(provenance, "commit", lambda package: {"commit": "c", "dirty": False})


def record(folder: Path, number: int) -> dict:
    return RoundFolder(folder / f"{number:03d}", number).record


def sent(folder: Path, *numbers: int) -> dict[tuple[int, str, str], int]:
    """Prompts sent to the server, by round, stage and purpose."""
    return {
        (number, call.stage, call.purpose): call.calls
        for number in numbers
        for call in calls.of_record(record(folder, number))
        if call.part == "server"
    }


@pytest.mark.slow
def test_the_ledger_is_what_the_server_received_stage_by_stage(
    server, tmp_path, monkeypatch, clean
):
    """With evals, and with looks that the file asks for."""
    received = {}
    stage = RoundFolder.stage

    def watched(this, name, *arguments):
        before = server.asked
        stage(this, name, *arguments)
        received[this.number, name] = server.asked - before

    monkeypatch.setattr(RoundFolder, "stage", watched)
    folder = small(tmp_path / "spoken", server, "ask_during_training = true")
    main(["round", str(folder), "--n", "1"])
    found = sent(folder, 0, 1)
    purposes = {"evals": "evals", "distillation/data": "signal", "distillation/checkpoint": "looks"}
    assert found == {
        (number, name, purposes[name]): n for (number, name), n in received.items() if n
    }
    assert sum(found.values()) == server.asked
    assert (1, "distillation/checkpoint", "looks") in found
    row = read_lines(folder / "001/distillation/metrics.jsonl")[-1]
    assert set(row["accuracy"]) == {"alone", "amplified", "ceiling", "live"}
    assert row["look_calls"]["overseer"] > 0


@pytest.mark.slow
def test_a_costly_overseer_is_not_asked_while_training_and_trains_the_same(server, tmp_path):
    digests = []
    for name, more in (("quiet", ""), ("asked", "ask_during_training = true")):
        folder = small(tmp_path / name, server, more)
        main(["round", str(folder), "--n", "1"])
        stages = record(folder, 1)["stages"]
        digests.append((stages["distillation/checkpoint"]["digests"], stages["evals"]["digest"]))
    assert digests[0] == digests[1]
    quiet = tmp_path / "quiet"
    assert {stage for _, stage, _ in sent(quiet, 1)} == {"distillation/data", "evals"}
    row = read_lines(quiet / "001/distillation/metrics.jsonl")[-1]
    assert set(row["accuracy"]) == {"alone", "live"}
    looks = [call for call in calls.of_record(record(quiet, 1)) if call.purpose == "looks"]
    assert {call.part for call in looks} == {"assistant"}


class Gate:
    """Lets the first `most` requests through at once, and the others when it is opened."""

    def __init__(self, most: int) -> None:
        self.most, self.open = most, threading.Event()

    def __call__(self, body: dict, number: int) -> Response:
        if number >= self.most:
            self.open.wait(60)
        return reply(body, number)


@pytest.mark.slow
def test_a_kill_loses_no_prompt_and_what_is_on_file_is_reused(server, tmp_path):
    """Twice, each time with requests under way."""
    folder = small(tmp_path / "spoken", server)
    kept = 0
    for most in (40, 100):
        server.respond = gate = Gate(most)
        command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
        settled = wait_until_still(server, most, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert settled > most  # some were under way
        files = list(folder.glob("00?/exchanges.jsonl"))
        rows = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
        assert sum(row.get("sent", 0) for row in rows) == server.asked
        kept = sum("text" in row for row in rows)
        gate.open.set()
    server.respond = reply
    main(["round", str(folder), "--n", "1"])
    assert sum(sent(folder, 0, 1).values()) == server.asked
    texts = {json.dumps(body) for body in server.bodies}
    assert kept < len(texts) < server.asked  # what was under way at a kill was asked again
    reused = [call.reused for call in calls.of_record(record(folder, 0)) if call.part == "server"]
    assert sum(reused) > 0


def wait_until_still(server: FakeServer, most: int, process: subprocess.Popen) -> int:
    """Until no more requests come; how many there were then."""
    seen, since = -1, time.monotonic()
    while seen < most or time.monotonic() - since < 1.0:
        assert process.poll() is None
        if server.asked != seen:
            seen, since = server.asked, time.monotonic()
        time.sleep(0.05)
    return seen


@pytest.mark.slow
def test_a_redone_stage_reuses_what_is_on_file_and_sends_nothing(server, tmp_path):
    folder = small(tmp_path / "spoken", server)
    main(["round", str(folder), "--n", "1"])
    before, asked = sent(folder, 1), server.asked
    digest = record(folder, 1)["stages"]["evals"]["digest"]
    main(["round", str(folder), "--n", "1", "--redo", "evals"])
    assert server.asked == asked
    assert sent(folder, 1) == before
    assert record(folder, 1)["stages"]["evals"]["digest"] == digest


@pytest.mark.slow
def test_the_ledger_is_what_a_model_in_this_process_was_given_to_read(tmp_path, monkeypatch):
    """Its weights are as they are drawn, so it says nothing that makes sense."""
    given = []

    def counting(of, params, rows):
        given.append(int((jax.device_get(rows) != PADDING).any(axis=-1).sum()))
        return continue_texts(of, params, rows)

    continue_texts = continuation._continue_texts
    monkeypatch.setattr(continuation, "_continue_texts", counting)
    checkpoint_folder(tmp_path / "llama", "Question Ask Answer Conclude a b", positions=600)
    overseer = (
        'kind = "language-model"\npretrained = "llama"\nprompt = "prompt.txt"\nline = 8\nasks = 1\n'
        "most_failed = 1.0"
    )
    toml = f"{TOML}ask_during_training = true\n".replace('kind = "simulated"', overseer)
    for was, now in SMALL.items():
        toml = toml.replace(was, now)
    folder = tiny_experiment(tmp_path / "tiny", toml)
    (folder / "prompt.txt").write_text("Ask about the pattern.\n", encoding="utf-8")
    (folder / "llama").symlink_to(tmp_path / "llama")
    main(["round", str(folder), "--n", "1"])
    counted = [call for n in (0, 1) for call in calls.of_record(record(folder, n))]
    prompts = [call for call in counted if call.part == "language model"]
    assert {call.purpose for call in prompts} == {"signal", "evals", "looks"}
    assert sum(call.calls for call in prompts) == sum(given)


def test_prompts_to_a_model_in_this_process_are_counted_when_they_are_sent(tmp_path):
    with recording(tmp_path, "evals") as exchanges, calls.counting(calls.EVALS):
        exchanges.log_prompts("llama", 64)
        exchanges.log_prompts("llama", 3)
    assert exchanges.call_counts() == [Call("evals", "evals", "language model", 67)]
    assert exchanges.usage() == {}  # no server was asked
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [row["sent"] for row in rows] == [64, 3]
    assert replaying(tmp_path, "evals").call_counts() == exchanges.call_counts()
    assert replaying(tmp_path, "distillation/data").call_counts() == []


def test_exchanges_of_an_earlier_version_are_counted_from_their_replies(tmp_path):
    told = {"text": "yes", "cut_off": False, "model": "", "prompt_tokens": 7}
    told |= {"completion_tokens": 3, "requests": 2}
    rows = [{"id": "a", "stage": "data", **told}, {"id": "b", "stage": "checkpoint", **told}]
    rows.append({"id": "c", "stage": "data", "failed": "HTTP 400", "requests": 1})
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = replaying(tmp_path, "distillation/data")
    assert data.find("a").text == "yes"
    assert data.failure_reason("c") == "HTTP 400"
    assert data.call_counts() == [Call("distillation/data", "signal", "server", 3, tokens=10)]
    looks = replaying(tmp_path, "distillation/checkpoint").call_counts()
    assert looks == [Call("distillation/checkpoint", "looks", "server", 2, tokens=10)]


def test_calls_are_counted_by_the_innermost_tally_and_forgotten_outside_of_stages():
    calls.count("assistant", 5)
    with calls.counting(calls.SIGNAL) as outer:
        calls.count("assistant", 2)
        with calls.counting(calls.LOOKS) as inner:
            calls.count_all({"assistant": np.array([3, 4]), "overseer": 0})
        calls.count("pro", 1)
    assert outer.calls("x/data") == [
        Call("x/data", "signal", "assistant", 2),
        Call("x/data", "signal", "pro", 1),
    ]
    assert inner.calls("x/checkpoint") == [Call("x/checkpoint", "looks", "assistant", 7)]
    assert calls.current_purpose() is None


def test_an_older_record_shows_what_it_has():
    stages = {
        "distillation/data": {"overseer_answers": 64, "assistant_answers": 30, "human_answers": 9},
        "evals": {"overseer_requests": 12, "overseer_tokens": 120},
    }
    assert calls.of_record({"stages": stages}) == [
        Call("distillation/data", "signal", "overseer", 64),
        Call("distillation/data", "signal", "assistant", 30),
        Call("distillation/data", "signal", "people", 9),
        Call("evals", "evals", "server", 12, tokens=120),
    ]
    assert calls.of_record({}) == []


def test_what_a_kind_states_of_a_part_is_not_added_to_what_was_counted():
    counted = [{"purpose": "signal", "part": "overseer", "calls": 70, "new_key": 1}]
    entry = {"overseer_answers": 64, "human_answers": 9, "calls": counted}
    assert calls.of_record({"stages": {"data": entry}}) == [
        Call("data", "signal", "overseer", 70),
        Call("data", "signal", "people", 9),
    ]


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory):
    """Of an overseer that learns nothing, by code that is known to be the same."""
    folder = tiny_experiment(tmp_path_factory.mktemp("ledger") / "tiny")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(provenance, "commit", lambda package: {"commit": "c", "dirty": False})
        main(["round", str(folder), "--n", "2"])
    return folder


def test_a_round_s_ledger_says_who_was_called_for_what(two_rounds):
    ledger = record(two_rounds, 2)["ledger"]
    found = {(row["stage"], row["purpose"], row["part"]): row["calls"] for row in ledger["calls"]}
    assert found["distillation/data", "signal", "overseer"] == 96 * 4 == ledger["overseer_answers"]
    helped = found["distillation/data", "signal", "assistant"]
    assert helped == ledger["assistant_answers"] > 0
    questions = (24 + 24) * 3 * 2  # of every depth, two each
    assert found["evals", "evals", "overseer"] == questions  # the ceiling was copied
    assert found["evals", "evals", "assistant"] == questions + 2 * (questions * 2 // 3)
    first = {call.part: call.calls for call in calls.of_record(record(two_rounds, 0))}
    assert first["overseer"] == 2 * questions
    assert found["distillation/checkpoint", "looks", "overseer"] == 2 * 32 * 3 * 2


def test_the_ledger_is_shown_in_the_comparison_and_told_as_json(two_rounds, capsys):
    main(["compare", str(two_rounds)])
    text = capsys.readouterr().out
    table = text[text.index("\ncalls ") :]
    assert "distillation/checkpoint, looks" in table
    assert "384" in table
    main(["compare", str(two_rounds), "--json"])
    row = json.loads(capsys.readouterr().out)[-1]
    assert row["calls"]["distillation/data"]["signal"]["overseer"] == 384
    assert row["calls"] == costs.nested(record(two_rounds, 2))
    page = (two_rounds / "compare.html").read_text(encoding="utf-8")
    assert "distillation/checkpoint, looks" in page
    page = (two_rounds / "002/report.html").read_text(encoding="utf-8")
    assert "distillation/data, signal: overseer" in page
    assert "copied from round 0" in page


def test_a_table_has_the_latest_rounds_and_the_sum_of_all():
    records = {
        number: {"stages": {"evals": {"calls": [row | {"calls": 10 + number}]}}}
        for number in range(3)
        for row in [{"purpose": "evals", "part": "server", "reused": number}]
    }
    [lines] = costs.groups(records).values()
    assert [(line.label, line.total) for line in lines] == [("server", 33), ("server, reused", 3)]
    assert lines[1].numbers == {2: 2, 1: 1}


def test_a_measure_that_no_round_can_change_is_copied_bit_for_bit(two_rounds, tmp_path):
    for number in (0, 1, 2):
        assert record(two_rounds, number)["stages"]["evals"]["measured_in"] == {"ceiling": 0}
    copied = Path(shutil.copytree(two_rounds, tmp_path / "tiny"))
    before = (copied / "002/evals.jsonl").read_bytes()
    main(["round", str(copied), "--n", "2", "--redo", "evals"])  # by whichever code is here now
    entry = record(copied, 2)["stages"]["evals"]
    assert entry["measured_in"] == {"ceiling": 2}
    assert (copied / "002/evals.jsonl").read_bytes() == before


def test_evals_done_again_copy_again(two_rounds, tmp_path, clean):
    copied = Path(shutil.copytree(two_rounds, tmp_path / "tiny"))
    before = (copied / "001/evals.jsonl").read_bytes()
    main(["round", str(copied), "--n", "1", "--redo", "evals"])
    assert record(copied, 1)["stages"]["evals"]["measured_in"] == {"ceiling": 0}
    assert (copied / "001/evals.jsonl").read_bytes() == before
    main(["replay", str(copied), "--round", "1"])


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "another"},
        {"dirty": True},
        {"versions": {"jax": "0"}},
        {"device": "8 x TPU"},
        {"measured_in": {"ceiling": 7}},
        {"measured_in": {}},
    ],
)
def test_a_measure_is_not_copied_from_other_code_or_another_machine(
    two_rounds, tmp_path, clean, change
):
    copied = Path(shutil.copytree(two_rounds, tmp_path / "tiny"))
    store = Store(copied)
    assert constant_measures.find(store.experiment, store.round(1)).names == ("ceiling",)
    told = store.round(0).record
    told["stages"]["evals"] |= change
    (copied / "000/record.json").write_text(json.dumps(told), encoding="utf-8")
    assert (
        constant_measures.find(store.experiment, store.round(1))
        == constant_measures.CopiedMeasures()
    )


@pytest.mark.parametrize("change", [{"experiment_digest": "another"}, {"identity": 1}])
def test_a_measure_is_not_copied_from_another_experiment(two_rounds, tmp_path, clean, change):
    copied = Path(shutil.copytree(two_rounds, tmp_path / "tiny"))
    store = Store(copied)
    told = store.round(0).record | change
    (copied / "000/record.json").write_text(json.dumps(told), encoding="utf-8")
    assert (
        constant_measures.find(store.experiment, store.round(1))
        == constant_measures.CopiedMeasures()
    )


def test_nothing_is_copied_to_code_that_was_changed(two_rounds, monkeypatch):
    store = Store(two_rounds)
    monkeypatch.setattr(provenance, "commit", lambda package: {"commit": "c", "dirty": True})
    assert (
        constant_measures.find(store.experiment, store.round(1))
        == constant_measures.CopiedMeasures()
    )


def test_what_some_requests_got_no_answer_to_is_measured_again(two_rounds):
    store = Store(two_rounds)
    nothing = constant_measures.CopiedMeasures()
    assert constant_measures.sources(store.experiment, store.round(0), nothing, 3) == {}
    known = constant_measures.sources(store.experiment, store.round(0), nothing, 0)
    assert known == {"measured_in": {"ceiling": 0}}


def test_an_overseer_that_learns_has_no_constant_measure(tmp_path):
    learned = TOML.replace('kind = "simulated"', 'kind = "learned"\nsteps = 63')
    experiment = Store(tiny_experiment(tmp_path / "tiny", learned)).experiment
    assert constant_measures.constant_names(experiment) == []


def test_measures_of_other_questions_are_refused(two_rounds, clean):
    store = Store(two_rounds)
    known = constant_measures.find(store.experiment, store.round(1))
    weights = {"assistant": store.experiment.assistant.init(jax.random.key(0))}
    problems = draw_held_out(store.experiment, "final", 4)
    experiment = store.experiment
    team = (experiment.task, experiment.assistant, experiment.overseer)
    items = evaluate(*team, weights, problems, experiment.seed, split="final", skip=known.names)
    assert all("ceiling" not in item.measures for item in items)
    with pytest.raises(Exception, match="have other questions than this round"):
        known.fill_in(items)


def test_a_look_while_training_measures_what_the_same_weights_measure(tmp_path):
    """Class by class, over all questions of the problems looked at."""
    experiment = Store(tiny_experiment(tmp_path / "tiny")).experiment
    task, assistant = experiment.task, experiment.assistant
    team = (task, assistant, experiment.overseer)
    one, two = (assistant.init(jax.random.key(number)) for number in (1, 2))
    problems, root = draw_held_out(experiment, "select", 8), jax.random.key(experiment.seed)
    with calls.counting(calls.LOOKS) as asked:
        seen = evaluate_during_training(*team, {"assistant": one}, two, problems, root)["accuracy"]
    [chunk] = amplify_problems(*team, {"assistant": one}, problems, experiment.seed, size=8)
    answers = {"amplified": chunk.answers}
    for name, params in (("alone", one), ("live", two)):
        memory = assistant.encode(params, problems.contexts)
        answers[name] = assistant.answer(params, memory, problems.questions, None).tokens
    labels = jax.device_get(over(task.class_of, problems.contexts, problems.questions))
    for name, given in answers.items():
        right = over(task.is_right, problems.contexts, problems.questions, given)
        for index, label in enumerate(task.classes):
            expected = jax.device_get(right)[labels == index].mean()
            assert seen[name][label] == pytest.approx(expected, abs=1e-4)
    assert all(value == 1.0 for value in seen["ceiling"].values())
    size = problems.questions[..., 0].size
    assert asked.counts["overseer"] == 2 * size
    assert asked.counts["assistant"] == 2 * size + chunk.assistant_answers.sum()


def over(function, *columns):
    """A task's function of one question, for all of a batch."""
    contexts, *others = columns
    inner = jax.vmap(function, in_axes=(None, *[0] * len(others)))
    return jax.vmap(inner)(contexts, *others)


def test_a_look_that_asks_nobody_measures_what_costs_nothing(tmp_path):
    experiment = Store(tiny_experiment(tmp_path / "tiny")).experiment

    @dataclasses.dataclass(frozen=True)
    class NeverAsked:
        traced = False
        replayable = False

        def using(self, params):
            raise AssertionError("it was asked")

    params = experiment.assistant.init(jax.random.key(1))
    problems, root = draw_held_out(experiment, "select", 8), jax.random.key(experiment.seed)
    team = (experiment.task, experiment.assistant, NeverAsked())
    weights = {"assistant": params}
    seen = evaluate_during_training(*team, weights, params, problems, root, asks=False)
    assert set(seen["accuracy"]) == {"alone", "live"}
    assert seen["accuracy"]["alone"] == seen["accuracy"]["live"]
    with pytest.raises(AssertionError, match="it was asked"):
        evaluate_during_training(*team, weights, params, problems, root)


def test_only_overseers_that_run_in_python_are_costly(tmp_path):
    experiment = Store(tiny_experiment(tmp_path / "tiny")).experiment
    assert not is_costly(experiment.overseer)
    assert not any(measure.costly for measure in experiment.measures)


def test_a_new_key_with_its_default_leaves_the_identity_as_it_was(tmp_path):
    plain = Store(tiny_experiment(tmp_path / "plain")).experiment
    said = Store(tiny_experiment(tmp_path / "said", f"{TOML}ask_during_training = false\n"))
    other = Store(tiny_experiment(tmp_path / "other", f"{TOML}ask_during_training = true\n"))
    assert plain.digest == said.experiment.digest != other.experiment.digest


def test_the_record_has_the_round_folder_s_stages(two_rounds):
    """Also where a round was begun by code that recorded no calls."""
    this = round_folder.RoundFolder(two_rounds / "001", 1)
    stages = {
        name: {key: value for key, value in entry.items() if key != "calls"}
        for name, entry in this.record["stages"].items()
    }
    older = provenance.ledger({**this.record, "stages": stages})["ledger"]
    newer = provenance.ledger(this.record)["ledger"]
    assert {**older, "calls": 0} == {**newer, "calls": 0}
    assert older["calls"] == [
        {"stage": "distillation/data", "purpose": "signal", "part": "overseer", "calls": 384}
    ]
