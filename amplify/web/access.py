"""Access control: sessions, CSRF tokens, rate limits and security headers.

A session is a cookie with the token of a person's link. The token is looked up in the roster with
every request, so revoking a link ends its sessions. The CSRF token is derived from it with a secret
that never leaves `people/secret`.
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

from amplify.files.writing import make_private_folder, open_private
from amplify.people.roster import Member, NotAllowedError, Roster

RATE, BURST = 50.0, 300.0
"""Requests per second that a person may make in the long run, and at once."""

MANY = 10_000
"""Maximum number of people and addresses whose requests are counted."""

BODY = 64 * 1024
"""Maximum bytes of a request's body."""

COLAB = ("https://colab.research.google.com", "https://*.googleusercontent.com",
         "https://*.colab.dev")  # fmt: skip
"""Sites that may frame the pages with `share`."""


class Visitor(NamedTuple):
    """Whoever sent a request."""

    person: str
    csrf: str  # token in every form of this session
    is_admin: bool = False
    simulated: bool = False


class Post(NamedTuple):
    """What every form that is posted says besides its own fields."""

    visitor: Visitor
    request: str | None  # an id; a form that is sent twice counts once
    seconds: float  # of attention, as measured by the page
    sent: str  # digest of the form's own fields


class TooManyError(Exception):
    """More requests than a person would make."""


class Gate:
    """Recognises sessions by their cookies, and counts requests."""

    def __init__(self, roster: Roster, clock: Callable[[], float], share: bool) -> None:
        self._roster, self._clock, self._share = roster, clock, share
        self._secret = _secret(roster.folder)
        # Cookies ignore ports: two experiments on one computer need cookies of different names.
        self._name = f"amplify-{self._signed('cookie')[:8]}"
        self._buckets: dict[str, Bucket] = {}

    def open(self, token: str) -> Member:
        """Returns whose token it is.

        Raises:
            NotAllowedError: it is nobody's, or no longer works.
        """
        return self._roster.who(token, self._clock())

    def cookies(self, token: str) -> list[str]:
        """Values of Set-Cookie. In a frame of another site, a browser keeps only the second."""
        kept = f"{token}; Path=/; HttpOnly; Max-Age={60 * 60 * 24 * 30}"
        there = [f"{self._name}={kept}; SameSite=Lax"]
        if self._share:
            there.append(f"{self._name}-framed={kept}; SameSite=None; Secure; Partitioned")
        return there

    def visitor(self, request: Request) -> Visitor:
        """Returns whose session a request belongs to, and counts the request.

        Raises:
            NotAllowedError: it belongs to no session.
            TooManyError: there were too many requests.
        """
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
        """Counts a request.

        Raises:
            TooManyError: there were too many before.
        """
        if len(self._buckets) > MANY:  # requests without a session may come from any address
            self._buckets.clear()
        bucket = self._buckets.setdefault(whose, Bucket())
        if not bucket.take(self._clock()):
            raise TooManyError

    def _signed(self, what: str) -> str:
        return hmac.new(self._secret, what.encode(), hashlib.sha256).hexdigest()


class Bucket:
    """A token bucket: BURST requests at once, and RATE per second in the long run."""

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
    """The experiment's own secret, made on first use and kept: sessions outlive the process."""
    make_private_folder(folder)
    path, temporary = folder / "secret", folder / f".secret.{os.getpid()}"
    if not path.exists():
        with open(temporary, "wb", opener=open_private) as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.link(temporary, path)
        temporary.unlink()
    return path.read_bytes()


# Dependencies of routes


async def visitor(request: Request) -> Visitor:
    """Whoever sent the request.

    Raises:
        NotAllowedError: the request belongs to no session.
    """
    gate: Gate = request.app.state.gate
    request.state.visitor = gate.visitor(request)
    return request.state.visitor


async def person(request: Request) -> Visitor:
    """Somebody who answers.

    Raises:
        NotAllowedError: it is the admin.
    """
    who = await visitor(request)
    if who.is_admin:
        raise NotAllowedError("this link is for running the experiment, at /admin; people who"
                              " answer have links of their own")  # fmt: skip
    return who


async def admin(request: Request) -> Visitor:
    """Whoever runs the experiment.

    Raises:
        NotAllowedError: it is anybody else.
    """
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
    """A form that was posted from one of our pages.

    Raises:
        NotAllowedError: it was posted from elsewhere.
    """
    if not hmac.compare_digest(csrf.encode(), who.csrf.encode()):
        raise NotAllowedError("this was not sent from a page of yours; open /answer and try again")
    # Two people's requests are never the same one.
    name = f"{who.person}:{request}" if request else None
    measured = max(0.0, seconds) if math.isfinite(seconds) else 0.0
    return Post(who, name, measured, await _digest_of_form(http))


async def _digest_of_form(http: Request) -> str:
    """Digest of a form's own fields, whatever the time it took and the session."""
    beside = {"csrf", "request", "seconds"}
    if http.url.path.endswith(("/undo", "/expand")):
        beside.add("text")  # the draft in another box
    fields = sorted((k, str(v)) for k, v in (await http.form()).items() if k not in beside)
    return hashlib.sha256(json.dumps([http.url.path, fields]).encode()).hexdigest()[:16]


# Headers and limits


class Guard:
    """Middleware that adds security headers to every response and rejects long bodies."""

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
    text = b"This is too long to be sent; what you typed is still in the box."
    kind = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 413, "headers": kind})
    await send({"type": "http.response.body", "body": text})


def headers(share: bool) -> dict[str, str]:
    """Security headers of every response.

    Args:
        share: whether Colab may frame the pages.
    """
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
