"""Rounds with people, from the questions put up to the data set; the people need no pages here."""

import json
import shutil
import threading
from collections import Counter

import numpy as np
import pytest

from amplify import inspection, words
from amplify.cli.commands import main
from amplify.oversight.draws import draw_round
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.collecting import helper_of
from amplify.oversight.people.questions import choose_places, open_stage, work_rules
from amplify.people import round_loop
from amplify.people.items import RoundStage
from amplify.people.log import EVENTS, Log
from amplify.people.rules import Queue
from amplify.store import Store
from amplify.training import dataset
from amplify.types import FAILED
from tests.people.session import people_at_work
from tests.tiny import TOML, tiny_experiment

pytestmark = pytest.mark.slow

SIMULATED = '[overseer]\nkind = "simulated"'
PEOPLE = """[overseer]
kind = "human"
items = 40
overlap = {overlap}
asks = 3
withheld = 0.1
gold = 0.5
reviewed = 0.2
others = "{others}"
{more}
"""

GATE = """
[gate]
error_rate = 0.9
"""
"""With three letters there are ten different held-out contexts: at the usual error rate no gain in
so few is promoted, and the next round's people are helped by an untrained assistant.
"""


def people_experiment(folder, others="simulated", overlap=1, more=""):
    overseer = PEOPLE.format(others=others, overlap=overlap, more=more)
    assert SIMULATED in TOML
    return tiny_experiment(folder, TOML.replace(SIMULATED, overseer) + GATE)


@pytest.fixture
def no_pages(monkeypatch):
    monkeypatch.setattr(round_loop, "serving", people_at_work)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = people_experiment(tmp_path_factory.mktemp("people") / "mixed", overlap=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_loop, "serving", people_at_work)
        main(["round", str(folder), "--n", "2"])
    return folder


def events(folder):
    log = Log(folder / EVENTS)
    try:
        return list(log.since())
    finally:
        log.close()


def test_every_question_that_was_put_up_is_answered_by_as_many_people_as_wanted(ran):
    queue = Queue(events(ran))
    for number in (1, 2):
        items = [
            queue.items[name]
            for name in queue.stages[RoundStage(number, "distillation/data")].items
        ]
        roots = [item for item in items if item.review_of is None]
        assert len(roots) == 40
        assert all(len(item.submissions) == 2 for item in roots)
        assert queue.stages[RoundStage(number, "distillation/data")].closed


def test_the_data_set_has_what_people_answered_and_the_others_answers_around_it(ran):
    store = Store(ran)
    task, rows = store.experiment.task, dataset.read(ran / "001/distillation/data")
    queue = Queue(events(ran))
    roots = [
        queue.items[n]
        for n in queue.stages[RoundStage(1, "distillation/data")].items
        if queue.items[n].review_of is None
    ]
    for item in roots:
        stored = words.format_tokens(task, rows[item.row]["answers"][item.column])
        said = Counter(assignment.answer for assignment in item.submissions)
        assert stored == said.most_common(1)[0][0]
        question = words.format_tokens(task, rows[item.row]["questions"][item.column])
        assert question == item.question
    answers = np.stack([row["answers"] for row in rows])
    assert not (answers == FAILED).any()


def test_trees_say_whose_they_are_and_what_each_answer_was(ran):
    lines = (ran / "001/distillation/interactions.jsonl").read_text(encoding="utf-8").splitlines()
    trees = [json.loads(line) for line in lines]
    people = [tree for tree in trees if tree["by"] == "human"]
    assert len(people) == 40
    known = {event.id: event for event in events(ran)}
    for tree in people:
        assert known[tree["event"]].kind == "submitted"
        assert known[tree["event"]].person == tree["person"]
        for step in tree["steps"]:
            assert known[step["event"]].body["text"] == step["answer"]
    assert any(tree["steps"] for tree in people)
    assert {tree["by"] for tree in trees} == {"human", "overseer"}


def test_the_record_says_what_it_cost_people(ran):
    record = Store(ran).round(1).record
    submitted = [e for e in events(ran) if e.kind == "submitted" and e.round == 1]
    seconds = sum(e.seconds or 0 for e in events(ran) if e.round == 1)
    assert record["ledger"]["human_answers"] == len(submitted) > 80
    assert record["ledger"]["human_seconds"] == pytest.approx(seconds, abs=0.1)
    assert record["stages"]["distillation/data"]["people"] == 3


