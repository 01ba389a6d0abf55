"""What the admin pages share: a view of the log of their own, and how they are rendered.

Counting over a whole log takes longer than people who answer should wait, so admin pages are
rendered in other threads, from a state of their own.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import Response

from amplify.evaluation import figures
from amplify.people import quality
from amplify.people.events import Event
from amplify.people.log import EVENTS, Log
from amplify.people.rules import Queue
from amplify.people.stale import CLOSED, CORRECTED, DECIDES
from amplify.web import access, pages
from amplify.web.access import Visitor

A_PAGE = 25
"""Trees or answers on a page."""

Admin = Annotated[Visitor, Depends(access.admin)]


class AdminView:
    """A state folded from the log, apart from that of people's pages. One thread at a time."""

    def __init__(self, experiment: Path) -> None:
        self.experiment = experiment
        self._log: Log | None = None
        self._queue, self._one_at_a_time = Queue(), threading.Lock()
        self._ids: dict[str, list[int]] = {}
        self._known: dict[str, tuple[int, Any]] = {}
        self._closed: set[int] = set()
        self.last_decision = 0  # id of the last event that may have made something stale or fresh

    @contextlib.contextmanager
    def read(self) -> Iterator[Queue]:
        """Yields the state now, which does not change during the block."""
        with self._one_at_a_time:
            if self._log is None:
                self._log = Log(self.experiment / EVENTS)
            for event in self._log.since(self._queue.last):
                self._queue.apply(event)
                if event.item is not None:
                    self._ids.setdefault(event.item, []).append(event.id)
                self._note(event)
            yield self._queue

    def _note(self, event: Event) -> None:
        if event.kind == CLOSED:
            self._closed.add(event.round)
        # A corrected sub-answer may have been told in any round; all else is about its own.
        there = self._closed if event.kind == CORRECTED else self._closed & {event.round}
        if event.kind in DECIDES and there:
            self.last_decision = event.id

    def once(self, name: str, work: Callable[[], Any], since: int | None = None) -> Any:
        """Returns what `work` returns, from a cache if nothing has happened since. While reading.

        Args:
            name: of the value.
            work: computes it.
            since: id of the last event that may have changed it; None: of any event.
        """
        since = self._queue.last if since is None else since
        last, value = self._known.get(name, (-1, None))
        if last != since:
            value = work()
            self._known[name] = (since, value)
        return value

    def events(self) -> Iterator[Event]:
        """All events. While reading."""
        assert self._log is not None
        return self._log.since()

    def history(self, item: str) -> list[Event]:
        """The events about an item. While reading."""
        assert self._log is not None
        return [next(self._log.since(number - 1)) for number in self._ids.get(item, [])]

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def view_of(http: Request) -> AdminView:
    """The application's view of the log for admin pages."""
    return http.app.state.view


def page(http: Request, name: str, code: int = 200, **values: Any) -> Response:
    """Renders an admin page; arguments as for `pages.page`."""
    return pages.page(http, f"admin/{name}", code, figures=figures, quote=quote, iso=_iso, **values)


def disagreements(view: AdminView, queue: Queue) -> list[quality.Disagreement]:
    """Disagreements of all rounds, cached. While reading."""
    return view.once("disagreements", lambda: quality.disagreements(queue))


def number(text: str) -> int | None:
    """The number chosen in a form; None if none was."""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def some(found: Sequence[Any], page: int) -> Sequence[Any]:
    """The part of a sequence that is shown on a page, from 0."""
    return found[max(0, page) * A_PAGE :][:A_PAGE]


def paging(http: Request, page: int, count: int) -> Mapping[str, Any]:
    """Values for a template: number of the first entry, URLs of the pages before and after."""
    page = max(0, page)

    def at(number: int) -> str:
        return str(http.url.include_query_params(page=number).replace(scheme="", netloc=""))

    return {
        "first": page * A_PAGE + 1,
        "before": at(page - 1) if page else None,
        "after": at(page + 1) if (page + 1) * A_PAGE < count else None,
    }


def _iso(at: float) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
