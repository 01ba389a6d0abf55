"""What the pages of whoever runs the experiment have in common: how they look at the log, and how
they are made.

Counting over a whole log takes longer than a page for people may; so these pages are made in other
threads, from a reading of the log of their own.
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

from amplify import figures
from amplify.people import quality
from amplify.people.events import Event
from amplify.people.log import EVENTS, Log
from amplify.people.rules import Queue
from amplify.people.stale import CLOSED, CORRECTED, DECIDES
from amplify.web import access, pages
from amplify.web.access import Visitor

A_PAGE = 25
"""Trees or answers shown at a time."""

Admin = Annotated[Visitor, Depends(access.admin)]


class AdminView:
    """A reading of the log apart from the one that people's pages share. One page at a time."""

    def __init__(self, experiment: Path) -> None:
        self.experiment = experiment
        self._log: Log | None = None
        self._queue, self._one_at_a_time = Queue(), threading.Lock()
        self._ids: dict[str, list[int]] = {}
        self._known: dict[str, tuple[int, Any]] = {}
        self._closed: set[int] = set()
        self.last_decision = 0  # id of the last event that can have made something stale, or fresh

    @contextlib.contextmanager
    def read(self) -> Iterator[Queue]:
        """The state as of now, which stays as it is meanwhile."""
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
        """What `work` gives, called only if something happened since it last was: by default
        anything, else event `since`. While looking.
        """
        since = self._queue.last if since is None else since
        last, value = self._known.get(name, (-1, None))
        if last != since:
            value = work()
            self._known[name] = (since, value)
        return value

    def events(self) -> Iterator[Event]:
        """All, while looking."""
        assert self._log is not None
        return self._log.since()

    def history(self, item: str) -> list[Event]:
        """The events about an item, while looking."""
        assert self._log is not None
        return [next(self._log.since(number - 1)) for number in self._ids.get(item, [])]

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def view_of(http: Request) -> AdminView:
    return http.app.state.view


def page(http: Request, name: str, code: int = 200, **values: Any) -> Response:
    return pages.page(http, f"admin/{name}", code, figures=figures, quote=quote, iso=_iso, **values)


def disagreements(view: AdminView, queue: Queue) -> list[quality.Disagreement]:
    return view.once("disagreements", lambda: quality.disagreements(queue))


def number(text: str) -> int | None:
    """Of a choice in a form; None where nothing was chosen."""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def some(found: Sequence[Any], page: int) -> Sequence[Any]:
    return found[max(0, page) * A_PAGE :][:A_PAGE]


def paging(http: Request, page: int, count: int) -> Mapping[str, Any]:
    """Addresses of the pages before and after, None where there are none."""
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
