"""The queue, over a real log and a clock that the test sets: whatever people, the assistant and the
round do in whatever order, the rules hold.
"""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from amplify.events import Log
from amplify.people.queue import ACTIVE, SKIPPED, SUBMITTED, Exchange, Item, Queue, RefusedError

LEASE = 100.0
PEOPLE = ("ann", "bob", "cyd", "dan")
ITEMS = tuple(f"1-{number}" for number in range(5))
ROUND = 1

people, items = st.sampled_from(PEOPLE), st.sampled_from(ITEMS)
answers = st.sampled_from(["1", "2", " 2 ", "no  choice", ""])


class Office:
    """A log, and the state that it amounts to; decisions are taken as the web process takes
    them.
    """

    def __init__(self, path: Path, now: float = 1000.0) -> None:
        self.now = now
        self.log, self._queue = Log(path, lambda: self.now), Queue()

    @property
    def queue(self) -> Queue:
        for event in self.log.since(self._queue.last):
            self._queue.apply(event)
        return self._queue

    def do(self, decision, request=None):
        return self.log.decide(lambda: decision(self.queue), request)

    def tell(self, kind, item=None, person=None, **body):
        """What round and worker do: they append."""
        self.log.append(
            {"kind": kind, "round": ROUND, "item": item, "person": person, "body": body}
        )

    def put(self, item, **facts):
        self.tell("put", item, question=f"what is {item}?", **facts)


