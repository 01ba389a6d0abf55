"""A language model as judge, behind a server: what it is shown, and how its replies are read."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify import replay
from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines
from amplify.overseers.language_judge import LanguageModelJudgeConfig, _read_name, _read_number
from amplify.overseers.reviewers import Reviewer
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.tasks.essays.task import Essays
from amplify.training import dataset
from tests.servers import Response, completion, fake_server
from tests.tiny import AUDITED_ESSAYS, tiny_experiment

TASK = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=-1)
OVERSEER = '[overseer]\nkind = "language-model"\nprompt = "prompt.txt"\nmodel = "m"\n'


@pytest.fixture
def server():
    with fake_server() as server:
        yield server


@pytest.fixture
def judge(server, tmp_path):
    (tmp_path / "prompt.txt").write_text("Judge essays.", encoding="utf-8")
    config = LanguageModelJudgeConfig(
        prompt=str(tmp_path / "prompt.txt"), endpoint=server.address, model="m", most_failed=1.0
    )
    return config.build(TASK)


def pairs(rows: int = 4, columns: int = 3):
    keys = jax.random.split(jax.random.key(0), rows)
    contexts = jax.vmap(TASK.draw_context)(keys)
    questions = jnp.full((rows, columns, 1), TASK.vocabulary.index("write"), jnp.int32)
    first, second = (
        jax.random.randint(jax.random.key(n), (rows, columns, TASK.length), 1, TASK.claims + 1)
        for n in (1, 2)
    )
    return contexts, questions, first, second, jax.random.split(jax.random.key(3), (rows, columns))


def shown(body) -> list[str]:
    return re.findall(r"^Answer [AB]: (.*)$", body["messages"][-1]["content"], re.MULTILINE)


def alphabetically(body, number):
    """Prefers the text that comes first in the alphabet, wherever it is shown."""
    one, two = shown(body)
    return completion("Conclude: A" if one <= two else "Conclude: B")


def test_a_preference_does_not_depend_on_which_answer_is_shown_first(judge, server):
    assert isinstance(judge, Reviewer)
    server.respond = alphabetically
    contexts, questions, first, second, keys = pairs()
    found, other = (
        judge.choose({"overseer": None}, contexts, questions, jnp.stack(pair, axis=2), keys)
        for pair in ([first, second], [second, first])
    )
    assert found.obtained.all()
    np.testing.assert_array_equal(found.best, 1 - other.best)
    assert 0 < np.mean(found.best) < 1


def test_both_answers_are_shown_first_about_equally_often(judge, server):
    server.respond = lambda body, number: completion("Conclude: A")
    contexts, questions, first, second, keys = pairs(16, 8)
    candidates = jnp.stack([first, second], axis=2)
    found = judge.choose({"overseer": None}, contexts, questions, candidates, keys)
    assert 0.35 < np.mean(found.best) < 0.65


def test_the_best_of_several_answers_is_chosen_wherever_it_is_shown(judge, server):
    def shortest(body, number):
        lines = re.findall(r"^Answer ([A-D]): (.*)$", body["messages"][-1]["content"], re.MULTILINE)
        assert [name for name, _ in lines] == ["A", "B", "C", "D"]
        assert "says A, B, C or D" in body["messages"][-1]["content"]
        return completion(f"Conclude: {min(lines, key=lambda line: line[1])[0]}")

    server.respond = shortest
    contexts, questions, first, second, keys = pairs(2, 4)
    candidates = jnp.stack([first, second, first[::-1], second[::-1]], axis=2)
    found = judge.choose({"overseer": None}, contexts, questions, candidates, keys)
    turned = judge.choose({"overseer": None}, contexts, questions, candidates[:, :, ::-1], keys)
    assert found.obtained.all()
    np.testing.assert_array_equal(found.best, 3 - turned.best)


def test_a_reply_that_cannot_be_read_is_no_review(judge, server):
    server.respond = lambda body, number: completion("Conclude: both are fine")
    contexts, questions, first, second, keys = pairs(2, 2)
    candidates = jnp.stack([first, second], axis=2)
    found = judge.choose({"overseer": None}, contexts, questions, candidates, keys)
    assert not found.obtained.any()
    assert "A or B" in server.bodies[-1]["messages"][-1]["content"]


def test_scores_are_numbers_of_the_scale(judge, server):
    said = iter(["Conclude: 7", "Conclude: 7.5/10", "Conclude: nan", "Conclude: 11"])
    replies: dict[str, str] = {}

    def respond(body, number):
        text = body["messages"][1]["content"]
        return completion(replies.get(text) or replies.setdefault(text, next(said)))

    server.respond = respond
    contexts, questions, first, _, keys = pairs(1, 4)
    first = first.at[..., 0].set(jnp.arange(1, 5)[None])  # four different answers
    found = judge.score({"overseer": None}, contexts, questions, first, keys)
    values = sorted(np.asarray(found.value)[np.asarray(found.obtained)].tolist())
    assert values == [7.0, 7.5]


@pytest.mark.parametrize(
    ("text", "name"),
    [("A", 0), ("b.", 1), ("Answer B", 1), ("**A**", 0), ("A or B", None), ("", None), ("C", None)],
)
def test_names_are_read_in_the_ways_in_which_models_write_them(text, name):
    assert _read_name(("A", "B"), text) == name


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("0", 0), ("10/10", 10), ("3.5.", 3.5), ("-1", None), ("inf", None), ("ten", None)],
)
def test_numbers_outside_the_scale_are_not_read(text, number):
    assert _read_number(text) == number


def experiment(folder: Path, address: str, more: str = "") -> Path:
    toml = AUDITED_ESSAYS.replace(
        '[overseer]\nkind = "judge"\n', f'{OVERSEER}endpoint = "{address}"\n{more}'
    )
    tiny_experiment(folder, toml)
    (folder / "prompt.txt").write_text("Judge essays.", encoding="utf-8")
    return folder


def by_claims(body, number):
    """Judges by the number of different claims, and scores likewise."""
    text = body["messages"][1]["content"]
    if "Answer A" in text:
        one, two = (len({*answer.split(". ")}) for answer in shown(body))
        return completion("Conclude: A" if one >= two else "Conclude: B")
    return completion(f"Conclude: {min(len({*text.split('. ')}), 10)}")


@pytest.mark.slow
def test_a_language_model_reviews_a_round_and_is_not_asked_twice(server, tmp_path, capsys):
    """With audits: comparisons and scores are sent once, also if the round is resumed."""
    server.respond = by_claims
    folder = experiment(tmp_path / "tiny", server.address)
    main(["round", str(folder), "--n", "1"])
    this = Store(folder).round(1)
    stages = this.record["stages"]
    assert stages["reviews/data"]["reviews"] == 200
    calls = {(row["stage"], row["part"]): row for row in this.record["ledger"]["calls"]}
    assert calls["reviews/data", "server"]["calls"] <= 200
    assert ("reviews/data", "judge") not in calls
    assert stages["audit_8/data"]["audit"]["audited"]["value"] > 0
    asked = server.asked
    assert replay.replay(Store(folder), 1, unwatched).same
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    main(["round", str(again), "--n", "1", "--redo", "reviews/data"])
    redone = Store(again).round(1).record["stages"]
    assert redone["reviews/data"]["digest"] == stages["reviews/data"]["digest"]
    assert server.asked == asked
    rows = list(dataset.read(this.phase("reviews").data))
    assert {"answers", "chosen"} <= {*rows[0]}


@pytest.mark.slow
def test_a_judge_that_is_down_ends_the_round_with_one_line(server, tmp_path, capsys):
    folder = experiment(tmp_path / "tiny", server.address, "attempts = 1\n")
    server.respond = lambda body, number: Response(status=503)
    with pytest.raises(SystemExit) as error:
        main(["round", str(folder), "--n", "1"])
    assert error.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "gave no answer to 200 of 200 questions" in said
    assert read_lines(folder / "001" / "exchanges.jsonl")
    server.respond = by_claims
    main(["round", str(folder), "--n", "1"])
    assert Store(folder).round(1).complete


def test_a_language_model_needs_a_task_with_drafts(tmp_path):
    from amplify.reading.experiment_file import read_experiment
    from tests.tiny import TOML

    toml = TOML.replace('[overseer]\nkind = "simulated"', f'{OVERSEER}endpoint = "http://x/v1"')
    toml += '\n[oversight]\nkind = "reward-model"\n'
    folder = tiny_experiment(tmp_path / "tiny", toml)
    (folder / "prompt.txt").write_text("Judge.", encoding="utf-8")
    with pytest.raises(AmplifyError, match="has none"):
        read_experiment(folder / "experiment.toml")
