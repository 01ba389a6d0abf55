"""The page on which people answer: ask the assistant, expand, answer, skip, undo.

A review is done on the same page: it shows the question and what somebody else was told, never
their answer or who they are. Until a person has submitted an answer, no page says which round or
model wrote what is on it.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from amplify.errors import AmplifyError
from amplify.people.events import About, New
from amplify.people.items import Assignment, Item
from amplify.people.roster import NotAllowedError
from amplify.people.rules import LONGEST, Queue, RefusedError
from amplify.people.state import LONGEST_ATTENTION
from amplify.people.text import why_not_kept
from amplify.web import access, pages, view_models
from amplify.web.access import Post, Visitor
from amplify.web.forms import FormRoute
from amplify.web.service import Service

PATIENCE, GLANCE = 1.0, 0.04
"""Seconds that a request waits for an answer, and between two checks."""

router = APIRouter(route_class=FormRoute)
Answerer = Annotated[Visitor, Depends(access.person)]
Posted = Annotated[Post, Depends(access.post)]
Text = Annotated[str, Form()]
Decision = Callable[[Queue, float], list[New]]


@router.get("/answer")
async def answer(http: Request, visitor: Answerer) -> Response:
    """The item in hand, or the next one."""
    return _work(http, visitor)


@router.post("/items/{item}/ask")
async def ask(http: Request, post: Posted, item: str, text: Text = "") -> Response:
    """Asks the assistant a sub-question."""
    return _done(
        http,
        post,
        item,
        lambda queue, now: queue.ask(post.visitor.person, item, text, now),
        {"text": text},
        part="asked.html",
        left_in_box="",
    )


@router.post("/items/{item}/expand")
async def expand(
    http: Request,
    post: Posted,
    item: str,
    number: Annotated[int, Form()],
    part: Text = "",
    text: Text = "",
) -> Response:
    """Asks for more about an answer or a part of it; `text` stays in the box."""
    about = About(number=number, part=part)
    wanted = f"more about “{part.strip()}”" if part.strip() else f"how is {number} answered?"
    return _done(
        http,
        post,
        item,
        lambda queue, now: queue.ask(post.visitor.person, item, wanted, now, about),
        {"text": text},
        part="asked.html",
    )


@router.post("/items/{item}/submit")
async def submit(http: Request, post: Posted, item: str, answer: Text = "") -> Response:
    """Submits the final answer. One that is refused is kept as a draft."""
    return _done(
        http,
        post,
        item,
        lambda queue, now: queue.submit(post.visitor.person, item, answer, now),
        {"answer": answer},
    )


@router.post("/items/{item}/skip")
async def skip(http: Request, post: Posted, item: str, reason: Text = "") -> Response:
    return _done(
        http,
        post,
        item,
        lambda queue, now: queue.skip(post.visitor.person, item, reason, now),
        {"reason": reason},
    )


@router.post("/undo")
async def undo(
    http: Request, post: Posted, event: Annotated[int | None, Form()] = None, text: Text = ""
) -> Response:
    """Takes back this person's last act, if it is the one that their page showed."""

    def decide(queue: Queue, now: float) -> list[New]:
        last = queue.last_act(post.visitor.person)
        if event is not None and last is not None and last.id != event:
            raise RefusedError("you have done something else since, perhaps in another window")
        return queue.undo(post.visitor.person, now)

    return _done(http, post, None, decide, {"text": text})


@router.post("/items/{item}/draft")
async def draft(
    http: Request, post: Posted, item: str, text: Text = "", answer: Text = ""
) -> Response:
    """Keeps what was typed so far. The form that submits sends it as `answer`."""
    text, person = text or answer, post.visitor.person
    not_done = carried_out(
        http, post._replace(request=None), item, lambda queue, _: queue.draft(person, item, text),
        {"answer": text},
    )  # fmt: skip
    return not_done or Response(status_code=204)


@router.get("/items/{item}/exchanges")
async def exchanges(http: Request, visitor: Answerer, item: str, after: int = 0) -> Response:
    """The exchanges, as soon as there is an answer later than event `after`, or after a moment."""
    service = service_of(http)
    mine = mine_of(service.queue, visitor, item)
    until = asyncio.get_running_loop().time() + PATIENCE
    while any(e.pending for e in mine.exchanges) and _last_told(mine) <= after:
        if asyncio.get_running_loop().time() >= until:
            break
        await asyncio.sleep(GLANCE)
        mine = mine_of(service.queue, visitor, item)
    return pages.page(http, "told.html", **_about(service, visitor, service.queue.items[item]))


# Carrying them out


def service_of(http: Request) -> Service:
    return http.app.state.service


def mine_of(queue: Queue, visitor: Visitor, item: str) -> Assignment:
    """A person's assignment.

    Raises:
        HTTPException: the item is not one of theirs.
    """
    if not queue.may_open(visitor.person, item):
        raise HTTPException(404, "this is not one of your questions")
    return queue.items[item].assignments[visitor.person]


def _done(
    http: Request,
    post: Post,
    item: str | None,
    decision: Decision,
    typed: Mapping[str, str] | None = None,
    part: str = "work.html",
    left_in_box: str | None = None,
) -> Response:
    """Carries out what a form asks for, and shows what is next: `part` of a page to htmx, with what
    was typed in the assistant's box unless something else is to be there.
    """
    typed = typed or {}
    not_done = carried_out(http, post, item, decision, typed)
    if not_done is not None:
        return not_done
    if not pages.is_part(http):
        return RedirectResponse("/answer", 303)
    box = {"text": typed.get("text", "") if left_in_box is None else left_in_box}
    if part == "work.html":
        return _work(http, post.visitor, typed=box)
    service = service_of(http)
    about = _about(service, post.visitor, service.queue.items[item or ""])
    return pages.page(http, part, typed=box, **about)


