import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from amplify.people.quality import (
    Share,
    agreement,
    alpha,
    alpha_interval,
    disagreements,
    people,
    ratings,
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
def test_the_interval_is_that_of_leaving_out_each_unit_by_hand(units):
    found, estimate = alpha_interval(units), by_definition(units)
    compared = [unit for unit in units if len(unit) > 1]
    without = [by_definition(compared[:i] + compared[i + 1 :]) for i in range(len(compared))]
    if len(compared) < 2 or estimate is None or None in without or np.ptp(without) < 1e-12:
        assert found is None
        return
    error = np.sqrt((len(without) - 1) * np.var(without))
    half = stats.t.ppf(0.975, len(without) - 1) * error
    assert found == pytest.approx((max(-1, estimate - half), min(1, estimate + half)))


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


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_shares_interval_is_wilsons(right, of):
    right = min(right, of)
    low, high = proportion_confint(right, of, method="wilson")
    assert Share(right, of).interval() == pytest.approx((low, high), abs=1e-9)


def test_a_share_of_nothing_is_none():
    assert Share(0, 0).estimate is None
    assert Share(0, 0).interval() is None


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
    assert (one.gold, one.agreeing, one.seconds) == (Share(1, 1), Share(0.5, 1), 20)
    assert (two.gold, two.agreeing) == (Share(0, 1), Share(0, 1))
    assert (three.answers, three.reviews, three.skips) == (1, 1, 1)
    assert three.gold == Share(0, 0)
    assert three.seconds is None


def test_people_are_judged_by_what_they_said_and_not_by_its_correction():
    story = checked()
    story.correct("q", "person-02", "a")
    assert people(story.queue)[1].gold == Share(0, 1)
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
