import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from amplify.evaluation.statistics.arms import difference_of_means, difference_of_shares
from amplify.people.results import Arm, by_item, uplift
from tests.people.story import Story

ANSWERS = st.lists(
    st.tuples(st.floats(0, 100), st.booleans(), st.integers(0, 5)), min_size=4, max_size=40
)


@given(ANSWERS)
def test_the_interval_is_that_of_leaving_out_a_person_at_a_time(answers):
    values, helped, person = (np.array(column) for column in zip(*answers, strict=True))
    found = difference_of_means(values, helped, person)
    if found is None:
        return
    rest = [
        values[helped & (person != one)].mean() - values[~helped & (person != one)].mean()
        for one in np.unique(person)
    ]
    people = len(rest)
    difference = values[helped].mean() - values[~helped].mean()
    variance = (people - 1) / people * np.sum((np.array(rest) - difference) ** 2)
    arms = [np.bincount(person[arm], minlength=6) / arm.sum() / 2 for arm in (helped, ~helped)]
    freedom = 1 / np.sum(sum(arms) ** 2) - 1
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert found == pytest.approx((difference - half, difference + half), rel=1e-6, abs=1e-6)


@given(ANSWERS)
def test_the_interval_of_shares_is_bounded_holds_its_estimate_and_is_no_point(answers):
    values, helped, person = (np.array(column) for column in zip(*answers, strict=True))
    right = (values > 50).astype(float)
    found = difference_of_shares(right, helped, person)
    if found is None:
        return
    assert -1 <= found[0] <= right[helped].mean() - right[~helped].mean() <= found[1] <= 1
    assert found[0] < found[1]


def crowd(random, sizes, accuracy, correlation, gain, helping):
    """Answers of people of different ability, of which a share is helped."""
    chance = np.full(len(sizes), accuracy)
    if correlation:
        rest = (1 - correlation) / correlation
        chance = random.beta(accuracy * rest, (1 - accuracy) * rest, len(sizes))
    person = np.repeat(np.arange(len(sizes)), sizes)
    helped = random.random(len(person)) < helping
    chances = chance[person] + (1 - chance[person]) * gain / (1 - accuracy) * helped
    return (random.random(len(person)) < chances).astype(float), helped, person


