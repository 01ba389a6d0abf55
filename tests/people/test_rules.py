"""The queue, over a real log and a clock that the test sets: whatever people, the assistant and the
round do in whatever order, the rules hold.
"""

import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from amplify.people.items import ACTIVE, SKIPPED, SUBMITTED, Exchange, Item, RoundStage
from amplify.people.log import Log
from amplify.people.rules import Queue, RefusedError

LEASE = 100.0
PEOPLE = ("ann", "bob", "cyd")
ITEMS = ("1-0", "1-1", "1-2")
ROUND = 1
STAGE = RoundStage(ROUND)

people, items = st.sampled_from(PEOPLE), st.sampled_from(ITEMS)
answers = st.sampled_from(["1", "2", " 2 ", "no  choice", ""])
seldom = st.sampled_from([False] * 5 + [True])


class Service:
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
        self.service = Service(Path(self.folder.name) / "events.sqlite")
        self.standing = {}  # what was acknowledged and not taken back: {(item, person): answer}
        self.skipped = set()
        self.drafts = {}
        self.requests = 0
        self.at_closing = None

    def teardown(self):
        self.service.log.close()
        self.folder.cleanup()

    @property
    def queue(self):
        return self.service.queue

    def assignment(self, item, person):
        return self.queue.items[item].assignments[person]

    def attempt(self, decision, request=None):
        """Whether it was done; what is refused must leave no event."""
        before = self.queue.last
        try:
            ids = self.service.do(decision, request)
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
                    "overlap": st.sampled_from([1, 1, 2, 3]),
                    "budget": st.sampled_from([0, 1, 1, 2]),
                    "choices": st.sampled_from([[], [], ["1", "2"]]),
                    "withheld": seldom,
                }
            ),
            min_size=2,
            max_size=len(ITEMS),
        )
    )
    def open(self, facts):
        self.service.tell("opened", lease=LEASE)
        for item, fact in zip(ITEMS, facts, strict=False):
            self.service.put(item, **fact)

    @rule(seconds=st.sampled_from([1.0, LEASE / 2, LEASE]))
    def wait(self, seconds):
        self.service.now += seconds

    def exchanges(self):
        return [
            (item, assignment.person, exchange)
            for item in self.queue.items.values()
            for assignment in item.assignments.values()
            for exchange in assignment.exchanges
        ]

    @precondition(lambda self: self.exchanges())
    @rule(data=st.data(), fails=seldom)
    def answer_a_question(self, data, fails):
        """Late, twice, or one that was taken back: workers are killed and begin anew."""
        item, person, exchange = data.draw(st.sampled_from(self.exchanges()))
        told = {"problem": "is no question"} if fails else {"text": f"to {exchange.text}"}
        before = exchange.answer, exchange.problem
        self.service.tell("told", item.id, person, number=exchange.number, by="assistant", **told)
        queue = self.queue
        if before != (None, None):
            now = queue.items[item.id].assignments[person].exchanges[exchange.number - 1]
            assert (now.answer, now.problem) == before, "what was seen was changed"

    @precondition(lambda self: self.standing or self.skipped)
    @rule(data=st.data())
    def refuse(self, data):
        """Perhaps of an answer that was undone meanwhile."""
        whose = data.draw(st.sampled_from(sorted({*self.standing, *self.skipped})))
        self.service.tell("refused", *whose, problem="no answer")
        if self.at_closing is None and whose in self.standing:
            self.drafts[whose] = self.standing.pop(whose)

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), overlap=st.integers(1, 2))
    def put_up_for_review(self, data, overlap):
        item, person = data.draw(st.sampled_from(sorted(self.standing)))
        name = f"{item}-review-{person}"
        if "review" not in item:  # one is not reviewed in turn
            self.service.put(name, review_of=[item, person], overlap=overlap)

    @rule(item=items, really=seldom)
    def withdraw(self, item, really):
        if item in self.queue.items and really:
            self.service.tell("withdrawn", item, reason="skipped by too many")

    @rule(really=seldom)
    def close(self, really):
        if self.queue.last < 40 or not really:
            return
        self.service.tell("closed")
        if self.at_closing is None:
            self.at_closing = self.outcome()

    # People

    @rule(person=people)
    def take(self, person):
        before = self.in_hand(person)
        assert self.attempt(lambda queue: queue.take(person, self.service.now))
        item = self.queue.current(person, self.service.now)
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
        return self.queue.current(person, self.service.now)

    def is_free(self, item: Item, person: str):
        """By the definition: what may be given to somebody who has nothing in hand."""
        closed = self.queue.stages[STAGE].closed is not None
        mine = item.review_of is not None and item.review_of[1] == person
        done = (item.id, person) in {*self.standing, *self.skipped}
        if closed or item.withdrawn is not None or mine or done:
            return False
        back = item.assignments.get(person)
        return self.occupied(item) < item.overlap or (
            back is not None and self.queue.is_held(back, self.service.now)
        )

    def occupied(self, item: Item):
        held = [
            a for a in item.assignments.values()
            if a.state == ACTIVE and self.service.now < a.renewed + LEASE
        ]  # fmt: skip
        return len(held) + sum(whose[0] == item.id for whose in self.standing)

    def somewhere(self, data, person):
        """Mostly what is in hand, sometimes anything that was, or somebody else's."""
        current = self.in_hand(person)
        everywhere = sorted(self.queue.items)
        return data.draw(
            st.sampled_from([current.id] * 6 + everywhere)
            if current is not None
            else st.sampled_from(everywhere)
        )

    @rule(data=st.data(), person=people, text=st.sampled_from(["why?", "who?", " "]))
    def ask(self, data, person, text):
        item, current = self.somewhere(data, person), self.in_hand(person)
        asked = self.attempt(lambda queue: queue.ask(person, item, text, self.service.now))
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
        self.attempt(lambda queue: queue.ask(person, item, "", self.service.now, about=about))

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
        done = self.attempt(lambda q: q.submit(person, item, answer, self.service.now), request)
        choices = self.queue.items[item].choices
        said = " ".join(answer.split())
        if current is not None and item == current.id:
            assert done == (bool(said) and (not choices or said in choices))
        if stood is not None and stood == said:
            assert done, "saying it again changes nothing"
        if done:
            self.standing[item, person] = said
            last = self.queue.last
            assert self.attempt(lambda q: q.submit(person, item, answer, self.service.now), request)
            assert self.queue.last == last, "sent twice, counted twice"

    @rule(data=st.data(), person=people)
    def skip(self, data, person):
        item, current = self.somewhere(data, person), self.in_hand(person)
        done = self.attempt(lambda queue: queue.skip(person, item, "unclear", self.service.now))
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
        if not self.attempt(lambda queue: queue.undo(person, self.service.now)):
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
            for event in self.service.log.since()
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
    def nobody_holds_two_but_for_what_came_back(self):
        for person in PEOPLE:
            held = [
                item.id for item in self.queue.items.values()
                if (a := item.assignments.get(person)) and self.queue.is_held(a, self.service.now)
                and a.problem is None and item.withdrawn is None
            ]  # fmt: skip
            assert len(held) <= 1, held

    @invariant()
    def what_is_open_is_what_is_not_complete(self):
        closed = STAGE in self.queue.stages and self.queue.stages[STAGE].closed is not None
        incomplete = [item for item in self.queue.items.values() if not item.complete]
        assert self.queue.open_items(STAGE) == (0 if closed else len(incomplete))

    @invariant()
    def after_closing_nothing_counts(self):
        assert self.at_closing is None or self.outcome() == self.at_closing

    @invariant()
    def the_log_alone_gives_the_same_state(self):
        again = Queue(self.service.log.since())
        assert list(vars(again)["_unfinished"]) == list(vars(self.queue)["_unfinished"])
        assert vars(again) == vars(self.queue)


