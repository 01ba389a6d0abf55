"""Whatever is sent to the HTTP interface is answered: nothing breaks, and no item is answered that
was not this person's.
"""

import tempfile
from pathlib import Path
from urllib.parse import urlencode

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import strategies as st

from amplify.web.app import make_app
from tests.web.rounds import ITEMS, Browser, Clock, form_of, invited, put_up, tell

pytestmark = pytest.mark.slow

# Of any folder: the interface is the same.
with tempfile.TemporaryDirectory() as name:
    app = make_app(Path(name))
    SCHEMA = schemathesis.openapi.from_dict(app.openapi())
    app.state.service.log.close()
OPERATIONS = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (found.ok() for found in SCHEMA.get_all_operations())
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Of a person with a question in hand that was answered once, and a clock that runs fast."""
    folder, clock = put_up(tmp_path_factory.mktemp("round")), Clock()

    def running():
        clock.now += 0.1
        return clock.now

    with TestClient(make_app(folder, clock=running), raise_server_exceptions=False) as client:
        there = Browser(client, invited(folder)[0])
        there.open()
        there.send("ask", text="Which river flows through Arle?")
        tell(folder)
        there.open()
        yield there


def test_the_interface_is_all_that_pages_use():
    acts = ("ask", "expand", "submit", "skip", "draft", "seen")
    assert {f"POST /items/{{item}}/{act}" for act in acts} < OPERATIONS.keys()
    assert {"GET /answer", "POST /undo", "GET /items/{item}/exchanges"} < OPERATIONS.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_is_sent_is_answered(browser, name):
    operation = OPERATIONS[name]
    _, hidden = form_of(browser.page, "submit")
    known = [ITEMS[0]["item"], ITEMS[1]["item"]]

    @hypothesis.settings(max_examples=20)
    @hypothesis.given(
        case=operation.as_strategy(), item=st.sampled_from(known), parts=st.booleans(),
        honest=st.booleans(),
    )  # fmt: skip
    def holds(case, item, parts, honest):
        path, body = case.formatted_path, case.body
        if honest:  # an item that is there, sent from a page of ours: the rest is anything
            path = operation.path.replace("{item}", item).replace("{token}", "x")
            body = {**(body if isinstance(body, dict) else {}), "csrf": hidden["csrf"]}
        headers = {"HX-Request": "true"} if parts else {}
        page = browser.page
        if case.method == "GET":
            query = urlencode(case.query or {}, doseq=True)
            response = browser.get(f"{path}?{query}", follow=False, **headers)
        else:
            sent = body if isinstance(body, dict) else {}
            response = browser.post(path, sent, follow=False, **headers)
        browser.page = page
        assert response.status_code < 500, response.text
        assert response.status_code in (200, 204, 303) or 'id="problem"' in response.text
        assert response.headers["content-security-policy"].startswith("default-src 'none'")

    holds()
