import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amplify.errors import AmplifyError, command
from amplify.people.items import RoundStage, answer_of
from amplify.people.log import Log
from amplify.people.records import Record, descendants, read_records
from amplify.people.stale import Row, decided_since_closing, stale, stale_in, summary
from tests.people.story import Story

ONE, TWO, THREE = "person-01", "person-02", "person-03"


def record(number: int, parent: int | None) -> Record:
    facts = {"parent": None if parent is None else {"round": parent, "digest": f"c{parent}"}}
    return Record(number, Path(f"{number:03d}"), facts)


RECORDS = [record(0, None), record(1, 0), record(2, 1), record(3, 1), record(4, 0), record(5, 2)]


def closed(**body) -> Story:
    """One item of round 1, answered and closed."""
    story = Story()
    story.put("q", row=3, column=2, **body)
    story.answer("q", ONE, "a")
    story.add("closed")
    return story


def test_a_decision_after_closing_makes_the_row_and_all_rounds_after_it_stale():
    story = closed()
    event = story.decide("q", "b")
    [found] = stale_in(story.events, RECORDS)
    assert (found.event, found.kind, found.was, found.now) == (event, "adjudicated", "a", "b")
    assert found.rows == (Row(1, 3, 2),)
    assert found.answers == (("q", ONE),)
    assert found.rounds == (1, 2, 3, 5)  # 4 began from round 0


def test_so_does_a_correction_and_a_withdrawal():
    story = closed()
    story.correct("q", ONE, "b")
    [found] = stale_in(story.events, RECORDS)
    assert (found.kind, found.person, found.number, found.now) == ("corrected", ONE, None, "b")
    story = closed()
    story.add("withdrawn", 1, "q", reason="makes no sense")
    [found] = stale_in(story.events, RECORDS)
    assert (found.kind, found.was, found.now) == ("withdrawn", "a", None)


def test_what_was_changed_before_closing_and_what_changes_nothing_is_not_stale():
    story = Story()
    story.put("q", row=3, column=2)
    story.answer("q", ONE, "a")
    story.decide("q", "b")
    story.add("closed")
    assert stale_in(story.events, RECORDS) == []
    story.decide("q", " B")
    assert stale_in(story.events, RECORDS) == []
    story.decide("q", "c")
    assert len(stale_in(story.events, RECORDS)) == 1
    story.decide("q", "b")  # and back
    assert stale_in(story.events, RECORDS) == []


def test_a_correction_of_an_answer_that_does_not_count_makes_nothing_stale():
    story = Story()
    story.put("q", overlap=3, row=3, column=2)
    for person, said in ((ONE, "a"), (TWO, "a"), (THREE, "b")):
        story.answer("q", person, said)
    story.add("closed")
    story.correct("q", THREE, "c")
    assert stale_in(story.events, RECORDS) == []
    story.correct("q", TWO, "c")  # now most say c
    found = stale_in(story.events, RECORDS)  # both had their part in that
    assert [(one.person, one.was, one.now) for one in found] == [(THREE, "a", "c"), (TWO, "a", "c")]


def test_a_round_whose_data_are_made_again_is_not_stale_any_more():
    story = closed()
    story.decide("q", "b")
    story.add("closed")
    assert stale_in(story.events, RECORDS) == []


def test_a_round_is_to_be_closed_again_after_decisions_about_its_answers():
    story = Story()
    story.put("q", row=3, column=2)
    story.put("other", round=2)
    story.ask("q", ONE, "x?", "1")
    story.answer("q", ONE, "a")
    story.decide("q", "b")
    assert decided_since_closing(story.events, RoundStage(1)) is None  # not closed yet
    story.add("closed")
    assert decided_since_closing(story.events, RoundStage(1)) is None
    story.correct("q", ONE, "2", number=1)
    story.decide("other", "b")
    assert decided_since_closing(story.events, RoundStage(1)) is None
    event = story.correct("q", ONE, "c")
    assert decided_since_closing(story.events, RoundStage(1)) == event
    event = story.decide("q", "c")
    assert decided_since_closing(story.events, RoundStage(1)) == event
    story.add("closed")
    assert decided_since_closing(story.events, RoundStage(1)) is None


def told() -> Story:
    """Four people are told that x is 1 by one checkpoint, one of them in another round; a fifth by
    another checkpoint, and a sixth something else.
    """
    story = Story()
    for number in range(1, 7):
        story.put(f"q{number}", round=2 if number == 4 else 1, row=number, column=0, budget=2)
    story.put("nested", row=7, column=0, budget=2)
    story.ask("q1", ONE, "What is x?", "1")
    story.ask("q2", TWO, "what is  X?", "1")
    story.ask("q3", THREE, "What is x?", "1")
    story.ask("q4", ONE, "What is x?", "1")
    story.ask("q5", TWO, "What is x?", "1", checkpoint="c1")
    story.ask("q6", THREE, "What is x?", "2")
    step = {"question": "What is x?", "answer": "1", "by": "assistant", "steps": []}
    story.ask("nested", THREE, "What is x + 1?", "2", by="overseer", steps=[step])
    return story


