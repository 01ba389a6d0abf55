"""Templates and what every page is made with: rendering, errors in plain words, addresses of files.

Templates escape whatever they show. A request that htmx sent gets a part of a page, any other the
whole.
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
    "defaultSettleDelay": 0,  # a form that is shown and not yet htmx's would open the page again
    "allowEval": False,
    "allowScriptTags": False,
    "historyEnabled": False,
    "allowNestedOobSwaps": False,
    "selfRequestsOnly": True,
    "responseHandling": [
        {"code": "204", "swap": False},
        {"code": "[23]..", "swap": True},
        # What went wrong is said in its own place, and what was typed stays where it is.
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
    """A template with the values that it names, and those that every page has."""
    # Whatever text there is, such as the name of a folder, a page can be sent.
    return HTMLResponse(render(request, name, **values).encode("utf-8", "replace"), code)


def render(request: Request, name: str, **values: Any) -> str:
    visitor = getattr(request.state, "visitor", None)
    # Strangers are not told what goes on here.
    title = request.app.state.service.title if visitor else "Amplify"
    values = {"title": title, "visitor": visitor, "path": request.url.path, **values}
    return templates.get_template(name).render(values)


def trouble(
    request: Request, status: int, problem: str, typed: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Says what went wrong: to htmx as a part of the page that is there, else as a page, with what
    was typed.
    """
    values = {"problem": problem, "go_on": status == 409, "typed": typed or {}, "status": status}
    return page(request, "problem.html" if is_part(request) else "error.html", status, **values)


def explain(error: AmplifyError) -> tuple[int, str]:
    """What a person is told of a fault that only whoever runs the experiment can mend, who is told
    on the terminal.
    """
    log.error("%s", error)
    cause = error.__cause__
    full = isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    return (507, FULL) if full else (503, STOPPED)


def is_part(request: Request) -> bool:
    """Whether htmx asks, and so for a part of a page."""
    return request.headers.get("hx-request") == "true"


@functools.cache
def static(name: str) -> str:
    """The address of a file, another one when the file is another."""
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
