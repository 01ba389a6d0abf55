"""What a person can do, without javascript: each page and each rule."""

import json
import os
import re
import threading
import time

import pytest

from amplify.people.roster import Roster
from amplify.people.rules import LONGEST
from tests.web.rounds import (
    DIGEST,
    ITEMS,
    ROUND,
    START,
    Browser,
    Clock,
    append,
    events,
    form_of,
    invited,
    item,
    put_up,
    served,
    tell,
    text_of,
)


@pytest.fixture
def folder(tmp_path):
    return put_up(tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(folder, clock):
    with served(folder, clock=clock) as client:
        yield client


@pytest.fixture
def browser(folder, client):
    """Of a person with the first question in hand."""
    there = Browser(client, invited(folder)[0])
    there.open()
    return there


def service(client):
    return client.app.state.service


def test_a_person_asks_expands_and_submits(folder, browser):
    assert "Which river does the bridge at Arle cross?" in browser.page
    browser.send("ask", text="Which river flows through Arle?")
    assert 'data-state="pending"' in browser.page
    assert tell(folder) == 1
    assert "87 % sure" in browser.open()
    assert "The Tamble flows through Arle." in browser.page
    browser.send("expand")
    assert tell(folder) == 1
    assert "How this was answered" in browser.open()
    browser.send("submit", answer=" the  Tamble ")
    assert "Submitted." in browser.page
    assert "Is Arle larger than Osk?" in browser.page
    [submitted] = events(folder, "submitted")
    assert (submitted.body["answer"], submitted.checkpoint) == ("the Tamble", DIGEST)


def test_an_expansion_is_nested_below_what_it_expands_on(folder, browser):
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder)
    browser.open()
    browser.send("expand", part="Arle")
    tell(folder)
    browser.open()
    inner = re.search(
        r'data-number="1".*<ol class="exchanges">.*data-number="2"', browser.page, re.S
    )
    assert inner
    assert "about “Arle”" in browser.page
    [_, expanded] = events(folder, "asked")
    assert expanded.body["about"] == {"number": 1, "part": "Arle"}


@pytest.mark.parametrize(("by", "said"), [("environment", True), ("overseer", False)])
def test_what_was_looked_up_is_told_from_what_was_thought(folder, browser, by, said):
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder, text="the Tamble", by=by)
    assert ("looked up" in browser.open()) == said


def test_what_is_marked_must_be_part_of_the_answer(folder, browser):
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder)
    browser.open()
    response = browser.send("expand", part="the Nile")
    assert response.status_code == 409
    assert "What is marked is not part of the answer." in response.text


def test_questions_left_are_counted_down_and_then_no_more_can_be_asked(folder, browser):
    for left in (2, 1, 0):
        browser.send("ask", text="Which river flows through Arle?")
        tell(folder)
        assert f"{left} of 3 questions left" in browser.open()
        assert f'data-budget="{left}"' in browser.page
    assert 'class="expand"' not in browser.page
    response = browser.send("ask", text="One more?")
    assert response.status_code == 409
    assert "All 3 questions for the assistant have been asked." in response.text


def test_a_question_that_cannot_be_read_is_explained_and_not_counted(folder, browser):
    browser.send("ask", text="Hm?")
    tell(folder, problem="'Hm?' is no question: such as \"Which river …\"")
    assert 'data-state="problem"' in browser.open()
    assert "'Hm?' is no question" in text_of(browser.page)
    assert "3 of 3 questions left" in browser.page


def test_only_one_question_waits_for_the_assistant(browser):
    browser.send("ask", text="Which river flows through Arle?")
    response = browser.send("ask", text="Which town is on the Osk?")
    assert response.status_code == 409
    assert "has not answered the last question yet" in response.text
    assert 'value="Which town is on the Osk?"' in response.text, "it must still be in the box"


def test_a_choice_is_one_of_those_offered(folder, browser):
    browser.send("submit", answer="the Tamble")
    assert browser.page.count('type="radio"') == 3
    response = browser.send("submit", answer="perhaps")
    assert response.status_code == 409
    assert "An answer must be one of yes, no, don't know." in text_of(response.text)
    browser.send("submit", answer="don't know")
    assert [e.body["answer"] for e in events(folder, "submitted")] == ["the Tamble", "don't know"]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("", "An answer cannot be empty."),
        (" \t\n", "An answer cannot be empty."),
        (
            "x" * (LONGEST + 1),
            f"An answer has at most {LONGEST} characters, this one {LONGEST + 1}.",
        ),
    ],
    ids=["nothing", "blank", "too long"],
)
def test_an_answer_that_is_none_is_refused_and_stays_in_the_box(folder, browser, answer, complaint):
    response = browser.send("submit", answer=answer)
    assert response.status_code == 409
    assert complaint in text_of(response.text)
    assert f">{answer}</textarea>" in response.text
    assert not events(folder, "submitted")


