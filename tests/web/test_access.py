"""Who may do what, and what is said to those who may not."""

import re
import stat

import pytest

from amplify.people.roster import DAY, Roster
from amplify.web.access import BODY, BURST
from tests.web.rounds import (
    START,
    Browser,
    Clock,
    events,
    form_of,
    invited,
    put_up,
    served,
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


ACTS = ("ask", "expand", "submit", "skip", "draft", "seen")


def everything(hidden):
    return {**hidden, "text": "x", "answer": "x", "reason": "x", "number": "1", "part": ""}


def test_a_link_lets_in_and_sends_on(folder, client):
    [member] = invited(folder)
    response = Browser(client).get(f"/in/{member.token}", follow=False)
    assert (response.status_code, response.headers["location"]) == (303, "/answer")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    admin = Browser(client).get(f"/in/{Roster(folder).admin().token}", follow=False)
    assert (admin.status_code, admin.headers["location"]) == (303, "/admin")


@pytest.mark.parametrize("path", ["/answer", "/items/kettle/exchanges", "/items/kettle/seen"])
def test_without_a_link_nothing_is_shown(client, path):
    response = Browser(client).get(path)
    assert response.status_code == 403
    assert "Open the link that you were sent" in response.text
    assert "Rivers" not in response.text


@pytest.mark.parametrize("path", [*(f"/items/kettle/{act}" for act in ACTS), "/undo"])
def test_without_a_link_nothing_can_be_done(folder, client, path):
    assert Browser(client).post(path, everything({})).status_code == 403
    assert not events(folder, "asked", "submitted", "skipped", "draft", "undone", "seen")


def test_a_wrong_link_says_what_to_do(client):
    response = Browser(client).get("/in/wrong")
    assert response.status_code == 403
    assert "This link is not valid; check that it is whole, or ask for a new one." in response.text
    assert "set-cookie" not in response.headers


def test_an_expired_link_ends_its_sessions(folder, client, clock):
    browser = Browser(client, invited(folder)[0])
    browser.open()
    clock.now += 31 * DAY
    for path in ("/answer", f"/in/{browser.member.token}"):
        response = browser.get(path)
        assert response.status_code == 403
        assert "This link has expired; ask whoever sent it for a new one." in response.text


def test_a_revoked_link_ends_its_sessions(folder, client):
    browser = Browser(client, invited(folder)[0])
    Roster(folder).revoke(browser.member.person)
    assert browser.get("/answer").status_code == 403


def test_a_person_opens_their_own_items_only(folder, client):
    mine, other = (Browser(client, member) for member in invited(folder, 2))
    mine.open()
    other.open()
    _, hidden = form_of(other.page, "submit")
    for act in ACTS:
        response = other.post(f"/items/kettle/{act}", everything(hidden))
        assert response.status_code == 404, act
        assert "This is not one of your questions." in response.text
    for page in ("exchanges", "seen"):
        assert other.get(f"/items/kettle/{page}").status_code == 404
        assert other.get(f"/items/nowhere/{page}").status_code == 404
    assert not events(folder, "asked", "submitted", "skipped", "draft", "seen")


@pytest.mark.parametrize("path", [*(f"/items/kettle/{act}" for act in ACTS), "/undo"])
@pytest.mark.parametrize("csrf", ["", "0" * 64, "é"])
def test_a_form_from_elsewhere_does_nothing(folder, client, path, csrf):
    browser = Browser(client, invited(folder)[0])
    browser.open()
    _, hidden = form_of(browser.page, "submit")
    response = browser.post(path, everything({**hidden, "csrf": csrf}))
    assert response.status_code == 403
    assert "This was not sent from a page of yours" in response.text
    assert not events(folder, "asked", "submitted", "skipped", "draft", "undone", "seen")


def test_the_form_of_one_person_is_no_others(folder, client):
    one, other = (Browser(client, member) for member in invited(folder, 2))
    one.open()
    other.open()
    csrf = [form_of(browser.page, "undo")[1]["csrf"] for browser in (one, other)]
    assert csrf[0] != csrf[1]
    assert one.post("/undo", {"csrf": csrf[1]}).status_code == 403


def test_whoever_runs_the_experiment_does_not_answer(folder, client):
    admin = Browser(client, Roster(folder).admin())
    response = admin.get("/answer")
    assert response.status_code == 403
    assert "at /admin" in response.text


def test_sessions_outlive_the_process(folder, client, clock):
    browser = Browser(client, invited(folder)[0])
    page = browser.open()
    with served(folder, clock=clock) as again:
        browser.client = again
        browser.page = page
        assert browser.send("submit", answer="the Tamble").status_code == 200
    secret = folder / "people" / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert len(secret.read_bytes()) == 32
    assert sorted(path.name for path in secret.parent.glob(".secret*")) == []


def test_too_many_requests_of_one_person_are_held_back_and_nobody_elses(folder, client, clock):
    hasty, other = (Browser(client, member) for member in invited(folder, 2))
    codes = [hasty.get("/items/nowhere/seen").status_code for _ in range(int(BURST) + 1)]
    assert codes == [404] * int(BURST) + [429]
    response = hasty.get("/answer")
    assert response.status_code == 429
    assert response.headers["retry-after"] == "5"
    assert "wait a few seconds" in response.text
    other.open()
    clock.now += 1
    hasty.open()


def test_tokens_cannot_be_tried_without_end(client):
    stranger = Browser(client)
    codes = {stranger.get(f"/in/{n}").status_code for n in range(int(BURST) + 1)}
    assert codes == {403, 429}


def test_what_is_too_long_is_not_read(folder, client):
    browser = Browser(client, invited(folder)[0])
    browser.open()
    response = browser.send("submit", answer="x" * BODY)
    assert response.status_code == 413
    assert "too long to be sent" in response.text

    def endless():
        for _ in range(100):
            yield b"x" * BODY

    kind = {"content-type": "application/x-www-form-urlencoded"}
    response = client.post("/undo", content=endless(), headers=kind)
    assert response.status_code in (400, 413)


PATHS = ["/answer", "/items/nowhere/seen", "/nowhere", "/in/wrong", "/healthz", "/static/style.css",
         "/static/", "/in/"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_what_browsers_need_to_know(folder, client, path):
    headers = Browser(client, invited(folder)[0]).get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer", "links are secrets"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    expected = "max-age=86400" if path.startswith("/static/") else "no-store"
    assert headers["cache-control"] == expected


def test_pages_have_no_script_or_style_of_their_own(folder, client):
    browser = Browser(client, invited(folder)[0])
    pages = [browser.open(), browser.get("/in/wrong").text, browser.get("/items/x/seen").text]
    for page in pages:
        assert not re.search(r"<style|style=|<script(?! src=)|\son\w+=|javascript:|hx-on", page)
        assert not re.search(r"""(src|href|action)=["'](https?:)?//""", page)


def test_what_breaks_is_said_in_plain_words_and_with_the_same_headers(folder, client, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret detail")

    browser = Browser(client, invited(folder)[0])
    monkeypatch.setattr("amplify.web.answer_page._in_hand", broken)
    response = browser.get("/answer")
    assert response.status_code == 500
    assert "what you typed is still in the box" in response.text
    assert "secret detail" not in response.text
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_damaged_list_of_links_is_told_to_whoever_can_mend_it(folder, client, caplog):
    browser = Browser(client, invited(folder)[0])
    (folder / "people" / "tokens.json").write_text("[{")
    response = browser.get("/answer")
    assert response.status_code == 503
    assert "tokens.json" not in response.text
    assert "tokens.json: damaged" in caplog.text


@pytest.mark.parametrize(
    "path", ["/static/", "/static", "/static/../access.py", "/static/%2e%2e/access.py", "/people/",
             "/events.sqlite", "/docs", "/openapi.json"],
)  # fmt: skip
def test_nothing_else_is_served(folder, client, path):
    response = Browser(client, invited(folder)[0]).get(path)
    assert response.status_code == 404
    assert "There is no such page." in text_of(response.text)


def test_shared_pages_can_be_framed_by_colab_and_still_need_the_link(folder):
    with served(folder, share=True) as client:
        assert Browser(client).get("/answer").status_code == 403
        [member] = invited(folder)
        response = Browser(client).get(f"/in/{member.token}", follow=False)
        plain, framed = response.headers.get_list("set-cookie")
        assert "SameSite=Lax" in plain
        assert "SameSite=None; Secure; Partitioned" in framed
        policy = response.headers["content-security-policy"]
        assert "frame-ancestors 'self' https://colab.research.google.com" in policy
        assert "x-frame-options" not in response.headers
        for cookie in (plain, framed):
            alone = Browser(client)
            name, value = cookie.split(";")[0].split("=")
            alone.cookies = {name: value}
            assert "Which river" in alone.open()


def test_two_experiments_on_one_computer_do_not_end_each_others_sessions(folder, client, tmp_path):
    other = put_up(tmp_path / "other")
    with served(other) as second:
        names = [
            Browser(client, invited(folder)[0]).cookies.keys(),
            Browser(second, invited(other)[0]).cookies.keys(),
        ]
    assert names[0].isdisjoint(names[1])


def test_simulated_people_and_their_clock_start(folder):
    """The test clock is the one that links expire by."""
    assert invited(folder)[0].expires == START + 30 * DAY
