"""Limits per connection: the time in which a request must arrive, the size of its headers, and the
number of open connections. The size of a request's body is limited in `access`.

uvicorn's httptools protocol has no limit on the first two, and counts connections only once a
request's headers are complete, so that half-open connections would pile up.
"""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 20.0
"""Deadline for a complete request, from when the connection was made or the request began."""
SENDING_SECONDS = 30.0
"""How long a client may stop reading a response before its connection is aborted."""
HEADERS = 32 * 1024
"""Maximum bytes of the request line and all headers together."""
CONNECTIONS = 500
"""Maximum number of open connections; a further one aborts whichever has waited longest for its
request to be complete.
"""

TOO_LARGE = b"The headers of this request are too large."


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the limits above."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._arriving: Any = None  # timer: deadline of the request that is arriving
        self._sending: Any = None  # timer: deadline of a client that does not read
        self._size = 0  # bytes of headers received so far
        self._in_headers = True

    def connection_made(self, transport: Any) -> None:  # of asyncio, or of another event loop
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > CONNECTIONS:
            ours = [one for one in self.connections if isinstance(one, LimitedProtocol)]
            waiting = [(one._arriving.when(), n) for n, one in enumerate(ours) if one._arriving]
            ours[min(waiting)[1]].transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_is_here()
        self._take_timer_off()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._in_headers:
            self._size += len(data)
            if self._size > HEADERS:
                self.send_400_response("")
        if self._arriving is None and (self.cycle is None or self.cycle.response_complete):
            self._await_request()  # empty lines between requests do not begin one

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._size, self._in_headers = 0, True
        if self._arriving is None:
            self._await_request()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        super().on_headers_complete()
        self._size = 0

    def on_message_complete(self) -> None:
        self._request_is_here()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Responds with 431 where the size of the headers is the reason."""
        if self._size <= HEADERS:
            super().send_400_response(msg)
            return
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(TOO_LARGE), TOO_LARGE)
        )
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(SENDING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._take_timer_off()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # the client is still reading
            self._take_timer_off()
            self._sending = self.loop.call_later(SENDING_SECONDS, self.transport.abort)
        super().timeout_keep_alive_handler()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > HEADERS:
            raise httptools.HttpParserError("headers too large")

    def _await_request(self) -> None:
        self._arriving = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _request_is_here(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _take_timer_off(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _give_up(self) -> None:
        self._arriving = None
        self.transport.abort()
