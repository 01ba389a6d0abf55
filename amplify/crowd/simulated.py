"""One simulated person with a browser of their own, and a crowd of them.

They know their links, how to decide and what is on their pages, never the log or a context.
While the web server is away they keep trying.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import httpx

from amplify.crowd.page_reader import Page, read_page
from amplify.crowd.simulated_policy import Action
from amplify.errors import AmplifyError
from amplify.overseers.habits import CrowdConfig, Habits
from amplify.people.roster import Member

SOONEST, LATEST = 0.05, 2.0
"""Shortest and longest time until a request is sent again, in seconds."""


class Done(NamedTuple):
    """A form that was sent and acknowledged."""

    form: str
    item: str
    person: str
    text: str


@dataclasses.dataclass
class Diary:
    """What a crowd did."""

    done: list[Done] = dataclasses.field(default_factory=list)
    seconds: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    """Of each request: what it was for, and how long it took."""
    failures: int = 0
    """Requests that failed and were sent again."""


Decide = Callable[[Habits, Page], Action]
"""Maps somebody's habits and the page in front of them to what they do, see `simulated_policy`."""


async def run_crowd(
    decide: Decide,
    config: CrowdConfig,
    members: Sequence[Member],
    address: str,
    diary: Diary,
) -> None:
    """Lets a crowd work until the round is closed, or until it is cancelled.

    Args:
        decide: what somebody does on a page.
        config: how the people behave.
        members: with their links; one simulated person each.
        address: of the web server.
        diary: is written as they go.

    Raises:
        AmplifyError: a link does not work.
    """
    async with contextlib.AsyncExitStack() as until_all_went, asyncio.TaskGroup() as group:
        for number, member in enumerate(members):
            # A browser each: a pool of connections looks at all of them with every request.
            client = httpx.AsyncClient(base_url=address, verify=False, timeout=30.0)
            await until_all_went.enter_async_context(client)
            habits = Habits(config, member.person, number)
            person = Simulated(decide, habits, member.token, client, diary)
            group.create_task(person.live())


@dataclasses.dataclass
class Simulated:
    """One person, with a browser of their own."""

    decide: Decide
    habits: Habits
    token: str
    client: httpx.AsyncClient
    diary: Diary

    async def live(self) -> None:
        """Works until the round is closed."""
        page, pauses = await self._enter(), _pauses()
        while not page.finished:
            if not page.item:
                await asyncio.sleep(next(pauses))
                page = await self._open("/answer", "page")
                continue
            if page.waits:
                page = await self._wait(page)
            page, pauses = await self._act(page), _pauses()

    async def _enter(self) -> Page:
        return await self._open(f"/in/{self.token}", "link")

    async def _wait(self, page: Page) -> Page:
        """Polls for the assistant's answer, as the page in a browser would."""
        pauses = _pauses()
        while page.waits:
            news = await self._open(page.again, "news")
            page = dataclasses.replace(
                page, exchanges=news.exchanges, again=news.again or page.again
            )
            if not news.exchanges:  # it is no longer ours
                return await self._open("/answer", "page")
            if page.waits:
                await asyncio.sleep(next(pauses) / 10)
        return page

    async def _act(self, page: Page) -> Page:
        """Does what comes next and returns the page that follows."""
        if not page.item or page.waits:
            return page
        action = self.decide(self.habits, page)
        following = await self._send(page, action)
        if following.problem and following.item == page.item:
            # Not done, and would not be the second time.
            why = Action("skip", f"I cannot go on: {following.problem}"[:200])
            following = await self._send(following, why)
        if following.problem:
            await asyncio.sleep(SOONEST)
            return await self._open("/answer", "page")
        return following

    async def _send(self, page: Page, action: Action) -> Page:
        seconds = self.habits.seconds(page.item, len(page.exchanges))
        await asyncio.sleep(seconds)
        form = page.forms[action.form]
        data = {**form.fields, action.field: action.text, "seconds": f"{seconds:.3f}"}
        response = await self._request("POST", form.action, action.form, data)
        if response.is_redirect:
            self.diary.done.append(Done(action.form, page.item, self.habits.person, action.text))
        return await self._follow(response)

    async def _open(self, address: str, what: str) -> Page:
        return await self._follow(await self._request("GET", address, what))

    async def _follow(self, response: httpx.Response) -> Page:
        while response.is_redirect:
            response = await self._request("GET", response.headers["location"], "page")
        if response.status_code == 403:
            if response.request.url.path.startswith("/in/"):
                raise AmplifyError(f"{self.habits.person}: {read_page(response.text).problem}")
            return await self._enter()
        return read_page(response.text)

    async def _request(
        self, method: str, address: str, what: str, data: dict[str, str] | None = None
    ) -> httpx.Response:
        """Sends the request until it is answered: the server recognises one that it has seen."""
        for pause in _pauses():
            began = time.perf_counter()
            try:
                response = await self.client.request(method, address, data=data)
            except httpx.TransportError:
                self.diary.failures += 1
            else:
                self.diary.seconds.append((what, time.perf_counter() - began))
                if response.status_code != 429 and response.status_code < 500:
                    return response
                pause = max(pause, float(response.headers.get("retry-after", 0)))
            await asyncio.sleep(pause)
        raise AssertionError("pauses have no end")


def _pauses() -> "itertools.chain[float]":
    """Growing pauses, without end."""
    doublings = int(LATEST / SOONEST).bit_length()
    growing = (min(LATEST, SOONEST * 2**n) for n in range(doublings))
    return itertools.chain(growing, itertools.repeat(LATEST))
