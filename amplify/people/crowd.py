"""Simulated people: they use the same pages as everybody, through the same HTTP interface.

`python -m amplify.people.crowd EXPERIMENT --address URL`: all of them in one process, until the
round is closed or they are told to stop. They know their links, the task's strategy and what is on
their pages, never the log or a context. Where the web server is away for a while they try again.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import tyro

from amplify.errors import AmplifyError
from amplify.people.habits import CrowdConfig, Habits
from amplify.people.reading import Page, read_page
from amplify.people.roster import Member, Roster
from amplify.people.serving import end_with_parent
from amplify.people.thinking import Act, decide
from amplify.types import SimulatedTask

SOONEST, LATEST = 0.05, 2.0
"""Seconds until something is tried again: at first, and in the end."""


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
    """What was asked of the web server, and how long it took."""
    failures: int = 0
    """Requests that had no answer, and were sent again."""


async def run_crowd(
    task: SimulatedTask,
    config: CrowdConfig,
    members: Sequence[Member],
    address: str,
    diary: Diary,
) -> None:
    """Lets all of them work until there is nothing left, or it is cancelled.

    Raises AmplifyError if a link does not work.
    """
    async with contextlib.AsyncExitStack() as until_all_went, asyncio.TaskGroup() as group:
        for number, member in enumerate(members):
            # A browser each: a pool of connections looks at all of them with every request.
            client = httpx.AsyncClient(base_url=address, verify=False, timeout=30.0)
            await until_all_went.enter_async_context(client)
            habits = Habits(config, member.person, number)
            person = Simulated(task, habits, member.token, client, diary)
            group.create_task(person.live())


@dataclasses.dataclass
class Simulated:
    """One person, with a browser of their own."""

    task: SimulatedTask
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
        """For the assistant's answer: the page looks again, and the server takes its time."""
        pauses = _pauses()
        while page.waits:
            news = await self._open(page.again, "news")
            page = dataclasses.replace(page, told=news.told, again=news.again or page.again)
            if not news.told:  # it is no longer ours
                return await self._open("/answer", "page")
            if page.waits:
                await asyncio.sleep(next(pauses) / 10)
        return page

    async def _act(self, page: Page) -> Page:
        """Does what comes next; returns the page that follows."""
        if not page.item or page.waits:
            return page
        act = decide(self.task, self.habits, page)
        following = await self._send(page, act)
        if following.problem and following.item == page.item:
            # Not done, and would not be the second time.
            why = Act("skip", f"I cannot go on: {following.problem}"[:200])
            following = await self._send(following, why)
        if following.problem:
            await asyncio.sleep(SOONEST)
            return await self._open("/answer", "page")
        return following

    async def _send(self, page: Page, act: Act) -> Page:
        seconds = self.habits.seconds(page.item, len(page.told))
        await asyncio.sleep(seconds)
        form = page.forms[act.form]
        data = {**form.fields, act.field: act.text, "seconds": f"{seconds:.3f}"}
        response = await self._request("POST", form.action, act.form, data)
        if response.is_redirect:
            self.diary.done.append(Done(act.form, page.item, self.habits.person, act.text))
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
        """Sends the same until there is an answer: who gets it twice knows that it is the same."""
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
    """Ever longer ones."""
    doublings = int(LATEST / SOONEST).bit_length()
    growing = (min(LATEST, SOONEST * 2**n) for n in range(doublings))
    return itertools.chain(growing, itertools.repeat(LATEST))


def invite_crowd(roster: Roster, people: int, now: float) -> list[Member]:
    """So many simulated people, those who were there before first."""
    there = [m for m in roster.members() if m.simulated and (m.expires is None or m.expires > now)]
    missing = people - len(there)
    return [*there, *roster.invite([""] * max(0, missing), now, simulated=True)][:people]


def serve_crowd(
    experiment: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")],
    address: Annotated[str, tyro.conf.arg(help="of its web server")] = "http://127.0.0.1:8000",
) -> None:
    """Let simulated people answer an experiment's questions on its web pages.

    Raises AmplifyError if they cannot.
    """
    from amplify.experiment_file import read_experiment

    chosen = read_experiment(experiment / "experiment.toml")
    if not isinstance(chosen.task, SimulatedTask):
        raise AmplifyError(
            f"{experiment}: simulated people need a task with a strategy, and"
            f" {type(chosen.task).__name__} has none"
        )
    config = CrowdConfig(**chosen.values.get("overseer.crowd", {}))
    members = invite_crowd(Roster(experiment), config.people, time.time())
    asyncio.run(_until_told(chosen.task, config, members, address))


async def _until_told(
    task: SimulatedTask, config: CrowdConfig, members: Sequence[Member], address: str
) -> None:
    diary = Diary()
    crowd = asyncio.ensure_future(run_crowd(task, config, members, address, diary))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, crowd.cancel)
    try:
        await crowd
    except asyncio.CancelledError:
        pass  # what was not acknowledged is done by whoever comes next
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    submitted = sum(done.form == "submit" for done in diary.done)
    print(f"{len(members)} simulated people submitted {submitted} answers")


def main(argv: Sequence[str] | None = None) -> None:
    end_with_parent()
    try:
        tyro.cli(serve_crowd, args=argv, description=serve_crowd.__doc__)
    except AmplifyError as error:
        print(f"amplify: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
