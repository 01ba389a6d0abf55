"""Asks a server that speaks as OpenAI's does, as most that serve language models do.

A prompt is asked until its reply makes sense: what the network or the server spoiled is asked
again as it was, and a reply that makes no sense is answered with what was wrong about it. All
replies are kept in the round's exchanges, and none that is there is asked for again. Knows nothing
of tasks.
"""

import asyncio
import contextlib
import dataclasses
import json
import textwrap
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from amplify.errors import AmplifyError, first_line
from amplify.overseers.address import KEY, key_for
from amplify.overseers.exchanges import Exchanges, Message, Reply, current, digest
from amplify.types import Place

LONGEST = 100_000
"""Characters of a reply that are read and kept."""
QUOTED = 500
"""Characters of a reply that the model is shown again when it is told what was wrong with it."""

Read = TypeVar("Read")
Result = TypeVar("Result")


class Prompt(NamedTuple):
    text: str
    draw: str = ""  # different for samples of the same prompt that may differ


class Unusable(NamedTuple):
    """A reply that nothing can be made of."""

    why: str
    wanted: str  # what to reply instead


class RequestFailedError(Exception):
    """A request got no reply that can be read, and asking again would not help."""

    def __init__(
        self, reason: str, requests: int, *, hopeless: bool = False, busy: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.requests = reason, requests
        self.hopeless = hopeless  # any other request would fail too
        self.busy = busy  # nobody is there, or has time


class MalformedReplyError(Exception):
    """A reply that is not in the protocol's form."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server, and how it is asked. Seconds for `deadline`."""

    address: str  # such as http://localhost:8000/v1
    model: str
    instructions: str
    temperature: float | None = 0.0  # None: the server's own
    max_tokens: int = 1024
    concurrent: int = 16
    attempts: int = 4
    deadline: float = 60.0
    extra_body: str = "{}"  # JSON

    @property
    def settings(self) -> dict[str, Any]:
        """What all requests have in common; part of what a reply is filed under."""
        extra = json.loads(self.extra_body)
        parameters: dict[str, Any] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        if self.temperature is None:
            del parameters["temperature"]
        if "max_completion_tokens" in extra:  # what reasoning models take in its place
            del parameters["max_tokens"]
        return {
            "address": self.address,
            "model": self.model,
            "instructions": self.instructions,
            "parameters": parameters | extra,
        }

    @property
    def samples(self) -> bool:
        """Whether the same prompt may get another reply."""
        return self.temperature != 0

    def load(self, place: Place) -> None:
        """The model's weights are the server's."""

    def answer(
        self,
        prompts: Sequence[Prompt],
        read: Callable[[Reply], Read | Unusable],
        params: None = None,
        lines: int = 0,
    ) -> list[Read | None]:
        """What each prompt's first usable reply says; None where none came.

        Args:
            read: makes something of a reply, the same whenever it is given the same.
            params, lines: not used; see `language_model.Speaker`.
        """
        found = _run_in_thread(self._answer(current(), prompts, read))
        return [found[prompt] for prompt in prompts]

    async def _answer(
        self,
        exchanges: Exchanges,
        prompts: Sequence[Prompt],
        read: Callable[[Reply], Read | Unusable],
    ) -> dict[Prompt, Read | None]:
        found: dict[Prompt, Read | None] = {}
        waiting = iter(dict.fromkeys(prompts))
        conversation = _Conversation(self, exchanges)

        async def work(waiting: Iterator[Prompt]) -> None:
            for prompt in waiting:
                found[prompt] = await conversation.hold(prompt, read)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrent, len(prompts))):
                    group.create_task(work(waiting))
        finally:
            exchanges.reusing(conversation.reused)
            await conversation.close()
        return found


def _run_in_thread(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine in a thread of its own, because this one may have an event loop already.
    Ctrl-C cancels it.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def run() -> Result:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, run())
        try:
            return running.result()
        except KeyboardInterrupt:
            loop, task = begun.result()
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has just ended
                loop.call_soon_threadsafe(task.cancel)
            raise


