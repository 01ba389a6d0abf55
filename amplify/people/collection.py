"""A round's work with people: its questions are put up, answered, and gathered.

`collect` waits, answering people's sub-questions meanwhile, until every question has been answered
or withdrawn; then the round is closed in the log, and what people say afterwards no longer changes
it. `gather` is a pure function of the log up to there: a round is replayed from it, bit for bit.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from amplify import words
from amplify.amplification import over_questions
from amplify.errors import AmplifyError
from amplify.events import EVENTS, Event, Log
from amplify.experiment import Experiment
from amplify.overseers.human import Human
from amplify.people.choice import chosen
from amplify.people.queue import ACTIVE, SUBMITTED, Assignment, Item, New, Queue
from amplify.people.roster import Member, Roster
from amplify.people.serving import Served, Where, serving
from amplify.people.worker import Worker
from amplify.progress import Advance, Watch, say
from amplify.store import RoundFolder
from amplify.types import ASSISTANT, OVERSEER, ChoiceTask, Interaction, Problems, Step

POLL = 0.02
"""Seconds between two looks at the log while nothing happens."""
KEEP_UP = 0.5
"""Seconds between two looks at the processes."""


class Gathered(NamedTuple):
    """What people answered of a round's questions, in the order of rows and columns."""

    rows: Int[np.ndarray, " items"]
    columns: Int[np.ndarray, " items"]
    answers: Int[np.ndarray, "items answer_length"]
    trees: list[dict[str, Any]]  # as in interactions.jsonl
    demonstrated: Interaction | None  # what there is to imitate; None where there is nothing
    facts: dict[str, Any]  # for the record


def collect(
    experiment: Experiment,
    this: RoundFolder,
    problems: Problems,
    worker: Callable[[], Worker],
    watch: Watch,
) -> Gathered:
    """People's answers; at once if the round was closed before.

    Raises AmplifyError if the round has too few different questions, or pages cannot be served.
    """
    folder, number = this.path.parent, this.number
    log = Log(folder / EVENTS)
    try:
        queue = Queue(log.since())
        if not _is_closed(queue, number):
            log.append(*put_up(experiment, number, problems))
            _wait(experiment, folder, number, log, worker(), watch)
            log.append(_event("closed", number, request=f"closed:{number}"))
        return gather(experiment, number, problems, log.since())
    finally:
        log.close()


def put_up(experiment: Experiment, number: int, problems: Problems) -> list[New]:
    """Opens the round: an event for it and one for each question. The same whenever it is made."""
    config, task = human(experiment).config, experiment.task
    places = choose_places(experiment, number, problems)
    guide = Path(config.guide).read_text(encoding="utf-8") if config.guide else ""
    told = {"lease": config.lease, "guide": guide, "title": "Answer questions"}
    events = [_event("opened", number, request=f"opened:{number}", body=told)]
    rows, columns = np.array(places).T
    questions = np.asarray(problems.questions)[rows, columns]
    truths = over_questions(task.truth)(problems.contexts[rows], jnp.asarray(questions[:, None]))
    for (row, column), question, truth in zip(places, questions, np.asarray(truths), strict=True):
        name = identify(experiment, number, row, column)
        body: New = {
            "question": words.shown(task, question),
            "row": row,
            "column": column,
            "budget": config.asks,
            "overlap": config.overlap,
            "withheld": chance(name, "withheld") < config.withheld,
            "choices": task.choices if isinstance(task, ChoiceTask) else (),
        }
        if chance(name, "gold") < config.gold:
            body["gold"] = words.shown(task, truth[0])
        events.append(_event("put", number, item=name, request=f"put:{name}", body=body))
    return events


def choose_places(experiment: Experiment, number: int, problems: Problems) -> list[tuple[int, int]]:
    """Row and column of the questions that people answer: drawn among all that are different."""
    wanted = human(experiment).config.items
    questions = np.asarray(problems.questions)
    primitive = np.asarray(experiment.task.is_primitive(problems.questions))
    places = [
        (row, int(column))
        for row, asked in enumerate(questions)
        for column in np.sort(np.unique(asked, axis=0, return_index=True)[1])
        if not primitive[row, column]
    ]
    if len(places) < wanted:
        raise AmplifyError(
            f"overseer.items must be at most {len(places)}, the different questions of round"
            f" {number}; got {wanted}"
        )
    bits = np.random.Philox(key=np.array([experiment.seed, number], np.uint64))
    order = np.argsort(bits.random_raw(len(places)), kind="stable")
    return [places[place] for place in order[:wanted]]


def identify(experiment: Experiment, *parts: Any) -> str:
    """A name that says nothing, the same whenever it is asked for."""
    return _hash(experiment.digest, *parts)[:12]


def chance(*parts: Any) -> float:
    """A number in 0..1 that depends on its arguments alone."""
    return int(_hash(*parts)[:13], 16) / 16**13


