"""A language model as overseer: a real server on this machine that speaks as OpenAI's does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from amplify import dataset
from amplify.assistants.fact_transformer import FactTransformerConfig
from amplify.assistants.language_model import LanguageModelConfig
from amplify.cli import main
from amplify.problems import draw_problems
from amplify.tasks.wildcard import Wildcard
from amplify.types import FAILED
from tests.tiny import TOML, tiny_experiment

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
    """`say` answers, `asked` counts requests; 503 while `down`."""
    state = SimpleNamespace(say=continued, asked=0, down=False, instructions=set())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            system, user = (message["content"] for message in body["messages"])
            state.asked += 1
            state.instructions.add(system)
            if state.down:
                self.send_error(503)
                return
            message = {"role": "assistant", "content": state.say(user)}
            said = json.dumps({"choices": [{"message": message}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{running.server_port}/v1"
        yield state
        running.shutdown()


def overseen(folder, server, more: str = ""):
    overseer = (
        f'[overseer]\nkind = "language-model"\nendpoint = "{server.address}"\nmodel = "good"\n'
        f'prompt = "prompt.txt"\npatience = 0.0\ntries = 2\n{more}'
    )
    made = tiny_experiment(folder, TOML.replace('[overseer]\nkind = "simulated"\n', overseer))
    (made / "prompt.txt").write_text(PROMPT, encoding="utf-8")
    return made


def answers(folder) -> np.ndarray:
    return np.array([row["answers"] for row in dataset.read(folder / "001/data")])


def test_it_concludes_what_the_same_thoughts_in_code_do_and_nothing_is_asked_twice(
    server, tmp_path
):
    folder = overseen(tmp_path / "spoken", server)
    main(["round", str(folder), "--n", "1"])
    asked = server.asked
    assert asked
    main(["round", str(overseen(tmp_path / "again", server)), "--n", "1"])
    assert server.asked == asked
    simulated = tiny_experiment(tmp_path / "simulated")
    main(["round", str(simulated), "--n", "1"])
    assert (answers(folder) == answers(simulated)).all()
    assert (answers(folder) != 0).any()
    assert server.instructions == {PROMPT}


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

    def mumble(transcript: str) -> str:
        return (
            "Well, let me think." if transcript.startswith("Question: b") else continued(transcript)
        )

    server.say = mumble
    folder = overseen(tmp_path / "spoken", server, "most_failed = 0.9")
    main(["round", str(folder), "--n", "1"])
    failed = (answers(folder) == FAILED).all(axis=-1)
    questions = np.array([row["questions"] for row in dataset.read(folder / "001/data")])
    task = Wildcard(3)
    b = task.vocabulary.index("b")
    assert (failed == (questions[..., 0] == b)).all()
    assert failed.any()
    record = json.loads((folder / "001/record.json").read_text(encoding="utf-8"))
    assert record["stages"]["data"]["failed"] == failed.sum()
    assert record["stages"]["data"]["overseer_answers"] == (~failed).sum()
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
    params = model.init(jax.random.key(0))
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
