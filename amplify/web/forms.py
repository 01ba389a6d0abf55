"""Reads and validates every form: the one place where submitted bytes become text.

The routes behind `FormRoute` see only URL-encoded UTF-8 forms in which each field occurs once and
is composed Unicode (NFC) without control characters or lone surrogates. Any other request gets a
page that says what is wrong and shows what was typed.
"""

import unicodedata
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from amplify.people.text import shown, why_not_kept
from amplify.web import pages

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 20
NAMES = {"text": "a question", "answer": "an answer", "reason": "a reason", "other": "an answer"}
"""Names of fields as a person who fills them in would call them."""


class FormError(Exception):
    """The request is not a valid form.

    Args:
        status: HTTP status of the response.
        problem: what is wrong, for a person.
        typed: what was typed, to be shown again.
    """

    def __init__(self, status: int, problem: str, typed: Mapping[str, str] | None = None) -> None:
        super().__init__(problem)
        self.status, self.problem, self.typed = status, problem, typed or {}


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """Parses a URL-encoded form.

    Args:
        content_type: the header's value; "" if there is none.
        body: the request's body.

    Returns:
        The fields by name, their text in NFC.

    Raises:
        FormError: another content type or charset, bytes that are not UTF-8, too many fields, a
            field that occurs twice, or text that cannot be kept.
    """
    kind, *options = (part.strip().lower() for part in content_type.split(";"))
    if kind != FORM:
        raise FormError(415, f"a form is sent as {FORM}, not as {kind[:80] or 'nothing'}")
    charsets = [option.partition("=")[2].strip("\" '") for option in options if "charset" in option]
    if any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise FormError(415, "a form is sent as UTF-8, not in another encoding")
    fields = _fields(body)
    typed = {name: shown(value) for name, value in fields if name in NAMES}
    names = [name for name, _ in fields]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise FormError(422, f"the form has {shown(twice)[:80]!r} more than once", typed)
    for name, value in fields:
        if problem := why_not_kept(value) or why_not_kept(name):
            raise FormError(422, f"{NAMES.get(name, 'what was sent')} {problem}", typed)
    return {name: unicodedata.normalize("NFC", value) for name, value in fields}


def _fields(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except UnicodeDecodeError:
        raise FormError(422, "what was sent is not in UTF-8") from None
    except ValueError:
        raise FormError(422, f"a form has at most {MOST_FIELDS} fields") from None


class FormRoute(APIRoute):
    """A route whose forms are validated by `read_form` before FastAPI parses them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_first(request: Request) -> Response:
            if request.method != "POST":
                return await handle(request)
            try:
                body = await request.body()
            except ClientDisconnect:
                raise HTTPException(400, "the form did not arrive completely") from None
            try:
                fields = read_form(request.headers.get("content-type", ""), body)
            except FormError as error:
                return pages.trouble(request, error.status, error.problem, error.typed)
            return await handle(_sent_again(request, urlencode(fields).encode("ascii")))

        return read_first


def _sent_again(request: Request, body: bytes) -> Request:
    """A copy of a request with another form as its body."""
    request.scope.setdefault("state", {})  # shared by both
    of_body = {b"content-type": FORM.encode(), b"content-length": str(len(body)).encode()}
    others = [pair for pair in request.scope["headers"] if pair[0] not in of_body]
    scope = {**request.scope, "headers": [*others, *of_body.items()]}
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return left.pop() if left else await request.receive()

    return Request(scope, receive)
