"""What a person does, in a real browser with a real web process: by mouse, by keyboard alone, on a
phone, and without javascript.
"""

import contextlib
import os
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.web.processes import browser, chromium, server
from tests.web.rounds import ITEMS, append, assistant, events, invited, item, put_up
from tests.web.screenshots import DEVICES, PHONE, ask_for_a_check, mark, pages, second_of_two

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None and "CI" not in os.environ, reason="there is no chromium here"
    ),
]


@pytest.fixture(scope="module")
def chrome():
    with browser() as there:
        yield there


@pytest.fixture
def place(tmp_path):
    """A folder, its web process's address, and an assistant that answers."""
    folder = put_up(tmp_path)
    with server(folder) as (address, _), assistant(folder):
        yield folder, address


@contextlib.contextmanager
def opened(chrome, folder, address, **options):
    """A person's page. Nothing may break the content security policy, or fail in a script."""
    faults = []
    context = chrome.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.extend(_faults(message)))
    page.goto(f"{address}/in/{invited(folder)[0].token}")
    yield page
    context.close()
    assert faults == []


def _faults(message):
    """What a browser complains of, but for refusals, which are answers like others."""
    refusals = ("status of 4", "Response Status Error Code 4")
    is_fault = message.type == "error" and not any(text in message.text for text in refusals)
    return [message.text] if is_fault else []


def submitted(folder):
    return [(e.item, e.body["answer"]) for e in events(folder, "submitted")]


def test_by_mouse_a_person_asks_expands_undoes_skips_and_submits(chrome, place):
    folder, address = place
    with opened(chrome, folder, address) as page:
        page.get_by_label("Ask the assistant").fill("Which river flows through Arle?")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.get_by_text("87 % sure", exact=True)).to_be_visible()
        expect(page.locator("#ask-text")).to_have_value("")
        expect(page.get_by_text("2 of 3 questions left")).to_be_visible()

        expand = page.get_by_role("button", name="Expand on answer 1")
        expand.click()
        expect(page.get_by_text("How this was answered")).to_be_visible()
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_text("How this was answered")).to_have_count(0)

        told = page.locator("[data-number='1'] .told").bounding_box()
        page.mouse.move(told["x"] + 1, told["y"] + told["height"] / 2)
        page.mouse.down()
        page.mouse.move(told["x"] + 45, told["y"] + told["height"] / 2, steps=5)
        page.mouse.up()
        part = page.evaluate("getSelection().toString().trim()")
        assert part
        assert part in "the Tamble, near Arle"
        expand.click()
        expect(page.get_by_text(f"about “{part}”", exact=True)).to_be_visible()
        expect(page.locator(".exchange .exchange[data-state=answered]")).to_be_visible()

        page.get_by_label("Your answer").fill("the Osk")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("Submitted.")).to_be_visible()
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_label("Your answer")).to_have_value("the Osk")
        page.get_by_label("Your answer").fill("the Tamble")
        page.get_by_role("button", name="Submit").click()
        page.get_by_text("don't know").click()
        expect(page.get_by_role("radio", name="don't know")).to_be_checked()
        page.get_by_text("Skip this question").click()
        page.get_by_label("Why?").fill("I cannot find out")
        page.get_by_role("button", name="Skip", exact=True).click()
        expect(page.get_by_text("Nothing to do right now")).to_be_visible()
    assert submitted(folder) == [("kettle", "the Osk"), ("kettle", "the Tamble")]
    assert [e.body["reason"] for e in events(folder, "skipped")] == ["I cannot find out"]
    about = [e.body.get("about") for e in events(folder, "asked")]
    assert about == [None, {"number": 1, "part": ""}, {"number": 1, "part": part}]