def seen(exchange: Exchange):
    """Whether somebody was shown an answer."""
    return exchange.answer is not None


TestPeople = People.TestCase
TestPeople.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, report_multiple_bugs=False
)


# Each of these was broken once.


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path / "events.sqlite")
    service.tell("opened", lease=LEASE)
    service.put("1-0", budget=1)
    yield service
    service.log.close()


def test_a_late_draft_takes_nothing_back(service):
    service.do(lambda queue: queue.take("ann", service.now))
    service.now += LEASE
    service.do(lambda queue: queue.take("bob", service.now))
    service.do(lambda queue: queue.draft("ann", "1-0", "late"))
    assert service.queue.current("ann", service.now) is None
    assert service.queue.items["1-0"].assignments["ann"].draft == "late"
    assert service.queue.needs(service.queue.items["1-0"], service.now) == 0


def test_what_was_refused_cannot_be_undone_once_somebody_else_has_it(service):
    service.do(lambda queue: queue.take("ann", service.now))
    service.do(lambda queue: queue.submit("ann", "1-0", "1", service.now))
    service.tell("refused", "1-0", "ann", problem="no answer")
    service.now += LEASE
    service.do(lambda queue: queue.take("bob", service.now))
    with pytest.raises(RefusedError, match="nothing to undo"):
        service.do(lambda queue: queue.undo("ann", service.now))