def test_a_form_sent_twice_counts_once(folder, browser):
    first = browser.page
    browser.send("ask", text="Which river flows through Arle?")
    browser.page = first
    assert browser.send("ask", text="Which river flows through Arle?").status_code == 200
    assert len(events(folder, "asked")) == 1
    browser.page = first
    browser.send("submit", answer="the Tamble")
    browser.page = first
    assert browser.send("submit", answer="the Tamble").status_code == 200
    assert len(events(folder, "submitted")) == 1


def test_the_same_answer_from_another_window_changes_nothing(folder, browser):
    first = browser.page
    other = browser.open()
    browser.page = first
    browser.send("submit", answer="the Tamble")
    browser.page = other
    assert browser.send("submit", answer="the Tamble").status_code == 200
    browser.page = other
    response = browser.send("submit", answer="the Osk")
    assert response.status_code == 409
    assert "You have submitted this question already" in response.text
    assert len(events(folder, "submitted")) == 1


@pytest.mark.parametrize(
    ("name", "field", "first", "second"),
    [
        ("ask", "text", "Which river flows through Arle?", "Which river flows through Osk?"),
        ("submit", "answer", "the Tamble", "the Osk"),
        ("skip", "reason", "unclear", "I do not know"),
    ],
)
@pytest.mark.parametrize("htmx", [False, True])
def test_a_form_sent_again_with_something_else_in_it_comes_too_late(
    folder, browser, name, field, first, second, htmx
):
    page, kind = browser.page, {"ask": "asked", "submit": "submitted", "skip": "skipped"}[name]
    browser.send(name, **{field: first})
    browser.page = page
    response = browser.send(name, htmx=htmx, **{field: second})
    assert response.status_code == 409
    assert "already sent with other content" in text_of(response.text)
    if not htmx:  # there it is in the box still
        assert second in response.text
    assert [event.body[field] for event in events(folder, kind)] == [first]
    if name == "submit":
        assert [event.body["text"] for event in events(folder, "draft")] == [second]
    browser.page = page
    assert browser.send(name, **{field: first}).status_code == 200, "the same is no other"
    assert len(events(folder, kind)) == 1


def test_a_request_of_one_person_is_never_taken_for_anothers(folder, client, browser):
    other = Browser(client, invited(folder)[0])
    other.open()
    browser.send("submit", answer="the Tamble", request="1")
    other.send("submit", answer="no", request="1")
    assert len(events(folder, "submitted")) == 2


@pytest.mark.parametrize("name", ["ask", "submit", "skip"])
def test_a_withdrawn_item_takes_nothing_and_what_was_typed_is_kept(folder, browser, name):
    withdrawn = {"kind": "withdrawn", "round": ROUND, "item": "kettle", "body": {"reason": "wrong"}}
    append(folder, withdrawn)
    values = {"ask": "text", "submit": "answer", "skip": "reason"}
    response = browser.send(name, **{values[name]: "the Tamble"})
    assert response.status_code == 409
    assert "This question was withdrawn; what you wrote is kept." in response.text
    assert "the Tamble" in text_of(response.text)
    assert [e.body["text"] for e in events(folder, "draft")] == ["the Tamble"] * (name == "submit")
    assert "Is Arle larger" in browser.open()


def test_a_closed_round_takes_nothing_more(folder, browser):
    browser.send("submit", answer="the Tamble")
    append(folder, {"kind": "closed", "round": ROUND})
    assert "This round has been closed" in browser.send("submit", answer="yes").text
    assert "This round is finished" in browser.open()
    assert "Undo" not in text_of(browser.page)
    assert browser.send("undo").status_code == 409


