import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.evaluation.statistics import carried_error_rate, judge, smallest_gain
from amplify.evaluation.statistics.clusters import Clusters
from amplify.evaluation.statistics.gate import (
    log_wealth,
    log_wealth_from_counts,
    lower_bound,
    spent_error_rate,
)
from tests.statistics.simulation import (
    POLICIES,
    assistants,
    falsely_promoted,
    log_wealths,
    nulls,
    successor,
    ten_looks,
)

GATE = {"round_number": 1, "error_rate": 0.05, "worthwhile": 0.01}
RUNS = 1000


def promoted(logs, round_number):
    return float(np.mean(logs >= -np.log(spent_error_rate(round_number, 0.05))))


def verdict(before, after, **changed):
    """Of rounds that are given as lists of contexts, each a list of right and wrong."""
    was, now = (np.array([one for context in side for one in context]) for side in (before, after))
    context = np.repeat(np.arange(len(before)), [len(one) for one in before])
    return judge(was, now, context, **{**GATE, **changed})


def test_the_wealth_is_the_mean_over_stakes_of_the_product_over_contexts():
    from amplify.evaluation.statistics.gate import STAKES

    random = np.random.default_rng(0)
    sizes = random.integers(1, 6, 30).astype(float)
    totals = np.round(sizes * random.uniform(-1, 1, 30))
    gains = totals / sizes.max()
    expected = np.mean([np.prod(1 + stake * gains) for stake in STAKES])
    found = log_wealth(Clusters(totals, np.abs(totals), sizes))
    assert found == pytest.approx(np.log(expected))


@pytest.mark.parametrize("contexts", [20, 64, 512, 2048])
def test_rounds_that_are_no_better_are_hardly_ever_promoted_in_ten_looks(contexts):
    """The mean gain is 0 exactly, and as skewed as can be; a bootstrap is wrong in one of ten looks
    here. Some thinned out part of the grid of `make coverage`.
    """
    random = np.random.default_rng(contexts)
    rates = [ten_looks(null.logs(random, RUNS)) for null in nulls([contexts])[::3]]
    assert max(rates) <= 0.02
    assert max(rates) > 0  # or this shows nothing


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_nor_are_they_on_the_same_contexts_in_every_look(kept):
    """Ten rounds that are no better, each judged against the best before it."""
    random, runs = np.random.default_rng(1), 400
    chance, best = assistants(random, runs, 64, 4)
    ever, carried = np.zeros(runs, bool), np.zeros(runs)
    for number in range(1, 11):
        child = successor(random, chance, best, 0.0, kept=kept)
        spent = spent_error_rate(number, 0.05) + carried
        now = log_wealths(best, child) >= -np.log(spent)
        ever, carried = ever | now, np.where(now, spent, 0)
        best = np.where(now[:, None, None], child, best)
    assert ever.mean() <= 0.05


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_what_promoted_rounds_pass_on_does_not_promote_those_that_are_no_better(policy):
    random = np.random.default_rng(4)
    assert falsely_promoted(random, 300, 256, 0.5, policy) <= 0.05


@pytest.mark.parametrize(
    ("contexts", "gain", "number", "at_least"),
    [(512, 0.02, 1, 0.55), (512, 0.03, 1, 0.95), (2048, 0.01, 1, 0.55), (2048, 0.02, 10, 0.98)],
)
def test_the_gate_has_the_power_that_the_documentation_prints(contexts, gain, number, at_least):
    """Accuracy .9, intra-cluster correlation .3, four questions about each context."""
    random = np.random.default_rng(7)
    chance, before = assistants(random, RUNS, contexts, 4)
    after = successor(random, chance, before, gain)
    assert promoted(log_wealths(before, after), number) >= at_least - 0.02


def test_contexts_count_and_not_items():
    random = np.random.default_rng(3)

    def power(contexts, per_context):
        chance, before = assistants(random, 400, contexts, per_context)
        return promoted(log_wealths(before, successor(random, chance, before, 0.01)), 1)

    assert power(2048, 4) > 2 * power(512, 16)


