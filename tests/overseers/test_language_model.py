"""A language model as overseer: a real server on this machine that speaks as OpenAI's does."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.launch import launch
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModelConfig
from amplify.overseers.exchanges import FILE
from amplify.store import Store
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems
from amplify.tasks.text.search import ask_inside, ask_last_hop, conclude
from amplify.training import dataset
from amplify.types import FAILED
from amplify.words import format_tokens
from tests import host_reads
from tests.documents import asked_rows, jsonl, written
from tests.servers import Response, completion, fake_server
from tests.tiny import TOML, tiny_experiment

pytestmark = pytest.mark.slow

PROMPT = """Questions are patterns of a, b and *. Ask about the pattern with its first * replaced.

Question: *ab
Ask: aab
Answer: +1
Ask: bab
Answer: +1
Conclude: +2
"""


def continued(transcript: str) -> str:
    """What a good model says: the strategy of the task, in words."""
    lines = transcript.splitlines()
    pattern = lines[0].removeprefix("Question: ")
    answers = [line.removeprefix("Answer: ") for line in lines if line.startswith("Answer: ")]
    if len(answers) < 2:
        return f"Ask: {pattern.replace('*', 'ab'[len(answers)], 1)}"
    if not all(answer.lstrip("+-").isdigit() for answer in answers):
        return "Conclude: ?"
    total = sum(map(int, answers))
    return f"Conclude: {f'{total:+d}' if total else 0}" if abs(total) <= 8 else "Conclude: ?"


@pytest.fixture
def server():
    """`say` answers a transcript, or gives a whole response; 503 while `down`."""
    with fake_server() as state:
        state.say, state.down = continued, False

        def respond(body, number):
            if state.down:
                return Response(b"", 503)
            said = state.say(body["messages"][1]["content"])
            return completion(said) if isinstance(said, str) else said

        state.respond = respond
        yield state


def overseen(folder, server, more: str = ""):
    overseer = (
        f'[overseer]\nkind = "language-model"\nendpoint = "{server.address}"\nmodel = "good"\n'
        f'prompt = "prompt.txt"\npatience = 0.0\ntries = 2\n{more}'
    )
    made = tiny_experiment(folder, TOML.replace('[overseer]\nkind = "simulated"\n', overseer))
    (made / "prompt.txt").write_text(PROMPT, encoding="utf-8")
    return made


def answers(folder) -> np.ndarray:
    return np.array([row["answers"] for row in dataset.read(folder / "001/distillation/data")])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A round overseen by a server that is gone by now; how often it was asked, and told what."""
    with fake_server() as server:
        server.respond = lambda body, n: completion(continued(body["messages"][1]["content"]))
        folder = overseen(tmp_path_factory.mktemp("spoken") / "spoken", server)
        main(["round", str(folder), "--n", "1"])
        return folder, server.bodies


def test_it_concludes_what_the_same_thoughts_in_code_do(spoken, tmp_path):
    folder, bodies = spoken
    simulated = tiny_experiment(tmp_path / "simulated")
    main(["round", str(simulated), "--n", "1"])
    assert (answers(folder) == answers(simulated)).all()
    assert (answers(folder) != 0).any()
    assert {body["messages"][0]["content"] for body in bodies} == {PROMPT}


def test_requests_and_tokens_are_in_the_ledger_and_none_was_sent_twice(spoken):
    folder, bodies = spoken
    ledgers = [json.loads((folder / n / "record.json").read_text()) for n in ("000", "001")]
    costs = [record["ledger"] for record in ledgers]
    assert sum(cost["overseer_requests"] for cost in costs) == len(bodies)
    assert sum(cost["overseer_tokens"] for cost in costs) == 10 * len(bodies)
    rows = [json.loads(line) for line in (folder / "001" / FILE).read_text().splitlines()]
    asked = [json.dumps(row["messages"]) for row in rows if "messages" in row]
    assert len(set(asked)) == len(asked) == costs[1]["overseer_requests"]


