"""What all pages share: the log, the state that it amounts to, and who may come in.

Every request first catches up with what other processes appended. What is decided on the state is
appended in one transaction with that look, so that two people are never given the last place of an
item. Never imports jax.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from amplify.people.events import New
from amplify.people.log import EVENTS, Log
from amplify.people.roster import Roster
from amplify.people.rules import Queue, RefusedError

TOO_LATE = (
    "this comes too late: this form was sent before with other content, and that is what counts;"
    " what you typed now is still here"
)


class Service:
    def __init__(self, experiment: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises AmplifyError if the log is damaged or of a later version."""
        self.experiment, self.clock = experiment, clock
        self.log, self.roster = Log(experiment / EVENTS, clock), Roster(experiment)
        self._queue, self._one_at_a_time = Queue(self.log.since()), threading.RLock()

    @property
    def title(self) -> str:
        """Of the last round that was read of. Any thread may ask for it: it changes nothing, while
        the state is looked at by one thread alone.
        """
        rounds = dict(self._queue.rounds)
        return (rounds[max(rounds)].title if rounds else "") or self.experiment.resolve().name

    @property
    def queue(self) -> Queue:
        """The state as of now."""
        with self._one_at_a_time:
            for event in self.log.since(self._queue.last):
                self._queue.apply(event)
            return self._queue

    def do(
        self,
        decision: Callable[[Queue, float], list[New]],
        *,
        request: str | None = None,
        sent: str | None = None,
        seconds: float | None = None,
    ) -> list[int]:
        """Appends what `decision` returns for the state and the time; returns the events' ids.

        Args:
            request: an id that the sender gives; the same request is carried out once.
            sent: a digest of what the request says besides.
            seconds: of attention that it took.

        Raises RefusedError if it may not be done, or if the same request said something else
        before.
        """

        name = f"{request}#{sent}" if request and sent else request

        def decide() -> list[New]:
            if request and self.log.has_request(f"{request}#"):
                raise RefusedError(TOO_LATE)  # the very same would not have come as far as this
            events = decision(self.queue, self.clock())
            if events:
                events[-1] = {**events[-1], "seconds": seconds}
            return events

        with self._one_at_a_time:
            return self.log.decide(decide, name)
