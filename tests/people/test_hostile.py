"""Whatever is sent to the pages of a real round, or stands in its log from before: the pages go on,
and the round ends.
"""

import contextlib
import json
import sqlite3
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from amplify import words
from amplify.cli.commands import main
from amplify.oversight.draws import draw_round
from amplify.oversight.people.answerer import Answerer
from amplify.oversight.people.collecting import gather, helper_of
from amplify.oversight.people.questions import open_stage, work_rules
from amplify.people import round_loop as loops
from amplify.people.items import RoundStage
from amplify.people.log import EVENTS, Log
from amplify.people.roster import Roster
from amplify.people.rules import Queue
from amplify.store import Store
from tests.people.session import Nothing
from tests.people.test_collection import people_experiment
from tests.web.hostile import hostile_forms
from tests.web.rounds import Browser, form_of, served

ROUND, ITEMS, SURROGATE = 1, 6, "\ud800 hello"
STAGE = RoundStage(ROUND, "distillation/data")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A round with its questions put up, and what answers people, with weights of an assistant."""
    folder = people_experiment(
        tmp_path_factory.mktemp("hostile") / "round", more="lease = 1e9\nskips = 99"
    )
    file = folder / "experiment.toml"
    toml = file.read_text(encoding="utf-8").replace("items = 40", f"items = {ITEMS}")
    file.write_text(toml.replace("reviewed = 0.2", "reviewed = 0.0"), encoding="utf-8")
    experiment = Store(folder).experiment
    problems = draw_round(experiment, ROUND)
    weights = {"assistant": jax.jit(experiment.assistant.init)(jax.random.key(0))}
    events = open_stage(experiment, STAGE, problems, "d" * 64)
    toml = file.read_text(encoding="utf-8")
    return SimpleNamespace(
        experiment=experiment,
        problems=problems,
        answerer=Answerer(experiment, weights, "d" * 64, problems),
        events=events,
        toml=toml,
    )


@pytest.fixture
def folder(opened, tmp_path):
    """An experiment's folder with the round's log."""
    (tmp_path / "experiment.toml").write_text(opened.toml, encoding="utf-8")
    log = Log(tmp_path / EVENTS)
    log.append(*opened.events)
    log.close()
    return tmp_path


@contextlib.contextmanager
def round_loop(opened, folder):
    """The round, in a thread of its own; what it raises is raised at the end, where it must have
    ended by itself.
    """
    log, served_, failed = Log(folder / EVENTS), Nothing(), []

    def run() -> None:
        try:
            helper = helper_of(opened.experiment, opened.answerer)
            loop = loops.RoundLoop(work_rules(opened.experiment), STAGE, log, helper)
            loop.run(served_, lambda done: None)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
        thread.join(60)
    finally:
        alive = thread.is_alive()
        served_.trouble.append(KeyboardInterrupt("the test is over"))
        thread.join(60)
        log.close()
    assert not failed, failed
    assert not alive, "the round did not end"


def events(folder):
    log = Log(folder / EVENTS)
    try:
        return [*log.since()]
    finally:
        log.close()


def answer_everything(folder, browser, answer="+1"):
    """As an honest person does, whatever was there before."""
    for _ in range(3 * ITEMS):
        if 'id="nothing"' in browser.open():
            return
        response = browser.send("submit", answer=answer)
        assert response.status_code == 200, response.text
    raise AssertionError("there is no end to it")


def check_gathered(opened, folder):
    """The round's data can be made of what the log says."""
    there = events(folder)
    gathered = gather(opened.experiment, STAGE, opened.problems, there, there[-1].id)
    assert len(gathered.rows) == ITEMS
    json.dumps(gathered.trees).encode()


def check_pages(admin):
    for path in ("", "/answers", "/people", "/disagreements", "/uplift", "/stale", "/set-aside"):
        response = admin.get(f"/admin{path}")
        assert response.status_code == 200, path
        response.text.encode()