def test_by_keyboard_alone_a_person_does_the_same(chrome, place):
    folder, address = place
    with opened(chrome, folder, address) as page:
        keys = page.keyboard
        keys.press("?")
        expect(page.locator("#keys")).to_be_visible()
        keys.press("?")
        expect(page.locator("#keys")).to_be_hidden()

        keys.press("a")
        keys.type("Which river flows through Arle?")
        keys.press("Enter")
        expect(page.get_by_text("87 % sure", exact=True)).to_be_visible()
        expect(page.locator("#ask-text")).to_be_focused()
        expect(page.locator("#news")).to_have_text("the Tamble, near Arle 87 % sure")
        keys.type("se")  # letters are no keys while one types
        expect(page.locator("#ask-text")).to_have_value("se")
        keys.press("Escape")

        keys.press("e")
        expect(page.get_by_text("How this was answered")).to_be_visible()
        keys.press("u")
        expect(page.get_by_text("How this was answered")).to_have_count(0)
        expect(page.locator("#ask-text")).to_have_value("se")

        expand = page.get_by_role("button", name="Expand on answer 1")
        for _ in range(20):  # a part is typed where no mouse can mark it
            keys.press("Tab")
            if expand.evaluate("button => button === document.activeElement"):
                break
        keys.press("Tab")
        keys.type("Arle")
        keys.press("Enter")
        expect(page.get_by_text("about “Arle”", exact=True)).to_be_visible()
        expect(page.locator(".exchange .exchange[data-state=answered]")).to_be_visible()
        keys.press("Escape")

        keys.press("f")
        keys.type("the Tamble")
        keys.press("Control+Enter")
        expect(page.get_by_text("Submitted.")).to_be_visible()
        expect(page.locator("#heading")).to_be_focused()
        keys.press("u")
        expect(page.get_by_label("Your answer")).to_have_value("the Tamble")
        keys.press("Control+Enter")
        expect(page.locator(".choice")).to_have_count(3)
        keys.press("3")
        keys.press("2")
        keys.press("s")
        keys.type("I do not know")
        keys.press("Enter")
        expect(page.get_by_text("Nothing to do right now")).to_be_visible()
        keys.press("u")
        expect(page.get_by_role("radio", name="no", exact=True)).to_be_checked()
        keys.press("Control+Enter")
        expect(page.get_by_text("Nothing to do right now")).to_be_visible()
    assert submitted(folder) == [*[("kettle", "the Tamble")] * 2, ("lantern", "no")]
    about = [e.body.get("about") for e in events(folder, "asked")]
    assert about == [None, {"number": 1, "part": ""}, {"number": 1, "part": "Arle"}]


def test_what_is_marked_is_expanded_on_by_key(chrome, place):
    folder, address = place
    with opened(chrome, folder, address) as page:
        page.locator("#ask-text").fill("Which river flows through Arle?")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_text("An answer cannot be empty.")).to_be_visible()
        page.locator("#ask-text").press("Enter")
        expect(page.get_by_text("87 % sure", exact=True)).to_be_visible()
        expect(page.locator("#problem")).to_have_count(0)
        page.keyboard.press("Escape")
        mark(page, 1, 0, 3)
        part = page.get_by_label("Part of answer 1 to expand on")
        expect(part).to_have_value("the")
        page.locator("#question").click()
        expect(part).to_have_value("")
        mark(page, 1, 4, 10)
        page.keyboard.press("e")
        expect(page.get_by_text("about “Tamble”", exact=True)).to_be_visible()


