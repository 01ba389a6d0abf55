"""Which of several people's answers to an item counts.

The round's data set is made of what is chosen here. Two answers are the same if the item's rule
says so, which is the task's own and came with the question; agreement, gold items, disagreements,
the uplift trial and staleness all ask here. Knows the queue and no task: an answer is text.
"""

from amplify.people.items import Assignment, Item


def answer_of(item: Item) -> str | None:
    """What was decided on, else what most people answered (of two as frequent, the one that was
    submitted first). None where nobody answered, or the item was withdrawn or set aside.
    """
    if item.withdrawn is not None or item.set_aside is not None:
        return None
    if item.adjudicated is not None:
        return item.adjudicated
    return None if (most := _plurality(item)) is None else most.answer


def chosen(item: Item) -> Assignment | None:
    """The assignment behind `answer_of`: of those who gave that answer, who submitted first. Where
    something was decided on that nobody had answered, the one that would have counted without.
    """
    answer = answer_of(item)
    if answer is None:
        return None
    alike = (a for a in item.submissions if same(item, a.answer, answer))
    return next(alike, _plurality(item))


def same(item: Item, one: str | None, two: str | None) -> bool:
    """Whether two answers to an item are the same; None is no answer."""
    return item.rule.same(one, two)


def canonical(item: Item, text: str) -> str:
    """Answers to an item are the same if this is equal."""
    return item.rule.canonical(text)


def is_gold(item: Item, answer: str | None) -> bool:
    """Whether an answer to a gold item is right."""
    return any(same(item, answer, right) for right in (item.gold, *item.also_right))


def _plurality(item: Item) -> Assignment | None:
    groups: dict[str, list[Assignment]] = {}
    for assignment in item.submissions:
        groups.setdefault(canonical(item, assignment.answer or ""), []).append(assignment)
    return max(groups.values(), key=len)[0] if groups else None  # the first of the longest