def test_hostile_forms_are_refused_and_the_pages_and_the_round_go_on(opened, folder):
    with round_loop(opened, folder), served(folder) as client:
        person, admin = (
            Browser(client, member)
            for member in (*Roster(folder).invite([""], 2e9), Roster(folder).admin())
        )
        person.open()
        item = Queue(events(folder)).stages[STAGE].items[0]
        csrf = {
            "person": form_of(person.page, "submit")[1]["csrf"],
            "admin": admin.get(f"/admin/answers/{item}").text.split('name="csrf" value="')[1][:64],
        }
        for whose, form in hostile_forms(csrf, 130):
            before = events(folder)
            who = {"person": person, "admin": admin}[whose]
            response = client.post(
                form.path.replace("{item}", item),
                content=form.body,
                headers={
                    "content-type": form.content_type.encode("utf-8"),
                    "cookie": "; ".join(f"{name}={value}" for name, value in who.cookies.items()),
                },
            )
            assert 400 <= response.status_code < 500, (form, response.status_code)
            assert response.text.strip(), form
            new = [event for event in events(folder) if event not in before]
            assert {event.kind for event in new} <= {"draft"}, form
            json.dumps([event.as_row() for event in new], ensure_ascii=False).encode()
            person.open()
        check_pages(admin)
        answer_everything(folder, person)
        check_pages(admin)
    check_gathered(opened, folder)


def insert(folder, kind, item, person="person-01", body="{}", round=ROUND, at=1.0):
    """A line of the log, whatever is in it."""
    with contextlib.closing(sqlite3.connect(folder / EVENTS)) as connection:
        connection.execute(
            "INSERT INTO events (at, kind, round, item, person, body) VALUES (?, ?, ?, ?, ?, ?)",
            (at, kind, round, item, person, body),
        )
        connection.commit()


OLD = {
    "a lone surrogate": {"answer": SURROGATE},
    "a NUL": {"answer": "a\0b"},
    "no answer": {},
    "a number": {"answer": 7},
    "a list": {"answer": ["+1"]},
    "nothing": {"answer": None},
}


@pytest.mark.parametrize("case", OLD)
def test_a_log_that_has_an_answer_nobody_can_read_is_gone_on_with(opened, folder, case, capsys):
    item = Queue(events(folder)).stages[STAGE].items[0]
    [member] = Roster(folder).invite([""], 2e9)
    insert(folder, "taken", item)
    insert(folder, "submitted", item, body=json.dumps(OLD[case]))
    with round_loop(opened, folder), served(folder) as client:
        browser, admin = Browser(client, member), Browser(client, Roster(folder).admin())
        answer_everything(folder, browser)
        check_pages(admin)
        assert admin.get(f"/admin/answers/{item}").status_code == 200
    check_gathered(opened, folder)
    if case != "a NUL":  # that is text, which the task refuses as it refuses others
        with served(folder) as client:
            said = Browser(client, Roster(folder).admin()).get("/admin/set-aside").text
        assert "person-01" in said
        main(["people", str(folder)])
        assert "set aside: round 1, question" in capsys.readouterr().err


