"""How requests to an overseer's server leave this machine, and what comes back.

The `openai` package speaks the protocol. Under it lies this transport, which decides what is sent
(the key only over TLS or to this machine itself, nothing else that the environment holds), never
follows a redirect, and gives each request a deadline and its reply a largest size. Every request
passes through it, those that the package repeats too, so here they are counted.
"""

import asyncio
import functools
import ssl
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2
import openai

from amplify.overseers.address import is_this_machine, key_for

LARGEST = 4 << 20
"""Bytes of a reply's body."""


NAME = "x-amplify-name"
"""A header that is not sent: under which name the request is noted."""


def client_for(
    address: str, deadline: float, at_once: int, sending: Callable[[str], None]
) -> openai.AsyncOpenAI:
    """A client for one server.

    Args:
        deadline: seconds, of each request from its start to the last byte of its reply.
        at_once: requests under way at a time.
        sending: called with the request's NAME before it leaves, each time that it does.
    """
    parts = urlsplit(address)
    host, proxy = parts.hostname or "", None
    if not is_this_machine(host) and not urllib.request.proxy_bypass(host):
        proxy = urllib.request.getproxies().get(parts.scheme)
    limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    inner = httpx2.AsyncHTTPTransport(verify=_tls(), proxy=proxy, limits=limits)
    transport = _Transport(inner, key_for(address), deadline, sending)
    return openai.AsyncOpenAI(
        base_url=address,
        api_key="sent by the transport",
        timeout=deadline,
        http_client=httpx2.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=deadline
        ),
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes longer than many a request."""
    return httpx2.create_ssl_context()


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        key: str,
        deadline: float,
        sending: Callable[[str], None],
    ) -> None:
        self._inner, self._key, self._deadline = inner, key, deadline
        self._sending = sending

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {
            name: request.headers[name]
            for name in ("host", "content-type", "content-length", "transfer-encoding")
            if name in request.headers
        }
        headers |= {"accept": "application/json", "accept-encoding": "identity"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        outgoing = httpx2.Request(
            request.method,
            request.url,
            headers=headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        self._sending(request.headers.get(NAME, ""))
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._inner.handle_async_request(outgoing)
                body = await _whole(response, outgoing)
        except TimeoutError:
            raise httpx2.ReadTimeout(
                f"no whole reply within {self._deadline:g} seconds (overseer.deadline)",
                request=outgoing,
            ) from None
        kept = [pair for pair in response.headers.raw if pair[0].lower() not in _ABOUT_LENGTH]
        return httpx2.Response(
            response.status_code, headers=kept, content=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


_ABOUT_LENGTH = (b"content-length", b"transfer-encoding", b"content-encoding")


async def _whole(response: httpx2.Response, request: httpx2.Request) -> bytes:
    """A reply's body, as it was sent. Raises httpx2.ReadError if it is too large or compressed."""
    try:
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise httpx2.ReadError(
                "the reply is compressed, which nobody asked for", request=request
            )
        body = bytearray()
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for part in response.stream:
            body += part
            if len(body) > LARGEST:
                raise httpx2.ReadError(f"the reply is larger than {LARGEST} bytes", request=request)
        return bytes(body)
    finally:
        await response.aclose()
