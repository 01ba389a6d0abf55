"""The page that reveals who told a person what, once they have submitted their answer.

After that, their answer can no longer be undone.
"""

import contextlib
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from amplify.errors import AmplifyError
from amplify.people.items import SUBMITTED, Assignment
from amplify.people.rules import RefusedError
from amplify.records.record import digest_of, read_record
from amplify.web import pages, view_models
from amplify.web.answer_page import Answerer, Posted, basis_of, carried_out, mine_of, service_of
from amplify.web.forms import FormRoute
from amplify.web.service import Service

router = APIRouter(route_class=FormRoute)


@router.get("/items/{item}/seen")
async def what_was_told(http: Request, visitor: Answerer, item: str) -> Response:
    """Who told what. A person is first told that their answer can then no longer be undone."""
    service = service_of(http)
    mine = mine_of(service.queue, visitor, item)
    if mine.state != SUBMITTED:
        raise RefusedError("who told you what is shown once you have submitted your answer")
    told = _sources(service, basis_of(service.queue, item, mine)) if mine.seen else []
    return pages.page(http, "seen.html", item=service.queue.items[item], mine=mine, told=told)


@router.post("/items/{item}/seen")
async def see(http: Request, post: Posted, item: str) -> Response:
    """Reveals it."""
    person = post.visitor.person
    not_done = carried_out(http, post, item, lambda queue, _: queue.see(person, item), {})
    return not_done or RedirectResponse(http.url.path, 303)


class Source(NamedTuple):
    """Who gave an answer."""

    question: str
    answer: str
    confidence: str
    by: str
    digest: str | None  # of the assistant's weights
    round: int | None  # that trained them


def _sources(service: Service, mine: Assignment) -> list[Source]:
    rounds, sources = _rounds_by_digest(service), []
    for exchange in mine.exchanges:
        if exchange.told is None or exchange.answer is None or exchange.undone:
            continue
        told = next(service.log.since(exchange.told - 1))
        digest = told.checkpoint
        sources.append(
            Source(
                exchange.text,
                exchange.answer,
                view_models.in_words(exchange.confidence),
                str(told.body.get("by", "assistant")),
                digest,
                rounds.get(digest or ""),
            )
        )
    return sources


def _rounds_by_digest(service: Service) -> dict[str, int]:
    """Which round trained which weights. Records that cannot be read are skipped."""
    rounds: dict[str, int] = {}
    for folder in sorted(service.experiment.glob("[0-9][0-9][0-9]*")):
        with contextlib.suppress(AmplifyError, OSError):
            record = read_record(folder)
            if (digest := digest_of(record)) is not None:
                rounds.setdefault(digest, record["round"])
    return rounds
