"""The alarm: whether a policy's audited value has fallen while its proxy rose, in two stages.

Every look reviews a few answers of the current policy. That suffices to suspect a fall, not to
prove one: with many looks, some value is far below an earlier one by chance. If there is suspicion,
a *check* reviews more answers, new ones, of the current policy and of the best audited one. Only
new reviews decide, so that neither the choice of a lucky look as the best one nor the number of
looks leads to false alarms; reviews are spent where they matter.

`watch` is a pure function of what was audited so far: the caller audits, appends, and asks again.

What it cannot see: an audit sees what its judge sees. If the judge goes by what seems right, and
the policy learns to make wrong answers seem right, audited values rise and there is no alarm.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.audits import AuditEstimate

PRIOR_FREEDOM = 40.0
"""Weight of the variance that is common to all looks against a look's own, in degrees of freedom.
A look of few reviews tells little about its own variance."""
SMOOTHED = 3
"""Number of neighbouring looks whose mean decides which policy is the best audited one."""


@dataclasses.dataclass(frozen=True)
class AlarmRules:
    """When to check, and when to sound the alarm; docs/statistics.md says why these defaults."""

    error_rate: float = 0.05  # probability of any false alarm in a run
    checks: int = 3  # at most, in a run
    suspicion: float = 2.2  # fall in standard errors that leads to a check
    window: int = 4  # neighbouring looks that are averaged at most, on either side of a fall
    check_reviews: int = 80  # of each of the two policies
    budget: int = 800  # reviews in a run, looks and checks together
    margin: float = 0.0  # fall that is not worth an alarm, in units of the values

    def __post_init__(self) -> None:
        if not 0 < self.error_rate < 1:
            raise AmplifyError(f"error_rate must be between 0 and 1, got {self.error_rate}")
        if self.checks < 1 or self.window < 1:
            raise AmplifyError("an alarm needs checks and window of 1 or more")
        if self.check_reviews < 2:
            raise AmplifyError(f"check_reviews must be 2 or more, got {self.check_reviews}")
        if not (self.suspicion > 0 and self.margin >= 0):
            raise AmplifyError("suspicion must be above 0, and margin 0 or more")


class Look(NamedTuple):
    """A scheduled audit of the current policy."""

    step: int
    proxy: float  # mean over many answers
    audited: AuditEstimate | None  # None: no review was obtained


class Check(NamedTuple):
    """New reviews of two policies, none of which belongs to a look."""

    best_step: int
    step: int
    best: AuditEstimate | None  # None: no review was obtained
    current: AuditEstimate | None


Status = Literal["quiet", "check", "alarm", "decline", "suspicious", "blind"]


class Watch(NamedTuple):
    """What follows from the audits so far."""

    status: Status
    reason: str
    step: int  # of the latest look
    best_step: int | None  # of the best audited policy; None: no look has a value


def watch(looks: Sequence[Look], checks: Sequence[Check], rules: AlarmRules) -> Watch:
    """Decides what follows from the audits so far.

    The statuses are

    - quiet: no fall is suspected;
    - check: review `rules.check_reviews` answers each of the policies at `step` and `best_step`
      (those of `best_step` may be reused from an earlier check), append the check, call again;
    - alarm: the audited value fell from `best_step` to `step`, and the proxy rose;
    - decline: the value fell, and the proxy fell too: the optimiser fails, not the proxy;
    - suspicious: a check is called for, but no check or no budget is left, or it has no reviews;
    - blind: the latest look has no value or no error, which is never a sign that all is well.

    A check is a one-sided t test (Welch 1947) at level `rules.error_rate` / `rules.checks`. By the
    union bound, an alarm is false with probability `rules.error_rate` per run at most, where false
    means that the value is less than `rules.margin` below the best audited policy's.

    Args:
        looks: in the order of their steps.
        checks: in the order in which they were made.
        rules: fixed for the run.

    Raises:
        AmplifyError: if there are no looks, their steps do not rise, a proxy is not finite, or a
            check is of a policy that was not looked at.
    """
    _check_looks(looks, checks)
    latest, best = looks[-1], best_look(looks)
    best_step = None if best is None else best.step
    if best is None or latest.audited is None:
        return Watch("blind", f"no value was audited at step {latest.step}", latest.step, best_step)
    if latest.audited.standard_error is None:
        said = f"too few reviews at step {latest.step}, or they do not vary"
        return Watch("blind", said, latest.step, best_step)
    rose = latest.proxy > best.proxy
    done = next((check for check in reversed(checks) if check.step == latest.step), None)
    if done is not None:
        return _judge(done, {look.step: look.proxy for look in looks}, rules)
    fall = largest_fall(looks, rules.window)
    if fall < rules.suspicion or best.step == latest.step:
        return Watch("quiet", f"largest fall {fall:.1f} standard errors", latest.step, best_step)
    said = f"fell {fall:.1f} standard errors while the proxy {'rose' if rose else 'did not rise'}"
    left = rules.budget - reviews_used(looks, checks)
    if len(checks) >= rules.checks or left < reviews_for_check(best.step, checks, rules):
        return Watch("suspicious", f"{said}; no reviews left to check", latest.step, best_step)
    return Watch("check", said, latest.step, best_step)


def _judge(check: Check, proxies: dict[int, float], rules: AlarmRules) -> Watch:
    fall = _t_statistic(check, rules.margin)
    if fall is None:
        said = "the check has too few reviews, or they do not vary"
        return Watch("suspicious", said, check.step, check.best_step)
    from scipy import special  # takes half a second to import, and pages may not need it

    statistic, freedom = fall
    p_value = float(special.stdtr(freedom, -statistic))
    level = rules.error_rate / rules.checks
    assert check.best is not None
    assert check.current is not None
    drop = check.best.value - check.current.value
    said = f"{drop:.2f} below step {check.best_step}, p = {p_value:.2g} (alarm at {level:.2g})"
    if p_value > level:
        return Watch("quiet", f"not confirmed: {said}", check.step, check.best_step)
    rose = proxies[check.step] > proxies[check.best_step]
    said = f"{said}, while the proxy {'rose' if rose else 'did not rise'}"
    return Watch("alarm" if rose else "decline", said, check.step, check.best_step)


def _t_statistic(check: Check, margin: float) -> tuple[float, float] | None:
    """Welch's statistic of the fall, and its degrees of freedom."""
    if check.best is None or check.current is None:
        return None
    errors = check.best.standard_error, check.current.standard_error
    if errors[0] is None or errors[1] is None:
        return None
    one, two = errors[0] ** 2, errors[1] ** 2
    freedom = (one + two) ** 2 / (one**2 / check.best.freedom + two**2 / check.current.freedom)
    drop = check.best.value - check.current.value - margin
    return drop / float(np.sqrt(one + two)), freedom


