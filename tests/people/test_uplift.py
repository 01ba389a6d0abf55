import random

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from amplify.people.uplift import Arm, by_item, clustered_interval, uplift
from tests.people.story import Story

ANSWERS = st.lists(
    st.tuples(st.floats(0, 100), st.booleans(), st.integers(0, 5)), min_size=4, max_size=40
)


@given(ANSWERS)
def test_the_interval_is_that_of_a_regression_clustered_by_person(answers):
    values, helped, person = (np.array(column) for column in zip(*answers, strict=True))
    if len(set(person)) < 2 or helped.all() or not helped.any():
        return
    found = clustered_interval(values, helped, person)
    design = sm.add_constant(helped.astype(float))
    fit = sm.OLS(values, design).fit(
        cov_type="cluster", cov_kwds={"groups": person, "df_correction": True}, use_t=True
    )
    low, high = fit.conf_int()[1]
    if found is None:
        assert high - low < 1e-9
    else:
        assert found == pytest.approx((low, high), rel=1e-6, abs=1e-6)


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
    assert uplift(story.queue) == before
    assert uplift(story.queue, round=1) == before
    assert uplift(story.queue, round=2).seconds.difference is None
