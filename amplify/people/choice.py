"""Which of several people's answers to a question counts."""

import collections

from amplify.people.queue import Assignment, Item


def chosen(item: Item) -> Assignment | None:
    """The assignment whose answer counts: what was decided on, else what most answered; of those
    the earliest. None where nobody did.
    """
    said = item.submissions
    if not said:
        return None
    wanted = item.adjudicated
    if wanted is None:
        wanted = collections.Counter(a.answer for a in said).most_common(1)[0][0]
    return next((a for a in said if a.answer == wanted), said[0])