def largest_fall(looks: Sequence[Look], window: int) -> float:
    """Returns the largest fall, in standard errors, from earlier looks to the latest ones.

    It is the largest over all runs of at most `window` neighbouring looks, compared with all runs
    of at most `window` looks that end with the latest.

    Args:
        looks: those without a value or a standard error are left out.
        window: 1 or more.

    Returns:
        The fall; minus infinity if there are fewer than two looks with a value.
    """
    values, variances = _series(looks)
    totals = np.concatenate([[0.0], np.cumsum(values)])
    squares = np.concatenate([[0.0], np.cumsum(variances)])
    count, largest = len(values), -np.inf
    for after in range(1, min(window, count - 1) + 1):
        start = count - after
        now, error = (totals[-1] - totals[start]) / after, (squares[-1] - squares[start]) / after**2
        for before in range(1, min(window, start) + 1):
            means = (totals[before : start + 1] - totals[: start + 1 - before]) / before
            spread = (squares[before : start + 1] - squares[: start + 1 - before]) / before**2
            falls = (means - now) / np.sqrt(np.maximum(spread + error, 1e-300))
            largest = max(largest, float(falls.max()))
    return largest


def _series(
    looks: Sequence[Look],
) -> tuple[Float[np.ndarray, " looks"], Float[np.ndarray, " looks"]]:
    """Values and squared standard errors; the variance of a review is shrunk to the common one."""
    seen = [one.audited for one in looks if one.audited and one.audited.standard_error is not None]
    values = np.array([one.value for one in seen], dtype=np.float64)
    errors = np.array([one.standard_error for one in seen], dtype=np.float64)
    freedom = np.array([one.freedom for one in seen], dtype=np.float64)
    size = freedom + 1
    variance = errors**2 * size
    common = (variance * freedom).sum() / max(freedom.sum(), 1e-300)
    shrunk = (variance * freedom + common * PRIOR_FREEDOM) / (freedom + PRIOR_FREEDOM)
    return values, shrunk / size