def _hash(*parts: Any) -> str:
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def _wait(
    experiment: Experiment, folder: Path, number: int, log: Log, worker: Worker, watch: Watch
) -> None:
    config = human(experiment).config
    simulated = config.people == "simulated"
    where = Where(port=0) if simulated else Where.from_environment()
    worker.warm_up()
    with serving(folder, where, crowd=simulated) as served:
        _announce(Roster(folder), config.team, served.address, simulated=simulated)
        with watch("people answer", config.items) as advance:
            Floor(experiment, number, log, worker).run(served, advance)


def _announce(roster: Roster, team: int, address: str, *, simulated: bool) -> None:
    say(f"all rounds and everybody's work: {address}/in/{roster.admin().token}")
    if simulated:
        return
    people = [member for member in roster.members() if _is_person(member)]
    for member in people or roster.invite([""] * team, time.time()):
        say(f"{member.person}: {address}/in/{member.token}")


def _is_person(member: Member) -> bool:
    return not member.is_admin and not member.simulated


class Floor:
    """Where people work, seen from the round: answers what they ask, and looks after the rest."""

    def __init__(self, experiment: Experiment, number: int, log: Log, worker: Worker) -> None:
        self.experiment, self.number, self.log = experiment, number, log
        self.worker, self.queue = worker, Queue()

    def run(self, served: Served, advance: Advance) -> None:
        """Until no item is open."""
        done, looked = 0, time.monotonic()
        while True:
            change = self.log.change()
            news = list(self.log.since(self.queue.last))
            for event in news:
                self.queue.apply(event)
            answers = self.worker.tell(self.queue.pending(self.number))
            events = [*answers, *self._look_after(news)]
            if events:
                self.log.append(*events)
            state = self.queue.rounds[self.number]
            complete = sum(self._is_root(name) for name in state.items) - self._open_roots()
            advance(complete - done)
            done = complete
            if not events and not self.queue.open_items(self.number):
                return
            while not events and self.log.change() == change:
                time.sleep(POLL)
                if time.monotonic() - looked > KEEP_UP:
                    served.keep_up()
                    looked = time.monotonic()

    def _is_root(self, name: str) -> bool:
        return self.queue.items[name].review_of is None

    def _open_roots(self) -> int:
        items = (self.queue.items[name] for name in self.queue.rounds[self.number].items)
        return sum(item.review_of is None and not item.complete for item in items)

    def _look_after(self, news: Iterable[Event]) -> list[New]:
        """What follows from what people did: an answer that makes no sense goes back, some are put
        up for others to check, and what nobody can answer is withdrawn.
        """
        events = []
        for event in news:
            if event.round != self.number or event.kind not in ("submitted", "skipped", "undone"):
                continue
            item = self.queue.items[event.item or ""]
            assignment = item.assignments[event.person or ""]
            if event.kind == "submitted" and assignment.submitted == event.id:
                events += self._check(item, assignment)
            if event.kind == "undone":
                events += [
                    self._withdraw(review, "the answer was taken back")
                    for review in self._reviews_of(item.id, assignment.person)
                ]
            if reason := self._hopeless(item):
                events.append(self._withdraw(item, reason))
        return events

    def _reviews_of(self, item: str, person: str) -> list[Item]:
        """Those that are still to be done."""
        names = self.queue.rounds[self.number].items
        return [
            review
            for review in map(self.queue.items.__getitem__, names)
            if review.review_of == (item, person) and not review.complete
        ]

    def _withdraw(self, item: Item, reason: str) -> New:
        facts = {"item": item.id, "request": f"withdrawn:{item.id}", "body": {"reason": reason}}
        return _event("withdrawn", self.number, **facts)

    def _check(self, item: Item, assignment: Assignment) -> list[New]:
        try:
            words.read_answer(self.experiment.task, assignment.answer or "")
        except AmplifyError as error:
            facts = {"item": item.id, "person": assignment.person}
            request = f"refused:{assignment.submitted}"
            problem = {"problem": str(error)}
            return [_event("refused", self.number, **facts, request=request, body=problem)]
        config = human(self.experiment).config
        name = identify(self.experiment, item.id, assignment.person, assignment.submitted)
        if item.review_of is not None or chance(name, "reviewed") >= config.reviewed:
            return []
        body: New = {
            "question": item.question,
            "review_of": [item.id, assignment.person],
            "overlap": config.reviewers,
            "choices": item.choices,
            "gold": item.gold,
        }
        return [_event("put", self.number, item=name, request=f"put:{name}", body=body)]

    def _hopeless(self, item: Item) -> str:
        """Why nobody will answer an item any more; "" if somebody may."""
        config = human(self.experiment).config
        if item.complete:
            return ""
        if item.skips >= config.skips:
            return f"{item.skips} people have skipped it"
        if config.people == "simulated":
            had = sum(a.state != ACTIVE for a in item.assignments.values())
            others = config.crowd.people - (item.review_of is not None)
            if had >= others:
                return "nobody is left who has not had it"
        return ""


