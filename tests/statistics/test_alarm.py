import dataclasses

import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.alarm import (
    AlarmRules,
    Check,
    Look,
    best_look,
    largest_fall,
    reviews_used,
    watch,
)
from amplify.evaluation.statistics.audits import AuditEstimate
from tests.statistics.trajectories import before_losing, flat, hacked, table

RULES = AlarmRules(checks=4)


def audited(value, reviews=10, error=None):
    error = 1.12 / np.sqrt(reviews) if error is None else error
    return AuditEstimate(float(value), float(error), reviews - 1.0, reviews, 256, 0.0)


def looks(values, proxies=None):
    proxies = range(len(values)) if proxies is None else proxies
    return [
        Look(5 * n, float(proxy), None if value is None else audited(float(value)))
        for n, (value, proxy) in enumerate(zip(values, proxies, strict=True))
    ]


RISE_AND_FALL = [0, 0.5, 1, 1.2, 1.3, 1.2, -0.5]
BEST = 20


def checked(before, after, reviews=80):
    return Check(BEST, 30, audited(before, reviews), audited(after, reviews))


# --- one run ----------------------------------------------------------------------------------


def test_a_run_that_rises_is_quiet():
    for count in range(1, 6):
        assert watch(looks(RISE_AND_FALL[:count]), [], RULES).status == "quiet"


def test_a_fall_is_checked_before_there_is_an_alarm():
    found = watch(looks(RISE_AND_FALL), [], RULES)
    assert (found.status, found.step, found.best_step) == ("check", 30, BEST)
    confirmed = watch(looks(RISE_AND_FALL), [checked(1.2, 0.3)], RULES)
    assert (confirmed.status, confirmed.best_step) == ("alarm", BEST)
    assert "-" not in confirmed.reason.split(" below")[0]
    assert watch(looks(RISE_AND_FALL), [checked(1.2, 1.0)], RULES).status == "quiet"


def test_a_check_is_welchs_test_at_its_share_of_the_error_rate():
    from scipy import stats

    for drop in (0.3, 0.35, 0.4, 0.45):
        check = Check(BEST, 30, audited(drop, 80), audited(0.0, 40))
        p_value = stats.ttest_ind_from_stats(
            drop, 1.12, 80, 0.0, 1.12, 40, equal_var=False, alternative="greater"
        ).pvalue
        rules = AlarmRules(error_rate=0.16, checks=4)
        expected = "alarm" if p_value <= 0.04 else "quiet"
        assert watch(looks(RISE_AND_FALL), [check], rules).status == expected
        exact = dataclasses.replace(rules, error_rate=4 * p_value * 1.001)
        assert watch(looks(RISE_AND_FALL), [check], exact).status == "alarm"
        exact = dataclasses.replace(rules, error_rate=4 * p_value * 0.999)
        assert watch(looks(RISE_AND_FALL), [check], exact).status == "quiet"


def test_a_margin_must_be_exceeded():
    check = checked(1.2, 0.6)
    assert watch(looks(RISE_AND_FALL), [check], RULES).status == "alarm"
    assert watch(looks(RISE_AND_FALL), [check], AlarmRules(margin=0.4)).status == "quiet"


def test_a_fall_together_with_the_proxy_is_no_over_optimisation_and_is_reported():
    both = looks(RISE_AND_FALL, [0, 1, 2, 3, 4, 3, 2])
    assert watch(both, [], RULES).status == "check"
    assert watch(both, [checked(1.2, 0.3)], RULES).status == "decline"


def test_the_next_look_after_a_check_is_judged_anew():
    more = looks([*RISE_AND_FALL, -1.0])
    found = watch(more, [checked(1.2, 1.0)], RULES)
    assert (found.status, found.step) == ("check", 35)


def test_suspicion_without_means_to_check_is_not_quiet():
    more = looks([*RISE_AND_FALL, -1.0])
    rules = AlarmRules(checks=1)
    assert watch(more, [checked(1.2, 1.0)], rules).status == "suspicious"
    # 80 reviews in looks, 160 in the check; the best policy's are reused.
    assert reviews_used(more, [checked(1.2, 1.0)]) == 240
    assert watch(more, [checked(1.2, 1.0)], AlarmRules(budget=320)).status == "check"
    assert watch(more, [checked(1.2, 1.0)], AlarmRules(budget=319)).status == "suspicious"
    again = Check(BEST, 35, audited(1.2, 80), audited(0.9, 80))
    assert reviews_used(more, [checked(1.2, 1.0), again]) == 320


