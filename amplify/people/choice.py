"""Which of several people's answers to an item counts, and when two answers are the same.

The round's data set is made of what is chosen here; agreement and staleness use the same sense of
"the same answer". Knows the queue and nothing of tasks: an answer is text.
"""

from amplify.people.items import Assignment, Item


def answer_of(item: Item) -> str | None:
    """What was decided on, else what most people answered (of two as frequent, the one that was
    submitted first). None where nobody answered, or the item was withdrawn.
    """
    if item.withdrawn is not None:
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
    if one is None or two is None:
        return one is two
    return normal(item, one) == normal(item, two)


def normal(item: Item, text: str) -> str:
    """Answers that are equal after this are the same: free text whatever its case and spacing, and
    whatever it says of the way to where it ends.
    """
    text = " ".join(text.split())
    if item.way:
        text = text.rpartition(item.way.strip())[-1].strip()
    return text if item.choices else text.casefold()


def _plurality(item: Item) -> Assignment | None:
    groups: dict[str, list[Assignment]] = {}
    for assignment in item.submissions:
        groups.setdefault(normal(item, assignment.answer or ""), []).append(assignment)
    return max(groups.values(), key=len)[0] if groups else None  # the first of the longest