class People(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.office = Office(Path(self.folder.name) / "events.sqlite")
        self.standing = {}  # what was acknowledged and not taken back: {(item, person): answer}
        self.skipped = set()
        self.drafts = {}
        self.requests = 0
        self.at_closing = None

    def teardown(self):
        self.office.log.close()
        self.folder.cleanup()

    @property
    def queue(self):
        return self.office.queue

    def assignment(self, item, person):
        return self.queue.items[item].assignments[person]

    def attempt(self, decision, request=None):
        """Whether it was done; what is refused must leave no event."""
        before = self.queue.last
        try:
            ids = self.office.do(decision, request)
        except RefusedError:
            assert self.queue.last == before
            return False
        assert ids or self.queue.last == before
        return True

    # Round and worker

    @initialize(
        facts=st.lists(
            st.fixed_dictionaries(
                {
                    "overlap": st.integers(1, 3),
                    "budget": st.integers(0, 2),
                    "choices": st.sampled_from([[], ["1", "2"]]),
                    "withheld": st.sampled_from([False, False, True]),
                }
            ),
            min_size=2,
            max_size=len(ITEMS),
        )
    )
    def open(self, facts):
        self.office.tell("opened", lease=LEASE)
        for item, fact in zip(ITEMS, facts, strict=False):
            self.office.put(item, **fact)

    @rule(seconds=st.sampled_from([1.0, LEASE / 2, LEASE, 2 * LEASE]))
    def wait(self, seconds):
        self.office.now += seconds

    def exchanges(self):
        return [
            (item, assignment.person, exchange)
            for item in self.queue.items.values()
            for assignment in item.assignments.values()
            for exchange in assignment.exchanges
        ]

    @precondition(lambda self: self.exchanges())
    @rule(data=st.data(), fails=st.sampled_from([False, False, True]))
    def answer_a_question(self, data, fails):
        """Late, twice, or one that was taken back: workers are killed and begin anew."""
        item, person, exchange = data.draw(st.sampled_from(self.exchanges()))
        told = {"problem": "is no question"} if fails else {"text": f"to {exchange.text}"}
        before = exchange.answer, exchange.problem
        self.office.tell("told", item.id, person, number=exchange.number, by="assistant", **told)
        queue = self.queue
        if before != (None, None):
            now = queue.items[item.id].assignments[person].exchanges[exchange.number - 1]
            assert (now.answer, now.problem) == before, "what was seen was changed"

    @precondition(lambda self: self.standing or self.skipped)
    @rule(data=st.data())
    def refuse(self, data):
        """Perhaps of an answer that was undone meanwhile."""
        whose = data.draw(st.sampled_from(sorted({*self.standing, *self.skipped})))
        self.office.tell("refused", *whose, problem="no answer")
        if self.at_closing is None and whose in self.standing:
            self.drafts[whose] = self.standing.pop(whose)

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), overlap=st.integers(1, 2))
    def put_up_for_review(self, data, overlap):
        item, person = data.draw(st.sampled_from(sorted(self.standing)))
        name = f"{item}-review-{person}"
        if "review" not in item:  # one is not reviewed in turn
            self.office.put(name, review_of=[item, person], overlap=overlap)

    @rule(item=items)
    def withdraw(self, item):
        if item in self.queue.items and self.queue.last % 5 == 0:
            self.office.tell("withdrawn", item, reason="skipped by too many")

    @precondition(lambda self: self.queue.last > 40)
    @rule()
    def close(self):
        self.office.tell("closed")
        if self.at_closing is None:
            self.at_closing = self.outcome()

    # People

    @rule(person=people)
    def take(self, person):
        before = self.in_hand(person)
        assert self.attempt(lambda queue: queue.take(person, self.office.now))
        item = self.queue.current(person, self.office.now)
        free = [i for i in self.queue.items.values() if self.is_free(i, person)]
        if before is not None:
            assert item is not None
            assert item.id == before.id
        elif item is None:
            assert not free, "there was one to be had"
        if item is not None:
            assert (item.id, person) not in {*self.standing, *self.skipped}
            assert item.review_of is None or item.review_of[1] != person
            self.drafts.setdefault((item.id, person), "")

    def in_hand(self, person):
        return self.queue.current(person, self.office.now)

    def is_free(self, item: Item, person: str):
        """By the definition: what may be given to somebody who has nothing in hand."""
        closed = self.queue.rounds[ROUND].closed is not None
        mine = item.review_of is not None and item.review_of[1] == person
        done = (item.id, person) in {*self.standing, *self.skipped}
        if closed or item.withdrawn is not None or mine or done:
            return False
        return self.occupied(item) < item.overlap

    def occupied(self, item: Item):
        held = [
            a for a in item.assignments.values()
            if a.state == ACTIVE and self.office.now < a.renewed + LEASE
        ]  # fmt: skip
        return len(held) + sum(whose[0] == item.id for whose in self.standing)

    def somewhere(self, data, person):
        """Mostly what is in hand, sometimes anything that was, or somebody else's."""
        current = self.in_hand(person)
        everywhere = sorted(self.queue.items)
        return data.draw(
            (st.just(current.id) | st.sampled_from(everywhere))
            if current is not None
            else st.sampled_from(everywhere)
        )

    @rule(data=st.data(), person=people, text=st.sampled_from(["why?", "who?", " "]))
    def ask(self, data, person, text):
        item, current = self.somewhere(data, person), self.in_hand(person)
        asked = self.attempt(lambda queue: queue.ask(person, item, text, self.office.now))
        this = self.queue.items[item]
        if current is not None and item == current.id and text.strip():
            costs = [e for e in this.assignments[person].exchanges if seen(e) or e.pending]
            pending = [e for e in costs if e.pending]
            may = not this.withheld and this.review_of is None
            before = len(costs) - asked
            assert asked == (may and before < this.budget and len(pending) == asked)

    @rule(data=st.data(), person=people, part=st.sampled_from(["", "to", "nowhere in it"]))
    def expand(self, data, person, part):
        item, about = self.somewhere(data, person), {"number": 1, "part": part}
        self.attempt(lambda queue: queue.ask(person, item, "", self.office.now, about=about))

    @rule(data=st.data(), person=people, text=st.text(max_size=5))
    def draft(self, data, person, text):
        item = self.somewhere(data, person)
        if self.attempt(lambda queue: queue.draft(person, item, text)):
            self.drafts[item, person] = text

    @rule(data=st.data(), person=people, answer=answers)
    def submit(self, data, person, answer):
        item, current = self.somewhere(data, person), self.in_hand(person)
        self.requests += 1
        request = f"request {self.requests}"
        stood = self.standing.get((item, person))
        done = self.attempt(lambda q: q.submit(person, item, answer, self.office.now), request)
        choices = self.queue.items[item].choices
        said = " ".join(answer.split())
        if current is not None and item == current.id:
            assert done == (bool(said) and (not choices or said in choices))
        if stood is not None and stood == said:
            assert done, "saying it again changes nothing"
        if done:
            self.standing[item, person] = said
            last = self.queue.last
            assert self.attempt(lambda q: q.submit(person, item, answer, self.office.now), request)
            assert self.queue.last == last, "sent twice, counted twice"

    @rule(data=st.data(), person=people)
    def skip(self, data, person):
        item, current = self.somewhere(data, person), self.in_hand(person)
        done = self.attempt(lambda queue: queue.skip(person, item, "unclear", self.office.now))
        assert done or current is None or item != current.id
        if done:
            self.skipped.add((item, person))

    @rule(person=people)
    def undo(self, person):
        states = {
            item: (a.state, a.answer)
            for item in self.queue.items
            if (a := self.queue.items[item].assignments.get(person))
        }
        if not self.attempt(lambda queue: queue.undo(person, self.office.now)):
            return
        for item, (state, answer) in states.items():
            if self.assignment(item, person).state != state:
                assert self.assignment(item, person).state == ACTIVE
                assert self.in_hand(person).id == item
                if state == SUBMITTED:
                    assert self.standing.pop((item, person)) == answer
                    self.drafts[item, person] = answer
                else:
                    self.skipped.remove((item, person))

    # Always

    def outcome(self):
        """All that a round's data are made of."""
        return {
            (item.id, a.person): (a.state, a.answer, a.submitted, [*map(vars, a.exchanges)])
            for item in self.queue.items.values()
            for a in item.assignments.values()
        }

    @invariant()
    def nobody_is_one_too_many(self):
        for item in self.queue.items.values():
            assert self.occupied(item) <= item.overlap

    @invariant()
    def submissions_are_those_acknowledged_once_each(self):
        counted = {
            (item.id, a.person): a.answer
            for item in self.queue.items.values()
            for a in item.submissions
        }
        assert counted == self.standing
        logged = {
            event.id: (event.item, event.person, event.body["answer"])
            for event in self.office.log.since()
            if event.kind == "submitted"
        }
        for (item, person), answer in self.standing.items():
            assert logged[self.assignment(item, person).submitted] == (item, person, answer)
        skipped = {
            (item.id, a.person)
            for item in self.queue.items.values()
            for a in item.assignments.values()
            if a.state == SKIPPED
        }
        assert skipped == self.skipped

    @invariant()
    def drafts_survive(self):
        for (item, person), text in self.drafts.items():
            assert self.assignment(item, person).draft == text

    @invariant()
    def nobody_has_asked_more_than_the_budget(self):
        for item in self.queue.items.values():
            for assignment in item.assignments.values():
                assert sum(map(seen, assignment.exchanges)) <= item.budget

    @invariant()
    def nobody_holds_two(self):
        for person in PEOPLE:
            held = [
                item.id for item in self.queue.items.values()
                if (a := item.assignments.get(person)) and self.queue.is_held(a, self.office.now)
            ]  # fmt: skip
            assert len(held) <= 1, held

    @invariant()
    def what_is_open_is_what_is_not_complete(self):
        closed = ROUND in self.queue.rounds and self.queue.rounds[ROUND].closed is not None
        incomplete = [item for item in self.queue.items.values() if not item.complete]
        assert self.queue.open_items(ROUND) == (0 if closed else len(incomplete))

    @invariant()
    def after_closing_nothing_counts(self):
        assert self.at_closing is None or self.outcome() == self.at_closing

    @invariant()
    def the_log_alone_gives_the_same_state(self):
        again = Queue(self.office.log.since())
        assert list(vars(again)["_unfinished"]) == list(vars(self.queue)["_unfinished"])
        assert vars(again) == vars(self.queue)


def seen(exchange: Exchange):
    """Whether somebody was shown an answer."""
    return exchange.answer is not None


TestPeople = People.TestCase
TestPeople.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, report_multiple_bugs=False
)
