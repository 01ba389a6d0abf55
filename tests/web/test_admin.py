import html
import json
import re
import shutil
from urllib.parse import urlencode

import hypothesis
import pytest
from hypothesis import strategies as st

from amplify.people.items import answer_of
from amplify.people.log import Log
from amplify.people.roster import Roster
from amplify.people.rules import Queue
from tests.web.experiment import CARELESS, PEOPLE, SCRIPT, START, make_experiment
from tests.web.rounds import Browser, Clock, served, text_of
from tests.web.test_schema import OPERATIONS

PAGES = (
    "/admin",
    "/admin/people",
    "/admin/disagreements",
    "/admin/disagreements/1-2-0",
    "/admin/answers",
    "/admin/answers/1-2-0",
    "/admin/trees",
    "/admin/trees/1-24-1",
    "/admin/rests-on",
    "/admin/uplift",
    "/admin/stale",
    "/admin/set-aside",
)
FORMS = ("adjudicate", "correct", "withdraw")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("made") / "rivers")


@pytest.fixture
def folder(made, tmp_path):
    """A copy, for each test to change."""
    return shutil.copytree(made, tmp_path / "rivers")


@pytest.fixture
def client(folder):
    with served(folder, clock=Clock(START + 700)) as client:
        yield client


@pytest.fixture
def admin(folder, client):
    return Browser(client, Roster(folder).admin())


def opened(browser, path):
    response = browser.get(path)
    assert response.status_code == 200, response.text
    return response.text


def state(folder):
    log = Log(folder / "events.sqlite")
    try:
        return Queue(log.since())
    finally:
        log.close()