def carried_out(
    http: Request, post: Post, item: str | None, decision: Decision, typed: Mapping[str, str]
) -> Response | None:
    """Carries out a decision. Returns None, or a response that says why it was refused."""
    service, visitor = service_of(http), post.visitor
    if visitor.is_admin:
        raise NotAllowedError("whoever runs the experiment does not answer; people who do have"
                              " links of their own")  # fmt: skip
    if item is not None:
        mine_of(service.queue, visitor, item)
    try:
        seconds = _attention(service, post, item)
        service.do(decision, request=post.request, sent=post.sent, seconds=seconds)
    except RefusedError as error:
        return _not_done(http, visitor, item, 409, str(error), typed)
    except AmplifyError as error:
        return _not_done(http, visitor, item, *pages.explain(error), typed)
    return None


def _attention(service: Service, post: Post, item: str | None) -> float | None:
    """Seconds of attention: what the page measured, at most the time since this person's last act.

    Simulated people report the time that they would have taken.
    """
    if item is None:
        return None
    if post.visitor.simulated:
        return min(post.seconds, LONGEST_ATTENTION)
    mine = service.queue.items[item].assignments[post.visitor.person]
    return min(post.seconds, max(0.0, service.clock() - max(mine.began, mine.renewed)))


def _not_done(
    http: Request,
    visitor: Visitor,
    item: str | None,
    code: int,
    problem: str,
    typed: Mapping[str, str],
) -> Response:
    """Says why a decision was refused, and shows what was typed."""
    service = service_of(http)
    if code == 409 and item is not None and typed.get("answer"):
        _keep(service, visitor, item, typed["answer"])
    current = service.queue.current(visitor.person, service.clock())
    if current is None or item not in (None, current.id):  # they have to go to another item
        return pages.trouble(http, code, problem, typed)
    if pages.is_part(http):
        return pages.page(http, "problem.html", code, problem=problem, go_on=False)
    return _work(http, visitor, code, problem=problem, typed=typed)


def _keep(service: Service, visitor: Visitor, item: str, text: str) -> None:
    """Keeps an answer as a draft, if it can be stored."""
    mine = service.queue.items[item].assignments[visitor.person]
    if mine.draft != text and len(text) <= LONGEST and not why_not_kept(text):
        service.do(lambda queue, _: queue.draft(visitor.person, item, text))


def _work(
    http: Request,
    visitor: Visitor,
    code: int = 200,
    problem: str = "",
    typed: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Renders the page, or the part of it that changes, with the item in hand or the next one."""
    service = service_of(http)
    item = _in_hand(service, visitor)
    values = _about(service, visitor, item) if item else _nothing(service, visitor)
    name = "work.html" if pages.is_part(http) else "answer.html"
    blank = {"text": "", "answer": None, "reason": ""}
    values |= {"problem": problem, "go_on": False, "typed": {**blank, **(typed or {})}}
    return pages.page(http, name, code, **values)


def _in_hand(service: Service, visitor: Visitor) -> Item | None:
    queue, now, person = service.queue, service.clock(), visitor.person
    item = queue.current(person, now)
    if item is not None and queue.is_held(item.assignments[person], now):
        return item
    if queue.take(person, now):  # decided again in a transaction
        service.do(lambda queue, now: queue.take(person, now))
    return service.queue.current(person, now)


def _about(service: Service, visitor: Visitor, item: Item) -> dict[str, Any]:
    queue, person = service.queue, visitor.person
    mine = item.assignments[person]
    basis = basis_of(queue, item.id, mine)
    there = view_models.exchanges(basis, answered_only=basis is not mine)
    return {
        "guide": queue.stages[item.asked_in].guide,
        "item": item,
        "mine": mine,
        "exchanges": there,
        "numbers": view_models.has_numbers(item.choices),
        "waiting": any(exchange.pending for exchange in mine.exchanges),
        "after": _last_told(mine),
        "left": view_models.questions_left(item, mine),
        "helped": item.budget > 0 and not item.withheld and item.review_of is None,
        "progress": view_models.progress(queue, person, item.asked_in),
        "last": _last(queue, person, item),
    }


def basis_of(queue: Queue, item: str, mine: Assignment) -> Assignment:
    """The assignment whose exchanges a person answers by: their own, or the one that they check."""
    checked = queue.items[item].review_of
    return mine if checked is None else queue.items[checked[0]].assignments[checked[1]]


def _nothing(service: Service, visitor: Visitor) -> dict[str, Any]:
    queue, person = service.queue, visitor.person
    latest = queue.latest
    there = None if latest is None else queue.stages[latest]
    return {
        "guide": "",
        "item": None,
        "finished": there is not None and there.closed is not None,
        "progress": None if latest is None else view_models.progress(queue, person, latest),
        "last": _last(queue, person, None),
    }


class LastAct(NamedTuple):
    """The last act of a person, which they could undo."""

    event: int
    item: str
    what: str  # "asked", "submitted" or "skipped"
    stays: bool  # it can no longer be undone: they have seen who told them what


def _last(queue: Queue, person: str, in_hand: Item | None) -> LastAct | None:
    act = queue.last_act(person)
    if act is None or queue.is_closed(queue.items[act.item or ""]):
        return None
    if act.kind == "asked" and (in_hand is None or in_hand.id != act.item):
        return None
    mine = queue.items[act.item or ""].assignments[person]
    return LastAct(act.id, act.item or "", act.kind, mine.seen)


def _last_told(mine: Assignment) -> int:
    return max((exchange.told or 0 for exchange in mine.exchanges), default=0)