LINES = {
    "no JSON": ("submitted", "{", ROUND, 1.0),
    "no table": ("submitted", "[1]", ROUND, 1.0),
    "bytes": ("submitted", b'{"answer": "\xff\xfe"}', ROUND, 1.0),
    "of no round": ("submitted", '{"answer": "+1"}', "first", 1.0),
    "of no time": ("submitted", '{"answer": "+1"}', ROUND, "noon"),
    "deep": ("submitted", '{"answer": ' + "[" * 100_000, ROUND, 1.0),
    "told": ("told", '{"number": 1, "text": "+1"}', ROUND, 1.0),
    "told of no number": ("told", '{"number": "one", "text": "+1"}', ROUND, 1.0),
    "undone": ("undone", '{"event": 99}', ROUND, 1.0),
    "refused": ("refused", "{}", ROUND, 1.0),
    "corrected": ("corrected", '{"answer": "+1", "person": "nobody"}', ROUND, 1.0),
    "a correction of nothing": (
        "corrected", '{"answer": "+1", "person": "person-01", "number": 7}', ROUND, 1.0,
    ),
    "a skip without a reason": ("skipped", "{}", ROUND, 1.0),
    "a name of a method": ("round", "{}", ROUND, 1.0),
    "put twice, and wrongly": ("put", '{"question": 7}', ROUND, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
@pytest.mark.parametrize("known", [True, False], ids=["of a question", "of no question"])
def test_a_damaged_line_of_a_log_is_gone_on_with(opened, folder, case, known):
    kind, body, number, at = LINES[case]
    item = Queue(events(folder)).stages[STAGE].items[0]
    [member] = Roster(folder).invite([""], 2e9)
    if known:
        insert(folder, "taken", item)
    insert(folder, kind, item if known else "nowhere", body=body, round=number, at=at)
    with round_loop(opened, folder), served(folder) as client:
        answer_everything(folder, Browser(client, member))
        admin = Browser(client, Roster(folder).admin())
        check_pages(admin)
        assert admin.get(f"/admin/answers/{item}").status_code == 200
    check_gathered(opened, folder)
    main(["events", str(folder), str(folder / "events.jsonl")])


def test_drafts_and_reasons_of_an_old_log_are_shown_with_a_replacement(opened, folder):
    item, other = Queue(events(folder)).stages[STAGE].items[:2]
    [member] = Roster(folder).invite([""], 2e9)
    for name in (other, item):
        insert(folder, "taken", name, at=2e9)
    insert(folder, "skipped", other, body=json.dumps({"reason": SURROGATE}), at=2e9)
    insert(folder, "draft", item, body=json.dumps({"text": SURROGATE}), at=2e9)
    with served(folder, clock=lambda: 2e9 + 1) as client:
        Browser(client, member).open()
        admin = Browser(client, Roster(folder).admin())
        for name in (item, other):
            assert "\N{REPLACEMENT CHARACTER} hello" in admin.get(f"/admin/answers/{name}").text
        check_pages(admin)


def test_what_is_decided_and_cannot_be_read_is_set_aside_until_it_is_decided_again(opened, folder):
    item = Queue(events(folder)).stages[STAGE].items[0]
    log = Log(folder / EVENTS)
    log.append({"kind": "adjudicated", "round": ROUND, "item": item, "body": {"answer": "purple"}})
    [member] = Roster(folder).invite([""], 2e9)
    with round_loop(opened, folder), served(folder) as client:
        answer_everything(folder, Browser(client, member))
    there = events(folder)
    assert "purple" in Queue(there).items[item].set_aside
    gathered = gather(opened.experiment, STAGE, opened.problems, there, there[-1].id)
    assert len(gathered.rows) == ITEMS - 1
    assert gathered.facts["set_aside"] == 1
    log.append({"kind": "adjudicated", "round": ROUND, "item": item, "body": {"answer": "+1"}})
    log.close()
    there = events(folder)
    assert not Queue(there).set_aside
    gathered = gather(opened.experiment, STAGE, opened.problems, there, there[-1].id)
    assert len(gathered.rows) == ITEMS
    assert "set_aside" not in gathered.facts


def test_a_question_that_no_task_can_take_keeps_nobody_from_an_answer(opened, folder, monkeypatch):
    """A parser, or what answers, that raises anything at all."""
    real_read, real_tell = words.read_question, Answerer._answer_batch

    def read(task, text):
        if "parser" in text:
            raise RuntimeError("the parser is broken")
        return real_read(task, text)

    def tell(self, rows, questions):
        if any(np.array_equal(question, bad) for question in questions):
            raise RuntimeError("cannot be answered")
        return real_tell(self, rows, questions)

    monkeypatch.setattr(words, "read_question", read)
    monkeypatch.setattr(Answerer, "_answer_batch", tell)
    bad = real_read(opened.experiment.task, "bbb")
    log, items = Log(folder / EVENTS), Queue(events(folder)).stages[STAGE].items
    for name, text in zip(items, ("parser", "bbb", "aab"), strict=False):
        facts = {"round": ROUND, "item": name, "person": "p"}
        log.append({"kind": "taken", **facts}, {"kind": "asked", **facts, "body": {"text": text}})
    told = opened.answerer.answer(Queue(log.since()).pending(STAGE))
    log.close()
    assert "the parser is broken" in told[0]["body"]["problem"]
    assert "cannot be answered" in told[1]["body"]["problem"]
    assert told[2]["body"]["text"]
    monkeypatch.setattr(
        Answerer, "_answer_batch", lambda *_: (_ for _ in ()).throw(RuntimeError("broken"))
    )
    with pytest.raises(RuntimeError, match="broken"):  # where nothing can be answered any more
        opened.answerer.answer(Queue(events(folder)).pending(STAGE))