def test_a_gain_of_the_smallest_effect_is_promoted_four_times_out_of_five():
    random = np.random.default_rng(5)
    chance, before = assistants(random, 400, 400, 4)
    middling = [
        judge(was.ravel(), now.ravel(), np.repeat(np.arange(400), 4), **GATE).smallest_effect
        for was, now in zip(
            before[:60], successor(random, chance[:60], before[:60], 0.02), strict=True
        )
    ]
    gain = float(np.median(middling))
    after = successor(random, chance, before, gain)
    assert 0.7 <= promoted(log_wealths(before, after), 1) <= 0.9


@pytest.mark.parametrize(("contexts", "per_context"), [(64, 1), (512, 4), (2048, 8), (100, 16)])
@pytest.mark.parametrize("number", [1, 10])
def test_the_smallest_gain_is_promoted_and_one_question_less_is_not(contexts, per_context, number):
    level = spent_error_rate(number, 0.05)
    gain = smallest_gain(contexts, per_context, level)
    items = contexts * per_context
    newly_right = round(gain * items)
    assert newly_right == pytest.approx(gain * items)

    def outcome(count):
        now = np.zeros((per_context, contexts), bool)
        now.ravel()[:count] = True
        context = np.tile(np.arange(contexts), per_context)
        return judge(
            np.zeros(items, bool), now.ravel(), context, **{**GATE, "round_number": number}
        )

    assert outcome(newly_right).verdict == "promoted"
    assert outcome(newly_right - 1).verdict != "promoted"


def test_of_very_few_contexts_no_gain_can_be_promoted():
    assert smallest_gain(4, 8, 0.0005) is None


GAINS = st.lists(st.integers(-4, 4), min_size=3, max_size=60)


@given(GAINS, st.floats(1e-4, 0.5))
def test_the_bound_is_above_0_if_and_only_if_the_wealth_suffices(gains, level):
    totals = np.array(gains, float)
    clusters = Clusters(totals, np.abs(totals), np.full(len(gains), 4.0))
    bound = lower_bound(clusters, level)
    assert (bound >= 0) == (log_wealth(clusters) >= -np.log(level))
    assert -1 <= bound <= totals.mean() / 4 + 1e-9


@given(GAINS, st.integers(0, 59))
def test_a_context_that_does_better_never_lowers_the_wealth(gains, place):
    totals = np.array(gains, float)
    better = totals.copy()
    better[place % len(gains)] = min(4, better[place % len(gains)] + 1)
    sizes = np.full(len(gains), 4.0)
    one, two = (log_wealth(Clusters(of, np.abs(of), sizes)) for of in (totals, better))
    assert two >= one - 1e-12


def test_bounds_hold_the_true_gain_as_often_as_they_say():
    random, held = np.random.default_rng(2), []
    for _ in range(200):
        chance, before = assistants(random, 1, 100, 4)
        after = successor(random, chance, before, 0.03)
        totals = (after.sum(-1) - before.sum(-1))[0].astype(float)
        clusters = Clusters(totals, np.abs(totals), np.full(100, 4.0))
        held.append(lower_bound(clusters, 0.05) <= 0.03)
    assert np.mean(held) >= 0.95


# --- error spending ----------------------------------------------------------------------------


def test_the_shares_of_the_error_rate_add_up_to_it():
    total = sum(spent_error_rate(number, 0.05) for number in range(1, 100_000))
    assert 0.04999 < total < 0.05


def test_a_promoted_round_passes_on_what_it_could_spend_and_others_nothing():
    spent = []
    before = None
    for number, kind in enumerate(["promoted", "promoted", "rejected", "promoted"], 1):
        carried = carried_error_rate(before)
        found = verdict([[0]] * 20, [[1]] * 20, round_number=number, carried=carried)
        spent.append(found.error_rate)
        before = {"verdict": kind, "error_rate": found.error_rate}
    shares = [spent_error_rate(number, 0.05) for number in range(1, 5)]
    assert spent == pytest.approx([shares[0], sum(shares[:2]), sum(shares[:3]), shares[3]])


