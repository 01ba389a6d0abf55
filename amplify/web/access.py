"""Who may come in, and how often: sessions, CSRF tokens, rate limits, and what browsers are told.

A session is the token of a person's link in a cookie, looked up in the roster with each request, so
that a link that was revoked ends its sessions. The CSRF token is made from it with a secret that
never leaves `people/secret`. Knows nothing of questions.
"""

import contextlib
import hashlib
import hmac
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Form, Request

from amplify.files import make_private_folder, open_private
from amplify.people.roster import Member, NotAllowedError, Roster

RATE, BURST = 50.0, 300.0
"""Requests a second that a person may go on making, and how many at once."""

MANY = 10_000
"""People and addresses whose requests are counted at a time."""

BODY = 64 * 1024
"""Bytes of the longest request."""

COLAB = ("https://colab.research.google.com", "https://*.googleusercontent.com",
         "https://*.colab.dev")  # fmt: skip
"""In whose frames pages are shown with `share`."""


class Visitor(NamedTuple):
    person: str
    csrf: str  # what the forms of this session carry
    is_admin: bool = False
    simulated: bool = False


class Post(NamedTuple):
    """What every form says besides what it is for."""

    visitor: Visitor
    request: str | None  # the same one twice is meant once
    seconds: float  # of attention, as the page measured them
    sent: str  # a digest of the rest of it


class TooManyError(Exception):
    """More requests than a person makes."""


class Gate:
    """Knows sessions by their cookies."""

    def __init__(self, roster: Roster, clock: Callable[[], float], share: bool) -> None:
        self._roster, self._clock, self._share = roster, clock, share
        self._secret = _secret(roster.folder)
        # Cookies know no ports: two experiments on one computer must not end each other's sessions.
        self._name = f"amplify-{self._signed('cookie')[:8]}"
        self._buckets: dict[str, Bucket] = {}

    def open(self, token: str) -> Member:
        """Raises NotAllowedError if it is nobody's token, or no longer works."""
        return self._roster.who(token, self._clock())

    def cookies(self, token: str) -> list[str]:
        """Values of Set-Cookie. In a frame of another site a browser takes only the second."""
        kept = f"{token}; Path=/; HttpOnly; Max-Age={60 * 60 * 24 * 30}"
        there = [f"{self._name}={kept}; SameSite=Lax"]
        if self._share:
            there.append(f"{self._name}-framed={kept}; SameSite=None; Secure; Partitioned")
        return there

    def visitor(self, request: Request) -> Visitor:
        """Whose session it is. Raises NotAllowedError if there is none, TooManyError."""
        host = request.client.host if request.client else ""
        token = request.cookies.get(f"{self._name}-framed") or request.cookies.get(self._name)
        if token is None:
            self.count(f"at {host}")
            raise NotAllowedError("open the link that you were sent: it says who you are")
        try:
            member = self.open(token)
        except NotAllowedError:
            self.count(f"at {host}")
            raise
        self.count(member.person)
        csrf = self._signed(f"csrf {token}")
        return Visitor(member.person, csrf, member.is_admin, member.simulated)

    def count(self, whose: str) -> None:
        """Raises TooManyError if there were too many before."""
        if len(self._buckets) > MANY:  # strangers come from anywhere
            self._buckets.clear()
        bucket = self._buckets.setdefault(whose, Bucket())
        if not bucket.take(self._clock()):
            raise TooManyError

    def _signed(self, what: str) -> str:
        return hmac.new(self._secret, what.encode(), hashlib.sha256).hexdigest()


class Bucket:
    """Lets through BURST requests at once, and RATE a second for ever."""

    def __init__(self) -> None:
        self._left, self._at = BURST, 0.0

    def take(self, now: float) -> bool:
        self._left = min(BURST, self._left + RATE * max(0.0, now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _secret(folder: Path) -> bytes:
    """The server's own, made when first needed, so that sessions outlive the process."""
    make_private_folder(folder)
    path, temporary = folder / "secret", folder / f".secret.{os.getpid()}"
    if not path.exists():
        with open(temporary, "wb", opener=open_private) as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.link(temporary, path)
        temporary.unlink()
    return path.read_bytes()


# What pages ask for: names in their signatures


async def visitor(request: Request) -> Visitor:
    """Whoever sent the request, admin or not."""
    gate: Gate = request.app.state.gate
    request.state.visitor = gate.visitor(request)
    return request.state.visitor


async def person(request: Request) -> Visitor:
    """Somebody who answers. Raises NotAllowedError if it is the admin."""
    who = await visitor(request)
    if who.is_admin:
        raise NotAllowedError("this link is for looking after the experiment, at /admin; people who"
                              " answer have links of their own")  # fmt: skip
    return who


async def admin(request: Request) -> Visitor:
    """Whoever runs the experiment. Raises NotAllowedError if it is anybody else."""
    who = await visitor(request)
    if not who.is_admin:
        raise NotAllowedError("this page is for whoever runs the experiment; yours is /answer")
    return who


async def post(
    http: Request,
    who: Annotated[Visitor, Depends(visitor)],
    csrf: Annotated[str, Form()] = "",
    request: Annotated[str, Form(max_length=100)] = "",
    seconds: Annotated[float, Form()] = 0.0,
) -> Post:
    """A form that was sent from one of our pages. Raises NotAllowedError if it was not."""
    if not hmac.compare_digest(csrf.encode(), who.csrf.encode()):
        raise NotAllowedError("this was not sent from a page of yours; open /answer and try again")
    # Nobody's request can be taken for another's.
    name = f"{who.person}:{request}" if request else None
    measured = max(0.0, seconds) if math.isfinite(seconds) else 0.0
    return Post(who, name, measured, await _digest_of_form(http))


async def _digest_of_form(http: Request) -> str:
    """Of what a form says: the same for the same form, however long it took to fill in."""
    beside = {"csrf", "request", "seconds"}
    if http.url.path.endswith(("/undo", "/expand")):
        beside.add("text")  # what is in another box meanwhile
    fields = sorted((k, str(v)) for k, v in (await http.form()).items() if k not in beside)
    return hashlib.sha256(json.dumps([http.url.path, fields]).encode()).hexdigest()[:16]


# What is said to browsers


class Guard:
    """Adds headers to every answer, and reads no body that is too long."""

    def __init__(self, app: Callable[..., Any], share: bool) -> None:
        self._app, self._headers = app, list(_encoded(headers(share)))

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static, size = scope["path"].startswith("/static/"), 0

        async def limited() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return {"type": "http.disconnect"} if size > BODY else message

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = [*message.get("headers", ()), *self._headers]
                there.append((b"cache-control", b"max-age=86400" if static else b"no-store"))
                message = {**message, "headers": there}
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 9 or int(length) > BODY:
            await _too_long(with_headers)
            return
        await self._app(scope, limited, with_headers)


async def _too_long(send: Callable[..., Any]) -> None:
    text = b"This is more than can be taken at once; what you typed is still in the box."
    kind = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 413, "headers": kind})
    await send({"type": "http.response.body", "body": text})


def headers(share: bool) -> dict[str, str]:
    framed_by = " ".join(["'self'", *(COLAB if share else ())])
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": framed_by,
    }
    return {
        "Content-Security-Policy": "; ".join(f"{what} {who}" for what, who in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cross-Origin-Resource-Policy": "cross-origin" if share else "same-origin",
    } | ({} if share else {"X-Frame-Options": "SAMEORIGIN"})


def _encoded(values: dict[str, str]) -> Iterable[tuple[bytes, bytes]]:
    for name, value in values.items():
        yield name.lower().encode(), value.encode()