@pytest.mark.parametrize(
    "failed",
    [
        Check(BEST, 30, None, audited(0.0)),
        Check(BEST, 30, audited(0.0), None),
        Check(BEST, 30, audited(1.0), dataclasses.replace(audited(1.0), standard_error=None)),
    ],
)
def test_a_check_without_reviews_is_not_an_all_clear(failed):
    assert watch(looks(RISE_AND_FALL), [failed], RULES).status == "suspicious"


def test_a_look_without_a_value_is_blind_and_not_quiet():
    found = watch(looks([0, 1, None]), [], RULES)
    assert (found.status, found.step, found.best_step) == ("blind", 10, 5)
    assert watch(looks([None]), [], RULES).best_step is None
    equal = Look(15, 9.0, dataclasses.replace(audited(1.0), standard_error=None))
    assert watch([*looks([0, 1, 1]), equal], [], RULES).status == "blind"
    assert watch(looks([0, 1.2, None, 1.3, 1.2, None, -1.5]), [], RULES).status == "check"


@pytest.mark.parametrize(
    ("found", "checks", "said"),
    [
        ([], [], "no looks"),
        (looks([1, 2])[::-1], [], "must rise"),
        (looks([1, 2], [0, np.nan]), [], "proxy"),
        (looks([1, 2]), [checked(1, 0)], "without a look"),
    ],
)
def test_audits_that_make_no_sense_are_rejected(found, checks, said):
    with pytest.raises(AmplifyError, match=said):
        watch(found, checks, RULES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_rate": 0.0}, {"error_rate": 1.0}, {"checks": 0}, {"window": 0},
        {"check_reviews": 1}, {"suspicion": 0.0}, {"margin": -1.0},
    ],
)  # fmt: skip
def test_rules_out_of_range_are_rejected(wrong):
    with pytest.raises(AmplifyError):
        AlarmRules(**wrong)


# --- its parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 4])
def test_the_largest_fall_is_that_of_all_pairs_of_windows(window):
    values = np.random.default_rng(0).normal(size=9)
    error = 1.12 / np.sqrt(10)
    falls = [
        (values[end - before : end].mean() - values[-after:].mean())
        / (error * np.sqrt(1 / before + 1 / after))
        for after in range(1, window + 1)
        for before in range(1, window + 1)
        for end in range(before, len(values) - after + 1)
    ]
    assert largest_fall(looks(values), window) == pytest.approx(max(falls))


def test_there_is_no_fall_in_one_look():
    assert largest_fall(looks([1]), 4) == -np.inf


def test_a_look_that_happens_to_vary_little_counts_no_more_for_it():
    lucky = Look(30, 9.0, audited(1.0, error=0.01))
    assert largest_fall([*looks([1.2] * 6), lucky], 1) < 1


def test_the_best_look_is_not_a_lucky_one():
    values = [0, 0, 2.0, 0, 0.2, 1.2, 1.3, 1.2, 0]
    assert best_look(looks(values), smoothed=1).step == 10
    assert best_look(looks(values), smoothed=3).step == 30
    assert best_look(looks([0, 1, None])).step == 5
    assert best_look(looks([None])) is None


def test_the_best_look_is_not_averaged_over_a_restart():
    """Looks at steps 0, 5, 10 and 15."""
    values = [0.0, 1.0, 0.6, 0.9]
    assert best_look(looks(values)).step == 10  # .83: the mean of 1, .6 and .9
    assert best_look(looks(values), restarts=[5]).step == 15  # .75 against .5
    assert best_look(looks(values), restarts=[0, 5, 10]).step == 5


# --- simulated runs: `make audits` prints more of them - ---------------------------------------

REPORTED = range(2000, 2040)


@pytest.mark.slow
def test_the_alarm_comes_in_time_and_the_chosen_policy_is_near_the_peak():
    runs = table(REPORTED, hacked)
    assert sum(before_losing(run, one, 1.0) for run, one in runs) >= 30
    assert np.mean([run.gold.max() - run.gold[one.chosen] for run, one in runs]) <= 0.2
    assert sum(run.gold[one.chosen] > run.gold[-1] for run, one in runs) >= 38
    assert max(one.reviews for _, one in runs) <= 800


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_there_are_few_alarms_where_gold_stays(drift):
    runs = table(REPORTED, lambda random: flat(random, drift))
    assert sum(one.alarm is not None for _, one in runs) <= 4
    assert max(one.reviews for _, one in runs) <= 800


def test_a_run_is_decided_by_its_seed():
    assert table([7], hacked)[0][1] == table([7], hacked)[0][1]