def send(browser, page, form, number=0, **values):
    """The form of this kind on a page, that of so many after the first."""
    found = re.findall(rf'<form method="post" action="([^"]*/{form})">(.*?)</form>', page, re.S)
    action, inside = found[number]
    fields = dict(re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', inside))
    hidden = {name: html.unescape(value) for name, value in fields.items()}
    return browser.post(html.unescape(action), {**hidden, **values})


# Who may come in


@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_for_the_admin_and_for_nobody_else(folder, client, admin, path):
    page = opened(admin, path)
    assert page.count("<h1") == 1
    [member] = Roster(folder).invite([""], START)
    for browser in (Browser(client, member), Browser(client)):
        refused = browser.get(path)
        assert refused.status_code == 403
        assert "question 2" not in refused.text
        assert CARELESS not in refused.text


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_decided_by_anybody_else_or_by_a_form_of_another_page(
    folder, client, admin, form
):
    path, last = f"/admin/answers/1-2-0/{form}", state(folder).last
    values = {"answer": "x", "reason": "x", "person": PEOPLE[0]}
    assert admin.post(path, {**values, "csrf": "wrong"}).status_code == 403
    assert admin.post(path, values).status_code == 403
    [member] = Roster(folder).invite([""], START)
    person = Browser(client, member)
    token = re.search(r'name="csrf" value="(\w+)"', opened(person, "/answer"))
    last = state(folder).last  # a question was taken
    assert token
    assert person.post(path, {**values, "csrf": token[1]}).status_code == 403
    assert state(folder).last == last


# What is shown


def test_rounds_show_progress_comparison_and_ledger(admin):
    said = text_of(opened(admin, "/admin"))
    assert "Round 3 is being answered" in said
    assert "20 of 24 questions, and 0 of 1 check complete" in said
    assert "✓ promoted" in said
    assert "+20.0 +14.0 to +26.0" in said
    assert "2 changes made after a round was closed" in said
    assert re.search(r"up to 2 6 144 \d+ min \+\d", said)


def test_rounds_show_every_measure_that_evals_have_in_the_words_of_its_declaration(folder, admin):
    path = folder / "001/evals.jsonl"
    rows = [json.loads(line) | {"jury<": 0.25} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = opened(admin, "/admin")
    columns = re.findall(r'<th scope="col">([^<]*)</th>', page)
    assert columns[:7] == ["round", "from", "verdict", "alone", "amplified", "jury&lt;", "change"]
    said = text_of(page)
    assert "25.0 " in said
    assert "Held-out questions that the overseer answers correctly, asking this assistant" in said
    assert "For each percentage point of the gate's measure, alone, gained over the round" in said


def test_rounds_keep_themselves_up_to_date_by_a_part_of_the_page(folder, admin):
    part = admin.get("/admin", **{"HX-Request": "true"}).text
    assert part.startswith('<div id="live" hx-get="/admin" hx-trigger="every 3s"')
    assert "<html" not in part
    log = Log(folder / "events.sqlite", Clock(START + 699))
    told = {"round": 3, "item": "3-23-0", "person": PEOPLE[0]}
    log.append({**told, "kind": "submitted", "body": {"answer": "Arle"}})
    before = re.search(r"answers per minute ([\d.]+)", text_of(part))
    after = re.search(
        r"answers per minute ([\d.]+)", text_of(admin.get("/admin", **{"HX-Request": "true"}).text)
    )
    log.close()
    assert before
    assert after
    assert float(after[1]) >= float(before[1])


def test_an_experiment_without_anything_says_so_on_every_page(tmp_path):
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty") as client:
        admin = Browser(client, Roster(tmp_path / "empty").admin())
        for path, said in (
            ("/admin", "No question has been put up yet"),
            ("/admin/people", "Nobody has answered anything yet"),
            ("/admin/disagreements", "No question has different answers"),
            ("/admin/answers", "No question"),
            ("/admin/trees", "No tree"),
            ("/admin/uplift", "There is no trial yet"),
            ("/admin/stale", "Nothing"),
        ):
            assert said in text_of(opened(admin, path)), path


def test_people_are_shown_with_agreement_and_who_is_careless_first(admin):
    said = text_of(opened(admin, "/admin/people"))
    assert re.search(
        r"Krippendorff's alpha 0\.\d\d \(0\.\d\d to 0\.\d\d\), over 68 questions", said
    )
    assert said.index(f"{CARELESS} careless?") < said.index(PEOPLE[0])
    assert said.count("careless?") == 2  # in the table, and where it is explained
    assert "of round" not in text_of(opened(admin, "/admin/people?round=1"))


def test_disagreements_are_shown_without_names_in_an_order_that_does_not_change(folder, admin):
    page = opened(admin, "/admin/disagreements/1-2-0")
    main = page[page.index("<main") :]
    assert "person-0" not in main
    assert "the Pastun Water" in main or "Water" in main
    assert page.count("This one is right</button>") == 2
    sides = re.findall(r'name="answer" value="(\w+)"', main)
    again = opened(admin, "/admin/disagreements/1-2-0")
    assert re.findall(r'name="answer" value="(\w+)"', again) == sides


def test_the_first_side_is_not_always_that_of_most_people(folder, admin):
    queue, firsts = state(folder), []
    listed = opened(admin, "/admin/disagreements")
    for item in dict.fromkeys(re.findall(r"/admin/disagreements/([\d-]+)", listed)):
        page = opened(admin, f"/admin/disagreements/{item}")
        [first, *_] = re.findall(r'name="answer" value="(\w+)"', page)
        firsts.append(first == answer_of(queue.items[item]))
    assert 0.25 < sum(firsts) / len(firsts) < 0.75


def test_where_nobody_disagrees_there_is_nothing_to_decide(admin):
    assert admin.get("/admin/disagreements/none").status_code == 404
    assert admin.get("/admin/answers/none").status_code == 404
    assert admin.get("/admin/trees/1-999-0").status_code == 404


def test_trees_are_searched_filtered_and_turned_over(admin):
    said = text_of(opened(admin, "/admin/trees"))
    assert "1\N{EN DASH}25 of 52 trees" in said
    assert "26\N{EN DASH}50 of 52 trees" in text_of(opened(admin, "/admin/trees?page=1"))
    assert "No tree" in text_of(opened(admin, "/admin/trees?page=9&text=nothing+of+the+kind"))
    found = text_of(opened(admin, "/admin/trees?text=whence&right=right&by=overseer&round=2"))
    assert "1\N{EN DASH}2 of 2 trees" in found
    assert "round 2, row 24, question 1" in found
    assert "helped by round 1's checkpoint" in found
    assert 'rel="next"' not in opened(admin, "/admin/trees?label=1+hop")  # 24 of them
    right = opened(admin, "/admin/trees?right=right")
    onward = re.search(r'href="(/admin/trees\?[^"]*)" rel="next"', right)
    assert onward
    assert "right=right" in onward[1]
    assert "26\N{EN DASH}" in text_of(opened(admin, html.unescape(onward[1])))


def test_what_models_and_people_wrote_is_escaped(folder, admin):
    page = opened(admin, "/admin/trees/1-24-1")
    assert SCRIPT not in page
    assert html.escape(SCRIPT, quote=True) in page or "&lt;script&gt;" in page
    send(admin, opened(admin, "/admin/answers/1-2-0"), "adjudicate", answer=SCRIPT)
    for path in PAGES:
        assert SCRIPT not in opened(admin, path)


def test_every_page_of_the_admin_has_a_title_of_its_own_that_names_the_experiment(folder, admin):
    titles = [re.search("<title>(.*)</title>", opened(admin, path))[1] for path in PAGES]
    assert len(set(titles)) == len(PAGES)
    assert {title.rpartition(" · ")[2] for title in titles} == {folder.name}


def test_an_answer_leads_to_all_rows_that_rest_on_it_and_a_row_to_its_tree(folder, admin):
    page = opened(admin, "/admin/answers/1-2-0")
    tree = re.search(r'href="(/admin/trees/1-2-0)"', page)
    assert tree
    assert "everything about this answer" in opened(admin, tree[1])
    rests = re.search(r'href="(/admin/rests-on\?question=[^"]*)"', page)
    assert rests
    by_words = opened(admin, html.unescape(rests[1]))
    event = re.search(r'href="(/admin/rests-on\?event=\d+)"', page)
    assert event
    by_event = opened(admin, event[1])
    for found in (by_words, by_event):
        assert "/admin/trees/1-2-0" in found
        assert "/admin/trees/1-3-0" in found  # was told the same
    submitted = state(folder).items["1-1-0"].submissions
    final = opened(admin, f"/admin/rests-on?event={submitted[0].submitted}")
    assert len(re.findall(r'href="/admin/trees/[\d-]+"', final)) <= 1


def test_uplift_is_shown_with_an_interval(admin):
    said = text_of(opened(admin, "/admin/uplift"))
    assert re.search(r"time per answer 3\d s 1\d\d answers 4\d s \d\d answers \W\d", said)
    assert "There is no trial" in text_of(opened(admin, "/admin/uplift?round=9"))


def test_what_is_stale_is_listed_with_rows_rounds_and_what_to_do(admin):
    said = text_of(opened(admin, "/admin/stale"))
    assert "2 answers changed after their round was closed" in said
    assert "Nowhere" in said
    assert "Rounds 1, 2, 3" in said
    assert "round 1, row 2, question 0 ; round 1, row 3, question 0" in said
    assert "--n 1 --redo data" in said


# What is decided


def test_a_disagreement_is_decided_and_the_next_is_shown(folder, admin):
    page = opened(admin, "/admin/disagreements/next")
    where = re.search(r"/admin/answers/([\d-]+)/adjudicate", page)
    assert where
    answer = re.search(r'name="answer" value="(\w+)"', page)
    assert answer
    following = send(admin, page, "adjudicate")
    assert f"/admin/answers/{where[1]}/adjudicate" not in following.text
    assert "This one is right" in following.text
    item = state(folder).items[where[1]]
    assert item.adjudicated == answer[1]
    assert item.round == 3  # of the open round first: nothing rests on it yet


def test_none_of_the_answers_may_be_right(folder, admin):
    send(admin, opened(admin, "/admin/disagreements/1-2-0"), "adjudicate", 2, other="the sea")
    assert state(folder).items["1-2-0"].adjudicated == "the sea"
    said = text_of(opened(admin, "/admin/disagreements/1-2-0"))
    assert "Decided: the sea" in said


def test_what_cannot_be_decided_is_said_and_what_was_typed_is_kept(folder, admin):
    last, page = state(folder).last, opened(admin, "/admin/disagreements/1-2-0")
    refused = send(admin, page, "adjudicate", 2, other="x" * 2001)
    assert refused.status_code == 409
    assert "at most 2000 characters" in text_of(refused.text)
    assert "x" * 2001 in refused.text
    empty = send(admin, opened(admin, "/admin/answers/1-2-0"), "withdraw", reason=" ")
    assert empty.status_code == 409
    assert "A reason cannot be empty." in text_of(empty.text)
    assert state(folder).last == last


def test_a_final_answer_is_corrected_and_becomes_stale(folder, admin):
    page = opened(admin, "/admin/answers/2-2-0")
    number = 0
    person = state(folder).items["2-2-0"].submissions[0].person
    said = send(admin, page, "correct", number, answer="Atlantis").text
    item = state(folder).items["2-2-0"]
    corrected = [a for a in item.submissions if a.answer == "Atlantis"]
    assert len(corrected) == 1
    assert corrected[0].said != "Atlantis"
    assert "corrected" in said
    assert person in said


def test_what_the_assistant_said_is_corrected(folder, admin):
    page = opened(admin, "/admin/answers/2-2-0")
    sub = re.findall(r'<input type="hidden" name="number" value="(\d*)">', page)
    said = send(admin, page, "correct", sub.index("1"), answer="no such river").text
    assert "no such river" in said
    assert "no such river" in text_of(opened(admin, "/admin/stale"))


def test_an_item_is_withdrawn(folder, admin):
    said = send(admin, opened(admin, "/admin/answers/3-2-0"), "withdraw", reason="unclear").text
    assert "none: withdrawn" in text_of(said)
    assert state(folder).items["3-2-0"].withdrawn == "unclear"


@pytest.mark.parametrize("form", FORMS)
def test_the_same_form_sent_twice_counts_once(folder, admin, form):
    page, last = opened(admin, "/admin/answers/2-2-0"), state(folder).last
    for _ in range(2):
        sent = send(admin, page, form, answer="Atlantis", reason="unclear")
        assert sent.status_code == 200
    assert state(folder).last == last + 1


def test_a_decision_that_cannot_be_shows_what_was_typed(folder, admin):
    page = opened(admin, "/admin/answers/1-2-0")
    for form, field in (("adjudicate", "answer"), ("withdraw", "reason")):
        response = send(admin, page, form, **{field: "x" * 2001})
        assert response.status_code == 409
        assert "x" * 2001 in response.text
    send(admin, page, "adjudicate", answer="Atlantis")
    response = send(admin, page, "adjudicate", answer="Utopia")
    assert response.status_code == 409
    assert "already sent with other content" in text_of(response.text)
    assert ">Utopia</textarea>" in response.text
    assert state(folder).items["1-2-0"].adjudicated == "Atlantis"


def test_a_decision_is_by_the_admin_and_keeps_what_was_before(folder, admin):
    send(admin, opened(admin, "/admin/answers/2-2-0"), "adjudicate", answer="Atlantis")
    log = Log(folder / "events.sqlite")
    *_, event = log.since()
    log.close()
    assert (event.kind, event.person, event.item) == ("adjudicated", "admin", "2-2-0")
    assert dict(event.body) == {"answer": "Atlantis"}
    assert all(a.answer != "Atlantis" for a in state(folder).items["2-2-0"].submissions)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if " /admin" in name])
