import pytest

from amplify.people import rules
from amplify.people.items import answer_of
from amplify.people.rules import LONGEST, RefusedError
from tests.people.story import Story

ONE, TWO = "person-01", "person-02"


@pytest.fixture
def story():
    story = Story()
    story.put("q", overlap=2)
    story.put("choice", choices=["yes", "no"])
    story.ask("q", ONE, "x?", "1")
    story.answer("q", ONE, "a")
    story.answer("q", TWO, "b")
    story.put("check", review_of=("q", ONE))
    return story


def carried_out(story, events):
    for event in events:
        rest = {key: event[key] for key in ("kind", "round", "item", "person")}
        story._append(*rest.values(), event["checkpoint"], None, None, event["body"])
    return story.queue


def test_what_is_decided_counts_and_deciding_it_again_changes_nothing(story):
    events = rules.adjudicate(story.queue, "q", "  B ", "admin")
    queue = carried_out(story, events)
    assert answer_of(queue.items["q"]) == "B"
    assert [(e["kind"], e["person"]) for e in events] == [("adjudicated", "admin")]
    assert rules.adjudicate(queue, "q", "b", "admin") == []
    again = carried_out(story, rules.adjudicate(queue, "q", "c", "admin"))
    assert answer_of(again.items["q"]) == "c"


def test_a_final_answer_is_corrected(story):
    queue = carried_out(story, rules.correct(story.queue, "q", TWO, "a", "admin"))
    assert queue.items["q"].assignments[TWO].answer == "a"
    assert rules.correct(queue, "q", TWO, "a", "admin") == []


def test_a_sub_answer_is_corrected_for_whoever_asks_what_is_stale(story):
    [event] = rules.correct(story.queue, "q", ONE, "2", "admin", number=1)
    assert event["body"] == {"answer": "2", "number": 1, "person": ONE}
    queue = carried_out(story, [event])
    assert queue.items["q"].assignments[ONE].answer == "a"


def test_an_item_is_withdrawn_once(story):
    queue = carried_out(story, rules.withdraw(story.queue, "q", "unclear", "admin"))
    assert answer_of(queue.items["q"]) is None
    assert rules.withdraw(queue, "q", "again", "admin") == []
    with pytest.raises(RefusedError, match="was withdrawn"):
        rules.adjudicate(queue, "q", "a", "admin")


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (lambda q: rules.adjudicate(q, "none", "a", "admin"), "no such question"),
        (lambda q: rules.adjudicate(q, "q", "  ", "admin"), "cannot be empty"),
        (lambda q: rules.adjudicate(q, "q", "x" * (LONGEST + 1), "admin"), "at most 2000"),
        (lambda q: rules.adjudicate(q, "choice", "maybe", "admin"), "one of yes, no"),
        (lambda q: rules.adjudicate(q, "check", "a", "admin"), "another question"),
        (lambda q: rules.correct(q, "q", "person-09", "a", "admin"), "was not given"),
        (lambda q: rules.correct(q, "q", ONE, "a", "admin", number=2), "no question number 2"),
        (lambda q: rules.correct(q, "q", ONE, "", "admin", number=1), "cannot be empty"),
        (lambda q: rules.withdraw(q, "q", "", "admin"), "a reason cannot be empty"),
    ],
)
def test_what_makes_no_sense_is_refused(story, decide, said):
    with pytest.raises(RefusedError, match=said):
        decide(story.queue)


def test_an_answer_that_was_not_submitted_cannot_be_corrected(story):
    story.take("choice", ONE)
    with pytest.raises(RefusedError, match="submitted no answer"):
        rules.correct(story.queue, "choice", ONE, "yes", "admin")
