import collections

from hypothesis import given
from hypothesis import strategies as st

from amplify.people.choice import answer_of, chosen, same
from tests.people.story import Story

PEOPLE = [f"person-{number:02d}" for number in range(1, 8)]


@given(st.lists(st.sampled_from("abc"), max_size=7))
def test_what_most_answered_counts_and_of_ties_the_first_that_was_submitted(answers):
    story = Story()
    story.put("q", overlap=7)
    for person, answer in zip(PEOPLE, answers, strict=False):
        story.answer("q", person, answer)
    item = story.queue.items["q"]
    counts = collections.Counter(answers)
    most = [a for a in answers if counts[a] == max(counts.values())]
    assert answer_of(item) == (most[0] if most else None)
    mine = chosen(item)
    assert (mine and mine.person) == (PEOPLE[answers.index(most[0])] if most else None)


def test_case_and_spacing_make_no_difference_but_where_there_are_choices():
    story = Story()
    story.put("free", overlap=3)
    story.put("choice", overlap=3, choices=["a", "A"])
    for item in ("free", "choice"):
        for person, answer in zip(PEOPLE, ("a", "A", "A"), strict=False):
            story.answer(item, person, answer)
    items = story.queue.items
    assert answer_of(items["free"]) == "a"  # the three are one, and this was the first
    assert answer_of(items["choice"]) == "A"
    assert same(items["free"], "Stubres  Duken", " stubres duken")
    assert not same(items["free"], None, "stubres duken")


def test_what_an_answer_says_of_the_way_makes_no_difference():
    story = Story()
    story.put("q", overlap=3, way=" > ")
    for person, answer in zip(PEOPLE, ("Rome", "Pisa > Italy", "italy"), strict=False):
        story.answer("q", person, answer)
    item = story.queue.items["q"]
    assert answer_of(item) == "Pisa > Italy"
    assert same(item, "Pisa>Italy", "Oslo > Pisa > Italy")
    assert not same(item, "Pisa > Italy", "Italy > Pisa")


def test_what_was_decided_counts_more_than_what_most_answered():
    story = Story()
    story.put("q", overlap=3)
    for person, answer in zip(PEOPLE, "aab", strict=False):
        story.answer("q", person, answer)
    story.decide("q", "B")
    item = story.queue.items["q"]
    assert answer_of(item) == "B"
    assert chosen(item).person == PEOPLE[2]
    story.decide("q", "something else")
    item = story.queue.items["q"]
    assert answer_of(item) == "something else"
    assert chosen(item).person == PEOPLE[0]


def test_a_corrected_answer_counts_as_corrected():
    story = Story()
    story.put("q", overlap=2)
    story.answer("q", PEOPLE[0], "a")
    story.answer("q", PEOPLE[1], "b")
    story.correct("q", PEOPLE[0], "b")
    item = story.queue.items["q"]
    assert (answer_of(item), chosen(item).person) == ("b", PEOPLE[0])
    assert item.assignments[PEOPLE[0]].said == "a"


def test_a_withdrawn_item_has_no_answer():
    story = Story()
    story.put("q")
    story.answer("q", PEOPLE[0], "a")
    story.add("withdrawn", 1, "q", reason="unclear")
    assert answer_of(story.queue.items["q"]) is None
    assert chosen(story.queue.items["q"]) is None