def test_of_a_withheld_item_nothing_can_be_asked(tmp_path):
    folder = put_up(tmp_path, item("kettle", "Which river?", withheld=True))
    with served(folder) as client:
        browser = Browser(client, invited(folder)[0])
        assert 'data-withheld="true"' in browser.open()
        assert "without the assistant" in browser.page
        assert 'id="ask"' not in browser.page
        _, hidden = form_of(browser.page, "submit")
        response = browser.post("/items/kettle/ask", {**hidden, "text": "Which?"})
        assert response.status_code == 409
        assert "without the assistant's help" in text_of(response.text)


def test_a_reviewer_sees_what_was_told_but_not_what_was_answered_or_by_whom(
    folder, client, browser
):
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder)
    browser.open()
    browser.send("ask", text="Hm?")
    tell(folder, problem="is no question")
    browser.open()
    browser.send("submit", answer="the Secret")
    author = browser.member.person
    review = item("check", "Which river?", budget=0, review_of=["kettle", author])
    append(folder, review)
    other = Browser(client, invited(folder)[0])
    assert 'data-review="true"' in other.open(), "reviews come first"
    assert "87 % sure" in other.page
    assert "Hm?" not in other.page
    assert "the Secret" not in other.page
    assert author not in other.page
    assert not re.search(r'(id|class)="(ask|expand)"', other.page)
    _, hidden = form_of(other.page, "submit")
    assert other.post("/items/check/ask", {**hidden, "text": "Which?"}).status_code == 409
    assert other.post("/items/check/expand", {**hidden, "number": 1}).status_code == 409
    assert 'data-review="false"' in browser.open(), "nobody checks their own answer"
    refused = browser.send("undo")
    assert "Somebody is checking this answer already" in refused.text
    other.send("submit", answer="the Tamble")
    assert events(folder, "submitted")[-1].item == "check"


def test_the_truth_of_an_item_that_checks_people_is_not_shown(tmp_path):
    folder = put_up(tmp_path, item("gold", "Which river?", gold="the Lethe", label="class-9"))
    with served(folder) as client:
        browser = Browser(client, invited(folder)[0])
        pages = [browser.open(), browser.send("submit", answer="the Tamble").text]
        pages.append(browser.get("/items/gold/seen").text)
    for page in pages:
        assert "Lethe" not in page
        assert "class-9" not in page


def test_a_reviewer_too_sees_afterwards_who_told_what(folder, client, browser):
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder)
    browser.open()
    browser.send("submit", answer="the Tamble")
    author = browser.member.person
    append(folder, item("check", "Which river?", budget=0, review_of=["kettle", author]))
    other = Browser(client, invited(folder)[0])
    other.open()
    other.send("submit", answer="the Tamble")
    other.get("/items/check/seen")
    other.post("/items/check/seen", form_of_seen(other.page))
    assert DIGEST[:12] in other.page
    assert author not in other.page


def test_nobody_can_tell_round_or_model_before_they_have_submitted_and_asked_to(folder, browser):
    """On any page up to there; the next test has what they then see."""
    pages = [browser.page]
    pages.append(browser.send("ask", text="Which river flows through Arle?").text)
    tell(folder)
    pages.append(browser.open())
    pages.append(browser.get("/items/kettle/exchanges").text)
    assert browser.get("/items/kettle/seen").status_code == 409
    pages.append(browser.get("/items/kettle/seen").text)
    browser.open()
    pages.append(browser.send("expand").text)
    tell(folder)
    pages.append(browser.open())
    pages.append(browser.send("ask", htmx=True, text="And?").text)
    pages.append(browser.send("submit", answer="the Tamble").text)
    pages.append(browser.get("/items/kettle/seen").text)
    for page in pages:
        assert DIGEST[:8] not in page
        assert str(ROUND) not in page
    assert "can no longer be undone" in pages[-1]


def test_after_submitting_a_person_sees_who_told_them_what_and_their_answer_then_stays(
    folder, browser
):
    trained = json.dumps({"round": 3, "stages": {"checkpoint": {"digest": DIGEST}}})
    (folder / "003").mkdir()
    (folder / "003" / "record.json").write_text(trained)
    (folder / "004").mkdir()
    (folder / "004" / "record.json").write_text("{")
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder)
    browser.open()
    browser.send("submit", answer="the Tamble")
    assert "/items/kettle/seen" in browser.page
    browser.get("/items/kettle/seen")
    action, hidden = re.findall(r'action="(/items.*?)"', browser.page), form_of_seen(browser.page)
    assert browser.post(action[0], hidden).status_code == 200
    said = text_of(browser.page)
    assert f"the assistant of round 3 {DIGEST[:12]}" in said
    assert f"Round {ROUND}" in said
    browser.post(action[0], hidden)
    assert len(events(folder, "seen")) == 1
    browser.open()
    assert "<button" not in form_html(browser.page, "undo")
    response = browser.send("undo")
    assert response.status_code == 409
    assert "You have seen who told you what" in response.text


