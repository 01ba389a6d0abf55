"""What all pages share: the log, the state folded from it, and the roster.

Every request first applies what other processes have appended. A decision reads the state and
appends its events in one transaction, so two people never get the last place of an item.
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
    "this form was already sent with other content, and that is what counts; what you typed now is"
    " still here"
)


class Service:
    """Reads and writes the log for the pages on which people answer."""

    def __init__(self, experiment: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens the experiment's log.

        Raises:
            AmplifyError: the log is damaged or was written by a later version.
        """
        self.experiment, self.clock = experiment, clock
        self.log, self.roster = Log(experiment / EVENTS, clock), Roster(experiment)
        self._queue, self._one_at_a_time = Queue(self.log.since()), threading.RLock()

    @property
    def title(self) -> str:
        """Title of the latest stage that was read. Safe in any thread: it reads no events."""
        stages = list(self._queue.stages.items())
        latest = max(stages[::-1], key=lambda stage: stage[0].round, default=None)
        return (latest[1].title if latest else "") or self.experiment.resolve().name

    @property
    def queue(self) -> Queue:
        """The state now."""
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
        """Appends the events that a decision returns.

        Args:
            decision: is given the state and the time.
            request: the sender's id of the request, which is carried out only once.
            sent: digest of the request's content.
            seconds: of attention that it took.

        Returns:
            Ids of the events.

        Raises:
            RefusedError: the decision is not allowed, or the same request had other content
                before.
        """

        name = f"{request}#{sent}" if request and sent else request

        def decide() -> list[New]:
            if request and self.log.has_request(f"{request}#"):
                raise RefusedError(TOO_LATE)  # the same content would have been found by `decide`
            events = decision(self.queue, self.clock())
            if events:
                events[-1] = {**events[-1], "seconds": seconds}
            return events

        with self._one_at_a_time:
            return self.log.decide(decide, name)
