"""An experiment of three rounds that people worked on, with everything that its pages show: two
rounds closed and trained on, a third under way; people who disagree, one of them careless; gold
items, checks, a trial, and changes after closing.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from amplify.people.items import answer_of, chosen
from amplify.people.log import Log
from amplify.people.rules import Queue

START = 1_800_000_000.0
SCRIPT = "<script>alert('x')</script>"
TOWNS = ("Arle", "Osk", "Tamble", "Grujen", "Mezol", "Pastun", "Jilon", "Sokin")
PEOPLE = tuple(f"person-{number:02d}" for number in range(1, 7))
CARELESS = "person-06"


def digest(number: int) -> str:
    return hashlib.sha256(f"checkpoint {number}".encode()).hexdigest()


class World:
    """Writes an experiment's log and records as its rounds would."""

    def __init__(self, folder: Path, items: int = 24) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.items, self.now = folder, items, START
        self.log = Log(folder / "events.sqlite", lambda: self.now)
        self.chance = random.Random(0)

    def event(
        self,
        kind: str,
        round: int,
        item: str | None = None,
        person: str | None = None,
        seconds: float | None = None,
        **body: Any,
    ) -> int:
        self.now += self.chance.uniform(0.5, 3)
        [number] = self.log.append(
            {
                "kind": kind,
                "round": round,
                "item": item,
                "person": person,
                "checkpoint": digest(round - 1),
                "seconds": seconds,
                "body": body,
            }
        )
        return number

    def people_answer(self, round: int, *, close: bool) -> None:
        """A round's items, three people each, all but the last few where it goes on."""
        self.event(
            "opened", round, lease=600, title="Answer questions", guide="Answer the question."
        )
        last = self.items if close else self.items - 4
        for number in range(self.items):
            self._item(round, number, answered=number < last)
        if close:
            self.event("closed", round)
            self._write_trees(round)
        else:
            self.event("taken", round, f"{round}-{self.items - 1}-0", PEOPLE[0])

    def _item(self, round: int, number: int, *, answered: bool) -> None:
        town = self.chance.choice(TOWNS)
        truth, name = self.chance.choice([t for t in TOWNS if t != town]), f"{round}-{number}-0"
        withheld = number % 3 == 1
        self.event(
            "put",
            round,
            name,
            question=f"Which town is downstream of {town}, question {number}?",
            label="1 hop" if number % 2 else "2 hops",
            budget=3,
            overlap=3,
            withheld=withheld,
            gold=truth if number % 4 == 0 else None,
            row=number,
            column=0,
        )
        if answered:
            for person in self.chance.sample(PEOPLE, 3):
                self._answer(round, name, town, truth, person, withheld=withheld)

    def _answer(
        self, round: int, name: str, town: str, truth: str, person: str, *, withheld: bool
    ) -> None:
        self.event("taken", round, name, person)
        if not withheld:
            self.event("asked", round, name, person, 6.0, text=f"Which river flows through {town}?")
            self.event(
                "told",
                round,
                name,
                person,
                number=1,
                text=f"the {town} Water",
                by="assistant",
                confidence=0.91,
                passages=[f"The {town} Water flows through {town}."],
            )
        careless = 0.7 if person == CARELESS else 0.05
        right = self.chance.random() > careless + (0.2 if withheld else 0)
        wrong = self.chance.choice([t for t in TOWNS if t != truth])
        seconds = self.chance.uniform(15, 45) + (12 if withheld else 0)
        said = truth if right else wrong
        self.event("submitted", round, name, person, seconds, answer=said)

    def somebody(self, item: str) -> str:
        """The first who was given an item."""
        return next(iter(Queue(self.log.since()).items[item].assignments))

    def record(self, number: int, right: float, **facts: Any) -> None:
        """A round's record and evals; `right` of its held-out questions are answered rightly."""
        folder = self.folder / f"{number:03d}"
        folder.mkdir(exist_ok=True)
        stages: dict[str, Any] = {"checkpoint": {"digest": digest(number)}, "evals": {}}
        if number:
            stages["verdict"] = {
                "verdict": "promoted",
                "against": number - 1,
                "reason": "better",
                "comparison": {"delta": 0.2, "interval": [0.14, 0.26]},
            }
        record = {
            "round": number,
            "status": "done",
            "stages": stages,
            "parent": {"round": number - 1, "digest": digest(number - 1)} if number else None,
            "ledger": {
                "human_seconds": 0,
                "overseer_answers": 4096 if number else 0,
                "assistant_answers": 2048 if number else 0,
                "training_steps": 800 if number else 0,
                "seconds": 412.0,
                "compile_seconds": 20.0,
            },
        } | facts
        (folder / "record.json").write_text(json.dumps(record))
        chance = random.Random(number)
        rows = [
            {
                "split": split,
                "problem": f"0:{problem}",
                "alone": chance.random() < right,
                "amplified": chance.random() < right + 0.15,
            }
            for split in ("select", "final")
            for problem in range(64)
            for _ in range(2)
        ]
        (folder / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _write_trees(self, round: int) -> None:
        """Of people's items, and two that nobody made."""
        items = Queue(self.log.since()).items.values()
        lines = []
        for item in (item for item in items if item.round == round):
            assignment = chosen(item)
            if assignment is None:
                continue
            steps = [
                {
                    "question": e.text,
                    "answer": e.answer,
                    "by": "assistant",
                    "right": True,
                    "steps": [],
                    "event": e.told,
                }
                for e in assignment.kept
            ]
            lines.append(
                {
                    "row": item.row,
                    "column": 0,
                    "question": item.question,
                    "by": "human",
                    "answer": answer_of(item),
                    "right": item.row % 5 != 0,
                    "steps": steps,
                    "item": item.id,
                    "person": assignment.person,
                    "event": assignment.submitted,
                }
            )
        deep = {
            "question": "Where is the spring?",
            "answer": "Osk",
            "by": "environment",
            "right": True,
            "steps": [],
        }
        for row in (self.items, self.items + 1):
            sub = {
                "question": SCRIPT,
                "answer": "no",
                "by": "overseer",
                "right": False,
                "steps": [deep],
            }
            lines.append(
                {
                    "row": row,
                    "column": 1,
                    "question": f"Whence comes the water of {row}?",
                    "answer": "Osk",
                    "by": "overseer",
                    "right": True,
                    "steps": [sub, deep],
                }
            )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder / f"{round:03d}").mkdir(exist_ok=True)
        (self.folder / f"{round:03d}" / "interactions.jsonl").write_text(text)


def make_experiment(folder: Path, items: int = 24) -> Path:
    world = World(folder, items)
    world.record(0, 0.2)
    world.people_answer(1, close=True)
    world.record(1, 0.45)
    world.people_answer(2, close=True)
    world.record(2, 0.6)
    world.event("adjudicated", 1, "1-3-0", "admin", answer="Nowhere")
    body = {"answer": "the other Water", "number": 1, "person": world.somebody("1-2-0")}
    world.log.append(
        {"kind": "corrected", "round": 1, "item": "1-2-0", "person": "admin", "body": body}
    )
    world.people_answer(3, close=False)
    world.record(3, 0.6, status="started", stages={})
    world.event(
        "put",
        3,
        "check",
        question="Which town is downstream of Arle?",
        overlap=1,
        review_of=["3-0-0", world.somebody("3-0-0")],
        budget=0,
    )
    world.log.close()
    return folder