def test_the_record_says_what_the_assistants_help_was_worth(ran):
    made = Store(ran).round(1).record["stages"]["distillation/data"]
    queue = Queue(events(ran))
    roots = [
        queue.items[n]
        for n in queue.stages[RoundStage(1, "distillation/data")].items
        if not queue.items[n].review_of
    ]
    alone = [a for item in roots if item.withheld for a in item.submissions]
    assert made["uplift"]["accuracy"]["alone"]["answers"] == len(alone) > 0
    assert made["uplift"]["accuracy"]["helped"]["answers"] == 80 - len(alone)
    assert made["uplift"]["accuracy"]["helped"]["mean"] == 1.0  # by the strategy, from what is so
    assert made["agreement"] <= 1
    page = (ran / "001/report.html").read_text(encoding="utf-8")
    assert "What people did" in page
    assert f"without ({len(alone)} answers)" in page


def test_what_the_assistant_told_people_is_what_it_answers(ran):
    """In round 2 the assistant knows something: answers come with the digest of its weights."""
    parent = Store(ran).round(2).record["parent"]["digest"]
    told = [e for e in events(ran) if e.kind == "told" and e.round == 2]
    assert told
    assert {event.checkpoint for event in told} == {parent}
    acts = ("put", "asked", "submitted")
    assert {e.checkpoint for e in events(ran) if e.kind in acts and e.round == 2} == {parent}
    by_assistant = [e.body for e in told if e.body["by"] == "assistant"]
    assert by_assistant
    assert all(0 < body["confidence"] <= 1 for body in by_assistant)


def test_some_answers_are_checked_by_somebody_else(ran):
    queue = Queue(events(ran))
    reviews = [item for item in queue.items.values() if item.review_of]
    assert 8 <= len(reviews) <= 80
    for review in reviews:
        assert review.review_of[1] not in review.assignments


def test_a_round_is_replayed_bit_for_bit(ran, capsys):
    for number in (1, 2):
        main(["replay", str(ran), "--round", str(number), "--json"])
        again = json.loads(capsys.readouterr().out)
        assert again["same"]
        assert again["by_people"] == 40


