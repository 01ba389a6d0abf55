import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify import words
from amplify.answers import AnswerRule
from amplify.oversight.people.parsing import read_answer
from amplify.oversight.people.questions import right_words
from amplify.people.items import answer_of, chosen, is_gold, same
from amplify.people.quality import agreement, disagreements
from amplify.people.quality import people as quality_of_people
from amplify.people.results import uplift
from amplify.people.rules import RefusedError
from amplify.task_abilities import rule_of
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.tasks.text.documents import Documents
from amplify.tasks.text.search import Search
from tests.documents import asked_rows, jsonl, written
from tests.people.story import Story
from tests.tasks.test_shortest_path import TASK as TWO_WAYS_TASK
from tests.tasks.test_shortest_path import TWO_WAYS

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


NORMALIZED = AnswerRule("normalized").as_row()


def test_answers_are_the_same_where_the_task_says_so():
    story = Story()
    story.put("q", overlap=3, rule=NORMALIZED, gold="the Tamble")
    story.put("exact", overlap=2, rule=AnswerRule().as_row())
    for person, answer in zip(PEOPLE, ("Osk", "the Tamble", "Tamble."), strict=False):
        story.answer("q", person, answer)
    item, exact = (story.queue.items[name] for name in ("q", "exact"))
    assert answer_of(item) == "the Tamble"
    assert [is_gold(item, a.said) for a in item.submissions] == [False, True, True]
    assert not same(exact, "Tamble", "tamble")
    assert same(exact, "Cafe\N{COMBINING ACUTE ACCENT}  noir", "Café noir")


def own_documents(folder):
    questions = written(folder / "questions.jsonl", asked_rows())
    return Documents(documents=str(jsonl(folder / "documents.jsonl")), questions=str(questions))


TASKS = {
    "permutation": lambda _: Permutation(symbols=5, bits=3),
    "wildcard": lambda _: Wildcard(letters=3),
    "search": lambda _: Search(regions=64, hops=2),
    "search that shows its work": lambda _: Search(regions=64, hops=2, show_work=True),
    "documents": own_documents,
}


@pytest.mark.parametrize("name", TASKS)
def test_the_rule_that_questions_carry_is_the_one_that_the_task_judges_by(name, tmp_path):
    """Of each question, the truth and texts near it are right to both, or to none."""
    task = TASKS[name](tmp_path)
    rule, drawn = rule_of(task), draw_problems(task, 0, 0, "final", 3, (1, 2))
    truths = np.asarray(vmap_questions(task.truth)(drawn.contexts, drawn.questions))
    known = {words.format_tokens(task, truth) for truth in truths.reshape(-1, truths.shape[-1])}
    for row, column in itertools.product(range(3), range(2)):
        context, question = (
            np.asarray(drawn.contexts)[row],
            np.asarray(drawn.questions)[row, column],
        )
        truth = words.format_tokens(task, truths[row, column])
        near = {truth, f" {truth} ", truth.lower(), truth.upper(), f"{truth}.", f"the {truth}"}
        for text in sorted(near | known | {f"{other} > {truth}" for other in known}):
            tokens = read_answer(task, text).tokens
            if tokens is not None:
                right = words.is_right(task, context, question, tokens)
                assert right == rule.same(text, truth), (text, truth)


def test_people_who_say_the_same_in_other_words_agree_and_are_right_on_gold_items():
    story = Story()
    for number in range(6):
        story.put(
            f"q{number}", overlap=2, rule=NORMALIZED, gold="the Tamble", withheld=number % 2 == 1
        )
        story.answer(f"q{number}", PEOPLE[0], "Tamble.")
        story.answer(f"q{number}", PEOPLE[1], "The tamble")
    story.put("other", overlap=2, rule=NORMALIZED)
    story.answer("other", PEOPLE[0], "Osk")
    story.answer("other", PEOPLE[1], "osk!")
    assert agreement(story.queue).alpha == 1.0
    assert disagreements(story.queue) == []
    assert [one.gold[:2] for one in quality_of_people(story.queue)] == [(6, 6), (6, 6)]
    assert [one.agreeing[:2] for one in quality_of_people(story.queue)] == [(7, 7), (7, 7)]
    assert uplift(story.queue).accuracy.helped.mean == 1.0


def test_each_of_several_right_answers_is_right_on_a_gold_item():
    story = Story()
    story.put("q", overlap=2, gold="v1", also_right=["v2"])
    for person, answer in zip(PEOPLE, ("v2", "v3"), strict=False):
        story.answer("q", person, answer)
    assert [one.gold[:2] for one in quality_of_people(story.queue)] == [(1, 1), (0, 1)]


def test_a_gold_item_knows_every_answer_that_the_task_calls_right():
    asked = ["S v1 v5", "D v1 v5", "next v1", "edge v1 v2"]
    questions = np.stack([words.read_question(TWO_WAYS_TASK, text) for text in asked])
    contexts = np.stack([np.asarray(TWO_WAYS)] * len(asked))
    found = right_words(TWO_WAYS_TASK, contexts, questions)
    assert list(found) == [["v2", "v3"], ["3"], ["v2", "v3", "v6"], ["yes"]]


def test_a_choice_can_be_chosen_however_it_is_spaced_and_composed():
    choices = ["Yes ", " No", "don't  know", "Cafe\N{COMBINING ACUTE ACCENT}", "a", "A"]
    story = Story()
    story.put("q", overlap=1, choices=choices)
    story.take("q", PEOPLE[0])
    queue = story.queue
    for choice in choices:
        for typed in (choice, " ".join(choice.split()), f"  {choice}\n"):
            [event] = queue.submit(PEOPLE[0], "q", typed, 1000.0)
            assert event["body"]["answer"] == choice
    with pytest.raises(RefusedError, match="must be one of Yes"):
        queue.submit(PEOPLE[0], "q", "perhaps", 1000.0)


def test_an_answer_that_is_a_word_of_the_task_is_read_whatever_is_in_it():
    class Spaced(Wildcard):
        vocabulary = ("?", "Yes ", "don't know", "no")

    for token, text in enumerate(Spaced.vocabulary):
        assert words.read_answer(Spaced(letters=3), text).tolist() == [token]


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
