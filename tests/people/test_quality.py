import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.evaluation.statistics import accuracy
from amplify.people.quality import (
    Tally,
    agreement,
    alpha,
    alpha_interval,
    disagreements,
    people,
    ratings,
    tally,
)
from tests.people.story import Story

# Krippendorff 2011, section C: four observers, twelve units, missing values; nominal alpha 0.743.
PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def published() -> list[list[str]]:
    columns = zip(*(row.split() for row in PUBLISHED.strip().splitlines()), strict=True)
    return [[value for value in unit if value != "."] for unit in columns]


def test_alpha_is_that_of_the_published_example():
    assert alpha(published()) == pytest.approx(0.743, abs=0.0005)


def by_definition(units: list[list[str]]) -> float | None:
    """1 - observed / expected disagreement, over all pairs of values (Krippendorff 2018, 12.2.2):
    pairs within units, each weighted by 1 / (raters - 1), against pairs of any two values.
    """
    units = [values for values in units if len(values) > 1]
    values = [value for unit in units for value in unit]
    n = len(values)
    if n == 0:
        return None
    observed = sum(
        (one != two) / (len(unit) - 1)
        for unit in units
        for one, two in itertools.permutations(unit, 2)
    )
    expected = sum(one != two for one, two in itertools.permutations(values, 2)) / (n - 1)
    return None if expected == 0 else 1 - observed / expected


UNITS = st.lists(st.lists(st.sampled_from("abcd"), max_size=5), max_size=12)


@given(UNITS)
def test_alpha_equals_its_definition_over_pairs(units):
    expected = by_definition(units)
    got = alpha(units)
    assert (got is None) == (expected is None)
    if expected is not None:
        assert got == pytest.approx(expected, abs=1e-12)


@given(UNITS)
def test_the_interval_holds_the_estimate_within_bounds_and_is_no_point(units):
    found, estimate = alpha_interval(units), by_definition(units)
    if found is None:
        return
    low, high = found
    assert -1 <= low <= estimate <= high <= 1
    assert low < high


def test_perfect_agreement_has_an_interval_and_one_disagreement_changes_little():
    units = [["a", "a"], ["b", "b"]] * 250
    low, high = alpha_interval(units)
    assert 0.97 < low < high == 1
    one_apart = alpha_interval([["a", "b"], *units[1:]])
    assert low - 0.01 < one_apart[0] < low


def test_units_about_one_context_count_together():
    chance = random.Random(0)
    units = [[chance.choice("ab"), chance.choice("ab")] for _ in range(40)]
    alone, together = alpha_interval(units), alpha_interval(units * 2, list(range(40)) * 2)
    assert together == pytest.approx(alone, abs=0.03)
    assert alpha_interval(units, ["one", "two"] * 20) is None  # too few to tell