def test_a_corrected_sub_answer_makes_stale_whatever_was_told_the_same():
    story = told()
    people = {"q1": ONE, "q2": TWO, "q4": ONE, "q5": TWO, "q6": THREE, "nested": THREE}
    for item, person in people.items():
        story.answer(item, person, "whatever")
    story.put("check", review_of=("q2", TWO))
    story.answer("check", THREE, "whatever")
    story.add("closed", 1)
    story.add("closed", 2)
    event = story.correct("q1", ONE, "3", number=1)
    [found] = stale_in(story.events, RECORDS)
    assert (found.event, found.question, found.was, found.now) == (event, "What is x?", "1", "3")
    assert found.rows == (Row(1, 1, 0), Row(1, 2, 0), Row(1, 7, 0), Row(2, 4, 0))
    assert set(found.answers) == {
        ("q1", ONE), ("q2", TWO), ("q4", ONE), ("nested", THREE), ("check", THREE),
    }  # fmt: skip
    assert found.rounds == (1, 2, 3, 5)


def test_a_sub_answer_that_was_taken_back_supports_nothing():
    story = told()
    asked = next(e.id for e in story.events if e.kind == "asked" and e.item == "q2")
    story.add("undone", 1, "q2", TWO, event=asked, what="asked")
    story.answer("q1", ONE, "a")
    story.answer("q2", TWO, "a")
    story.add("closed")
    story.correct("q1", ONE, "3", number=1)
    [found] = stale_in(story.events, RECORDS)
    assert found.answers == (("q1", ONE),)


def test_what_the_environment_said_is_the_same_whatever_the_checkpoint():
    story = Story()
    for number, checkpoint in ((1, "c0"), (2, "c1")):
        story.put(f"q{number}", row=number, column=0)
        story.ask(f"q{number}", ONE, "f(a)", "b", by="environment", checkpoint=checkpoint)
        story.answer(f"q{number}", ONE, "b")
    story.add("closed")
    story.correct("q1", ONE, "c", number=1)
    [found] = stale_in(story.events, RECORDS)
    assert found.rows == (Row(1, 1, 0), Row(1, 2, 0))


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["answer", "decide", "correct", "closed"]),
        st.sampled_from(["q1", "q2"]),
        st.sampled_from([ONE, TWO, THREE]),
        st.sampled_from("abc"),
    ),
    max_size=14,
)


@settings(max_examples=300)
@given(CHANGES)
@example(
    [
        *[("answer", "q1", who, said) for who, said in ((ONE, "a"), (TWO, "b"), (THREE, "b"))],
        ("closed", "q1", ONE, "a"),
        ("correct", "q1", THREE, "a"),
    ]
)
def test_rows_are_stale_exactly_where_what_counts_is_not_what_counted_at_closing(changes):
    story, counted = Story(), {}
    for number, item in enumerate(["q1", "q2"]):
        story.put(item, overlap=3, row=number, column=0)
    for what, item, person, text in changes:
        queue = story.queue
        state = queue.items[item]
        if what == "answer" and not counted and person not in state.assignments:
            story.answer(item, person, text)
        elif what == "decide":
            story.decide(item, text)
        elif what == "correct" and person in state.assignments:
            story.correct(item, person, text)
        elif what == "closed":
            story.add("closed")
            counted = {name: answer_of(one) for name, one in queue.items.items()}
    items = story.queue.items
    expected = {items[name].row for name, was in counted.items() if answer_of(items[name]) != was}
    found = stale_in(story.events, RECORDS)
    assert {row.row for one in found for row in one.rows} == expected


@given(st.lists(st.integers(0, 9), max_size=10))
def test_descendants_are_those_whose_line_of_parents_leads_there(parents):
    records = [record(0, None)]
    records += [record(n, p % n) for n, p in enumerate(parents, 1)]

    def line(number: int | None) -> list[int]:
        return [] if number is None else [number, *line(records[number].parent)]

    for number in range(len(records)):
        expected = [one.number for one in records if number in line(one.number)[1:]]
        assert descendants(records, number) == expected


def test_the_log_and_the_records_of_an_experiment_are_read(tmp_path):
    log = Log(tmp_path / "events.sqlite")
    for event in closed().events:
        log.append({k: v for k, v in event._asdict().items() if k not in ("id", "at")})
    for number in range(3):
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        facts = {"parent": {"round": number - 1, "digest": "d"} if number else None}
        (folder / "record.json").write_text(json.dumps(facts))
    assert stale(log, tmp_path) == []
    assert summary([], tmp_path) is None
    log.append(
        {"kind": "adjudicated", "round": 1, "item": "q", "person": "admin", "body": {"answer": "b"}}
    )
    found = stale(log, tmp_path)
    assert [one.rounds for one in found] == [(1, 2)]
    line = summary(found, Path("rounds/people"))
    assert line == (
        "rounds/people: an answer was changed after the round was closed; 1 training row rests on"
        " that, and with them rounds 1 and 2; see /admin/stale of:"
        f" {command('serve', 'rounds/people')}; to make the data again:"
        f" {command('round', 'rounds/people', '--n', 1, '--redo', 'data')}"
    )
    (tmp_path / "001" / "record.json").write_text("{")
    with pytest.raises(AmplifyError, match=r"001/record\.json: damaged record"):
        read_records(tmp_path)
