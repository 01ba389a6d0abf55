"""The pages of whoever runs the experiment: rounds live, people, what the help is worth, what is
stale. Those on which something is decided are in `deciding`, trees in `browsing`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from amplify.people import ledger, quality
from amplify.people.queue import Queue
from amplify.people.records import Record, measures_of, read_records
from amplify.people.stale import Stale, stale_in
from amplify.people.trees import read_trees
from amplify.people.uplift import by_item, uplift
from amplify.web import browsing, deciding, pages, views
from amplify.web.views import Admin, Lookout

LATELY = 300.0
"""Seconds over which answers a minute are counted."""

router = APIRouter(prefix="/admin")
router.include_router(deciding.router)
router.include_router(browsing.router)


class Now(NamedTuple):
    """How a round's work with people stands."""

    round: int
    done: int  # items that are complete
    all: int
    at_work: int  # people with a question in hand
    a_minute: float  # answers, lately
    waiting: int  # sub-questions that the assistant has not answered yet
    closed: bool


@router.get("")
def rounds(http: Request, visitor: Admin) -> Response:
    """The comparison of rounds, what they cost, and how people are getting on; kept up to date."""
    lookout = views.lookout(http)
    with lookout.look() as queue:
        records = read_records(lookout.experiment)
        measures = measures_of(records)
        return views.page(
            http,
            "live.html" if pages.is_part(http) else "rounds.html",
            now=_now(queue, http.app.state.office.clock()),
            records=records,
            measures=measures,
            judged=next((m.title for m in measures if m.name == records[-1].judged), None),
            spent=ledger.spent(queue, records),
            altogether=ledger.spent_altogether(queue, records),
            stale=_stale(lookout, records),
            deciding=_undecided(lookout, queue),
            set_aside=len(queue.set_aside),
        )


@router.get("/set-aside")
def what_is_set_aside(http: Request, visitor: Admin) -> Response:
    """What people said that could not be used, and why, the last first."""
    with views.lookout(http).look() as queue:
        found = [*reversed(queue.set_aside.values())]
        return views.page(http, "set_aside.html", found=found, items=queue.items)


def _now(queue: Queue, now: float) -> Now | None:
    if not queue.rounds:
        return None
    number = max(queue.rounds)
    items = [queue.items[name] for name in queue.rounds[number].items]
    work = [assignment for item in items for assignment in item.assignments.values()]
    lately = sum(a.at is not None and a.at > now - LATELY for a in work)
    return Now(
        round=number,
        done=len(items) - queue.open_items(number),
        all=len(items),
        at_work=len({a.person for a in work if queue.is_held(a, now)}),
        a_minute=60 * lately / LATELY,
        waiting=len(queue.pending(number)),
        closed=queue.rounds[number].closed is not None,
    )


def _stale(lookout: Lookout, records: Sequence[Record]) -> list[Stale]:
    """Found by going through the whole log, so only when that can find anything new."""
    return lookout.once(
        f"stale {len(records)}",
        lambda: stale_in(lookout.events(), records) if lookout.last_decision else [],
        since=lookout.last_decision,
    )


def _undecided(lookout: Lookout, queue: Queue) -> int:
    """Disagreements of the last round."""
    last = max(queue.rounds, default=None)
    found = views.disagreements(lookout, queue)
    return sum(not one.settled and one.item.round == last for one in found)


# People


@router.get("/people")
def people(http: Request, visitor: Admin, round: str = "") -> Response:
    """How each does, and how far they agree."""
    lookout, number = views.lookout(http), views.number(round)
    with lookout.look() as queue:
        known = lookout.once(f"people {number}", lambda: quality.people(queue, number))
        begun = {one.person for one in known}
        members = http.app.state.office.roster.members()
        return views.page(
            http,
            "people.html",
            people=known,
            agreement=lookout.once(f"alpha {number}", lambda: quality.agreement(queue, number)),
            idle=[m.person for m in members if not m.is_admin and m.person not in begun],
            rounds=sorted(queue.rounds),
            round=number,
        )


# What the help is worth, and what is stale


@router.get("/uplift")
def what_help_is_worth(http: Request, visitor: Admin, round: str = "") -> Response:
    lookout, number = views.lookout(http), views.number(round)
    with lookout.look() as queue:
        right = {
            tree.root["item"]: bool(tree.right)
            for tree in read_trees(lookout.experiment).all
            if "item" in tree.root and tree.right is not None
        }
        return views.page(
            http,
            "uplift.html",
            gold=uplift(queue, round=number),
            told=uplift(queue, by_item(right) if right else None, number),
            rounds=sorted(queue.rounds),
            round=number,
        )


@router.get("/stale")
def what_is_stale(http: Request, visitor: Admin) -> Response:
    lookout = views.lookout(http)
    with lookout.look():
        found = _stale(lookout, read_records(lookout.experiment))
        return views.page(http, "stale.html", stale=found, experiment=lookout.experiment)