def test_what_is_typed_stays_while_answers_come_and_is_kept_as_a_draft(chrome, place):
    folder, address = place
    with opened(chrome, folder, address) as page:
        page.get_by_label("Your answer").fill("perhaps")
        page.locator("#ask-text").fill("Which river flows through Arle?")
        page.locator("#ask-text").press("Enter")
        page.get_by_label("Your answer").press_sequentially(" the Tamble", delay=30)
        expect(page.get_by_text("87 % sure", exact=True)).to_be_visible()
        expect(page.get_by_label("Your answer")).to_have_value("perhaps the Tamble")
        expect(page.get_by_text("draft saved")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Your answer")).to_have_value("perhaps the Tamble")
        page.get_by_label("Your answer").fill("the last word")
        page.goto("about:blank")  # at once: nothing has been kept yet
        until = time.monotonic() + 5
        while events(folder, "draft")[-1].body["text"] != "the last word":
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_form_that_was_just_shown_does_what_it_does_later(chrome, place):
    """Forms work from the moment that they are shown: one that is not yet htmx's would open the
    whole page again, without what was typed.
    """
    folder, address = place
    with opened(chrome, folder, address) as page:
        page.locator("#ask-text").fill("Which river flows through Arle?")
        page.keyboard.press("Enter")
        expect(page.get_by_text("87 % sure", exact=True)).to_be_visible()
        page.locator("#ask-text").fill("se")
        page.evaluate("""() => {
          addEventListener("htmx:oobAfterSwap", () => setTimeout(() => {
            document.querySelector("#undo").requestSubmit();
          }), { once: true });
        }""")
        with page.expect_response("**/undo"):
            page.get_by_role("button", name="Expand on answer 1").click()
        expect(page.locator("[data-number='2']")).to_have_count(0)
        expect(page.locator("#ask-text")).to_have_value("se")
    assert len(events(folder, "undone")) == 1


def test_attention_is_measured_and_sent_once(chrome, place):
    folder, address = place
    with opened(chrome, folder, address) as page:
        began = time.monotonic()
        for _ in range(5):
            page.mouse.move(100, 100)
            page.wait_for_timeout(300)
            page.mouse.move(200, 200)
        page.get_by_label("Your answer").fill("the Tamble")
        expect(page.get_by_text("draft saved")).to_be_visible()
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("Submitted.")).to_be_visible()
        passed = time.monotonic() - began
    said = sum(event.seconds for event in events(folder, "draft", "submitted"))
    assert 1.4 < said < passed + 0.2


def test_without_a_connection_nothing_typed_is_lost(chrome, tmp_path):
    folder = put_up(tmp_path)
    with server(folder) as (address, process):
        context = chrome.new_context()
        page = context.new_page()
        page.goto(f"{address}/in/{invited(folder)[0].token}")
        process.kill()
        process.wait()
        page.get_by_label("Your answer").fill("the Tamble")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("There is no connection.")).to_be_visible()
        expect(page.get_by_label("Your answer")).to_have_value("the Tamble")
        context.close()


def test_new_work_shows_itself(chrome, place):
    folder, address = place
    with opened(chrome, folder, address) as page:
        page.get_by_label("Your answer").fill("the Tamble")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".choice")).to_have_count(3)
        page.keyboard.press("1")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_text("Nothing to do right now")).to_be_visible()
        append(folder, item("new", "Which is the last river?"))
        expect(page.get_by_text("Which is the last river?")).to_be_visible()


def test_answers_that_are_numbers_are_chosen_by_typing_them(chrome, tmp_path):
    choices = [f"{n:+d}" if n else "0" for n in range(-16, 17)]
    folder = put_up(tmp_path, item("sum", "How much is it?", choices=choices))
    with server(folder) as (address, _), opened(chrome, folder, address) as page:
        chosen = page.locator("#submit input:checked")
        for keys, choice in [("12", "+12"), ("-3", "-3"), ("-16", "-16"), ("0", "0"), ("+5", "+5")]:
            for key in keys:
                page.keyboard.press(key)
            expect(chosen).to_have_value(choice)
            page.evaluate("lastDigit = 0")  # as if a while had passed
        page.keyboard.press("1")
        page.keyboard.press("9")  # there is no 19: another number begins
        expect(chosen).to_have_value("+9")
        assert page.locator(".choice kbd").count() == 0


