"""Reports in files, in a real browser: what a style sheet and a drawing library make of them."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from amplify import report
from amplify.report import ticks
from tests.test_groups import seeded
from tests.test_report import write_experiment
from tests.web.processes import browser, chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None and "CI" not in os.environ, reason="there is no chromium here"
    ),
]

GAP = """() => {
    const edge = (what, side) => [...document.querySelectorAll(what)]
        .map((one) => one.getBoundingClientRect()[side]);
    const labels = [...document.querySelectorAll(".chart .role-axis-label text")]
        .filter((one) => one.textContent.endsWith("%"));
    const ends = labels.map((one) => one.getBoundingClientRect().right);
    return Math.min(...edge(".chart .role-axis-grid line", "left")) - Math.min(...ends);
}"""


BROKEN = """() => {
    const broken = [];
    for (const cell of document.querySelectorAll(".wide td, .wide th")) {
        const range = document.createRange();
        const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            for (const word of walker.currentNode.data.matchAll(/\\w+/g)) {
                range.setStart(walker.currentNode, word.index);
                range.setEnd(walker.currentNode, word.index + word[0].length);
                if (range.getClientRects().length > 1) broken.push(word[0]);
            }
        }
    }
    return broken;
}"""
"""Words in tables that are broken into several lines."""


INSIDE = """() => {
    const chart = document.querySelector(".chart");
    const box = one => one.getBoundingClientRect();
    const panels = [...chart.querySelectorAll(".role-axis-grid")].map(box)
        .filter(one => one.height);
    const middles = [...chart.querySelectorAll(".mark-symbol path")].map(box)
        .filter(one => one.width).map(one => (one.left + one.right) / 2);
    return middles.map(at => Math.max(...panels.map(
        one => Math.min(at - one.left, one.right - at)
    )));
}"""
"""How far each point is from the edges of the panel that it is in."""


@pytest.fixture(scope="module")
def chrome():
    with browser() as there:
        yield there


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    store = write_experiment(tmp_path_factory.mktemp("rounds") / "wildcard")
    [page, *_] = report.write_comparison([store])
    return page


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    stores = [seeded(folder / f"seed-{seed}", seed, "seed = 0", rounds=2) for seed in range(4)]
    [page, *_] = report.write_comparison(stores)
    return page


def opened(chrome, path, width):
    page = chrome.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
    page.goto(f"file://{path}")
    page.wait_for_selector(".chart .role-axis-label text")
    return page


@pytest.mark.parametrize("width", [1280, 400])
def test_percentages_keep_clear_of_the_axis(chrome, comparison, width):
    page = opened(chrome, comparison, width)
    assert page.evaluate(GAP) >= 6
    page.context.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_tables_break_no_word_and_scroll_by_themselves(chrome, comparison, several, width):
    for path in (comparison, several):
        page = opened(chrome, path, width)
        page.evaluate(
            "() => { for (const d of document.querySelectorAll('details')) d.open = true; }"
        )
        assert page.evaluate(BROKEN) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.context.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_axis_has_the_ticks_of_the_picture(chrome, comparison, width):
    page = opened(chrome, comparison, width)
    texts = page.locator(".chart").first.locator(".role-axis-label text").all_text_contents()
    shares = list(dict.fromkeys(text for text in texts if text.endswith("%")))
    assert shares == [f"{100 * share:.0f}%" for share in ticks.SHARES]
    page.context.close()


def test_a_table_is_shaded_where_it_goes_on_beyond_an_edge(chrome, comparison):
    page = opened(chrome, comparison, 400)
    ledger = page.locator(".wide", has_text="overseer answers").last
    ledger.scroll_into_view_if_needed()
    left, right = edges(ledger)
    assert (left, right < 230) == (255, True)
    ledger.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    left, right = edges(ledger)
    assert (left < 230, right) == (True, 255)
    page.context.close()


def test_a_phone_shows_the_scrollbar_of_a_table(chrome, comparison):
    page = chrome.new_page(viewport={"width": 400, "height": 900}, is_mobile=True, has_touch=True)
    page.goto(f"file://{comparison}")
    look = "one => getComputedStyle(one, '::-webkit-scrollbar').height"
    assert page.locator(".wide").last.evaluate(look) == "6px"
    page.context.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_rounds_keep_clear_of_a_panel_s_edges(chrome, comparison, several, width):
    for path in (comparison, several):
        page = opened(chrome, path, width)
        inside = page.evaluate(INSIDE)
        assert min(inside) > 5  # pixels
        page.context.close()


def edges(table):
    """How light the lightest pixels at a table's left and right edges are, 0 to 255.

    The outermost pixels may be those around a table that does not begin at a whole pixel.
    """
    picture = np.asarray(Image.open(io.BytesIO(table.screenshot())).convert("L"))
    return [int(picture[2:12, column].max()) for column in (2, -3)]
