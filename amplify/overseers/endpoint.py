"""Sends prompts to a server with an OpenAI-compatible API.

A prompt is sent until it has a usable reply: failed requests are repeated unchanged, and an
unusable reply is answered with the reason why it cannot be used. All replies are logged in the
round's exchanges, and requests with a logged reply are not sent again. Independent of tasks.
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
from amplify.overseers.address import KEY_VARIABLE, key_for
from amplify.overseers.exchanges import Exchanges, Message, Reply, current, digest
from amplify.types import Place

MAX_REPLY_CHARACTERS = 100_000
"""Characters of a reply that are kept; the rest is dropped."""
QUOTED_CHARACTERS = 500
"""Characters of an unusable reply that are repeated to the model."""

Parsed = TypeVar("Parsed")
Result = TypeVar("Result")


class Prompt(NamedTuple):
    """A prompt, and which of its samples is wanted."""

    text: str
    draw: str = ""  # distinguishes independent samples of the same prompt


class Unusable(NamedTuple):
    """Why a reply cannot be used."""

    reason: str
    instruction: str  # what to reply instead


class RequestFailedError(Exception):
    """A request got no readable reply, and retrying is pointless or exhausted.

    Args:
        reason: why, in one line.
        requests: how often the request was sent.
        hopeless: whether any other request would fail, too.
        busy: whether the server was absent or overloaded.
    """

    def __init__(
        self, reason: str, requests: int, *, hopeless: bool = False, busy: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.requests = reason, requests
        self.hopeless, self.busy = hopeless, busy


class MalformedReplyError(Exception):
    """A reply does not follow the protocol."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server, and the parameters of requests to it."""

    address: str  # such as http://localhost:8000/v1
    model: str
    instructions: str  # the system message
    temperature: float | None = 0.0  # None: the server's default
    max_tokens: int = 1024  # of a reply
    concurrent: int = 16  # maximum number of concurrent requests
    attempts: int = 4  # maximum number of requests per prompt
    deadline: float = 60.0  # seconds per request
    extra_body: str = "{}"  # further parameters, as JSON

    @property
    def settings(self) -> dict[str, Any]:
        """What all requests have in common; part of the name under which replies are logged."""
        extra = json.loads(self.extra_body)
        parameters: dict[str, Any] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        if self.temperature is None:
            del parameters["temperature"]
        if "max_completion_tokens" in extra:  # replaces it for reasoning models
            del parameters["max_tokens"]
        return {
            "address": self.address,
            "model": self.model,
            "instructions": self.instructions,
            "parameters": parameters | extra,
        }

    @property
    def samples(self) -> bool:
        """Whether replies to the same prompt may differ."""
        return self.temperature != 0

    def load(self, place: Place) -> None:
        """Does nothing: the server has the model's weights."""

    def answer(
        self,
        prompts: Sequence[Prompt],
        parse: Callable[[Reply], Parsed | Unusable],
        params: None = None,
        lines: int = 0,
    ) -> list[Parsed | None]:
        """Answers prompts; see `language_model.Backend.answer`.

        Args:
            prompts: the prompts.
            parse: a pure function that parses a reply.
            params: unused.
            lines: unused.

        Returns:
            The first usable reply to each prompt, parsed; None if there is none.
        """
        found = _run_in_thread(self._answer(current(), prompts, parse))
        return [found[prompt] for prompt in prompts]

    async def _answer(
        self,
        exchanges: Exchanges,
        prompts: Sequence[Prompt],
        parse: Callable[[Reply], Parsed | Unusable],
    ) -> dict[Prompt, Parsed | None]:
        found: dict[Prompt, Parsed | None] = {}
        waiting = iter(dict.fromkeys(prompts))
        conversations = _Conversations(self, exchanges)

        async def work(waiting: Iterator[Prompt]) -> None:
            for prompt in waiting:
                found[prompt] = await conversations.ask(prompt, parse)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrent, len(prompts))):
                    group.create_task(work(waiting))
        finally:
            exchanges.log_reused(conversations.reused)
            await conversations.close()
        return found


