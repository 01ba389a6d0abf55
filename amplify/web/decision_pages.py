"""The admin's pages on disagreements and answers, with the decisions about them.

Disagreements are decided blind: the page shows the answers and how each came about, without names.
Decisions are appended through the same `Service` as everything that people do.
"""

import random
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from amplify.errors import AmplifyError
from amplify.people import quality, rules
from amplify.people.events import Event, New
from amplify.people.items import (
    ACTIVE,
    SUBMITTED,
    Assignment,
    Item,
    answer_of,
    chosen,
    is_gold,
    same,
)
from amplify.people.rules import Queue, RefusedError
from amplify.people.trees import Tree, read_trees
from amplify.web import access, admin_view, pages, view_models
from amplify.web.access import Post
from amplify.web.admin_view import Admin, AdminView
from amplify.web.forms import FormRoute
from amplify.web.service import Service

router = APIRouter(route_class=FormRoute)
Text = Annotated[str, Form()]


# Where people disagree


@router.get("/disagreements")
def disagreements(http: Request, visitor: Admin) -> Response:
    view = admin_view.view_of(http)
    with view.read() as queue:
        return admin_view.page(
            http, "disagreements.html", disagreements=admin_view.disagreements(view, queue)
        )


@router.get("/disagreements/next")
def next_disagreement(http: Request, visitor: Admin) -> Response:
    """Leads to the first disagreement that is undecided."""
    view = admin_view.view_of(http)
    with view.read() as queue:
        open_ones = (one for one in admin_view.disagreements(view, queue) if not one.settled)
        first = next(open_ones, None)
    where = "" if first is None else f"/{quote(first.item.id, safe='')}"
    return RedirectResponse(f"/admin/disagreements{where}", 303)


@router.get("/disagreements/{item}")
def disagreement(http: Request, visitor: Admin, item: str) -> Response:
    """The answers and how each came about, shuffled and without names."""
    with admin_view.view_of(http).read() as queue:
        return _compare(http, queue, item)


class Side(NamedTuple):
    """One answer of a disagreement."""

    answer: str
    trees: list[list[view_models.ExchangeView]]  # the exchanges of each person who gave it


def _compare(
    http: Request, queue: Queue, item: str, code: int = 200, problem: str = "", typed: str = ""
) -> Response:
    found = _disagreement(queue, item)
    if found is None:
        raise HTTPException(404, "people do not disagree about that")
    sides = [
        Side(said, [_told(queue, assignment) for assignment in assignments])
        for said, assignments in found.answers.items()
    ]
    random.Random(item).shuffle(sides)  # the same order every time
    return admin_view.page(
        http,
        "disagreement.html",
        code,
        item=found.item,
        sides=sides,
        closed=queue.is_closed(found.item),
        problem=problem,
        typed=typed,
    )


def _disagreement(queue: Queue, item: str) -> quality.Disagreement | None:
    return next((one for one in quality.disagreements(queue) if one.item.id == item), None)


def _told(queue: Queue, assignment: Assignment) -> list[view_models.ExchangeView]:
    """The exchanges that somebody answered by; for a check, those of the answer it checks."""
    review_of = queue.items[assignment.item].review_of
    if review_of is not None:
        assignment = queue.items[review_of[0]].assignments[review_of[1]]
    return view_models.exchanges(assignment, answered_only=True)


# Answers, and decisions about them


@router.get("/answers")
def answers(
    http: Request,
    visitor: Admin,
    text: str = "",
    round: str = "",
    person: str = "",
    page: int = 0,
) -> Response:
    """All items with people's answers, latest first."""
    view, number, words = (
        admin_view.view_of(http),
        admin_view.number(round),
        text.casefold().split(),
    )
    with view.read() as queue:
        found = [
            item
            for item in reversed(queue.items.values())
            if number in (None, item.round)
            and (not person or person in item.assignments)
            and all(word in _text_of(item) for word in words)
        ]
        everybody = {who for item in queue.items.values() for who in item.assignments}
        return admin_view.page(
            http,
            "answers.html",
            found=admin_view.some(found, page),
            count=len(found),
            answer_of=answer_of,
            rounds=queue.rounds,
            everybody=sorted(everybody),
            wanted={"text": text, "round": number, "person": person},
            **admin_view.paging(http, page, len(found)),
        )


@router.get("/answers/{item}")
def answer(http: Request, visitor: Admin, item: str) -> Response:
    """Everything about one item: exchanges, answers, checks, decisions and events."""
    view = admin_view.view_of(http)
    with view.read() as queue:
        return _answer(http, view, queue, item)