def test_what_is_changed_later_counts_only_where_the_data_is_made_again(
    ran, tmp_path, capsys, no_pages
):
    folder = tmp_path / "again"
    shutil.copytree(ran, folder)
    log = Log(folder / EVENTS)
    item = next(i for i in Queue(log.since()).items.values() if i.round == 2 and not i.review_of)
    facts = {"round": 2, "item": item.id, "person": "admin", "body": {"answer": "+7"}}
    log.append({"kind": "adjudicated", **facts})
    log.close()
    main(["replay", str(folder), "--round", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["same"]
    main(["round", str(folder), "--n", "2"])
    assert "1 training row rests on that" in " ".join(capsys.readouterr().err.split())
    main(["round", str(folder), "--n", "2", "--redo", "data"])
    assert "rests on that" not in " ".join(capsys.readouterr().err.split())
    stored = dataset.read(folder / "002/distillation/data")[item.row]["answers"][item.column]
    assert words.format_tokens(Store(folder).experiment.task, stored) == "+7"
    main(["replay", str(folder), "--round", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["same"]


def test_a_replay_that_differs_is_an_error(ran, capsys, monkeypatch):
    monkeypatch.setattr("amplify.replay.write_data", lambda *arguments: "another digest")
    with pytest.raises(SystemExit, match="2"):
        main(["replay", str(ran), "--round", "1"])
    captured = capsys.readouterr()
    assert "not the same" in captured.out
    assert "was not reproduced" in captured.err


def test_with_another_checkpoint_or_overseer_it_is_shown_what_changes(ran, capsys):
    main(["replay", str(ran), "--round", "2", "--checkpoint", "0", "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["people's answers"]["changed"] == 0  # people cannot be asked again
    assert rows["what the assistant told people"]["changed"] > 0
    assert rows["the others' answers"]["changed"] > 0
    main(["replay", str(ran), "--round", "2", "--overseer", "nobody", "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["people's answers"]["answers"] == 40
    assert rows["people's answers"]["changed"] > 0
    main(["replay", str(ran), "--round", "2", "--checkpoint", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    if Store(ran).round(2).record["parent"]["round"] == 1:
        assert all(row["changed"] == 0 for row in rows)


def test_the_tree_behind_a_row_is_what_the_person_did(ran):
    lines = (ran / "001/distillation/interactions.jsonl").read_text(encoding="utf-8").splitlines()
    kept = json.loads(lines[0])
    found = inspection.training_tree(Store(ran), 1, kept["row"], kept["column"], 1)
    assert found.tree == kept


def test_only_what_people_answered_is_learned_from_where_nobody_else_does(tmp_path, no_pages):
    folder = people_experiment(tmp_path / "alone", others="nobody")
    main(["round", str(folder), "--n", "1"])
    answers = np.stack([row["answers"] for row in dataset.read(folder / "001/distillation/data")])
    assert (answers[..., 0] != FAILED).sum() == 40


def test_an_overseer_learns_from_what_people_do(tmp_path, no_pages):
    folder = people_experiment(tmp_path / "learned", others="learned", more="learned.steps = 100")
    main(["round", str(folder), "--n", "1"])
    record = Store(folder).round(1).record
    assert record["stages"]["imitation/checkpoint"]["demonstrations"] == 40
    assert record["stages"]["imitation/checkpoint"]["overseer_loss"] < 10


def test_a_round_that_was_stopped_goes_on_with_what_was_answered(tmp_path, monkeypatch):
    folder = people_experiment(tmp_path / "stopped")
    real, stopped = people_at_work, threading.Event()

    def stops_in_the_middle(self, served, advance):
        def until(done):
            if self.queue.last > 150:
                stopped.set()
                raise KeyboardInterrupt
            return advance(done)

        return run(self, served, until)

    run = round_loop.RoundLoop.run
    monkeypatch.setattr(round_loop, "serving", real)
    monkeypatch.setattr(round_loop.RoundLoop, "run", stops_in_the_middle)
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    assert stopped.is_set()
    before = events(folder)
    assert not any(event.kind == "closed" for event in before)
    monkeypatch.setattr(round_loop.RoundLoop, "run", run)
    main(["round", str(folder), "--n", "1"])
    after = events(folder)
    assert after[: len(before)] == before
    submitted = Counter((e.item, e.person) for e in after if e.kind == "submitted")
    assert set(submitted.values()) == {1}


def test_a_submission_that_makes_no_sense_goes_back_to_who_made_it(tmp_path):
    folder = people_experiment(tmp_path / "nonsense")
    store = Store(folder)
    problems = draw_round(store.experiment, 1)
    log = Log(folder / EVENTS)
    log.append(
        *open_stage(store.experiment, RoundStage(1, "distillation/data"), problems, "a digest")
    )
    queue = Queue(log.since())
    item = queue.stages[RoundStage(1, "distillation/data")].items[0]
    log.append({"kind": "taken", "round": 1, "item": item, "person": "p"})
    submitted = {"kind": "submitted", "round": 1, "item": item, "person": "p"}
    log.append({**submitted, "body": {"answer": "seven"}})
    answerer = Answerer(store.experiment, {"assistant": None}, "", problems)
    helper = helper_of(store.experiment, answerer)
    loop = round_loop.RoundLoop(
        work_rules(store.experiment), RoundStage(1, "distillation/data"), log, helper
    )
    news = list(log.since())
    for event in news:
        loop.queue.apply(event)
    [refused] = loop._look_after(news)
    log.append(refused)
    log.append(refused)  # a round that was killed says it again
    queue = Queue(log.since())
    mine = queue.items[item].assignments["p"]
    assert mine.problem is not None
    assert "'seven' is no answer" in mine.problem
    assert mine.state == "active"
    assert mine.draft == "seven"


def test_items_are_drawn_once_each_and_the_same_again(ran):
    experiment = Store(ran).experiment
    problems = draw_round(experiment, 1)
    places = choose_places(experiment, 1, problems)
    assert len(set(places)) == len(places) == 40
    assert places == choose_places(experiment, 1, problems)
    questions = np.asarray(problems.questions)
    asked = {(row, questions[row, column].tobytes()) for row, column in places}
    assert len(asked) == 40


def test_the_guide_of_a_base_is_its_own(tmp_path):
    folder = people_experiment(tmp_path / "base", more='guide = "guide.txt"')
    (folder / "guide.txt").write_text("Think first.", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    toml = 'base = "../base"\n[overseer]\nitems = 20\n'
    (tmp_path / "mine/experiment.toml").write_text(toml, encoding="utf-8")
    experiment = Store(tmp_path / "mine").experiment
    opened, *put = open_stage(experiment, RoundStage(1), draw_round(experiment, 1), "a digest")
    assert opened["body"]["guide"] == "Think first."
    assert len(put) == 20


BAD = {
    "items": ("", {"items = 40": "items = 4000"}, "overseer.items must be at most"),
    "crowd": (
        'people = "simulated"\ncrowd = { people = 1 }',
        {},
        "overseer.crowd.people must be at least 2",
    ),
    "asks": ("", {"asks = 3": "asks = 0", '"simulated"': '"learned"'}, "overseer.asks must be"),
    "guide": ('guide = "nowhere.txt"', {}, "overseer.guide: nowhere.txt: "),
    "streaming": ("", {"steps = 60": 'steps = 60\ntargets = "streaming"'}, "people oversee"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_clear_line(case, tmp_path, no_pages, capsys):
    more, changes, expected = BAD[case]
    folder = people_experiment(tmp_path / "bad", more=more)
    file = folder / "experiment.toml"
    text = file.read_text(encoding="utf-8")
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert expected in line
