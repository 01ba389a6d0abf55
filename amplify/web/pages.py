"""Renders templates: pages, parts of pages, errors in plain words, URLs of static files.

Templates escape all values. A request from htmx gets a part of a page, any other the whole page.
"""

import functools
import hashlib
import json
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from amplify.errors import AmplifyError
from amplify.web.access import Visitor
from amplify.web.service import Service

log = logging.getLogger("amplify.web")

STOPPED = (
    "something went wrong here; nothing before is lost, and what you typed is still in the box"
)
FULL = (
    "the disk of the computer that runs this is full: nothing before is lost, and what you typed is"
    " still in the box; tell whoever sent you the link, and try again later"
)

STATIC = Path(__file__).parent / "static"

HTMX = {
    "includeIndicatorStyles": False,  # no inline style
    "defaultSettleDelay": 0,  # a new form must be htmx's at once: else it would load a whole page
    "allowEval": False,
    "allowScriptTags": False,
    "historyEnabled": False,
    "allowNestedOobSwaps": False,
    "selfRequestsOnly": True,
    "responseHandling": [
        {"code": "204", "swap": False},
        {"code": "[23]..", "swap": True},
        # An error is shown in its own place, and what was typed stays where it is.
        {
            "code": "[45]..",
            "swap": True,
            "error": True,
            "target": "#trouble",
            "swapOverride": "innerHTML",
        },
    ],
}


def page(request: Request, name: str, code: int = 200, **values: Any) -> HTMLResponse:
    """Returns a response with a rendered template.

    Args:
        request: that is answered.
        name: of the template.
        code: HTTP status.
        values: for the template, besides those that every page has.
    """
    # A folder's name may contain what UTF-8 cannot encode.
    return HTMLResponse(render(request, name, **values).encode("utf-8", "replace"), code)


def render(request: Request, name: str, **values: Any) -> str:
    """Returns a template's text; arguments as for `page`."""
    visitor = getattr(request.state, "visitor", None)
    title = _title(request.app.state.service, visitor)
    values = {"title": title, "visitor": visitor, "path": request.url.path, **values}
    return templates.get_template(name).render(values)


def _title(service: Service, visitor: Visitor | None) -> str:
    """What all of a visitor's pages are named after. Only people with a link learn anything of the
    experiment; those who answer see what they are to do, and not its name.
    """
    if visitor is None:
        return "Amplify"
    return service.experiment.resolve().name if visitor.is_admin else service.title


def trouble(
    request: Request, status: int, problem: str, typed: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Returns a response that says what went wrong, and shows what was typed.

    Args:
        request: that is answered.
        status: HTTP status.
        problem: what went wrong and what to do, for a person.
        typed: texts of the form, by field.
    """
    values = {"problem": problem, "go_on": status == 409, "typed": typed or {}, "status": status}
    return page(request, "problem.html" if is_part(request) else "error.html", status, **values)


def explain(error: AmplifyError) -> tuple[int, str]:
    """Logs an error that only whoever runs the experiment can fix.

    Returns:
        HTTP status, and what to tell the person whose request failed.
    """
    log.error("%s", error)
    cause = error.__cause__
    full = isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    return (507, FULL) if full else (503, STOPPED)


def is_part(request: Request) -> bool:
    """Whether a request is from htmx, and wants a part of a page."""
    return request.headers.get("hx-request") == "true"


@functools.cache
def static(name: str) -> str:
    """URL of a static file, which changes whenever the file does."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?{digest[:8]}"


templates = jinja2.Environment(
    loader=jinja2.PackageLoader("amplify.web"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
templates.globals |= {"static": static, "htmx": json.dumps(HTMX), "fresh": lambda: str(uuid4())}
