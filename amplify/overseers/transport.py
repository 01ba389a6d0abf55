"""HTTP transport of requests to an overseer's server.

The `openai` package implements the protocol on top of this transport, which controls the headers
that are sent (the key only over TLS or to this machine, nothing else from the environment), does
not follow redirects, and limits the time of each request and the size of its reply. All requests
pass through it, including the package's retries, so they are counted here.
"""

import asyncio
import functools
import ssl
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2
import openai

from amplify.overseers.address import is_loopback, key_for

MAX_BODY_BYTES = 4 << 20
"""Maximum size of a reply's body, in bytes."""


NAME_HEADER = "x-amplify-name"
"""Internal header with the request's name for the log; it is not sent."""


def make_client(
    address: str, deadline: float, max_connections: int, on_send: Callable[[str], None]
) -> openai.AsyncOpenAI:
    """Creates a client for one server.

    Args:
        address: the URL of the server's API.
        deadline: seconds from the start of a request to the last byte of its reply.
        max_connections: maximum number of concurrent requests.
        on_send: called with the value of the request's `NAME_HEADER` each time before it is sent.

    Returns:
        The client.
    """
    parts = urlsplit(address)
    host, proxy = parts.hostname or "", None
    if not is_loopback(host) and not urllib.request.proxy_bypass(host):
        proxy = urllib.request.getproxies().get(parts.scheme)
    limits = httpx2.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections
    )
    inner = httpx2.AsyncHTTPTransport(verify=_tls(), proxy=proxy, limits=limits)
    transport = _Transport(inner, key_for(address), deadline, on_send)
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
    # Cached, because reading the certificates takes longer than many requests.
    return httpx2.create_ssl_context()


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        key: str,
        deadline: float,
        on_send: Callable[[str], None],
    ) -> None:
        self._inner, self._key, self._deadline = inner, key, deadline
        self._on_send = on_send

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
        self._on_send(request.headers.get(NAME_HEADER, ""))
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._inner.handle_async_request(outgoing)
                body = await _read_body(response, outgoing)
        except TimeoutError:
            raise httpx2.ReadTimeout(
                f"no complete reply within {self._deadline:g} seconds (overseer.deadline)",
                request=outgoing,
            ) from None
        kept = [pair for pair in response.headers.raw if pair[0].lower() not in _LENGTH_HEADERS]
        return httpx2.Response(
            response.status_code, headers=kept, content=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


_LENGTH_HEADERS = (b"content-length", b"transfer-encoding", b"content-encoding")


async def _read_body(response: httpx2.Response, request: httpx2.Request) -> bytes:
    """A reply's raw body. Raises httpx2.ReadError if it is too large or compressed."""
    try:
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise httpx2.ReadError(
                "the reply is compressed, which was not requested", request=request
            )
        body = bytearray()
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for part in response.stream:
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise httpx2.ReadError(
                    f"the reply is larger than {MAX_BODY_BYTES} bytes", request=request
                )
        return bytes(body)
    finally:
        await response.aclose()
