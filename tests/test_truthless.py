"""A task that knows no truth: nothing is right or wrong, and all else is as with any other task."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from amplify.answers import AnswerRule
from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.evaluation.measuring import same_answers
from amplify.files.json_lines import read_lines
from amplify.inspection import Session
from amplify.people import round_loop
from amplify.people.items import RoundStage
from amplify.people.log import EVENTS, Log
from amplify.people.results import uplift
from amplify.people.rules import Queue
from amplify.people.trees import read_trees
from amplify.reading.experiment_file import read_experiment
from amplify.reading.own_tasks import check_functions
from amplify.store import Store
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.types import DONT_KNOW, FAILED
from tests.people.session import people_at_work
from tests.test_measures import TRUTHLESS
from tests.test_own_tasks import OPTIONAL, trial_of
from tests.tiny import TOML, tiny_experiment

GATE = '\n[gate]\nmeasure = "consistent"\nerror_rate = 0.9\n'
TRUTHLESS_TOML = TOML.replace('"wildcard"\nletters = 3', '"tally.py:Tally"\nbits = 8')
SIMULATED = '[overseer]\nkind = "simulated"'
PEOPLE = """[overseer]
kind = "human"
items = 24
asks = 2
withheld = 0.4
reviewed = 0.2
"""
JUDGED = ("✓ right", "✗ wrong", "NaN", '"right"', "truth is")


def truthless(folder: Path, more: str = GATE) -> Path:
    made = tiny_experiment(folder, TRUTHLESS_TOML + more)
    (made / "tally.py").write_text(TRUTHLESS, encoding="utf-8")
    return made


def refused(folder: Path, capsys, *command: str) -> str:
    """The one line with which a command ends; nothing was written."""
    there = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main([*command])
    assert end.value.code == 2
    assert sorted(folder.rglob("*")) == there
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = truthless(tmp_path_factory.mktemp("truthless") / "tiny")
    main(["round", str(folder), "--n", "2"])
    return folder


@pytest.mark.slow
def test_rounds_measure_how_far_the_assistant_agrees_with_its_overseer(ran):
    for number in (0, 1, 2):
        rows = read_lines(ran / f"{number:03d}/evals.jsonl")
        assert all(row["consistent"] in (0, 1) for row in rows)
        assert not any({"truth", "alone", "amplified", "ceiling"} & row.keys() for row in rows)
    store = Store(ran)
    assert [one["name"] for one in store.round(1).record["measures"]] == ["consistent"]
    assert store.round(1).verdict["measure"] == "consistent"
    before, after = (
        np.mean([row["consistent"] for row in read_lines(ran / f"00{number}/evals.jsonl")])
        for number in (0, 1)
    )
    assert after > before  # the assistant learned what its overseer says
    assert store.round(1).verdict["comparison"]["delta"] > 0


@pytest.mark.slow
def test_training_looks_and_pages_have_what_there_is_and_nothing_else(ran):
    looks = [
        row["accuracy"] for row in read_lines(ran / "001/distillation/metrics.jsonl")
        if "accuracy" in row
    ]  # fmt: skip
    assert looks
    assert all(look.keys() == {"consistent"} for look in looks)
    for path in ("report.html", "trees.html", "distillation/interactions.jsonl", "record.json"):
        text = (ran / "001" / path).read_text(encoding="utf-8")
        assert not [word for word in JUDGED if word in text], path
    page = (ran / "001/report.html").read_text(encoding="utf-8")
    assert "consistent" in page
    assert "How questions were decomposed" in page
    assert "wrong" not in re.sub(r"(?s)<style.*?</style>|<dl>.*?</dl>", "", page)


@pytest.mark.slow
def test_compare_shows_the_measure_in_the_terminal_as_json_and_on_a_page(ran, capsys):
    main(["compare", str(ran)])
    assert "consistent" in capsys.readouterr().out.lower()
    page = (ran / "compare.html").read_text(encoding="utf-8")
    assert "Consistent: " in page
    assert "NaN" not in re.sub(r"(?s)<script.*?</script>", "", page)
    main(["compare", str(ran), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["round"] for row in rows} == {0, 1, 2}
    assert all(0 <= row["consistent"] <= 1 and "alone" not in row for row in rows)


@pytest.mark.slow
def test_trees_are_shown_unjudged_and_a_round_is_replayed(ran, capsys):
    main(["tree", str(ran), "--round", "1", "--row", "3", "--json"])
    tree = json.loads(capsys.readouterr().out)
    assert tree.keys() == {"question", "answer", "by", "steps", "facts"}
    main(["tree", str(ran), "--round", "1", "--row", "3"])
    shown = capsys.readouterr().out
    assert tree["question"] in shown
    assert not [word for word in JUDGED if word in shown]
    main(["replay", str(ran), "--round", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["same"]
    main(["replay", str(ran), "--round", "2", "--checkpoint", "0", "--json"])
    [change] = json.loads(capsys.readouterr().out)
    assert change.keys() == {"what", "answers", "changed"}
    main(["replay", str(ran), "--round", "2", "--overseer", "nobody"])
    shown = capsys.readouterr().out
    assert "changed" in shown
    assert "right" not in shown


@pytest.mark.slow
def test_a_person_who_asks_is_told_the_answer_and_its_probability(ran):
    alone = Session(Store(ran), 1, problem=0, depth=0).ask("0-8")
    assert "probability 0." in alone
    assert "truth" not in alone
    console = Console(width=200, file=io.StringIO())
    console.print(Session(Store(ran), 1, problem=0, depth=2).ask("0-8"))
    text = console.file.getvalue()
    assert "0-4" in text
    assert not [word for word in JUDGED if word in text]


# The experiment file


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "gate.measure must be one of consistent, the measures of this"
         " experiment that rounds can change (the task's truth and is_right are None, so accuracy"
         " is not measured); got 'alone'"),
        ('\n[gate]\nmeasure = "ceiling"\n', "got 'ceiling'"),
        ('\n[gate]\nmeasure = "consistant"\n', "got 'consistant'; did you mean consistent?"),
    ],
)  # fmt: skip
def test_a_gate_on_a_measure_that_there_is_not_is_one_line_before_anything(
    tmp_path, capsys, more, said
):
    folder = truthless(tmp_path / "tiny", more)
    for command in (["round", str(folder), "--n", "2"], ["rounds", str(folder)]):
        assert said in refused(folder, capsys, *command)


def test_a_task_that_knows_the_truth_has_no_measure_of_consistency(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny", TOML + GATE)
    said = refused(folder, capsys, "round", str(folder), "--n", "1")
    assert "gate.measure must be one of alone, amplified, the measures" in said


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("per_context = 4", 'per_context = 4\nsub_answers = "truth"',
         "true sub-answers need a task that knows the truth, but truth and is_right of Tally are"),
        ("[questions]", '[oversight]\nkind = "truth"\n[questions]', "true sub-answers need a task"),
        (SIMULATED, PEOPLE + "gold = 0.1", "overseer.gold must be 0: gold items need known answers,"
         " and the task's truth and is_right are None; got 0.1"),
    ],
)  # fmt: skip
def test_what_needs_a_truth_is_refused_when_the_file_is_read(tmp_path, was, becomes, said):
    folder = truthless(tmp_path / "tiny")
    file = folder / "experiment.toml"
    file.write_text(file.read_text().replace(was, becomes), encoding="utf-8")
    with pytest.raises(AmplifyError) as error:
        read_experiment(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_gold_is_fine_whether_it_is_said_or_not(tmp_path):
    for name, gold in (("unsaid", ""), ("said", "gold = 0.0\n")):
        folder = truthless(tmp_path / name)
        file = folder / "experiment.toml"
        file.write_text(file.read_text().replace(SIMULATED, PEOPLE + gold), encoding="utf-8")
        read_experiment(file)


# The measure


def test_answers_are_compared_by_the_tasks_own_rule_and_dont_know_is_none():
    task = Wildcard(2)
    one, two, silent, failed = ([3], [4], [DONT_KNOW], [FAILED])
    alone = np.array([[one, one, silent, one, silent]])
    helped = np.array([[one, two, silent, silent, failed]])
    found = same_answers(task, alone, helped)
    np.testing.assert_array_equal(found, [[1, 0, 0, 0, math.nan]])


def test_answers_that_the_rule_calls_the_same_are():
    class Lax(Wildcard):
        vocabulary = ("?", "The  tower", "tower", "house")
        answer_rule = AnswerRule("normalized")

    found = same_answers(Lax(2), np.array([[[1], [1]]]), np.array([[[2], [3]]]))
    np.testing.assert_array_equal(found, [[1, 0]])


# The check before round 0


def test_a_truthless_task_is_checked_but_for_its_truth(tmp_path):
    check_functions(trial_of(tmp_path, TRUTHLESS))
    optional = "from amplify.answers import AnswerRule\n" + TRUTHLESS + OPTIONAL
    check_functions(trial_of(tmp_path, optional))
    check_functions(trial_of(tmp_path, re.sub(r"    supports = .*\n", "", optional)))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("return self.count(context, question)", "return self.count(context, question)[0]",
         "environment must return int32"),
        ("left = yield Ask(jnp.stack([start, middle], axis=-1))",
         "left = yield Ask(jnp.stack([start, middle + 9], axis=-1))", "strategy must ask with"),
        ("left + right - ZERO, DONT_KNOW)", "left + right + 30, DONT_KNOW)",
         "strategy must return tokens"),
        ('return "-".join(words)', "return words", "show must return text"),
    ],
)  # fmt: skip
def test_mistakes_in_a_truthless_task_are_found(tmp_path, was, becomes, said):
    assert was in TRUTHLESS
    start = TRUTHLESS.rindex(was)
    trial = trial_of(tmp_path, TRUTHLESS[:start] + TRUTHLESS[start:].replace(was, becomes))
    with pytest.raises(AmplifyError, match=rf"tally.py:\d+: Tally.{said}"):
        check_functions(trial)


# People


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    folder = truthless(tmp_path_factory.mktemp("people") / "tiny")
    file = folder / "experiment.toml"
    file.write_text(file.read_text().replace(SIMULATED, PEOPLE), encoding="utf-8")
    # What a person without help may guess.
    choices = "    choices = property(lambda self: self.vocabulary[1:])\n"
    (folder / "tally.py").write_text(f"{TRUTHLESS}\n{choices}", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_loop, "serving", people_at_work)
        main(["round", str(folder), "--n", "1"])
    return folder


def queue_of(folder: Path) -> Queue:
    log = Log(folder / EVENTS)
    try:
        return Queue(log.since())
    finally:
        log.close()


@pytest.mark.slow
def test_people_answer_a_truthless_round_and_nobody_is_measured_by_gold(answered):
    queue = queue_of(answered)
    items = [queue.items[name] for name in queue.stages[RoundStage(1, "distillation/data")].items]
    assert sum(item.review_of is None for item in items) == 24
    assert not [item for item in items if item.gold is not None]
    assert not read_trees(answered).judged
    facts = Store(answered).round(1).record["stages"]["distillation/data"]
    assert facts["uplift"] is None or facts["uplift"].keys() == {"seconds"}
    found = uplift(queue, None, 1)
    assert found.accuracy.helped.answers == found.assigned.helped.answers == 0


@pytest.mark.slow
def test_what_people_did_is_replayed_and_shown(answered, capsys):
    main(["replay", str(answered), "--round", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["same"]
    main(["replay", str(answered), "--round", "1", "--checkpoint", "1", "--json"])
    changes = json.loads(capsys.readouterr().out)
    assert len(changes) == 3
    assert all(change.keys() == {"what", "answers", "changed"} for change in changes)
    page = (answered / "001/report.html").read_text(encoding="utf-8")
    assert "What people did" in page
    assert "right with the assistant" not in page
