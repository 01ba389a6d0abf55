"""Oversight by debate: what the assistant is trained on, and what it costs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines
from amplify.inspection import training_tree
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.oversight.arguing import argue, argue_against
from amplify.oversight.debate import DebateOversight
from amplify.protocols.rewards import zero_sum_of_log
from amplify.reading.experiment_file import read_experiment
from amplify.records.round_folder import read_items
from amplify.store import Store
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.problems import draw_problems
from amplify.training import dataset
from tests.killed import killed_and_resumed
from tests.tiny import DEBATED, TOML, tiny_experiment

TASK = Permutation(4, 3)
MODEL = FactTransformerConfig(width=16, heads=2, encoder_layers=0).build(TASK)
PARAMS = MODEL.init(jax.random.key(0))
PROBLEMS = draw_problems(TASK, 0, 1, "train", 32, [1, 2, 2])
STATEMENTS = 16


def argued(protocol: str = "debate", problems=PROBLEMS, **options):
    rules = DebateOversight(protocol=protocol, **options).rules(TASK)
    bound = (STATEMENTS, options.get("precommitment", True))
    root = jax.random.key(0)
    return jax.device_get(argue(TASK, MODEL, rules, bound, PARAMS, root, problems))


@pytest.fixture(scope="module")
def debated():
    return argued()


def winners(found) -> list[set]:
    """What the winning side said about each context, read from the transcripts one by one."""
    verdicts, step = found["transcripts"]
    said = []
    for row, answers in enumerate(verdicts.answer):
        theirs = set()
        for column, answer in enumerate(answers):
            of = step.sub.answer[row, column]
            if (of[0] == of[1]).all() or not answer.any() or not (answer == of[:2]).all(-1).any():
                continue
            winner = 3 + int((answer == of[1]).all())
            for number in range(len(of)):
                mine = step.sub.answered_by[row, column, number] == winner
                if mine and step.asked[row, column, number]:
                    asked = step.sub.question[row, column, number]
                    theirs.add((*map(int, asked), int(of[number, 0])))
        said.append(theirs)
    return said


@pytest.mark.parametrize("protocol", ["debate", "consultancy"])
def test_the_assistant_is_trained_on_what_winners_said(protocol, debated):
    found = debated if protocol == "debate" else argued(protocol)
    expected, some = winners(found), 0
    for row, weights in enumerate(found["weight"]):
        pairs = [
            (*map(int, question), int(answer[0]))
            for question, answer, weight in zip(
                found["questions"][row], found["answers"][row], weights, strict=True
            )
            if weight
        ]
        assert {*pairs} <= expected[row]
        assert len(pairs) == STATEMENTS or {*pairs} == expected[row]
        some += len(pairs)
    assert some > 20
    assert {*np.unique(found["weight"])} == {0, 1}


def test_a_side_is_bound_by_what_it_first_said(debated):
    """Whenever a side is asked a question again, in one debate, it says the same."""
    step = debated["transcripts"][1]
    said: dict[tuple, set] = {}
    for place in zip(*np.nonzero(step.asked), strict=True):
        key = (*place[:2], int(step.sub.answered_by[place]), *map(int, step.sub.question[place]))
        said.setdefault(key, set()).add(int(step.sub.answer[place][0]))
    assert all(len(answers) == 1 for answers in said.values())
    assert len({next(iter(answers)) for answers in said.values()}) > 1


def test_what_is_argued_does_not_depend_on_the_batch(debated):
    alone = argued(problems=jax.tree.map(lambda column: column[5:6], PROBLEMS))
    for name in ("questions", "answers", "weight", "asked", "looked"):
        np.testing.assert_array_equal(alone[name][0], debated[name][5])


def test_the_judge_keeps_to_its_looks_and_sides_that_agree_are_not_heard(debated):
    assert debated["looked"].max() == 1
    assert (debated["asked"][debated["agreed"]] == 2).all()
    assert (debated["asked"][~debated["agreed"]] > 2).all()
    assert not (debated["agreed"] & debated["undecided"]).any()


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (DEBATED.replace('kind = "simulated"', 'kind = "learned"'), "needs overseer.kind"),
        (DEBATED.replace('kind = "debate"', 'kind = "debate"\nlooks = -1'), "oversight.looks"),
        (DEBATED.replace('kind = "debate"', 'kind = "debate"\nprotocol = "duel"'), "protocol"),
        (DEBATED.replace("[training]", '[training]\ntargets = "streaming"'), "training.targets"),
        (DEBATED.replace("statements = 8", "statements = 0"), "oversight.statements"),
        (DEBATED.replace("statements = 8", "errors = 1.5"), "oversight.errors"),
    ],
)
def test_what_does_not_fit_is_rejected_when_the_file_is_read(tmp_path, toml, said):
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError, match=said) as error:
        read_experiment(folder / "experiment.toml")
    assert "\n" not in str(error.value)


def test_kinds_of_protocol_have_the_options_that_the_file_gives():
    for protocol in ("direct", "consultancy", "debate"):
        oversight = DebateOversight(protocol=protocol, turns=3, looks=2, errors=0.1)
        rules = oversight.rules(TASK)
        assert (rules.turns, rules.looks, rules.errors) == (3, 2, 0.1)
    assert DebateOversight().rules(TASK).turns == TASK.max_depth
    assert not dataclasses.replace(oversight, precommitment=False).rules(TASK).precommitment


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tiny_experiment(tmp_path_factory.mktemp("debate") / "tiny", DEBATED)
    main(["round", str(folder), "--n", "2"])
    return folder


@pytest.mark.slow
def test_a_round_records_what_the_judge_did(finished):
    this = Store(finished).round(1)
    calls = {(row["stage"], row["part"]): row["calls"] for row in this.record["ledger"]["calls"]}
    facts = this.record["stages"]["arguments_1/data"]["arguments"]
    questions = 96 * 4
    judged = round((1 - facts["agreed"]) * questions)
    assert calls["arguments_1/data", "judge"] == judged
    assert 0 < calls["arguments_1/data", "environment"] <= judged
    assert calls["arguments_1/data", "assistant"] >= 2 * questions + 2 * judged
    rows = list(dataset.read(this.phase("arguments_1").data))
    assert sum(row["weight"].sum() for row in rows) == facts["trained_on"] > 0
    logged = read_lines(this.phase("arguments_1").interactions)
    rewards = [zero_sum_of_log(tree, "?") for tree in logged]
    assert {*rewards} == {-1, 0, 1}
    assert this.verdict["measure"] == "alone"
    items = read_items(this)
    wrong, judged = items.column("both_wrong"), items.column("judged")
    assert {*np.unique(wrong)} == {0, 1}
    assert {*np.unique(judged[np.isfinite(judged)])} <= {0, 0.5, 1}
    assert not np.isfinite(judged[wrong == 1]).any()  # no verdict can be right there


@pytest.mark.slow
def test_a_stored_transcript_is_shown_as_a_tree(finished):
    store = Store(finished)
    found = training_tree(store, 1, row=1, question=1, depth=1)
    assert [step["by"] for step in found.tree["steps"][:2]] == ["pro", "con"]
    with pytest.raises(AmplifyError, match=r"no tree of row 1, question 0.* --row 0 --question 0"):
        training_tree(store, 1, row=1, question=0, depth=1)


@pytest.mark.slow
def test_a_killed_round_ends_as_one_that_was_not(finished, tmp_path, monkeypatch):
    folder = killed_and_resumed(finished, tmp_path / "tiny", 30, monkeypatch)
    one, two = (Store(at).round(1).record["stages"] for at in (folder, finished))
    for stage in ("arguments_1/data", "arguments_1/checkpoint", "evals"):
        for key in ("digest", "digests"):
            assert one[stage].get(key) == two[stage].get(key)


def test_a_task_without_a_strategy_is_one_clear_line(tmp_path):
    toml = TOML.replace('kind = "wildcard"\nletters = 3', 'kind = "essays"')
    folder = tiny_experiment(tmp_path / "tiny", toml + '\n[oversight]\nkind = "debate"\n')
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert "strategy" in str(error.value)


def test_against_itself_an_assistant_wins_nothing():
    found = against(PARAMS, PARAMS)
    assert not found["score"].any()
    assert found["decided"].any()


def test_the_score_difference_is_antisymmetric_and_an_honest_side_wins():
    other = MODEL.init(jax.random.key(1))
    one_way, other_way = against(PARAMS, other), against(other, PARAMS)
    # The keys belong to the sides, so that the same two debates are played.
    np.testing.assert_array_equal(one_way["score"], -other_way["score"])
    np.testing.assert_array_equal(one_way["decided"], other_way["decided"])
    assert set(np.unique(one_way["score"])) <= {-1, -0.5, 0, 0.5, 1}
    assert one_way["score"].any()
    assert (abs(one_way["score"]) <= one_way["decided"]).all()


def against(one, other):
    rules = DebateOversight(looks=2).rules(TASK)
    root = jax.random.key(0)
    return jax.device_get(argue_against(TASK, MODEL, rules, True, one, other, root, PROBLEMS))


@pytest.mark.slow
def test_two_rounds_debate_against_each_other(finished, capsys):
    arguments = ["cross-play", str(finished), "--round", "2", "--against", "1"]
    main([*arguments, "--json"])
    rows = json.loads(capsys.readouterr().out)
    classes = Store(finished).experiment.task.classes
    assert [row["class"] for row in rows] == [*classes, "all classes"]
    assert rows[-1]["questions"] == sum(row["questions"] for row in rows[:-1])
    every = rows[-1]
    assert -1 <= every["score_difference"] <= 1
    assert abs(every["score_difference"]) <= every["decided"] <= 1
    swapped = ["cross-play", str(finished), "--round", "1", "--against", "2", "--json"]
    main(swapped)
    assert json.loads(capsys.readouterr().out)[-1]["score_difference"] == pytest.approx(
        -every["score_difference"]
    )
    main(arguments)
    said = capsys.readouterr().out
    assert f"{every['score_difference']:+.2f}" in said


@pytest.mark.slow
def test_only_rounds_that_argued_can_be_matched(finished, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["cross-play", str(finished), "--round", "7", "--against", "1"])
    assert "round 7 has no checkpoint; rounds that have: 0, 1, 2" in capsys.readouterr().err
    plain = tiny_experiment(tmp_path / "plain")
    with pytest.raises(SystemExit, match="2"):
        main(["cross-play", str(plain), "--round", "1", "--against", "0"])
    assert "needs oversight.kind = \"debate\", got 'amplification'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_judge_who_can_decide_nothing_is_one_clear_line(tmp_path, capsys):
    blind = DEBATED.replace('kind = "debate"', 'kind = "debate"\nprotocol = "direct"\nlooks = 0')
    folder = tiny_experiment(tmp_path / "blind", blind)
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("amplify: the judge decided none of ")
    assert said.endswith("increase oversight.looks")
    assert not Store(folder).round(1).has("data")