def _run_in_thread(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine in a new thread, because this one may already have an event loop. Ctrl-C
    cancels it.
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


class _Conversations:
    """Conversations with one server, one per prompt."""

    def __init__(self, endpoint: Endpoint, exchanges: Exchanges) -> None:
        self._endpoint, self._exchanges = endpoint, exchanges
        self._settings = endpoint.settings
        self._settings_digest = digest(self._settings)
        self._client: Any = None
        self.reused = 0
        """Number of prompts that were answered from the log alone."""

    async def ask(
        self, prompt: Prompt, parse: Callable[[Reply], Parsed | Unusable]
    ) -> Parsed | None:
        exchanges, left = self._exchanges, self._endpoint.attempts
        messages: list[Message] = [{"role": "user", "content": encodable(prompt.text)}]
        all_logged = True
        while left > 0:
            name = digest([self._settings_digest, messages, prompt.draw])
            reply = exchanges.find(name)
            if reply is None:
                all_logged = False
                reply = await self._request(name, messages, left)
            if reply is None:
                return None
            parsed = parse(reply)
            if not isinstance(parsed, Unusable):
                self.reused += all_logged
                return parsed
            exchanges.last_error = f"{self._endpoint.address}: {parsed.reason}"
            left -= reply.requests
            messages += [
                {
                    "role": "assistant",
                    "content": encodable(reply.text[:QUOTED_CHARACTERS]) or "(nothing)",
                },
                {
                    "role": "user",
                    "content": f"This cannot be used: {parsed.reason}. {parsed.instruction}",
                },
            ]
        return None

    async def _request(self, name: str, messages: list[Message], left: int) -> Reply | None:
        """Requests a reply and logs it; None if there is none, which is also logged."""
        exchanges = self._exchanges
        if reason := exchanges.failure_reason(name):
            exchanges.last_error = reason
            if exchanges.may_send:
                exchanges.add_failure(name, reason, 0)
            return None
        try:
            reply = await self._send(name, messages, left)
        except RequestFailedError as failure:
            exchanges.add_failure(name, failure.reason, failure.requests)
            exchanges.consecutive_failures += failure.busy
            if failure.hopeless or exchanges.consecutive_failures >= self._endpoint.concurrent:
                exchanges.unavailable = failure.reason
            return None
        exchanges.add_reply(name, self._settings, messages, reply)
        return reply

    async def _send(self, name: str, messages: list[Message], left: int) -> Reply:
        """Sends a request up to `left` times; each time is logged under the request's name.

        Raises:
            RequestFailedError: if there is no readable reply.
        """
        import httpx2  # the import takes half a second, and most experiments do not need it
        import openai

        from amplify.overseers.transport import NAME_HEADER, make_client

        address, sent = self._endpoint.address, 0
        key = ""
        try:
            key = key_for(address)
            if self._client is None:
                self._client = make_client(
                    address,
                    self._endpoint.deadline,
                    self._endpoint.concurrent,
                    lambda name: self._exchanges.log_request(name, self._settings),
                )
            while True:
                client = self._client.with_options(max_retries=left - sent - 1)
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._endpoint.model,
                    messages=[
                        {"role": "system", "content": encodable(self._endpoint.instructions)},
                        *messages,
                    ],
                    extra_body=self._settings["parameters"],
                    extra_headers={NAME_HEADER: name},
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
            reason = f"{address}: {describe_error(error, key)}"
            if status == 401 and not key:
                reason += f" (no key was sent: {KEY_VARIABLE} is not set, or this is plain http)"
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
            reason = f"{address}: {printable(redact(key, first_line(error)))}"
            raise RequestFailedError(reason, sent + 1) from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def read_body(body: bytes, key: str = "") -> Reply:
    """Parses the body of a chat completion.

    Args:
        body: JSON.
        key: the API key, which is redacted in the result.

    Returns:
        The first choice.

    Raises:
        MalformedReplyError: if the body does not follow the protocol.
    """
    excerpt = printable(redact(key, body[:1000].decode(errors="replace"))[:80]) or "it is empty"
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"the reply is not JSON: {excerpt}") from None
    choices = whole.get("choices") if isinstance(whole, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(choice, dict):
        raise MalformedReplyError(f"the reply has no message in it: {excerpt}")
    text, cut_off = message.get("content"), choice.get("finish_reason") == "length"
    if text is None and cut_off:  # all tokens were used for reasoning
        text = ""
    if not isinstance(text, str):
        refused = message.get("refusal")
        refusal = f", and it refused: {refused}" if isinstance(refused, str) else ""
        raise MalformedReplyError(
            printable(redact(key, f"the message's content must be text, got {text!r}{refusal}"))
        )
    usage = whole.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = whole.get("model")
    return Reply(
        redact(key, text)[:MAX_REPLY_CHARACTERS],
        cut_off,
        printable(model) if isinstance(model, str) else "",
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def describe_error(error: Any, key: str) -> str:
    """Describes why a request failed, in one line.

    Args:
        error: an `openai.APIError`.
        key: the API key, which is redacted.
    """
    status = getattr(error, "status_code", None)
    if status is None:
        return printable(redact(key, first_line(_root_cause(error))))
    if status in range(300, 400):
        return f"HTTP {status}: redirects are not followed; name the server itself"
    body = error.body
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
    message = body if isinstance(body, str) else error.response.text
    return f"HTTP {status}: {printable(redact(key, message)) or 'no reason given'}"


def encodable(text: str) -> str:
    """Replaces lone surrogates, so that the text can be encoded as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """Shortens untrusted text to one printable line of at most 200 characters."""
    line = "".join(char if char.isprintable() else " " for char in text[:2000])
    return textwrap.shorten(line, 200)


def redact(key: str, text: str) -> str:
    """Replaces the API key in a text, because some servers repeat it."""
    return text.replace(key, "[key]") if key else text


def _root_cause(error: Exception) -> Exception:
    cause = error.__cause__
    return cause if isinstance(cause, Exception) and str(cause) else error


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 40 else 0