class _Conversation:
    """Conversations with one server, about one prompt each."""

    def __init__(self, endpoint: Endpoint, exchanges: Exchanges) -> None:
        self._endpoint, self._exchanges = endpoint, exchanges
        self._settings = endpoint.settings
        self._settings_digest = digest(self._settings)
        self._client: Any = None
        self.reused = 0
        """Prompts whose answer was on file, every reply that it took."""

    async def hold(self, prompt: Prompt, read: Callable[[Reply], Read | Unusable]) -> Read | None:
        exchanges, left = self._exchanges, self._endpoint.attempts
        messages: list[Message] = [{"role": "user", "content": as_text(prompt.text)}]
        on_file = True
        while left > 0:
            name = digest([self._settings_digest, messages, prompt.draw])
            reply = exchanges.find(name)
            if reply is None:
                on_file = False
                reply = await self._request(name, messages, left)
            if reply is None:
                return None
            said = read(reply)
            if not isinstance(said, Unusable):
                self.reused += on_file
                return said
            exchanges.trouble = f"{self._endpoint.address}: {said.why}"
            left -= reply.requests
            messages += [
                {"role": "assistant", "content": as_text(reply.text[:QUOTED]) or "(nothing)"},
                {"role": "user", "content": f"This cannot be used: {said.why}. {said.wanted}"},
            ]
        return None

    async def _request(self, name: str, messages: list[Message], left: int) -> Reply | None:
        """A new reply, on file; None if there is none, which is on file too."""
        exchanges = self._exchanges
        if reason := exchanges.failed(name):
            exchanges.trouble = reason
            if exchanges.asks:
                exchanges.fail(name, reason, 0)
            return None
        try:
            reply = await self._send(name, messages, left)
        except RequestFailedError as failure:
            exchanges.fail(name, failure.reason, failure.requests)
            exchanges.failures_in_a_row += failure.busy
            if failure.hopeless or exchanges.failures_in_a_row >= self._endpoint.concurrent:
                exchanges.down = failure.reason
            return None
        exchanges.add(name, self._settings, messages, reply)
        return reply

    async def _send(self, name: str, messages: list[Message], left: int) -> Reply:
        """The reply to a request, which is noted under its name each time that it is sent.

        Raises RequestFailedError if up to `left` requests get no reply that can be read."""
        import httpx2  # takes half a second, and most experiments need none of it
        import openai

        from amplify.overseers.transport import NAME, client_for

        address, sent = self._endpoint.address, 0
        key = ""
        try:
            key = key_for(address)
            if self._client is None:
                self._client = client_for(
                    address,
                    self._endpoint.deadline,
                    self._endpoint.concurrent,
                    lambda name: self._exchanges.sending(name, self._settings),
                )
            while True:
                client = self._client.with_options(max_retries=left - sent - 1)
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._endpoint.model,
                    messages=[
                        {"role": "system", "content": as_text(self._endpoint.instructions)},
                        *messages,
                    ],
                    extra_body=self._settings["parameters"],
                    extra_headers={NAME: name},
                )
                sent += 1 + raw.retries_taken
                try:
                    return read_body(raw.http_response.content, key)._replace(requests=sent)
                except MalformedReplyError as error:
                    if sent >= left:
                        raise RequestFailedError(f"{address}: {error}", sent) from None
        except openai.APIError as error:
            sent += 1 + int(error.request.headers.get("x-stainless-retry-count", 0))
            status = getattr(error, "status_code", None)
            reason = f"{address}: {reason_of(error, key)}"
            if status == 401 and not key:
                reason += f" (no key was sent: {KEY} is not set, or this is plain http)"
            hopeless = status in (401, 403, 404) or status in range(300, 400)
            absent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ReadTimeout)
            busy = isinstance(error.__cause__, absent) or status in (429, *range(500, 600))
            raise RequestFailedError(reason, sent, hopeless=hopeless, busy=busy) from None
        except AmplifyError as error:
            raise RequestFailedError(str(error), sent, hopeless=True) from None
        except (
            openai.OpenAIError,
            httpx2.HTTPError,
            httpx2.InvalidURL,
            OSError,
            ValueError,
            RecursionError,
        ) as error:
            reason = f"{address}: {printable(without(key, first_line(error)))}"
            raise RequestFailedError(reason, sent + 1) from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def read_body(body: bytes, key: str = "") -> Reply:
    """The first choice of a chat completion.

    Raises:
        MalformedReplyError: saying what is not in the protocol's form.
    """
    shown = printable(without(key, body[:1000].decode(errors="replace"))[:80]) or "it is empty"
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"the reply is not JSON: {shown}") from None
    choices = whole.get("choices") if isinstance(whole, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(choice, dict):
        raise MalformedReplyError(f"the reply has no message in it: {shown}")
    text, cut_off = message.get("content"), choice.get("finish_reason") == "length"
    if text is None and cut_off:  # all of it went into reasoning
        text = ""
    if not isinstance(text, str):
        refused = message.get("refusal")
        why = f", and it refused: {refused}" if isinstance(refused, str) else ""
        raise MalformedReplyError(
            printable(without(key, f"the message's content must be text, got {text!r}{why}"))
        )
    usage = whole.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = whole.get("model")
    return Reply(
        without(key, text)[:LONGEST],
        cut_off,
        printable(model) if isinstance(model, str) else "",
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def reason_of(error: Any, key: str) -> str:
    """What went wrong with a request (an `openai.APIError`), as the server or the network says."""
    status = getattr(error, "status_code", None)
    if status is None:
        return printable(without(key, first_line(_cause(error))))
    if status in range(300, 400):
        return f"HTTP {status}: redirects are not followed; name the server itself"
    body = error.body
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
    said = body if isinstance(body, str) else error.response.text
    return f"HTTP {status}: {printable(without(key, said)) or 'it gives no reason'}"


def as_text(text: str) -> str:
    """Text that can be sent: lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """What somebody else wrote, in one short line that a terminal can show."""
    shown = "".join(one if one.isprintable() else " " for one in text[:2000])
    return textwrap.shorten(shown, 200)


def without(key: str, text: str) -> str:
    """Some servers repeat the key that they were sent."""
    return text.replace(key, "[key]") if key else text


def _cause(error: Exception) -> Exception:
    cause = error.__cause__
    return cause if isinstance(cause, Exception) and str(cause) else error


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 40 else 0