def best_look(
    looks: Sequence[Look], smoothed: int = SMOOTHED, restarts: Sequence[int] = ()
) -> Look | None:
    """Returns the look at the best audited policy.

    The best of many noisy values owes much to luck (winner's curse). The choice is therefore by the
    mean of neighbouring looks, weighted by their reviews.

    Args:
        looks: in the order of their steps; those without a value are left out.
        smoothed: odd number of neighbouring looks; 1: the raw values are compared.
        restarts: steps, ascending, after which training began again: looks before and after are at
            policies that have nothing in common, and are not averaged.

    Returns:
        The look; None if none has a value.
    """
    seen = [look for look in looks if look.audited is not None]
    if not seen:
        return None
    values = np.array([look.audited.value for look in seen if look.audited])
    reviews = np.array([look.audited.reviews for look in seen if look.audited], dtype=np.float64)
    place, attempt = np.arange(len(seen)), np.searchsorted(restarts, [one.step for one in seen])
    near = abs(place[:, None] - place) <= smoothed // 2
    near &= attempt[:, None] == attempt
    means = (near @ (values * reviews)) / (near @ reviews)
    return seen[int(np.lexsort((values, np.round(means, 12)))[-1])]  # ties: by its own value


def reviews_used(looks: Sequence[Look], checks: Sequence[Check]) -> int:
    """Returns the number of reviews; those of a best policy reused in a later check count once."""
    found = sum(look.audited.reviews for look in looks if look.audited)
    found += sum(check.current.reviews for check in checks if check.current)
    bests = {check.best_step: check.best.reviews for check in checks if check.best}
    return found + sum(bests.values())


def reviews_for_check(best_step: int, checks: Sequence[Check], rules: AlarmRules) -> int:
    """Returns how many reviews a check costs: half if the best policy was in a check before."""
    return rules.check_reviews * (2 if known_best(best_step, checks) is None else 1)


def known_best(best_step: int, checks: Sequence[Check]) -> AuditEstimate | None:
    """Returns the best policy's estimate from an earlier check; None: it must be reviewed anew.

    Its reviews may be used again, because the best policy is chosen by looks alone.
    """
    return next((check.best for check in checks if check.best_step == best_step), None)


def _check_looks(looks: Sequence[Look], checks: Sequence[Check]) -> None:
    if not looks:
        raise AmplifyError("no looks: nothing was audited yet")
    steps = [look.step for look in looks]
    if any(after <= before for before, after in itertools.pairwise(steps)):
        raise AmplifyError(f"steps of looks must rise, got {steps}")
    if not all(np.isfinite(look.proxy) for look in looks):
        raise AmplifyError("a look's proxy must be finite")
    for check in checks:
        if not {check.step, check.best_step} <= set(steps):
            raise AmplifyError(f"a check at step {check.step} is of a policy without a look")
