"""The admin's pages on decomposition trees.

They can be searched; a training row leads to its tree, and an answer to every row that rests on it.
"""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from amplify.answers import CASELESS, AnswerRule
from amplify.errors import command
from amplify.people.trees import BY, TreeFilter, Trees, folded, read_trees
from amplify.web import admin_view
from amplify.web.admin_view import Admin

router = APIRouter()


@router.get("/trees")
def trees(
    http: Request,
    visitor: Admin,
    text: str = "",
    round: str = "",
    label: str = "",
    right: str = "",
    person: str = "",
    by: str = "",
    model: str = "",
    page: int = 0,
) -> Response:
    """Trees of all rounds, with search and filters."""
    wanted = TreeFilter(
        text=text,
        round=admin_view.number(round),
        label=label or None,
        right={"right": True, "wrong": False}.get(right),
        person=person or None,
        by=by or None,
        model=admin_view.number(model),
    )
    all_ = _trees(http)
    found = all_.find(wanted)
    return admin_view.page(
        http,
        "trees.html",
        trees=all_,
        rounds=sorted({tree.round for tree in all_.all}),
        wanted=wanted,
        found=admin_view.some(found, page),
        count=len(found),
        by=BY,
        folded=folded,
        **admin_view.paging(http, page, len(found)),
    )


@router.get("/trees/{round}-{row}-{column}")
def tree(http: Request, visitor: Admin, round: int, row: int, column: int) -> Response:
    """The tree behind one question of a training row."""
    found = _trees(http).at(round, row, column)
    if found is None:
        row_of = f"--round {round} --row {row} --question {column}".split()
        again = command("tree", admin_view.view_of(http).experiment, *row_of)
        raise HTTPException(
            404,
            f"no tree was kept of round {round}, row {row}, question {column}: only people's trees"
            f" and a sample of the others are; to recompute it: {again}",
        )
    return admin_view.page(http, "tree.html", tree=found, folded=folded)


@router.get("/rests-on")
def rests_on(
    http: Request, visitor: Admin, question: str = "", answer: str = "", event: str = ""
) -> Response:
    """Training rows whose tree contains an answer: given by its text, or by its event."""
    number, all_ = admin_view.number(event), _trees(http)
    checkpoint = None
    if number is not None:
        told = _answer_of_event(http, number)
        question, answer, checkpoint = told
    found = all_.of_event(number) if number is not None else []
    places = {tree.place for tree in found}
    rule = _answer_rule(http)
    more = all_.resting_on(question, answer, checkpoint, rule) if question else []
    found += [tree for tree in more if tree.place not in places]
    return admin_view.page(
        http,
        "rests_on.html",
        question=question,
        answer=answer,
        event=number,
        found=found,
        folded=folded,
    )


def _answer_of_event(http: Request, number: int) -> tuple[str, str, str | None]:
    """Question, answer and checkpoint of an event that gave a sub-answer; else empty texts.

    A final answer is found by its event alone: others may have given the same answer.
    """
    with admin_view.view_of(http).read() as queue:
        for item in queue.items.values():
            for assignment in item.assignments.values():
                for exchange in assignment.exchanges:
                    if exchange.told == number and exchange.answer is not None:
                        return exchange.text, exchange.answer, item.checkpoint
    return "", "", None


def _answer_rule(http: Request) -> AnswerRule:
    """The rule by which answers are compared: that of the latest item."""
    with admin_view.view_of(http).read() as queue:
        last = next(reversed(queue.items.values()), None)
        return CASELESS if last is None else last.rule


def _trees(http: Request) -> Trees:
    view = admin_view.view_of(http)
    with view.read() as queue:
        labels = {item.id: item.label for item in queue.items.values() if item.label}
    return read_trees(view.experiment, labels)
