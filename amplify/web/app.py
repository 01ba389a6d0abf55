"""The web application: its routes, and the page for each kind of error.

People's pages are rendered in the event loop's own thread: what they read is in memory, and what
they append is on disk in a fraction of a millisecond. Never imports jax.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from amplify.errors import AmplifyError
from amplify.people.roster import NotAllowedError
from amplify.people.rules import RefusedError
from amplify.web import access, admin_pages, answer_page, pages, provenance_page
from amplify.web.admin_view import AdminView
from amplify.web.service import Service

PLAIN = {
    404: "there is no such page",
    405: "this address does not accept that",
}


def make_app(
    experiment: Path, *, clock: Callable[[], float] = time.time, share: bool = False
) -> FastAPI:
    """Returns the application that serves an experiment's pages.

    Args:
        experiment: its folder.
        clock: gives the time, in seconds since 1970.
        share: whether Colab may frame the pages, through its proxy.

    Raises:
        AmplifyError: the log is damaged or was written by a later version.
    """
    service, view = Service(experiment, clock), AdminView(experiment)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.log.close()
        view.close()

    app = FastAPI(
        title="Amplify", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.service, app.state.view = service, view
    app.state.gate = access.Gate(service.roster, clock, share)
    app.add_middleware(access.Guard, share=share)
    app.include_router(answer_page.router)
    app.include_router(provenance_page.router)
    app.include_router(admin_pages.router)
    app.mount("/static", StaticFiles(directory=pages.STATIC))
    app.add_api_route("/", _front, include_in_schema=False)
    app.add_api_route("/in/{token}", _come_in)
    app.add_api_route("/healthz", _well, response_class=PlainTextResponse)
    _explain_errors(app, share)
    return app


async def _front(request: Request) -> Response:
    return RedirectResponse("/answer", 303)


async def _come_in(request: Request, token: str) -> Response:
    """A person's link: starts a session in the browser."""
    gate: access.Gate = request.app.state.gate
    try:
        member = gate.open(token)
    except NotAllowedError:
        gate.count(f"at {request.client.host if request.client else ''}")
        raise
    response = RedirectResponse("/admin" if member.is_admin else "/answer", 303)
    for cookie in gate.cookies(token):
        response.headers.append("set-cookie", cookie)
    return response


async def _well() -> str:
    return "ok"


def _explain_errors(app: FastAPI, share: bool) -> None:
    """Renders every error as a page that says what to do."""

    @app.exception_handler(NotAllowedError)
    async def not_allowed(request: Request, error: NotAllowedError) -> Response:
        return pages.trouble(request, 403, str(error))

    @app.exception_handler(access.TooManyError)
    async def too_many(request: Request, error: access.TooManyError) -> Response:
        said = "too many requests; wait a few seconds and try again"
        response = pages.trouble(request, 429, said)
        response.headers["retry-after"] = "5"
        return response

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return pages.trouble(request, 409, str(error))

    @app.exception_handler(AmplifyError)
    async def not_kept(request: Request, error: AmplifyError) -> Response:
        code, said = pages.explain(error)
        return pages.trouble(request, code, said)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> Response:
        what = ", ".join(f"{fault['loc'][-1]} ({fault['msg']})" for fault in error.errors())
        return pages.trouble(request, 422, f"what was sent cannot be read: {what}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code, said = error.status_code, str(error.detail)
        ours = said != HTTPStatus(code).phrase
        return pages.trouble(request, code, said if ours else PLAIN.get(code, said))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # Rendered outside of `Guard`, so these are added here.
        response = pages.trouble(request, 500, pages.STOPPED)
        response.headers.update(access.headers(share))
        return response
