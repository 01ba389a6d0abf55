"""Who told a person what: shown once they have submitted their answer and asked to be told, which
their answer then outlives unchanged.
"""

import contextlib
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from amplify.errors import AmplifyError
from amplify.people.items import SUBMITTED, Assignment
from amplify.people.queue import RefusedError
from amplify.record import digest_of, read_record
from amplify.web import pages, shown
from amplify.web.answering import Doing, Person, basis_of, carried_out, mine_of, office_of
from amplify.web.forms import FormRoute
from amplify.web.office import Office

router = APIRouter(route_class=FormRoute)


@router.get("/items/{item}/seen")
async def what_was_told(http: Request, visitor: Person, item: str) -> Response:
    """By whom. Before it is shown, a person is told that their answer will then stay."""
    office = office_of(http)
    mine = mine_of(office.queue, visitor, item)
    if mine.state != SUBMITTED:
        raise RefusedError("who told you what is shown once you have submitted your answer")
    told = _tellers(office, basis_of(office.queue, item, mine)) if mine.seen else []
    return pages.page(http, "seen.html", item=office.queue.items[item], mine=mine, told=told)


@router.post("/items/{item}/seen")
async def see(http: Request, act: Doing, item: str) -> Response:
    person = act.visitor.person
    not_done = carried_out(http, act, item, lambda queue, _: queue.see(person, item), {})
    return not_done or RedirectResponse(http.url.path, 303)


class Teller(NamedTuple):
    """Who told something."""

    question: str
    answer: str
    confidence: str
    by: str
    digest: str | None  # of the assistant's weights
    round: int | None  # that trained them


def _tellers(office: Office, mine: Assignment) -> list[Teller]:
    rounds, tellers = _rounds_by_digest(office), []
    for exchange in mine.exchanges:
        if exchange.told is None or exchange.answer is None or exchange.undone:
            continue
        told = next(office.log.since(exchange.told - 1))
        digest = told.checkpoint
        tellers.append(
            Teller(
                exchange.text,
                exchange.answer,
                shown.in_words(exchange.confidence),
                str(told.body.get("by", "assistant")),
                digest,
                rounds.get(digest or ""),
            )
        )
    return tellers


def _rounds_by_digest(office: Office) -> dict[str, int]:
    """Which round trained which weights, by the rounds' records. A record that cannot be read says
    nothing.
    """
    rounds: dict[str, int] = {}
    for folder in sorted(office.experiment.glob("[0-9][0-9][0-9]*")):
        with contextlib.suppress(AmplifyError, OSError):
            record = read_record(folder)
            if (digest := digest_of(record)) is not None:
                rounds.setdefault(digest, record["round"])
    return rounds