def recorded_by_people(
    experiment: Experiment, this: RoundFolder, problems: Problems
) -> Gathered | None:
    """What people answered, from the log; None where none oversee."""
    if not isinstance(experiment.overseer, Human):
        return None
    log = Log(this.path.parent / EVENTS)
    try:
        return gather(experiment, this.number, problems, log.since())
    finally:
        log.close()


def gather(
    experiment: Experiment, number: int, problems: Problems, events: Iterable[Event]
) -> Gathered:
    """What people answered until the round was closed: a pure function of its arguments."""
    queue = Queue()
    for event in events:
        queue.apply(event)
        if _is_closed(queue, number):
            break
    items = [queue.items[name] for name in queue.rounds[number].items]
    roots = [item for item in items if item.review_of is None]
    kept = sorted(
        ((item, assignment) for item in roots if (assignment := chosen(item)) is not None),
        key=lambda pair: (pair[0].row, pair[0].column),
    )
    if not kept:
        raise AmplifyError(f"round {number}: all questions were withdrawn, and none answered")
    task = experiment.task
    answers = [
        words.read_answer(task, item.adjudicated or assignment.answer or "")
        for item, assignment in kept
    ]
    contexts = np.asarray(problems.contexts)
    trees = [
        _tree(experiment, contexts[item.row], problems, item, assignment, answer)
        for (item, assignment), answer in zip(kept, answers, strict=True)
    ]
    everyone = [a for item in items for a in item.assignments.values()]
    return Gathered(
        np.array([item.row for item, _ in kept]),
        np.array([item.column for item, _ in kept]),
        np.stack(answers),
        trees,
        _demonstrated(experiment, problems, kept, np.stack(answers)),
        {
            "human_answers": sum(a.state == SUBMITTED for a in everyone),
            "human_seconds": round(sum(a.seconds for a in everyone), 1),
            "people": len({a.person for a in everyone}),
            "withdrawn": sum(item.withdrawn is not None for item in roots),
            "sub_questions": sum(e.by == "assistant" for a in everyone for e in a.kept),
            "last_event": queue.last,
        },
    )


def _tree(
    experiment: Experiment,
    context: Int[np.ndarray, "facts fact_length"],
    problems: Problems,
    item: Item,
    assignment: Assignment,
    answer: Int[np.ndarray, " answer_length"],
) -> dict[str, Any]:
    task = experiment.task
    question = np.asarray(problems.questions)[item.row, item.column]
    return {
        "row": item.row,
        "column": item.column,
        "item": item.id,
        "person": assignment.person,
        "event": assignment.submitted,
        "question": item.question,
        "answer": words.shown(task, answer),
        "by": "human",
        "right": words.is_right(task, context, question, answer),
        "steps": [
            {
                "question": exchange.text,
                "answer": exchange.answer,
                "by": exchange.by,
                "right": words.is_right(
                    task,
                    context,
                    np.array(exchange.tokens["question"], np.int32),
                    np.array(exchange.tokens["answer"], np.int32),
                ),
                "event": exchange.told,
                "steps": list(exchange.steps),
            }
            for exchange in assignment.kept
            if exchange.tokens
        ],
    }


def _demonstrated(
    experiment: Experiment,
    problems: Problems,
    kept: Sequence[tuple[Item, Assignment]],
    answers: Int[np.ndarray, "items answer_length"],
) -> Interaction | None:
    """What people did as interactions that an overseer can imitate."""
    task, steps = experiment.task, []
    shape = (len(kept), task.question_length), (len(kept), task.answer_length)
    for number in range(human(experiment).config.asks):
        asked = np.zeros(len(kept), bool)
        question, answer = np.zeros(shape[0], np.int32), np.zeros(shape[1], np.int32)
        for row, (_, assignment) in enumerate(kept):
            told = [exchange.tokens for exchange in assignment.kept if exchange.tokens]
            if number < len(told):
                asked[row] = True
                question[row], answer[row] = told[number]["question"], told[number]["answer"]
        by = jnp.full(len(kept), ASSISTANT)
        sub = Interaction(jnp.asarray(question), jnp.asarray(answer), by)
        steps.append(Step(jnp.asarray(asked), sub))
    if not steps:
        return None
    questions = jnp.asarray(problems.questions)[
        jnp.asarray([item.row for item, _ in kept]), jnp.asarray([item.column for item, _ in kept])
    ]
    by = jnp.full(len(kept), OVERSEER)
    return Interaction(questions, jnp.asarray(answers), by, tuple(steps))


def human(experiment: Experiment) -> Human:
    assert isinstance(experiment.overseer, Human)
    return experiment.overseer


def _is_closed(queue: Queue, number: int) -> bool:
    return number in queue.rounds and queue.rounds[number].closed is not None


def _event(kind: str, number: int, **facts: Any) -> New:
    return {"kind": kind, "round": number, **facts}
