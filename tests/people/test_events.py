"""Kinds of events: what may be written, and what older or damaged logs are read as."""

import contextlib
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.answers import AnswerRule
from amplify.people import events
from amplify.people.events import BODIES, Event, Kind, check_new, new_event, read_event
from amplify.people.log import Log
from amplify.people.rules import Queue

SAID = [
    events.Opened(lease=9.0, title="People", guide="Think."),
    events.Put(question="a?", rule=AnswerRule().as_row(), choices=["yes", "no"], row=3, column=1),
    events.Put(question="a?", rule=AnswerRule("normalized", ">").as_row(), review_of=["1", "p"]),
    events.Taken(),
    events.Released(),
    events.Draft(text="so far"),
    events.Asked(text="b?"),
    events.Asked(text="more", about={"number": 1, "part": "half"}),
    events.Told(number=1, text="yes", confidence=0.5, tokens={"question": [1], "answer": [2]}),
    events.Told(
        number=2,
        text="no",
        steps=[{"question": "c?", "answer": "d", "by": "overseer", "steps": []}],
    ),
    events.Submitted(answer="yes"),
    events.Refused(problem="'yes' is no answer"),
    events.Skipped(reason="unclear"),
    events.Undone(event=3, what="asked"),
    events.Seen(),
    events.Withdrawn(reason="wrong"),
    events.Adjudicated(answer="no"),
    events.Corrected(answer="no", person="p", number=1),
    events.PutAside(reason="cannot be read"),
    events.Closed(),
]


def test_every_kind_has_a_class_and_an_example_here():
    assert set(get_args(Kind)) == BODIES.keys() == {said.KIND for said in SAID}


@pytest.mark.parametrize("said", SAID, ids=lambda said: said.KIND)
def test_what_is_written_is_read_again(tmp_path, said):
    with contextlib.closing(Log(tmp_path / "events.sqlite")) as log:
        log.append(new_event(said, 1, item="i", person="p", checkpoint="c", request="r"))
        [event] = log.since()
    assert event[2:7] == (said.KIND, 1, "i", "p", "c")
    assert event.request == "r"
    assert read_event(event) == said


WRONG = {
    "a misspelt kind": {"kind": "submited", "round": 1, "body": {"answer": "a"}},
    "no kind": {"kind": "", "round": 1},
    "a missing key": {"kind": "submitted", "round": 1},
    "a misspelt key": {"kind": "withdrawn", "round": 1, "body": {"raeson": "wrong"}},
    "a body of no key": {"kind": "taken", "round": 1, "body": {"item": "a"}},
    "another type": {"kind": "told", "round": 1, "body": {"number": "1"}},
    "a probability above 1": {"kind": "told", "round": 1, "body": {"number": 1, "confidence": 2.0}},
    "an unknown rule": {
        "kind": "put", "round": 1, "body": {"question": "a?", "rule": {"form": "fuzzy"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_event_that_is_no_event_is_never_written(tmp_path, case):
    with contextlib.closing(Log(tmp_path / "events.sqlite")) as log:
        good = new_event(events.Closed(), 1)
        with pytest.raises(ValueError, match=r"kind|cannot say|validation error"):
            log.append(good, WRONG[case])
        assert list(log.since()) == []  # all or none
    with pytest.raises(ValueError, match=r"kind|cannot say|validation error"):
        check_new(WRONG[case])


def old(kind, body):
    return Event(1, 1.0, kind, 1, "i", "p", body=body)


def test_what_an_older_log_lacks_has_its_default():
    put = read_event(old("put", {"question": "a?"}))
    assert (put.overlap, put.budget, put.row, put.withheld) == (1, 0, -1, False)
    assert put.rule == {"form": "caseless", "separator": ""}
    chosen = read_event(old("put", {"question": "a?", "choices": ["a"], "way": ">"}))
    assert chosen.rule == {"form": "exact", "separator": ">"}
    assert read_event(old("told", {"number": 1, "text": "b"})).by == "assistant"
    assert read_event(old("withdrawn", {})).reason == ""
    assert read_event(old("opened", {"lease": 5})).title == ""


def test_a_kind_and_a_key_of_another_version_are_passed_over():
    assert read_event(old("applauded", {"loudly": True})) is None
    assert read_event(old("seen", {"twice": True})) == events.Seen()
    queue = Queue([old("applauded", {})])
    assert (queue.last, queue.set_aside) == (1, {})


@given(
    st.sampled_from(sorted(BODIES)),
    st.dictionaries(
        st.sampled_from(sorted({key for body in BODIES.values() for key in body.model_fields})),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
    ),
)
def test_any_body_is_read_or_set_aside_with_a_reason(kind, body):
    body = json.loads(json.dumps(body))
    try:
        read = getattr(read_event(old(kind, body)), "KIND", None)
    except events.DamagedEventError as error:
        read = str(error)
    assert read == kind or read.startswith("does not say what it should")
