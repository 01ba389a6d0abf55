"""The pages of whoever runs the experiment in a real browser: what scripts do, and that nobody is
kept out.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from amplify.people.log import Log
from amplify.people.roster import Roster
from amplify.people.trees import write_trees
from tests.web.experiment import PEOPLE, make_experiment
from tests.web.processes import browser, chromium, server
from tests.web.test_admin import PAGES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None and "CI" not in os.environ, reason="there is no chromium here"
    ),
]

GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("browser") / "rivers")


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    with server(folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as there:
        yield there


def opened(chrome: Browser, width: int = 1280, **more: bool) -> Page:
    """A window in which a fault that the browser finds is an error."""
    page = chrome.new_context(viewport={"width": width, "height": 900}, **more).new_page()
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.faults = []
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_has_a_grave_fault_or_is_wider_than_the_window(chrome, folder, address, width):
    page = opened(chrome, width, bypass_csp=True)  # axe is put into the page
    page.goto(f"{address}/in/{Roster(folder).admin().token}")
    for path in PAGES:
        page.goto(address + path)
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in GRAVE] == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.context.close()


def test_rounds_keep_themselves_up_to_date_under_the_pages_own_policy(chrome, folder, address):
    page = opened(chrome)
    page.goto(f"{address}/in/{Roster(folder).admin().token}")
    expect(page.locator("#live")).to_contain_text("20 of 24 questions, and 0 of 1 check complete")
    log = Log(folder / "events.sqlite")
    here = {"round": 3, "item": "3-20-0"}
    for person in PEOPLE[:3]:
        log.append({**here, "kind": "taken", "person": person, "body": {}})
        log.append({**here, "kind": "submitted", "person": person, "body": {"answer": "Arle"}})
    log.close()
    expect(page.locator("#live")).to_contain_text(
        "21 of 24 questions, and 0 of 1 check complete", timeout=15_000
    )
    assert page.faults == []
    page.context.close()


def test_a_disagreement_is_decided_by_keyboard_alone(chrome, folder, address):
    page = opened(chrome, 390)
    page.goto(f"{address}/in/{Roster(folder).admin().token}")
    page.goto(f"{address}/admin/disagreements/next")
    first = page.url
    page.get_by_role("button", name=re.compile("This one is right")).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url != first)
    assert "/admin/disagreements/" in page.url
    assert page.faults == []
    page.context.close()


def test_a_rounds_file_of_trees_is_searched_and_filtered_without_a_server(chrome, folder):
    page = opened(chrome, bypass_csp=True)
    page.goto(write_trees(folder, 1).as_uri())
    roots = page.locator(".root:visible")
    assert roots.count() == 26
    page.get_by_label("search").fill("WATER of 24")
    assert roots.count() == 1
    expect(page.locator("#count")).to_have_text("1 of 26")
    page.get_by_label("search").fill("")
    page.locator("#person").select_option(PEOPLE[0])
    assert 0 < roots.count() < 26
    page.locator("#right").select_option("wrong")
    page.locator("#person").select_option("")
    assert roots.count() == 5  # every fifth
    page.locator("#by").select_option("overseer")
    assert roots.count() == 0
    page.locator("#right").select_option("")
    assert roots.count() == 2
    hidden = page.get_by_text("Where is the spring?").first
    expect(hidden).to_be_hidden()
    page.get_by_role("button", name="unfold all").click()
    expect(hidden).to_be_visible()
    page.goto(page.url.split("#")[0] + "#row-24-1")
    assert [v["id"] for v in Axe().run(page).response["violations"] if v["impact"] in GRAVE] == []
    assert page.faults == []
    page.context.close()