@pytest.mark.parametrize("sizes", [[12] * 5, [4, 8, 12, 20, 24], [10] * 20, [2] * 20 + [30] * 6])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("accuracy", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("gained", [0.0, 0.3])
def test_intervals_of_what_help_is_worth_cover(sizes, correlation, accuracy, gained):
    random, gain = np.random.default_rng(0), gained * (1 - accuracy)
    found = [
        difference_of_shares(*crowd(random, sizes, accuracy, correlation, gain, helping=0.7))
        for _ in range(150)
    ]
    held = [low <= gain <= high for low, high in filter(None, found)]
    assert len(held) > 100
    assert np.mean(held) >= 0.93 - 0.05


@pytest.mark.parametrize("sizes", [[12] * 5, [4, 8, 12, 20, 24], [2] * 20 + [30] * 6])
def test_intervals_of_seconds_cover(sizes):
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        person = np.repeat(np.arange(len(sizes)), sizes)
        helped = random.random(len(person)) < 0.5
        seconds = random.gamma(2, 10, len(sizes))[person] + random.gamma(2, 10, len(person))
        low, high = difference_of_means(seconds - 5 * helped, helped, person)
        held += low <= -5 <= high
    assert held / 300 >= 0.93 - 0.04


def test_an_interval_of_percentages_stays_below_100():
    """+80 points once had an interval of +14.9 to +145.1."""
    right = np.array([1.0] * 10 + [0, 1, 0, 0, 0])
    helped = np.array([True] * 10 + [False] * 5)
    low, high = difference_of_shares(right, helped, np.tile(np.arange(5), 3))
    assert -1 <= low < 0.8 <= high <= 1


def trial(people: int, items: int, seed: int, helps: float, saves: float) -> Story:
    """People of different ability; help adds `helps` to the chance of being right."""
    chance, story = random.Random(seed), Story()
    able = {f"person-{n:02d}": chance.uniform(0.4, 0.7) for n in range(1, people + 1)}
    story.add("opened", lease=600)
    for number in range(items):
        item, withheld = f"q{number}", chance.random() < 0.5
        person = chance.choice(list(able))
        story.add("put", 1, item, question="?", withheld=withheld, gold="yes")
        right = chance.random() < able[person] + (0 if withheld else helps)
        seconds = chance.uniform(20, 40) - (0 if withheld else saves)
        story.add("taken", 1, item, person)
        story.add("submitted", 1, item, person, seconds, answer="yes" if right else "no")
    return story


def test_it_finds_what_the_help_is_worth_and_is_as_often_wrong_as_it_says():
    trials = [uplift(trial(12, 150, seed, helps=0.2, saves=8).queue) for seed in range(60)]
    right = sum(t.accuracy.interval[0] <= 0.2 <= t.accuracy.interval[1] for t in trials)
    quick = sum(t.seconds.interval[0] <= -8 <= t.seconds.interval[1] for t in trials)
    assert right >= 52
    assert quick >= 52
    assert np.mean([t.accuracy.difference for t in trials]) == pytest.approx(0.2, abs=0.03)


def test_both_arms_are_told_apart_from_items_and_not_from_people():
    story = Story()
    story.put("a", withheld=True, gold="x")
    story.put("b", gold="x")
    story.answer("a", "person-01", "y", seconds=30)
    story.answer("b", "person-01", "X", seconds=10)
    found = uplift(story.queue)
    assert (found.accuracy.helped, found.accuracy.alone) == (Arm(1, 1.0), Arm(1, 0.0))
    assert found.accuracy.difference == 1
    assert found.seconds.difference == -20
    assert found.accuracy.interval is None  # of one person, nothing can be said of others
    assert found.accuracy.people == 1


def test_what_is_not_known_is_none():
    empty = uplift(Story().queue)
    assert empty.accuracy == (Arm(0, None), Arm(0, None), None, None, 0)
    story = Story()
    story.put("a", withheld=True)
    story.put("b")
    for person in ("person-01", "person-02"):
        story.answer("a", person, "x")
        story.answer("b", person, "x")
    found = uplift(story.queue)
    assert found.accuracy.difference is None  # nothing is gold
    assert found.seconds.difference is None  # no seconds were measured: not 0 of them
    everybody_right = uplift(story.queue, by_item({"a": True, "b": True}))
    assert everybody_right.accuracy.difference == 0
    assert everybody_right.accuracy.interval is None


def test_a_caller_may_say_which_items_were_answered_rightly():
    story = Story()
    story.put("a", withheld=True, overlap=3)
    story.put("b")
    for person, said in (("person-01", "x"), ("person-02", "y"), ("person-03", "y")):
        story.answer("a", person, said)
    story.answer("b", "person-01", "x")
    found = uplift(story.queue, by_item({"a": False, "b": True}))
    assert found.accuracy.alone == Arm(1, 0.0)  # of the answer that was chosen, not of the others
    assert found.accuracy.difference == 1


def test_reviews_withdrawn_items_and_rounds_without_a_trial_do_not_count():
    story = trial(4, 30, 0, helps=0.2, saves=8)
    before = uplift(story.queue)
    story.put("other", round=2, gold="yes")
    story.answer("other", "person-01", "no", seconds=500)
    first = story.queue.items["q0"].submissions[0].person
    story.put("check", review_of=("q0", first), gold="yes")
    story.answer("check", "person-09", "no", seconds=500)
    story.put("unclear", gold="yes")
    story.answer("unclear", "person-01", "no", seconds=500)
    story.add("withdrawn", 1, "unclear", reason="unclear")
    after = uplift(story.queue)
    assert (after.accuracy, after.seconds) == (before.accuracy, before.seconds)
    assert uplift(story.queue, where=1) == after
    assert uplift(story.queue, where=2).seconds.difference is None


def test_what_was_withdrawn_or_never_answered_counts_where_it_was_drawn():
    story = Story()
    for number in range(4):
        for withheld in (False, True):
            item = f"{'alone' if withheld else 'helped'}-{number}"
            story.put(item, withheld=withheld, gold="x")
            if withheld or number < 2:
                story.answer(item, f"person-{number:02d}", "x")
    story.add("withdrawn", 1, "helped-3", reason="unclear")
    found = uplift(story.queue)
    assert (found.accuracy.helped, found.accuracy.alone) == (Arm(2, 1.0), Arm(4, 1.0))
    assert found.assigned.helped == Arm(3, 2 / 3)  # the fourth may still be answered
    story.add("closed", 1)
    found = uplift(story.queue)
    assert (found.assigned.helped, found.assigned.alone) == (Arm(4, 0.5), Arm(4, 1.0))
    assert found.assigned.difference == -0.5
    assert found.accuracy.difference == 0