def _answer(
    http: Request,
    view: AdminView,
    queue: Queue,
    item: str,
    code: int = 200,
    problem: str = "",
    typed: str = "",
) -> Response:
    if item not in queue.items:
        raise HTTPException(404, "there is no such question")
    this = queue.items[item]
    checks = [other for other in queue.items.values() if (other.review_of or ("",))[0] == item]
    counted = chosen(this)
    history = view.history(item)
    return admin_view.page(
        http,
        "answer.html",
        code,
        item=this,
        counts=answer_of(this),
        whose=counted.person if counted and same(this, counted.answer, answer_of(this)) else None,
        work=[(a, view_models.exchanges(a)) for a in this.assignments.values()],
        checks=checks,
        corrected=_corrected(event for event in history if queue.is_used(event)),
        history=history,
        said=_said,
        tree=_tree_of(view, this),
        problem=problem,
        typed=typed,
        is_gold=is_gold,
        SUBMITTED=SUBMITTED,
        ACTIVE=ACTIVE,
    )


def _tree_of(view: AdminView, item: Item) -> Tree | None:
    """The tree that was made of people's answers to an item. A question at the same place of
    another stage's data set has nothing to do with it.
    """
    tree = read_trees(view.experiment).at(item.round, item.row, item.column)
    return tree if tree is not None and tree.root.get("item") in (None, item.id) else None


def _corrected(history: Iterable[Event]) -> dict[tuple[str, int], str]:
    """Corrected sub-answers by person and number of the sub-question."""
    return {
        (event.body["person"], event.body["number"]): event.body["answer"]
        for event in history
        if event.kind == "corrected" and event.body.get("number") is not None
    }


def _said(event: Event) -> str:
    """The main text of an event of any kind."""
    for key in ("text", "answer", "reason", "problem", "question", "what"):
        if event.body.get(key):
            return str(event.body[key])
    return ""


def _text_of(item: Item) -> str:
    said = (a.answer or "" for a in item.assignments.values())
    return "\n".join([item.id, item.question, *said]).casefold()


async def _by_admin(visitor: Admin, post: Annotated[Post, Depends(access.post)]) -> Post:
    """A form that the admin posted."""
    return post


PostedByAdmin = Annotated[Post, Depends(_by_admin)]


@router.post("/answers/{item}/adjudicate")
async def adjudicate(
    http: Request,
    post: PostedByAdmin,
    item: str,
    answer: Text = "",
    other: Text = "",
    then: Text = "",
) -> Response:
    """Decides which answer counts: one that was given, or what was typed into `other`."""
    wanted, by = other.strip() or answer, post.visitor.person
    blind = then == "next"
    return _decided(
        http,
        post,
        item,
        lambda queue: rules.adjudicate(queue, item, wanted, by),
        wanted if other.strip() or not blind else "",
        blind=blind,
    )


@router.post("/answers/{item}/correct")
async def correct(
    http: Request,
    post: PostedByAdmin,
    item: str,
    person: Text = "",
    answer: Text = "",
    number: Annotated[int | None, Form()] = None,
) -> Response:
    """Corrects a final answer or, if `number` is given, the answer to that sub-question."""
    by = post.visitor.person
    return _decided(
        http,
        post,
        item,
        lambda queue: rules.correct(queue, item, person, answer, by, number),
        answer,
    )


@router.post("/answers/{item}/withdraw")
async def withdraw(http: Request, post: PostedByAdmin, item: str, reason: Text = "") -> Response:
    return _decided(
        http,
        post,
        item,
        lambda queue: rules.withdraw(queue, item, reason, post.visitor.person),
        reason,
    )


def _decided(
    http: Request,
    post: Post,
    item: str,
    decision: Callable[[Queue], list[New]],
    typed: str,
    blind: bool = False,
) -> Response:
    """Appends a decision and leads to the next page. If it is refused, the same page says why and
    shows what was typed.
    """
    service: Service = http.app.state.service
    try:
        service.do(lambda queue, _: decision(queue), request=post.request, sent=post.sent)
    except RefusedError as error:
        view = admin_view.view_of(http)
        with view.read() as queue:
            if blind and _disagreement(queue, item) is not None:
                return _compare(http, queue, item, 409, str(error), typed)
            return _answer(http, view, queue, item, 409, str(error), typed)
    except AmplifyError as error:
        return pages.trouble(http, *pages.explain(error), {"answer": typed})
    there = "/admin/disagreements/next" if blind else f"/admin/answers/{quote(item, safe='')}"
    return RedirectResponse(there, 303)
