"""The admin's pages: rounds live, people, the effect of help, what is stale, what was set aside.

Pages with decisions are in `decision_pages`, trees in `tree_pages`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from amplify.errors import command, round_command
from amplify.people import quality, results
from amplify.people.items import Counts, RoundStage
from amplify.people.records import Record, measures_of, read_records
from amplify.people.results import by_item, uplift
from amplify.people.roster import Member
from amplify.people.rules import Queue
from amplify.people.stale import Stale, stale_in
from amplify.people.trees import read_trees
from amplify.web import admin_view, decision_pages, pages, tree_pages
from amplify.web.admin_view import Admin, AdminView

LATELY = 300.0
"""Seconds over which answers per minute are counted."""

router = APIRouter(prefix="/admin")
router.include_router(decision_pages.router)
router.include_router(tree_pages.router)


class StageProgress(NamedTuple):
    """How far a stage of a round has got."""

    stage: RoundStage
    counts: Counts
    at_work: int  # people with a question in hand
    a_minute: float  # answers, lately
    waiting: int  # sub-questions that the assistant has not answered yet
    closed: bool


@router.get("")
def rounds(http: Request, visitor: Admin) -> Response:
    """The comparison of rounds, their cost and the progress of the current one, kept up to date."""
    view = admin_view.view_of(http)
    with view.read() as queue:
        records = read_records(view.experiment)
        measures = measures_of(records)
        return admin_view.page(
            http,
            "live.html" if pages.is_part(http) else "rounds.html",
            now=_now(queue, http.app.state.service.clock()),
            records=records,
            measures=measures,
            judged=next((m.title for m in measures if m.name == records[-1].judged), None),
            spent=results.cost_by_round(queue, records),
            altogether=results.total_cost(queue, records),
            stale=_stale(view, records),
            deciding=_undecided(view, queue),
            set_aside=len(queue.set_aside),
            simulated=_are_simulated(http.app.state.service.roster.members()),
        )


def _are_simulated(members: Sequence[Member]) -> bool:
    """Whether there are people and all of them are programs."""
    people = [member for member in members if not member.is_admin]
    return bool(people) and all(member.simulated for member in people)


@router.get("/set-aside")
def what_is_set_aside(http: Request, visitor: Admin) -> Response:
    """Events and answers that could not be used, and why, latest first."""
    with admin_view.view_of(http).read() as queue:
        found = [*reversed(queue.set_aside.values())]
        return admin_view.page(http, "set_aside.html", found=found, items=queue.items)


def _now(queue: Queue, now: float) -> StageProgress | None:
    if (stage := queue.latest) is None:
        return None
    items = [queue.items[name] for name in queue.stages[stage].items]
    work = [assignment for item in items for assignment in item.assignments.values()]
    lately = sum(a.at is not None and a.at > now - LATELY for a in work)
    return StageProgress(
        stage=stage,
        counts=queue.counts(stage),
        at_work=len({a.person for a in work if queue.is_held(a, now)}),
        a_minute=60 * lately / LATELY,
        waiting=len(queue.pending(stage)),
        closed=queue.stages[stage].closed is not None,
    )


def _stale(view: AdminView, records: Sequence[Record]) -> list[Stale]:
    """Reads the whole log, so it is computed only if something may have changed."""
    return view.once(
        f"stale {len(records)}",
        lambda: stale_in(view.events(), records) if view.last_decision else [],
        since=view.last_decision,
    )


def _undecided(view: AdminView, queue: Queue) -> int:
    """Number of undecided disagreements of the latest stage."""
    found = admin_view.disagreements(view, queue)
    return sum(not one.settled and one.item.asked_in == queue.latest for one in found)


# People


@router.get("/people")
def people(http: Request, visitor: Admin, round: str = "") -> Response:
    """How well each person does, and how far they agree."""
    view, number = admin_view.view_of(http), admin_view.number(round)
    with view.read() as queue:
        known = view.once(f"people {number}", lambda: quality.people(queue, number))
        begun = {one.person for one in known}
        members = http.app.state.service.roster.members()
        return admin_view.page(
            http,
            "people.html",
            people=known,
            agreement=view.once(f"alpha {number}", lambda: quality.agreement(queue, number)),
            idle=[m.person for m in members if not m.is_admin and m.person not in begun],
            rounds=queue.rounds,
            round=number,
            invite=command("people", view.experiment, "--invite", 1),
        )


# The effect of help, and what is stale


@router.get("/uplift")
def what_help_is_worth(http: Request, visitor: Admin, round: str = "") -> Response:
    view, number = admin_view.view_of(http), admin_view.number(round)
    with view.read() as queue:
        right = {
            tree.root["item"]: bool(tree.right)
            for tree in read_trees(view.experiment).all
            if "item" in tree.root and tree.right is not None
        }
        return admin_view.page(
            http,
            "uplift.html",
            gold=uplift(queue, where=number),
            told=uplift(queue, by_item(right) if right else None, number),
            rounds=queue.rounds,
            round=number,
        )


@router.get("/stale")
def what_is_stale(http: Request, visitor: Admin) -> Response:
    view = admin_view.view_of(http)
    with view.read():
        found = _stale(view, read_records(view.experiment))
        return admin_view.page(
            http, "stale.html", stale=found, experiment=view.experiment, round_command=round_command
        )
