"""Reads the page on which people answer, for a program that has nothing but the page.

It relies on what the templates promise: the data attributes of `main`, the ids of forms, the
classes of exchanges. Fifty simulated people read a hundred pages a second, for which the standard
library's HTML parser is too slow; our own templates quote every attribute and put no markup into
one.
"""

import dataclasses
import html
import re
from collections.abc import Mapping

PART = re.compile(r'<(/?)([a-z][a-z0-9]*)((?:[^">]|"[^"]*")*)>|([^<]+)')
ATTRIBUTE = re.compile(r'([a-z-]+)="([^"]*)"')

VOID = {"meta", "link", "br", "input", "img", "hr"}
"""Elements without an end tag."""

Attributes = Mapping[str, str]


@dataclasses.dataclass
class Form:
    """A form and the fields that it already has."""

    action: str
    fields: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ReadExchange:
    """A sub-question and its answer, as far as the page shows them."""

    number: int
    state: str  # "pending", "answered" or "problem"
    question: str = ""
    answer: str = ""


@dataclasses.dataclass
class Page:
    """What a person sees on a page."""

    item: str = ""  # "": nothing to do
    finished: bool = False  # nothing to do, now or later
    withheld: bool = False  # without the assistant's help
    review: bool = False
    left: int = 0  # questions for the assistant
    question: str = ""
    returned: str = ""  # why the last answer to this could not be taken
    problem: str = ""  # why what was sent last was not done
    again: str = ""  # where to look for what the assistant says
    exchanges: list[ReadExchange] = dataclasses.field(default_factory=list)
    choices: list[str] = dataclasses.field(default_factory=list)
    forms: dict[str, Form] = dataclasses.field(default_factory=dict)

    @property
    def waits(self) -> bool:
        return any(exchange.state == "pending" for exchange in self.exchanges)


def read_page(text: str) -> Page:
    """Reads a whole page, or a part of one as htmx gets it."""
    reader = _Reader()
    for end, tag, attributes, said in PART.findall(text):
        if said:
            reader.read_text(said)
        elif end:
            reader.end(tag)
        else:
            reader.begin(tag, attributes)
    page = reader.page
    page.question, page.returned, page.problem = map(
        reader.text, ("question", "returned", "problem")
    )
    for exchange in page.exchanges:
        exchange.question = reader.text(f"asked {exchange.number}")
        exchange.answer = reader.text(f"told {exchange.number}")
    return page


class _Reader:
    def __init__(self) -> None:
        self.page = Page()
        self._open: list[tuple[str, str]] = []  # elements: name, and what their text is
        self._texts: dict[str, list[str]] = {}
        self._form: Form | None = None
        self._within: list[int] = []  # numbers of exchanges, innermost last

    def text(self, what: str) -> str:
        return " ".join(html.unescape("".join(self._texts.get(what, ()))).split())

    def begin(self, tag: str, attributes: str) -> None:
        given = {name: html.unescape(value) for name, value in ATTRIBUTE.findall(attributes)}
        classes = given.get("class", "").split()
        self._note(tag, given, classes)
        if tag not in VOID:
            self._open.append((tag, self._meaning(given, classes)))

    def end(self, tag: str) -> None:
        names = [name for name, _ in self._open]
        if tag not in names:
            return
        while self._open:  # with those inside whose end may be left out
            name, meaning = self._open.pop()
            if meaning == "exchange":
                self._within.pop()
            if name == tag:
                break
        if tag == "form":
            self._form = None

    def read_text(self, said: str) -> None:
        for _, meaning in self._open:
            if meaning not in ("", "exchange"):
                self._texts.setdefault(meaning, []).append(said)

    def _meaning(self, given: Attributes, classes: list[str]) -> str:
        """What an element's text is."""
        if given.get("id") in ("question", "problem"):
            return given["id"]
        if "notice" in classes:
            return "returned"
        if "exchange" in classes:
            return "exchange"
        for kind in ("asked", "told"):
            if kind in classes and self._within:
                return f"{kind} {self._within[-1]}"
        return ""

    def _note(self, tag: str, given: Attributes, classes: list[str]) -> None:
        page = self.page
        if tag == "main" and "data-item" in given:
            page.item, page.left = given["data-item"], int(given["data-budget"])
            page.withheld = given["data-withheld"] == "true"
            page.review = given["data-review"] == "true"
        elif given.get("id") == "nothing":
            page.finished = given.get("data-finished") == "true"
        elif given.get("id") == "waiting":
            page.again = given["hx-get"]
        elif "exchange" in classes:
            self._within.append(int(given["data-number"]))
            page.exchanges.append(ReadExchange(self._within[-1], given["data-state"]))
        elif tag == "form":
            self._form = Form(given.get("action", ""))
            page.forms[given.get("id", "")] = self._form
        elif tag in ("input", "textarea") and "name" in given and self._form is not None:
            if given.get("type") == "radio":
                page.choices.append(given["value"])
            else:
                self._form.fields[given["name"]] = given.get("value", "")
