"""Several stages of a round that ask people, and logs of versions that had one."""

import sqlite3
from pathlib import Path

import pytest

from amplify.answers import AnswerRule
from amplify.people import quality
from amplify.people.assignment import Question, WorkRules, identify, put_up
from amplify.people.events import Closed, new_event
from amplify.people.items import RoundStage
from amplify.people.log import VERSION, Log
from amplify.people.records import Record
from amplify.people.roster import Roster
from amplify.people.rules import Queue
from amplify.people.stale import Row, decided_since_closing, stale_in, summary
from tests.people.story import Story
from tests.web.rounds import Browser, Clock, invited, served

ONE, TWO = "person-01", "person-02"
REVIEWS, AUDIT = RoundStage(1, "reviews/data"), RoundStage(1, "audit_8/data")
RULES = WorkRules(
    experiment="e", choices=[], rule=AnswerRule(), lease=60.0, guide="", team=1, budget=0,
    overlap=1, gold=0.0, withheld=0.0, reviewed=0.0, reviewers=1, skips=3, simulated_people=None,
)  # fmt: skip


def opened(story: Story, stage: RoundStage, *items: str) -> None:
    story.add("opened", stage.round, lease=600, stage=stage.stage, guide=f"How to {stage.stage}")
    for row, item in enumerate(items):
        body = {"question": f"{item}?", "row": row, "column": 0, "stage": stage.stage}
        story.add("put", stage.round, item, **body)


def reviewed_then_audited() -> Story:
    story = Story()
    opened(story, REVIEWS, "a", "b")
    for item in "ab":
        story.answer(item, ONE, "A")
    story.add("closed", 1, stage=REVIEWS.stage)
    opened(story, AUDIT, "c", "d")
    return story


def test_a_stage_stays_open_after_another_of_its_round_was_closed():
    story = reviewed_then_audited()
    queue = story.queue
    assert list(queue.stages) == [REVIEWS, AUDIT]
    assert (queue.rounds, queue.latest) == ([1], AUDIT)
    assert queue.stages[REVIEWS].closed is not None
    assert queue.stages[AUDIT].closed is None
    assert [queue.open_items(stage) for stage in (REVIEWS, AUDIT)] == [0, 2]
    story.answer("c", ONE, "7")
    queue = story.queue
    assert queue.items["c"].submissions[0].answer == "7"
    assert [queue.submitted_by(ONE, stage) for stage in (REVIEWS, AUDIT)] == [2, 1]
    assert (queue.counts(AUDIT).questions, queue.counts(AUDIT).questions_done) == (2, 1)
    story.add("submitted", 1, "a", TWO, answer="B")  # of a closed stage, whatever the round is at
    assert len(story.queue.items["a"].submissions) == 1


def test_agreement_is_of_a_stage_or_of_all_stages_of_a_round():
    story = Story()
    for stage, items, second in ((REVIEWS, "ab", "AB"), (AUDIT, "cd", "BA")):
        opened(story, stage, *items)
        for item, first, other in zip(items, "AB", second, strict=True):
            story.answer(item, ONE, first)
            story.answer(item, TWO, other)
    alphas = [quality.agreement(story.queue, where).alpha for where in (REVIEWS, AUDIT, 1, None)]
    assert alphas[0] == 1
    assert alphas[1] < 0 < alphas[2] == alphas[3]


def test_a_decision_makes_the_data_of_its_own_stage_stale():
    story = reviewed_then_audited()
    story.answer("c", ONE, "7")
    story.add("closed", 1, stage=AUDIT.stage)
    assert decided_since_closing(story.events, AUDIT) is None
    event = story.decide("c", "2")
    assert decided_since_closing(story.events, AUDIT) == event
    assert decided_since_closing(story.events, REVIEWS) is None
    found = stale_in(story.events, [Record(1, Path("001"), {"parent": None})])
    assert [one.rows for one in found] == [(Row(1, 0, 0, "audit_8/data"),)]
    assert "--redo audit_8/data" in summary(found, Path("rounds/x"))
    story.add("closed", 1, stage=AUDIT.stage)
    assert decided_since_closing(story.events, AUDIT) is None


