"""Checks that an event of the log refers to things that exist.

A log outlives the version that wrote it, and its rows may be damaged. `State` sets aside an event
that refers to something unknown, with the reason, and applies the others as if it were not there.
"""

from collections.abc import Mapping, Sequence

from amplify.people.events import Body, Corrected, Event, Put, Told, Undone
from amplify.people.items import Assignment, Item

OF_WORK = {
    "released",
    "draft",
    "asked",
    "told",
    "submitted",
    "refused",
    "skipped",
    "undone",
    "seen",
}
"""Kinds of events about one person's work on an item."""
OF_ITEM = {"taken", "withdrawn", "adjudicated", "corrected", "set_aside", *OF_WORK}
"""Kinds of events about an item."""


def why_not(
    event: Event, said: Body, items: Mapping[str, Item], acts: Mapping[str, Sequence[Event]]
) -> str:
    """Returns why an event cannot be applied, as the end of a sentence about it; "" if it can.

    Args:
        event: the next event of the log.
        said: what it says.
        items: the items that were put up before it.
        acts: each person's acts that could be undone.
    """
    if isinstance(said, Put):
        return _why_not_put(event, said, items)
    if event.kind not in OF_ITEM:
        return ""
    item, person = items.get(event.item or ""), event.person or ""
    if item is None:
        return "is about a question that was never put up"
    if event.kind == "taken" and not person:
        return "does not say who took the question"
    if event.kind in OF_WORK and person not in item.assignments:
        return "is by somebody who was not given the question"
    if isinstance(said, Told):
        return _why_not_of(item.assignments[person], said.number)
    if isinstance(said, Undone) and all(
        act.id != said.event or act.item != item.id for act in acts.get(person, ())
    ):
        return "takes back something that did not happen"
    if isinstance(said, Corrected) and said.person is not None:
        whose = item.assignments.get(said.person)
        if whose is None:
            return "corrects somebody who was not given the question"
        return _why_not_of(whose, said.number)
    return ""


def _why_not_put(event: Event, said: Put, items: Mapping[str, Item]) -> str:
    if event.item is None:
        return "does not say which question it puts up"
    item, person = said.review_of or (None, None)
    if item is not None and (item not in items or person not in items[item].assignments):
        return "checks an answer that is not there"
    return ""


def _why_not_of(whose: Assignment, number: int | None) -> str:
    """About the answer to the sub-question of this number, or a final answer if it is None."""
    known = number is None or 0 < number <= len(whose.exchanges)
    return "" if known else "is about a sub-question that was not asked"
