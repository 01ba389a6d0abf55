"""`python -m tests.web.screenshots OUT`: every page for people, on a desk and a phone, in light and
dark.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page

from amplify.people.roster import Roster
from amplify.web.service import Service
from tests.web.processes import browser, server
from tests.web.rounds import ITEMS, append, assistant, invited, item, put_up

DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DEVICES = {"desktop": DESK, "phone": PHONE}


def pages(page: Page, address: str, token: str) -> Iterator[str]:
    """Goes through what a person sees, and names each page."""
    page.goto(f"{address}/in/{token}")
    yield "question"
    page.fill("#ask-text", "Which river flows through Arle?")
    page.press("#ask-text", "Enter")
    page.wait_for_selector("[data-state=answered]")
    page.get_by_role("button", name="Expand on answer 1").click()
    page.wait_for_selector(".exchange .exchange[data-state=answered]")
    page.fill("#ask-text", "Which of them is crossed by a bridge?")
    page.press("#ask-text", "Enter")
    page.wait_for_selector(":nth-match([data-state=answered], 3)")
    page.fill("#submit textarea", "the Tamble")
    mark(page, 1, 4, 10)
    page.click("details:has-text('Passages that the assistant read') > summary")
    yield "answered"
    page.click("#skipping summary")
    page.fill("#reason", "I cannot find out")
    page.press("#ask-text", "Escape")
    page.locator("#question").click()
    page.keyboard.press("?")
    yield "keys"
    page.keyboard.press("Escape")
    page.click("#submit .main")
    page.wait_for_selector(".choice")
    yield "choices"
    page.click("#submit .main")
    page.wait_for_selector("#problem")
    yield "problem"
    page.click("text=Who told you what")
    yield "before-seen"
    page.click("text=Show me")
    page.wait_for_selector("table")
    yield "seen"
    page.goto(f"{address}/answer")
    page.keyboard.press("2")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Somebody else has answered this")
    yield "review"
    page.fill("#submit textarea", "the Tamble")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#nothing")
    yield "nothing"
    page.goto(f"{address}/items/none/seen")
    yield "not-found"
    page.context.clear_cookies()
    page.goto(f"{address}/in/wrong")
    yield "wrong-link"


def mark(page: Page, number: int, start: int, end: int) -> None:
    """Marks characters of an answer."""
    page.evaluate(
        """([number, start, end]) => {
            const text = document.querySelector(`[data-number="${number}"] .told`).firstChild;
            getSelection().setBaseAndExtent(text, start, text, end);
        }""",
        [number, start, end],
    )


def second_of_two(folder: Path) -> str:
    """A round of which somebody has answered the first question; returns another person's token."""
    put_up(folder, item("bridge", "Over what does the bridge of Osk lead?"))
    first, second = invited(folder, 2)
    service = Service(folder)
    service.do(lambda queue, now: queue.take(first.person, now))
    service.do(lambda queue, now: queue.ask(first.person, "bridge", "What flows through Osk?", now))
    there = {"item": "bridge", "person": first.person}
    told = {"number": 1, "text": "the Tamble", "confidence": 0.6, "by": "assistant"}
    service.log.append({"kind": "told", "round": ITEMS[0]["round"], **there, "body": told})
    service.do(lambda queue, now: queue.submit(first.person, "bridge", "the Tamble", now))
    bridge, town = ITEMS
    service.log.append({**bridge, "body": {**bridge["body"], "budget": 4}}, town)
    service.log.close()
    return second.token


def ask_for_a_check(folder: Path) -> None:
    first = Roster(folder).members()[0].person
    question = "Over what does the bridge of Osk lead?"
    append(folder, item("check", question, budget=0, review_of=["bridge", first]))


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with browser() as there:
        for device, options in DEVICES.items():
            for scheme in ("light", "dark"):
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    token = second_of_two(folder)
                    with server(folder) as (address, _), assistant(folder):
                        page = there.new_page(**options, color_scheme=scheme)
                        for what in pages(page, address, token):
                            if what == "choices":
                                ask_for_a_check(folder)
                            path = out / f"{what}-{device}-{scheme}.png"
                            page.screenshot(path=path, full_page=True)
                        page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