# --- in words ----------------------------------------------------------------------------------


def test_a_better_round_is_promoted():
    found = verdict([[0, 0]] * 100, [[1, 0]] * 100)
    assert found.verdict == "promoted"
    assert found.reason.startswith("better: +50.0 points, more than +")
    assert 0 < found.at_least < 0.5 < found.at_most


def test_a_worse_round_is_rejected_because_an_improvement_is_ruled_out():
    found = verdict([[1, 0]] * 100, [[0, 0]] * 100)
    assert found.verdict == "rejected"
    assert found.reason.startswith("an improvement of 1 point or more is ruled out: -50.0 points")


def test_a_rejection_spends_nothing_of_what_promotions_may():
    """It is at the whole error rate in any round."""
    first = verdict([[1]] * 600, [[1]] * 600, worthwhile=0.02)
    last = verdict([[1]] * 600, [[1]] * 600, worthwhile=0.02, round_number=10)
    assert first.verdict == last.verdict == "rejected"
    assert first.at_most == last.at_most


def test_where_all_was_right_before_there_is_no_room_left():
    found = verdict([[1, 1]] * 50, [[1, 1]] * 50)
    assert found.verdict == "inconclusive"
    assert found.reason == "no room left: all 100 items scored 1 before and after"
    assert found.smallest_effect is None
    assert found.comparison.smallest_effect is None
    assert found.comparison.standard_error is None


def test_where_nothing_changed_no_effect_is_called_the_smallest():
    found = verdict([[1, 0]] * 50, [[1, 0]] * 50)
    assert found.smallest_effect is None
    assert found.reason.startswith("too few contexts to tell: +0.0 points in 50 contexts, from")


def test_one_context_tells_nothing_about_others():
    found = verdict([[0] * 9], [[1] * 9])
    assert found.verdict == "inconclusive"
    assert found.reason == "too few contexts to tell: +100.0 points in 1 context, which amount to 1"
    assert (found.at_least, found.at_most, found.comparison.interval) == (None, None, None)


@pytest.mark.parametrize(("before", "kind"), [([0, 0], "inconclusive"), ([1, 1], "rejected")])
def test_an_assistant_that_did_not_learn_what_it_was_given_is_said_to(before, kind):
    rounds = [before] * 20, [[0, 0]] * 20
    found = verdict(*rounds, agreement=0.3)
    assert found.verdict == kind
    assert found.reason.startswith(
        "did not learn what it was given: reproduces 30 % of its training answers (more steps?); "
    )
    assert found.agreement == 0.3
    for agreement in (0.6, None):
        assert "did not learn" not in verdict(*rounds, agreement=agreement).reason


def test_a_verdict_can_be_written_as_json():
    found = verdict([[0, 1]] * 9, [[1, 1]] * 9)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["comparison"]["items"] == 18


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"round_number": 0}, "1 or more, got 0"),
        ({"error_rate": 1.0}, "between 0 and 1, got 1"),
        ({"error_rate": 0.0}, "between 0 and 1, got 0"),
        ({"worthwhile": -0.1}, "must be 0 to 1, got -0.1"),
        ({"worthwhile": 1.5}, "must be 0 to 1, got 1.5"),
    ],
)
def test_bad_input_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        verdict([[0]] * 4, [[1]] * 4, **change)


def test_the_wealth_of_kinds_is_that_of_their_contexts():
    counts = np.array([[3, 5], [0, 8]])
    found = log_wealth_from_counts(np.array([0.5, -0.25]), counts)
    for row, (gained, lost) in enumerate(counts):
        totals = np.array([2.0] * gained + [-1.0] * lost)
        # The scale is the largest size, 4.
        expected = log_wealth(Clusters(totals, np.abs(totals), np.full(8, 4.0)))
        assert found[row] == pytest.approx(expected)