def test_a_round_is_replayed_bit_for_bit_where_its_server_was_never_seen(
    spoken, tmp_path, capsys, monkeypatch
):
    folder, bodies = spoken
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    asked = len(bodies)
    main(["replay", str(moved), "--round", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["same"]
    main(["tree", str(moved), "--round", "1", "--row", "0"])
    assert len(bodies) == asked
    assert (moved / "001" / FILE).read_bytes() == (folder / "001" / FILE).read_bytes()


@pytest.mark.slow
def test_a_round_reads_arrays_only_through_device_get(server, tmp_path):
    """Also while it trains, where what is looked at is overseen under a transfer guard."""
    folder = overseen(tmp_path / "spoken", server, "temperature = 0.5")
    with host_reads.forbidden():
        main(["round", str(folder), "--n", "1"])
        main(["tree", str(folder), "--round", "1", "--row", "0", "--depth", "2"])
        main(["replay", str(folder), "--round", "1", "--checkpoint", "0"])


def test_another_experiment_gets_nothing_of_what_this_one_was_told(server, spoken, tmp_path):
    """At the same address, by the same model's name, another server answers."""
    server.say = lambda transcript: "Conclude: 0"
    folder = overseen(tmp_path / "again", server)
    main(["round", str(folder), "--n", "1"])
    assert (answers(folder) == Wildcard(3).vocabulary.index("0")).all()


def test_a_killed_round_asks_nothing_twice(server, tmp_path):
    folder = overseen(tmp_path / "spoken", server)

    def slowly(transcript: str) -> str:
        time.sleep(0.05)
        return continued(transcript)

    server.say = slowly
    command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    file = folder / "001" / FILE
    while process.poll() is None and not (file.is_file() and file.read_bytes().count(b"\n") > 20):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # what is under way
    server.say = continued
    kept = file.read_bytes().count(b'"messages"')
    before = len(server.bodies)
    main(["round", str(folder), "--n", "1"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    asked = [json.dumps(row["messages"]) for row in rows if "messages" in row]
    assert len(set(asked)) == len(asked)
    prompts = [body["messages"][1]["content"] for body in server.bodies[before:]]
    known = {row["messages"][0]["content"] for row in rows[: kept + 1] if "messages" in row}
    assert not known & set(prompts)


def test_a_server_that_is_down_stops_the_round_and_the_same_command_goes_on(
    server, tmp_path, capsys
):
    folder = overseen(tmp_path / "spoken", server)
    server.down = True
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the overseer gave no answer to" in line
    assert "503" in line
    assert not list(folder.rglob("evals.jsonl"))
    server.down = False
    main(["round", str(folder), "--n", "1"])
    assert (answers(folder) != FAILED).all()


def test_what_makes_no_sense_is_marked_and_not_learned(server, tmp_path):
    """Questions that begin with b get no answer; of the other, all."""
    nonsense = itertools.cycle(
        ["Well, let me think.", Response(b"<html>"), completion(None), completion("Ask: \ud800"),
         Response(b"", 400), Response(b"what?\r\n", 0), completion("Conclude: +99")]
    )  # fmt: skip

    def mumble(transcript: str):
        return next(nonsense) if transcript.startswith("Question: b") else continued(transcript)

    server.say = mumble
    folder = overseen(tmp_path / "spoken", server, "most_failed = 0.9")
    main(["round", str(folder), "--n", "1"])
    failed = (answers(folder) == FAILED).all(axis=-1)
    questions = np.array(
        [row["questions"] for row in dataset.read(folder / "001/distillation/data")]
    )
    task = Wildcard(3)
    b = task.vocabulary.index("b")
    assert (failed == (questions[..., 0] == b)).all()
    assert failed.any()
    record = json.loads((folder / "001/record.json").read_text(encoding="utf-8"))
    assert record["stages"]["distillation/data"]["failed"] == failed.sum()
    assert record["stages"]["distillation/data"]["overseer_answers"] == (~failed).sum()
    main(["tree", str(folder), "--round", "1", "--row", "0"])


@pytest.mark.parametrize(
    "assistant",
    [
        FactTransformerConfig(width=16),
        LanguageModelConfig(width=16, heads=2, key_heads=1, layers=1),
    ],
)
def test_the_loss_is_a_mean_over_the_questions_that_were_answered(assistant):
    task = Wildcard(3)
    model = assistant.build(task)
    params = jax.jit(model.init)(jax.random.key(0))
    problems = draw_problems(task, 0, 1, "train", 4, [1, 2, 3, 1])
    truth = jax.vmap(jax.vmap(task.truth, (None, 0)))(problems.contexts, problems.questions)
    columns = {"context": problems.contexts, "questions": problems.questions, "answers": truth}
    some = columns | {"answers": truth.at[:, 2:].set(FAILED)}
    fewer = columns | {"questions": problems.questions[:, :2], "answers": truth[:, :2]}
    loss = jax.jit(model.loss)
    (loss_of_some, metrics), (loss_of_fewer, theirs) = loss(params, some), loss(params, fewer)
    np.testing.assert_allclose(loss_of_some, loss_of_fewer, rtol=1e-5)
    np.testing.assert_allclose(metrics["agreement"], theirs["agreement"], rtol=1e-5)
    assert abs(float(loss(params, columns)[0]) - float(loss_of_some)) > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("http://", "ftp://"), "overseer.endpoint must be an address such as"),
        (('prompt = "prompt.txt"', 'prompt = "none.txt"'), "overseer.prompt: "),
        (("[training]", '[training]\ntargets = "streaming"'), 'must be "stored"'),
    ],
)
def test_what_cannot_be_asked_is_one_clear_line(change, said, server, tmp_path, capsys):
    folder = overseen(tmp_path / "spoken", server)
    file = folder / "experiment.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


OWN = """
[task]
kind = "documents"
documents = "documents.jsonl"
questions = "questions.jsonl"
passages = 4
passage_length = 32
question_length = 24

[assistant]
kind = "language-model"
width = 8
heads = 1
key_heads = 1
layers = 1

[overseer]
kind = "language-model"
endpoint = "{address}"
model = "good"
prompt = "prompt.txt"
tries = 1
most_failed = 0.9 # what an untrained assistant says can be too long to be said again

[questions]
contexts = 8
per_context = 2

[training]
steps = 2
batch = 8
warmup_steps = 1
log_every = 1
look_every = 1
checkpoint_every = 1

[evals]
select = 4
final = 4
"""


def reads_and_asks(transcript: str) -> str:
    """What a good model says about articles: the search task's strategy, in words."""
    question, *rest = transcript.splitlines()
    question = question.removeprefix("Question: ")
    found = [line.removeprefix("Answer: ") for line in rest if line.startswith("Answer: ")]
    if not found:
        return f"Ask: {ask_inside(question)}"
    further = ask_last_hop(question, found[0])
    if len(found) == 1 and further:
        return f"Ask: {further}"
    return f"Conclude: {conclude(question, found[0], found[-1]) or '?'}"


@pytest.fixture
def own(server, tmp_path):
    server.say = reads_and_asks
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "experiment.toml").write_text(OWN.format(address=server.address), encoding="utf-8")
    (folder / "prompt.txt").write_text("Answer questions about articles.", encoding="utf-8")
    jsonl(folder / "documents.jsonl")
    written(folder / "questions.jsonl", asked_rows())
    return folder