def form_of_seen(page):
    return dict(re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', page))


def form_html(page, name):
    found = re.search(rf'<form id="{name}".*?</form>', page, re.DOTALL)
    assert found
    return found[0]


def test_everything_can_be_undone_last_first(folder, browser):
    browser.send("ask", text="Which river flows through Arle?")
    tell(folder)
    browser.open()
    browser.send("submit", answer="the Tamble")
    browser.send("skip", reason="I do not know")
    assert 'id="nothing"' in browser.page
    assert "Skipped." in browser.page
    browser.send("undo")
    assert "Is Arle larger than Osk?" in browser.page
    browser.send("undo")
    assert "Which river does the bridge" in browser.page
    assert ">the Tamble</textarea>" in browser.page, "what was submitted is in the box again"
    browser.send("undo")
    assert "Which river flows through" not in browser.page
    assert "2 of 3 questions left" in browser.page, "what was seen counts"
    response = browser.send("undo")
    assert response.status_code == 409
    assert "There is nothing to undo." in response.text
    assert [e.body["what"] for e in events(folder, "undone")] == ["skipped", "submitted", "asked"]


def test_what_is_undone_is_what_the_page_showed(folder, browser):
    browser.send("submit", answer="the Tamble")
    stale = browser.page
    browser.send("ask", text="Which town is larger?")
    browser.page = stale
    response = browser.send("undo")
    assert response.status_code == 409
    assert "You have done something else since" in response.text
    assert not events(folder, "undone")


def test_a_skip_needs_a_reason(folder, browser):
    assert browser.send("skip", reason="  ").status_code == 409
    browser.send("skip", reason="I cannot find out")
    [skipped] = events(folder, "skipped")
    assert skipped.body["reason"] == "I cannot find out"


def test_a_draft_is_there_wherever_the_page_is_opened_next(folder, client, browser):
    _, hidden = form_of(browser.page, "submit")
    response = browser.post("/items/kettle/draft", {**hidden, "text": "perhaps the T"})
    assert (response.status_code, response.text) == (204, "")
    elsewhere = Browser(client, browser.member)
    assert ">perhaps the T</textarea>" in elsewhere.open()
    too_long = {**hidden, "text": "x" * (LONGEST + 1)}
    response = browser.post("/items/kettle/draft", too_long)
    assert response.status_code == 409
    assert f">{too_long['text']}</textarea>" in response.text
    assert browser.send("submit", answer="the Tamble").status_code == 200
    assert len(events(folder, "submitted")) == 1, "the form that kept a draft can still submit"


def test_what_is_typed_is_kept_in_composed_form(folder, browser):
    browser.send("ask", text="Cafe\N{COMBINING ACUTE ACCENT}?")
    browser.send("submit", answer="Zoe\N{COMBINING DIAERESIS}")
    said = [*(e.body["text"] for e in events(folder, "asked")),
            *(e.body["answer"] for e in events(folder, "submitted"))]  # fmt: skip
    assert said == ["Caf\N{LATIN SMALL LETTER E WITH ACUTE}?",
                    "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}"]  # fmt: skip


def test_an_answer_with_nothing_to_see_is_empty(folder, browser):
    for invisible in ("\N{ZERO WIDTH SPACE}", "\N{SOFT HYPHEN}", "\N{IDEOGRAPHIC SPACE}"):
        response = browser.send("submit", answer=invisible)
        assert "An answer cannot be empty." in response.text


def test_what_cannot_be_kept_is_named_and_shown_with_a_replacement(folder, browser):
    response = browser.send("submit", answer="the\vTamble")
    assert response.status_code == 422
    assert "An answer cannot contain the control character U+000B; remove it" in text_of(
        response.text
    )
    assert "the\N{REPLACEMENT CHARACTER}Tamble</textarea>" in response.text
    assert not events(folder, "submitted", "draft")


def test_an_old_draft_that_cannot_be_read_is_shown_with_a_replacement(folder, client, browser):
    facts = {"round": ROUND, "item": "kettle", "person": browser.member.person}
    append(folder, {"kind": "draft", **facts, "body": {"text": "\ud800 hello"}})
    assert ">\N{REPLACEMENT CHARACTER} hello</textarea>" in browser.open()


def test_a_folder_whose_name_is_no_text_has_pages(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with served(folder) as client:
        assert "Nothing to do right now" in Browser(client, invited(folder)[0]).open()


def test_a_chosen_draft_is_chosen_again(browser):
    browser.send("submit", answer="the Tamble")
    _, hidden = form_of(browser.page, "submit")
    browser.post("/items/lantern/draft", {**hidden, "text": "no"})
    assert re.findall(r'value="(.*?)" checked', browser.open()) == ["no"]


def test_once_a_lease_runs_out_the_item_goes_to_somebody_else_and_the_draft_stays(tmp_path, clock):
    folder = put_up(tmp_path, ITEMS[0], lease=600)
    with served(folder, clock=clock) as client:
        away, other = (Browser(client, member) for member in invited(folder, 2))
        away.open()
        assert 'id="nothing"' in other.open(), "somebody has it in hand"
        clock.now += 601
        assert 'data-item="kettle"' in other.open()
        for path, value in (("draft", {"text": "the T"}), ("submit", {"answer": "the Tamble"})):
            _, hidden = form_of(away.page, "submit")
            response = away.post(f"/items/kettle/{path}", {**hidden, **value})
        assert response.status_code == 409
        assert "Your time for this ran out" in response.text
        assert "the Tamble" in text_of(response.text)
        assert [e.body["text"] for e in events(folder, "draft")] == ["the T", "the Tamble"]
        assert 'id="nothing"' in away.open(), "a late draft takes nothing back"
        assert other.send("submit", answer="the Osk").status_code == 200
        assert [e.person for e in events(folder, "submitted")] == [other.member.person]
        other.send("undo")
        other.send("skip", reason="I am not sure")
        assert ">the Tamble</textarea>" in away.open(), "it is free again, with what was typed"


def test_what_is_typed_within_the_lease_renews_it(tmp_path, clock):
    folder = put_up(tmp_path, ITEMS[0], lease=600)
    with served(folder, clock=clock) as client:
        busy, other = (Browser(client, member) for member in invited(folder, 2))
        busy.open()
        for _ in range(3):
            clock.now += 500
            _, hidden = form_of(busy.page, "submit")
            busy.post("/items/kettle/draft", {**hidden, "text": "the T"})
        assert 'id="nothing"' in other.open()


def test_what_cannot_be_taken_comes_back_at_once_with_the_reason(folder, client, browser):
    browser.send("submit", answer="the Tambel")
    facts = {"round": ROUND, "item": "kettle", "person": browser.member.person}
    append(folder, {"kind": "refused", **facts, "body": {"problem": "no such river"}})
    assert "Is Arle larger" in browser.open(), "what is in hand is finished first"
    browser.send("submit", answer="yes")
    assert "Which river" in browser.page
    assert "was not accepted: no such river" in text_of(browser.page)
    assert ">the Tambel</textarea>" in browser.page
    other = Browser(client, invited(folder)[0])
    assert 'id="nothing"' in other.open(), "it is still its author's"
    browser.send("submit", answer="the Tamble")
    assert 'id="nothing"' in browser.page
    assert "You have answered 2." in text_of(browser.page)


def test_attention_is_at_most_what_passed_since_the_last_act(folder, client, clock, browser):
    clock.now += 10
    browser.send("ask", text="Which river flows through Arle?", seconds="7.5")
    clock.now += 10
    browser.send("submit", answer="the Tamble", seconds="99")
    for wrong in ("-3", "nan", "inf"):
        browser.send("undo")
        browser.send("submit", answer="the Tamble", seconds=wrong)
    assert [e.seconds for e in events(folder, "asked", "submitted")] == [7.5, 10, 0, 0, 0]
    assert browser.send("submit", answer="no", seconds="long").status_code == 422


def test_simulated_people_say_how_long_they_would_have_taken(folder, client):
    browser = Browser(client, Roster(folder).invite([""], START, simulated=True)[0])
    browser.open()
    browser.send("submit", answer="the Tamble", seconds="45")
    assert [e.seconds for e in events(folder, "submitted")] == [45]


def test_progress_is_ones_own_and_the_rounds(browser):
    assert "You have answered 0. This round: 0 of 2" in text_of(browser.page)
    browser.send("submit", answer="the Tamble")
    assert "You have answered 1. This round: 1 of 2" in text_of(browser.page)
    browser.send("skip", reason="I do not know")
    assert "You have answered 1. This round: 1 of 2" in text_of(browser.page)


def test_checks_are_not_counted_among_the_questions_of_a_round(folder, client, browser):
    browser.send("submit", answer="the Tamble")
    author = browser.member.person
    append(folder, item("check", "Which river?", budget=0, review_of=["kettle", author]))
    other = Browser(client, invited(folder)[0])
    other.open()
    assert "This round: 1 of 2, and 0 of 1 check" in text_of(other.page)
    other.send("submit", answer="the Tamble")
    assert "You have answered 1. This round: 1 of 2, and 1 of 1 check" in text_of(other.page)


def test_the_guide_is_open_for_beginners_and_within_reach_afterwards(browser):
    assert '<details id="guide" open>' in browser.page
    assert "Ask the assistant for what you need." in browser.page
    browser.send("submit", answer="the Tamble")
    assert '<details id="guide">' in browser.page


def test_before_there_is_a_round_there_is_nothing_to_do(tmp_path):
    with served(tmp_path) as client:
        browser = Browser(client, invited(tmp_path)[0])
        assert "Nothing to do right now" in browser.open()
        assert browser.send("undo").status_code == 409


def test_htmx_is_sent_parts_and_others_pages(folder, browser):
    page = browser.page
    asked = browser.send("ask", htmx=True, text="Which river flows through Arle?")
    assert "<html" not in asked.text
    assert 'id="asking-kettle" hx-swap-oob' in asked.text
    assert "exchanges?after=0" in asked.text
    tell(folder)
    answered = browser.get("/items/kettle/exchanges?after=0", **{"HX-Request": "true"})
    assert 'data-state="answered"' in answered.text
    assert 'id="waiting"' not in answered.text
    browser.page = page
    refused = browser.send("submit", htmx=True, answer="")
    assert refused.status_code == 409
    assert refused.text.strip() == '<p id="problem" role="alert">An answer cannot be empty.</p>'
    submitted = browser.send("submit", htmx=True, answer="the Tamble")
    assert submitted.text.lstrip().startswith('<main id="work" data-item="lantern"')


def test_exchanges_are_sent_as_soon_as_there_is_an_answer(folder, browser):
    browser.send("ask", text="Which river flows through Arle?")
    began = time.monotonic()
    assert 'data-state="pending"' in browser.get("/items/kettle/exchanges").text
    assert 0.9 < time.monotonic() - began < 3
    timer = threading.Timer(0.3, tell, [folder])
    began = time.monotonic()
    timer.start()
    assert 'data-state="answered"' in browser.get("/items/kettle/exchanges").text
    assert time.monotonic() - began < 0.9
    timer.join()
    began = time.monotonic()
    browser.get("/items/kettle/exchanges?after=0")
    assert time.monotonic() - began < 0.5, "what is there already need not be waited for"


def test_everything_that_people_and_models_write_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    told = {
        "text": evil, "question": evil, "by": "overseer", "confidence": 0.5, "passages": [evil],
        "steps": [{"question": evil, "answer": evil, "steps": []}],
    }  # fmt: skip
    folder = put_up(tmp_path, item("one", evil, choices=[evil]), item("<two>", evil))
    append(folder, {"kind": "opened", "round": ROUND,
                    "body": {"lease": 9, "title": evil, "guide": evil}})  # fmt: skip
    with served(folder) as client:
        browser = Browser(client, invited(folder)[0])
        pages = [browser.open(), browser.send("ask", text=evil).text]
        tell(folder, **told)
        pages += [browser.open(), browser.send("expand", part=evil).text]
        tell(folder, problem=evil)
        pages += [browser.open(), browser.send("submit", answer="<script>").text]
        pages += [browser.send("skip", reason="").text, browser.send("submit", answer=evil).text]
        assert 'data-item="&lt;two&gt;"' in browser.page
        pages += [browser.send("ask", text=evil, htmx=True).text]
        pages += [browser.get("/items/one/seen").text, browser.open()]
        pages += [browser.send("submit", answer=evil + "x" * LONGEST).text]
        pages += [browser.send("skip", reason=evil + "x" * LONGEST).text]
    for page in pages:
        assert "<script>" not in page
        assert "&lt;script&gt;" in page or "&#34;" in page
