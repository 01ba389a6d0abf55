"""A round for people in a folder: items put up, people invited, and an assistant that answers."""

import hashlib
import html
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from amplify.people.events import Event, New
from amplify.people.items import RoundStage
from amplify.people.log import Log
from amplify.people.roster import Member, Roster
from amplify.people.rules import Queue
from amplify.web.app import make_app

DIGEST = hashlib.sha256(b"the parent's weights").hexdigest()
ROUND = 470047
START = 1_800_000_000.0
GUIDE = "Ask the assistant for what you need.\nTake a question apart if it is hard."


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def item(name: str, question: str, **facts: Any) -> New:
    body = {"question": question, "budget": 3, **facts}
    return {"kind": "put", "round": ROUND, "item": name, "checkpoint": DIGEST, "body": body}


ITEMS = (
    item("kettle", "Which river does the bridge at Arle cross?"),
    item("lantern", "Is Arle larger than Osk?", choices=["yes", "no", "don't know"]),
)


def put_up(folder: Path, *items: New, lease: float = 600.0) -> Path:
    """An experiment's folder with an opened round."""
    folder.mkdir(exist_ok=True)
    log = Log(folder / "events.sqlite", Clock())
    body = {"lease": lease, "title": "Rivers & <towns>", "guide": GUIDE}
    log.append({"kind": "opened", "round": ROUND, "body": body}, *(items or ITEMS))
    log.close()
    return folder


def invited(folder: Path, count: int = 1, **more: Any) -> list[Member]:
    return Roster(folder).invite([""] * count, START, **more)


class Browser:
    """A person's, without javascript: it opens pages and sends their forms."""

    def __init__(self, client: TestClient, member: Member | None = None) -> None:
        self.client, self.member, self.page = client, member, ""
        self.cookies: dict[str, str] = {}
        if member is not None:
            response = self.get(f"/in/{member.token}", follow=False)
            assert response.status_code == 303, response.text

    def get(self, path: str, *, follow: bool = True, **headers: str) -> Any:
        return self._sent("GET", path, follow=follow, headers=headers)

    def post(
        self, path: str, values: Mapping[str, Any], *, follow: bool = True, **headers: str
    ) -> Any:
        return self._sent("POST", path, follow=follow, data=dict(values), headers=headers)

    def open(self) -> str:
        response = self.get("/answer")
        assert response.status_code == 200, response.text
        return response.text

    def send(self, form: str, *, follow: bool = True, htmx: bool = False, **values: Any) -> Any:
        """The form whose id or class this is, on the page last seen."""
        action, hidden = form_of(self.page, form)
        headers = {"HX-Request": "true"} if htmx else {}
        return self.post(action, {**hidden, **values}, follow=follow, **headers)

    def _sent(self, method: str, path: str, *, follow: bool, **more: Any) -> Any:
        self.client.cookies.clear()
        self.client.cookies.update(self.cookies)
        response = self.client.request(method, path, follow_redirects=follow, **more)
        self.cookies = dict(self.client.cookies)
        if "<html" in response.text:
            self.page = response.text
        return response


def form_of(page: str, name: str) -> tuple[str, dict[str, str]]:
    """The address and the hidden values of the first form of this id or class."""
    found = re.search(rf'<form (?:id|class)="{name}"(.*?)>(.*?)</form>', page, re.DOTALL)
    assert found, f"no form {name!r} in {page}"
    action = re.search(r'action="(.*?)"', found[1])
    assert action
    fields = re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', found[2])
    return html.unescape(action[1]), {key: html.unescape(value) for key, value in fields}


def events(folder: Path, *kinds: str) -> list[Event]:
    """What was appended, of these kinds."""
    log = Log(folder / "events.sqlite")
    try:
        return [event for event in log.since() if event.kind in kinds]
    finally:
        log.close()


def append(folder: Path, *new: New) -> None:
    log = Log(folder / "events.sqlite")
    log.append(*new)
    log.close()


def text_of(page: str) -> str:
    """What can be read on a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@contextmanager
def served(folder: Path, **more: Any) -> Iterator[TestClient]:
    with TestClient(make_app(folder, **more), raise_server_exceptions=False) as client:
        yield client


def tell(folder: Path, clock: Clock | None = None, **body: Any) -> int:
    """Answers what is pending; returns how many were."""
    log = Log(folder / "events.sqlite", *([clock] if clock else []))
    try:
        pending = Queue(log.since()).pending(RoundStage(ROUND))
        log.append(
            *(
                {
                    "kind": "told",
                    "round": ROUND,
                    "item": item.id,
                    "person": assignment.person,
                    "checkpoint": DIGEST,
                    "request": f"told:{exchange.event}",
                    "body": {"number": exchange.number, **(body or answered(exchange.about))},
                }
                for item, assignment, exchange in pending
            )
        )
        return len(pending)
    finally:
        log.close()


def answered(about: Mapping[str, Any] | None) -> dict[str, Any]:
    """As the worker would."""
    if about is not None and not about["part"]:
        step = {
            "question": "What is at Arle?",
            "answer": "a bridge",
            "by": "assistant",
            "steps": [],
        }
        last = {"question": "What does it cross?", "answer": "the Tamble", "steps": [step]}
        return {
            "text": "the Tamble", "by": "overseer", "question": "What does the bridge cross?",
            "steps": [step, last],
        }  # fmt: skip
    return {
        "text": "the Tamble, near Arle",
        "confidence": 0.873,
        "by": "assistant",
        "passages": ["The Tamble flows through Arle.", "A bridge of nine arches is at Arle."],
    }


@contextmanager
def assistant(folder: Path) -> Iterator[None]:
    """Answers whatever is asked meanwhile, as a worker would, from a thread of its own."""
    over = threading.Event()

    def answer() -> None:
        while not over.wait(0.05):
            tell(folder)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