def test_a_refusal_of_what_was_undone_meanwhile_means_nothing(service):
    service.do(lambda queue: queue.take("ann", service.now))
    service.do(lambda queue: queue.submit("ann", "1-0", "1", service.now))
    service.do(lambda queue: queue.undo("ann", service.now))
    service.now += LEASE
    service.do(lambda queue: queue.take("bob", service.now))
    service.tell("refused", "1-0", "ann", problem="no answer")
    assert service.queue.needs(service.queue.items["1-0"], service.now) == 0


def test_what_was_refused_comes_back_before_anything_else(service):
    service.put("1-1")
    service.put("1-2")
    service.do(lambda queue: queue.take("ann", service.now))
    service.do(lambda queue: queue.submit("ann", "1-0", "1", service.now))
    service.do(lambda queue: queue.take("ann", service.now))
    service.tell("refused", "1-0", "ann", problem="no answer")
    service.do(lambda queue: queue.submit("ann", "1-1", "1", service.now))
    service.do(lambda queue: queue.take("ann", service.now))
    assert service.queue.current("ann", service.now).id == "1-0"


def test_a_question_taken_back_before_it_was_answered_costs_nothing(service):
    service.do(lambda queue: queue.take("ann", service.now))
    service.do(lambda queue: queue.ask("ann", "1-0", "why?", service.now))
    service.do(lambda queue: queue.undo("ann", service.now))
    service.do(lambda queue: queue.ask("ann", "1-0", "who?", service.now))
    for number in (1, 2, 2):
        service.tell("told", "1-0", "ann", number=number, text=f"to {number}", by="assistant")
    why, who = service.queue.items["1-0"].assignments["ann"].exchanges
    assert (why.answer, why.costs) == (None, False)
    assert who.answer == "to 2"
    service.tell("told", "1-0", "ann", number=2, text="something else", by="assistant")
    assert service.queue.items["1-0"].assignments["ann"].exchanges[1].answer == "to 2"


def test_nothing_is_asked_in_another_window_about_what_is_no_longer_in_hand(service):
    service.put("1-1")
    service.do(lambda queue: queue.take("ann", service.now))
    service.now += LEASE
    service.do(lambda queue: queue.take("bob", service.now))
    service.do(lambda queue: queue.take("ann", service.now))
    service.do(lambda queue: queue.skip("bob", "1-0", "unclear", service.now))
    with pytest.raises(RefusedError, match="another question in hand"):
        service.do(lambda queue: queue.ask("ann", "1-0", "why?", service.now))
    service.do(lambda queue: queue.submit("ann", "1-0", "1", service.now))  # is not lost
    assert service.queue.items["1-0"].complete


def test_a_review_of_what_was_taken_back_is_withdrawn_unless_somebody_began(service):
    service.put("1-1")
    for person in ("ann", "bob"):
        service.do(partial(Queue.take, person=person, now=service.now))
    for person, item in (("ann", "1-0"), ("bob", "1-1")):
        service.do(partial(Queue.submit, person=person, item=item, answer="1", now=service.now))
        service.put(f"{item}-review", review_of=[item, person])
    service.do(lambda queue: queue.undo("bob", service.now))
    assert service.queue.items["1-1-review"].complete
    service.do(lambda queue: queue.take("cyd", service.now))
    assert service.queue.current("cyd", service.now).id == "1-0-review"
    with pytest.raises(RefusedError, match="somebody is checking"):
        service.do(lambda queue: queue.undo("ann", service.now))
    service.put("1-1-again", review_of=["1-1", "bob"])
    assert service.queue.items["1-1-again"].complete


def test_what_comes_after_a_round_was_closed_counts_no_more(service):
    service.do(lambda queue: queue.take("ann", service.now))
    service.do(lambda queue: queue.ask("ann", "1-0", "why?", service.now))
    service.tell("closed")
    service.tell("told", "1-0", "ann", number=1, text="late", by="assistant")
    service.put("1-9")
    service.do(lambda queue: queue.draft("ann", "1-0", "kept"))
    mine = service.queue.items["1-0"].assignments["ann"]
    assert mine.exchanges[0].answer is None
    assert mine.draft == "kept"
    assert "1-9" not in service.queue.items
    assert service.queue.open_items(STAGE) == 0


def test_an_item_that_is_put_up_twice_is_one(service):
    service.do(lambda queue: queue.take("ann", service.now))
    service.put("1-0")
    assert "ann" in service.queue.items["1-0"].assignments
    assert service.queue.stages[STAGE].items == ["1-0"]