@pytest.mark.parametrize("contexts", [5, 20, 60])
@pytest.mark.parametrize("per_context", [1, 4])
@pytest.mark.parametrize("agreeing", [0.5, 0.98])
@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_intervals_of_agreement_cover(contexts, per_context, agreeing, alike):
    """Of people who know the truth in a share `agreeing` of cases, which contexts differ in."""
    chance = random.Random(f"{contexts} {per_context} {agreeing} {alike}")

    def crowd(number: int) -> tuple[list[list[str]], list[int]]:
        rated, about = [], []
        for context in range(number):
            good = agreeing
            if alike:
                rest = (1 - alike) / alike
                good = chance.betavariate(agreeing * rest, (1 - agreeing) * rest)
            for _ in range(per_context):
                truth, raters = chance.choice("abc"), chance.choice([2, 2, 3, 5])
                said = [chance.random() < good for _ in range(raters)]
                rated.append([truth if known else chance.choice("abc") for known in said])
                about.append(context)
        return rated, about

    limit = alpha(crowd(20_000 // per_context)[0])
    found = [alpha_interval(*crowd(contexts)) for _ in range(120)]
    held = [low <= limit <= high for low, high in filter(None, found)]
    assert len(held) > 90
    assert np.mean(held) >= 0.93 - 0.055


def test_undefined_agreement_is_none_and_not_zero_or_one():
    assert alpha([]) is None
    assert alpha([["a"], ["b"]]) is None
    assert alpha([["a", "a"], ["a", "a"]]) is None
    assert alpha_interval([["a", "a"], ["b", "b"]]) is None
    assert agreement(Story().queue).alpha is None


def test_the_interval_holds_what_a_large_crowd_agrees_on_about_as_often_as_it_says():
    chance = random.Random(0)

    def crowd(units: int) -> list[list[str]]:
        rated = []
        for _ in range(units):
            truth = chance.choice("abc")
            rated.append(
                [truth if chance.random() < 0.8 else chance.choice("abc") for _ in range(3)]
            )
        return rated

    limit = alpha(crowd(200_000))
    held = sum(
        low <= limit <= high for low, high in (alpha_interval(crowd(60)) for _ in range(400))
    )
    assert 0.92 <= held / 400 <= 0.98


def test_a_share_of_nothing_is_none():
    nothing = tally([], [])
    assert nothing == Tally(0, 0)
    assert nothing.estimate is None
    assert nothing.interval() is None


def test_a_share_has_the_interval_of_an_accuracy_clustered_by_context():
    found = tally([1.0, 0.5, 0.0, 1.0], ["a", "b", "c", "c"])
    expected = accuracy(np.array([1, 0.5, 0, 1]), np.array([0, 1, 2, 2]))
    assert (found.right, found.of, found.estimate) == (2.5, 4, 0.625)
    assert found.interval() == expected.interval
    assert tally([1.0, 1.0], ["a", "a"]).interval() is None


def checked() -> Story:
    """Two people answered q, and a third checked the first's answer."""
    story = Story()
    story.put("q", overlap=2, gold="A")
    story.answer("q", "person-01", "a", seconds=20)
    story.put("r", review_of=("q", "person-01"))
    story.answer("q", "person-02", "b", seconds=40)
    story.answer("r", "person-03", "A")
    story.put("s")
    story.skip("s", "person-03")
    return story


def test_who_checks_an_answer_rates_the_item_that_was_answered():
    rated = ratings(checked().queue)
    assert {who: a.said for who, a in rated["q"].items()} == {
        "person-01": "a",
        "person-02": "b",
        "person-03": "A",
    }


def test_who_answered_and_checked_counts_once_with_the_first():
    story = checked()
    story.put("t", review_of=("q", "person-01"))
    story.answer("t", "person-02", "a")
    assert ratings(story.queue)["q"]["person-02"].said == "b"


def test_what_is_told_of_a_person():
    one, two, three = people(checked().queue)
    assert (one.person, one.answers, one.reviews, one.skips) == ("person-01", 1, 0, 0)
    assert (one.gold[:2], one.agreeing[:2], one.seconds) == ((1, 1), (0.5, 1), 20)
    assert (two.gold[:2], two.agreeing[:2]) == ((0, 1), (0, 1))
    assert (three.answers, three.reviews, three.skips) == (1, 1, 1)
    assert three.gold == Tally(0, 0)
    assert three.seconds is None


def test_people_are_judged_by_what_they_said_and_not_by_its_correction():
    story = checked()
    story.correct("q", "person-02", "a")
    assert people(story.queue)[1].gold[:2] == (0, 1)
    [found] = disagreements(story.queue)
    assert list(found.answers) == ["a", "b"]


def test_disagreements_show_the_most_frequent_answer_first_and_the_settled_last():
    story = checked()
    story.put("u", overlap=2)
    story.answer("u", "person-01", "x")
    story.answer("u", "person-02", "X ")
    story.put("v", overlap=2)
    story.answer("v", "person-01", "x")
    story.answer("v", "person-02", "y")
    story.decide("q", "a")
    assert [d.item.id for d in disagreements(story.queue)] == ["v", "q"]
    last = disagreements(story.queue)[1]
    assert last.settled
    assert [[a.person for a in group] for group in last.answers.values()] == [
        ["person-01", "person-03"],
        ["person-02"],
    ]


def test_withdrawn_items_do_not_count_as_disagreement():
    story = checked()
    story.add("withdrawn", 1, "q", reason="unclear")
    assert ratings(story.queue) == {}
    assert disagreements(story.queue) == []


def crowd(error_rates: list[float], items: int, seed: int, gold: bool) -> Story:
    """Everybody answers each item by chance of theirs wrongly, three people an item."""
    chance, story = random.Random(seed), Story()
    names = [f"person-{number:02d}" for number in range(1, 1 + len(error_rates))]
    rates = dict(zip(names, error_rates, strict=True))
    story.add("opened", lease=600)
    for number in range(items):
        item, truth = f"q{number}", chance.choice("abcdef")
        story.add("put", 1, item, question="?", overlap=3, gold=truth if gold else None)
        for person in chance.sample(names, 3):
            wrong = chance.random() < rates[person]
            said = chance.choice([c for c in "abcdef" if c != truth]) if wrong else truth
            story.add("taken", 1, item, person)
            story.add("submitted", 1, item, person, answer=said)
    return story


@pytest.mark.parametrize("gold", [True, False])
def test_overlap_of_three_finds_the_careless(gold):
    rates = [0.05] * 10 + [0.5] * 2
    marked = [one.person for one in people(crowd(rates, 240, 0, gold).queue) if one.careless]
    assert marked == ["person-11", "person-12"]


def test_in_an_even_crowd_hardly_ever_anybody_is_called_careless():
    crowds = [people(crowd([0.2] * 6, 60, seed, gold=True).queue) for seed in range(60)]
    false_alarms = sum(any(one.careless for one in crowd) for crowd in crowds)
    assert false_alarms <= 6  # 3 of 60 expected at most