def test_questions_about_documents_of_ones_own_are_answered_from_what_a_search_finds(own, capsys):
    main(["round", str(own), "--n", "1"])
    assert "passages found" in capsys.readouterr().out
    task = Store(own).experiment.task
    answers = {row["question"]: row["answer"] for row in asked_rows()}
    hops = {row["question"]: len(row["documents"]) for row in asked_rows()}
    seen = 0
    for row in dataset.read(own / "001/distillation/data"):
        for question, answer in zip(row["questions"], row["answers"], strict=True):
            asked = format_tokens(task, question)
            if hops[asked] == 1:  # the others need an assistant that knows something
                assert format_tokens(task, answer) == answers[asked]
                seen += 1
    assert seen


def test_documents_that_changed_are_another_experiment(own, capsys):
    with launch(own, cluster=False) as (_, run_round):
        run_round(0)
    documents = own / "documents.jsonl"
    documents.write_text(documents.read_text(encoding="utf-8") + '{"text": "More."}\n')
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(own), "--n", "2"])
    assert "documents.jsonl was edited after round 0 was run" in capsys.readouterr().err


def test_nobody_has_said_how_questions_about_documents_are_taken_apart(own, capsys):
    file = own / "experiment.toml"
    text = file.read_text(encoding="utf-8")
    start = text.index("[overseer]")
    end = text.index("[questions]")
    file.write_text(text[:start] + '[overseer]\nkind = "simulated"\n' + text[end:])
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(own), "--n", "1"])
    assert "needs a task with a strategy" in " ".join(capsys.readouterr().err.split())