def test_whatever_the_admin_sends_is_answered(everything, name):
    admin, operation = everything, OPERATIONS[name]
    csrf = re.search(r'name="csrf" value="(\w+)"', opened(admin, "/admin/answers/1-2-0"))
    assert csrf

    @hypothesis.settings(max_examples=20)
    @hypothesis.given(case=operation.as_strategy(), there=st.booleans())
    def holds(case, there):
        path, body = case.formatted_path, case.body
        if there:
            path = operation.path.replace("{item}", "1-2-0")
            path = re.sub(r"\{\w+\}", "1", path)
            body = {**(body if isinstance(body, dict) else {}), "csrf": csrf[1]}
        if case.method == "GET":
            response = admin.get(f"{path}?{urlencode(case.query or {}, doseq=True)}", follow=False)
        else:
            sent = body if isinstance(body, dict) else {}
            response = admin.post(path, sent, follow=False)
        assert response.status_code < 500, response.text
        assert response.status_code in (200, 303) or 'id="problem"' in response.text

    holds()


@pytest.fixture(scope="module")
def everything(made, tmp_path_factory):
    folder = shutil.copytree(made, tmp_path_factory.mktemp("sent") / "rivers")
    clock = Clock(START + 700)

    def running():
        clock.now += 0.1
        return clock.now

    with served(folder, clock=running) as client:
        yield Browser(client, Roster(folder).admin())


def test_a_damaged_file_is_named_on_the_terminal_and_not_on_the_page(folder, client, admin, caplog):
    (folder / "001" / "interactions.jsonl").write_text("{")
    response = admin.get("/admin/trees")
    assert response.status_code == 503
    assert "interactions.jsonl: damaged" in caplog.text


def test_time_of_simulated_people_is_called_so(folder, admin):
    assert "simulated people" not in text_of(opened(admin, "/admin"))
    Roster(folder).invite([""], START, simulated=True)
    assert text_of(opened(admin, "/admin")).count("simulated people's time") == 2
