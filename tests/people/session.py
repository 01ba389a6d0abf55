"""People for tests of the round's side: threads that answer through the pages' service, with no
page in between.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from amplify import words
from amplify.people.rules import Queue, RefusedError
from amplify.people.serving import Served, Where
from amplify.store import Store
from amplify.types import Task
from amplify.web.service import Service


class Nothing(Served):
    """No processes; what went wrong in a thread is raised where a dead process would be noticed."""

    def __init__(self) -> None:
        super().__init__("http://nowhere", [])
        self.trouble: list[BaseException] = []

    def keep_up(self) -> None:
        if self.trouble:
            raise self.trouble[0]


def strategy_of(task: Task) -> Callable[[str], Iterator[str]]:
    """The task's own strategy for one question, in words: yields sub-questions, is sent answers,
    returns the answer.
    """

    def take_apart(question: str):
        tokens = jnp.asarray(words.read_question(task, question))[None]
        steps = task.strategy(tokens)
        ask = next(steps)
        while True:
            if ask.where is not None and not bool(np.asarray(ask.where)[0]):
                told = jnp.zeros((1, task.answer_length), jnp.int32)
            else:
                said = yield words.format_tokens(task, np.asarray(ask.question)[0])
                told = jnp.asarray(words.read_answer(task, said))[None]
            try:
                ask = steps.send(told)
            except StopIteration as end:
                return words.format_tokens(task, np.asarray(end.value)[0])

    return take_apart


def work(service: Service, person: str, take_apart, stop: threading.Event) -> None:
    """Answers whatever there is, as the strategy does, until told to stop."""
    while not stop.is_set():
        service.do(lambda queue, now: queue.take(person, now))
        item = service.queue.current(person, service.clock())
        if item is None:
            time.sleep(0.01)
            continue
        with contextlib.suppress(RefusedError):
            answer(service, person, item.id, take_apart, stop)


def answer(service: Service, person: str, item: str, take_apart, stop: threading.Event) -> None:
    this = service.queue.items[item]
    if this.withheld or this.review_of or not this.budget:
        guess = this.gold or (this.choices[0] if this.choices else "nobody knows")
        service.do(lambda queue, now: queue.submit(person, item, guess, now), seconds=1.0)
        return
    said = yield_through(
        take_apart(this.question), functools.partial(asked, service, person, item, stop)
    )
    if this.choices and said not in this.choices:  # told nonsense, the strategy does not know
        said = this.choices[0]
    service.do(lambda queue, now: queue.submit(person, item, said, now), seconds=2.0)


def yield_through(steps, reply: Callable[[str], str]) -> str:
    """What a generator returns whose every yield is replied to."""
    try:
        question = next(steps)
        while True:
            question = steps.send(reply(question))
    except StopIteration as end:
        return end.value


def asked(service: Service, person: str, item: str, stop: threading.Event, question: str) -> str:
    """Asks what was not asked before: who comes back finds what they were told."""
    before = service.queue.items[item].assignments[person].exchanges
    if question not in [exchange.text for exchange in before]:
        service.do(lambda queue, now: queue.ask(person, item, question, now), seconds=0.5)
    return wait_for_answer(lambda: service.queue, item, person, stop, question)


def wait_for_answer(queue: Callable[[], Queue], item: str, person: str, stop, question) -> str:
    while not stop.is_set():
        exchanges = queue().items[item].assignments[person].exchanges
        [this] = [exchange for exchange in exchanges if exchange.text == question]
        if not this.pending:
            assert this.problem is None, this.problem
            return this.answer
        time.sleep(0.01)
    raise RefusedError("the test is over")


@contextlib.contextmanager
def people_at_work(experiment: Path, where: Where, *, crowd: bool = False, count: int = 3):
    """In place of `serving`: people without pages."""
    take_apart = strategy_of(Store(experiment).experiment.task)
    service, stop, nothing = Service(experiment), threading.Event(), Nothing()

    def person(name: str) -> None:
        try:
            work(service, name, take_apart, stop)
        except BaseException as error:
            nothing.trouble.append(error)

    names = [f"person-{number:02d}" for number in range(1, count + 1)]
    threads = [threading.Thread(target=person, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield nothing
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        service.log.close()
