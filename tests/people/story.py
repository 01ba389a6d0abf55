"""A log told in a few words, for tests of what is made of it."""

from typing import Any

from amplify.people.events import Event
from amplify.people.rules import Queue


class Story:
    """Events in order; each method appends one and returns its id."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def queue(self) -> Queue:
        return Queue(self.events)

    def add(
        self,
        kind: str,
        round: int = 1,
        item: str | None = None,
        person: str | None = None,
        seconds: float | None = None,
        checkpoint: str | None = "c0",
        **body: Any,
    ) -> int:
        return self._append(kind, round, item, person, checkpoint, seconds, None, body)

    def put(self, item: str, round: int = 1, **body: Any) -> int:
        if not any(event.kind == "opened" and event.round == round for event in self.events):
            self.add("opened", round, lease=600)
        return self.add("put", round, item, **{"question": f"{item}?", **body})

    def take(self, item: str, person: str) -> int:
        return self.add("taken", self.round(item), item, person)

    def ask(self, item: str, person: str, text: str, answer: str, **body: Any) -> int:
        """Asked and told. Returns the id of `told`."""
        if person not in self.queue.items[item].assignments:
            self.take(item, person)
        self.add("asked", self.round(item), item, person, text=text)
        number = len(self.queue.items[item].assignments[person].exchanges)
        checkpoint = body.pop("checkpoint", "c0")
        told = {"number": number, "text": answer, "by": "assistant", **body}
        return self.add("told", self.round(item), item, person, None, checkpoint, **told)

    def answer(self, item: str, person: str, answer: str, seconds: float | None = None) -> int:
        if person not in self.queue.items[item].assignments:
            self.take(item, person)
        return self.add("submitted", self.round(item), item, person, seconds, answer=answer)

    def skip(self, item: str, person: str) -> int:
        self.take(item, person)
        return self.add("skipped", self.round(item), item, person, reason="unclear")

    def decide(self, item: str, answer: str) -> int:
        return self.add("adjudicated", self.round(item), item, "admin", answer=answer)

    def correct(self, item: str, person: str, answer: str, number: int | None = None) -> int:
        body = {"answer": answer, "number": number, "person": person}
        return self._append("corrected", self.round(item), item, "admin", None, None, None, body)

    def _append(self, *fields: Any) -> int:
        number = len(self.events) + 1
        self.events.append(Event(number, 1000.0 + number, *fields))
        return number

    def round(self, item: str) -> int:
        return next(e.round for e in self.events if e.kind == "put" and e.item == item)