def put_up_in(stage: RoundStage) -> list:
    name = identify(RULES, stage, 3, 0)
    return put_up(RULES, stage, [Question(name, 3, 0, "q?", "", None, ())], "c0")


def test_the_same_place_of_two_stages_is_two_items():
    events = [*put_up_in(REVIEWS), *put_up_in(AUDIT)]
    assert len({event["request"] for event in events}) == 4
    assert {event["body"]["stage"] for event in events} == {"reviews/data", "audit_8/data"}


# Logs of version 1


OLD = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL,
    round INTEGER NOT NULL, item TEXT, person TEXT, checkpoint TEXT, seconds REAL,
    request TEXT UNIQUE, body TEXT NOT NULL
);
PRAGMA user_version = 1;
INSERT INTO events (at, kind, round, item, person, request, body) VALUES
    (1.0, 'opened', 1, NULL, NULL, 'opened:1', '{"lease": 60.0, "guide": "Think."}'),
    (2.0, 'put', 1, 'ITEM', NULL, 'put:ITEM', '{"question": "q?", "row": 3, "column": 0}'),
    (3.0, 'taken', 1, 'ITEM', 'person-01', NULL, '{}'),
    (4.0, 'submitted', 1, 'ITEM', 'person-01', NULL, '{"answer": "a"}');
"""


@pytest.fixture
def old(tmp_path):
    """A log that version 1 wrote, with the names that it gave to items."""
    connection = sqlite3.connect(tmp_path / "events.sqlite")
    connection.executescript(OLD.replace("ITEM", identify(RULES, 1, 3, 0)))
    connection.close()
    log = Log(tmp_path / "events.sqlite")
    yield log
    log.close()


def test_an_old_log_has_one_stage_of_a_round_and_may_be_continued(old):
    [version] = old._connection.execute("PRAGMA user_version").fetchone()
    assert version == VERSION
    queue = Queue(old.since())
    unnamed = RoundStage(1)
    assert list(queue.stages) == [unnamed]
    assert queue.stages[unnamed].guide == "Think."
    assert queue.known_as(1, "reviews/data") == unnamed
    assert queue.known_as(2, "reviews/data") == RoundStage(2, "reviews/data")
    before = len(list(old.since()))
    old.append(*put_up_in(queue.known_as(1, "reviews/data")))  # the round is resumed
    assert len(list(old.since())) == before
    old.append(new_event(Closed(), 1, request=f"closed:{unnamed}"))
    queue = Queue(old.since())
    assert queue.stages[unnamed].closed == before + 1
    [item] = queue.items.values()
    assert (item.round, item.submissions[0].answer) == (1, "a")


def test_a_stage_that_a_damaged_event_names_is_that_of_its_item_or_none(old):
    insert = "INSERT INTO events (at, kind, round, body) VALUES (5.0, 'closed', 1, ?)"
    old._connection.execute(insert, ('{"stage": 7}',))
    queue = Queue(old.since())
    assert list(queue.stages) == [RoundStage(1)]
    assert queue.stages[RoundStage(1)].closed is None
    assert [one.kind for one in queue.set_aside.values()] == ["closed"]


def test_a_damaged_event_makes_no_stage_of_an_older_version():
    story = Story()
    opened(story, REVIEWS, "a")
    story.add("submitted", 1, "never put up", ONE, answer="A")
    story.add("closed")
    queue = story.queue
    assert queue.known_as(1, REVIEWS.stage) == REVIEWS
    assert queue.stages[REVIEWS].closed is None


# Pages


def test_people_do_not_see_which_stage_asks_and_whoever_runs_the_experiment_does(tmp_path):
    log = Log(tmp_path / "events.sqlite", Clock())
    log.append(*put_up_in(REVIEWS), new_event(Closed(stage=REVIEWS.stage), 1), *put_up_in(AUDIT))
    log.close()
    [person] = invited(tmp_path)
    with served(tmp_path) as client:
        page = Browser(client, person).open()
        assert "q?" in page
        assert "audit" not in page
        assert "0 of 1" in page
        there = Browser(client, Roster(tmp_path).admin())
        assert "Round 1, audit_8 is being answered" in there.get("/admin").text