def test_without_javascript_the_forms_do_all_the_same(chrome, place):
    folder, address = place
    with opened(chrome, folder, address, java_script_enabled=False) as page:
        page.get_by_label("Your answer").fill("perhaps the T")
        page.get_by_role("button", name="Keep as a draft").click()
        page.locator("#ask-text").fill("Which river flows through Arle?")
        page.locator("#ask-text").press("Enter")
        for _ in range(50):
            if page.get_by_text("87 % sure", exact=True).count():
                break
            page.get_by_role("link", name="Look for the answer").click()
        part = page.get_by_label("Part of answer 1 to expand on")
        expect(part).to_be_visible()
        part.fill("Arle")
        page.get_by_role("button", name="Expand on answer 1").click()
        # While it is asked, the question says it; once it is answered, a line above says it, too.
        expect(page.get_by_text("about “Arle”").first).to_be_visible()
        expect(page.get_by_label("Your answer")).to_have_value("perhaps the T")
        page.get_by_label("Your answer").fill("the Tamble")
        page.get_by_role("button", name="Submit").click()
        page.get_by_role("button", name="Undo").click()
        page.get_by_role("button", name="Submit").click()
        page.get_by_text("Skip this question").click()
        page.get_by_label("Why?").fill("I cannot find out")
        page.get_by_role("button", name="Skip", exact=True).click()
        expect(page.get_by_text("Nothing to do right now")).to_be_visible()
    assert submitted(folder) == [("kettle", "the Tamble")] * 2


@pytest.mark.parametrize(("device", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_every_page_is_accessible_and_fits(chrome, tmp_path, device, scheme):
    """No serious fault that axe finds, and nothing to scroll sideways."""
    token = second_of_two(tmp_path)
    seen = []
    with server(tmp_path) as (address, _), assistant(tmp_path):
        context = chrome.new_context(**DEVICES[device], color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        for what in pages(page, address, token):
            if what == "choices":
                ask_for_a_check(tmp_path)
            found = Axe().run(page).response["violations"]
            faults = {fault["id"]: fault for fault in found}
            assert not [f for f in faults.values() if f["impact"] in ("serious", "critical")], what
            sideways = "document.documentElement.scrollWidth - innerWidth"
            assert page.evaluate(sideways) <= 0, what
            seen.append(what)
        context.close()
    assert len(seen) == 11


def test_the_longest_words_fit_a_phone(chrome, tmp_path):
    folder = put_up(tmp_path, item("long", "W" * 300, choices=["y" * 200, "no"]))
    with (
        server(folder) as (address, _),
        assistant(folder),
        opened(chrome, folder, address, **PHONE) as page,
    ):
        page.locator("#ask-text").fill("?" * 200)
        page.locator("#ask-text").press("Enter")
        expect(page.get_by_text("87 % sure", exact=True)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_pages_can_be_framed_by_themselves_alone(chrome, tmp_path):
    folder = put_up(tmp_path, *ITEMS)
    with server(folder) as (address, _), opened(chrome, folder, address) as page:
        assert page.evaluate("typeof htmx") == "object"
        assert page.evaluate("htmx.config.allowEval") is False


def test_by_keyboard_alone_a_person_compares_two_answers(chrome, tmp_path):
    """At the widths of a desk and a phone, with long answers on lines of their own."""
    essays = [f"The mill is {how}. The market is {how}. " * 12 for how in ("old", "new")]
    lines = ["Which answer is better?", "Question: write", *map("{}: {}".format, "AB", essays)]
    both = [item(n, "\n".join(lines), budget=0, choices=["A", "B"]) for n in ("one", "two")]
    folder = put_up(tmp_path, *both)
    with server(folder) as (address, _), opened(chrome, folder, address) as page:
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            expect(page.locator("#question p")).to_have_text(lines)
            assert page.evaluate("document.documentElement.scrollWidth") == width
        expect(page.locator("#ask-text")).to_have_count(0)
        page.keyboard.press("2")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#work")).to_have_attribute("data-item", "two")
        page.keyboard.press("u")
        expect(page.locator("#work")).to_have_attribute("data-item", "one")
        page.keyboard.press("1")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#work")).to_have_attribute("data-item", "two")
    assert submitted(folder) == [("one", "B"), ("one", "A")]
