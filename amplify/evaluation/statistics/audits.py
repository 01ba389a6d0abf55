"""Audits: which answers people look at again, and what their reviews say about the policy.

Answers are drawn for review independently, each with a known probability, and the mean value of all
answers is estimated from the reviews with the help of a proxy that has scored every answer. The
estimate is right on average whatever the proxy is worth: a good one makes it more precise, a bad
one is ignored. This holds only if the proxy has not seen the reviews. Estimate first, and train the
reward model on them afterwards, or use a model that was trained without them (cross-fitting).

An audit sees what its judge sees: a judge who goes by what seems right gives a precise estimate of
how right the answers seem.
"""

import dataclasses
import hashlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from amplify.errors import AmplifyError
from amplify.evaluation.statistics.intervals import LEVEL

FLOOR = 0.5
"""Smallest sampling probability of an active draw, as a share of that of a random draw."""
FEWEST_TO_TUNE = 20
"""Number of reviews from which the weight of the proxy is estimated; it is 0 below."""


class NamedInterval(NamedTuple):
    """An interval with the name that is printed beside it."""

    name: str
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class AuditEstimate:
    """The estimated mean value of a policy's answers at one look."""

    value: float
    standard_error: float | None  # None: one review, or all reviews equal, which show no variation
    freedom: float  # degrees of freedom of the standard error
    reviews: int
    items: int
    tuning: float  # weight of the proxy; 0: reviews only

    def one_look(self, error_rate: float = LEVEL) -> NamedInterval | None:
        """Returns Student's t interval, which covers the policy's mean value at this look.

        Of several such intervals, some will miss: see `over_looks`.

        Args:
            error_rate: 1 minus the confidence level.

        Returns:
            The interval; None if there is no standard error.
        """
        from scipy import special  # takes half a second to import, and pages may not need it

        if self.standard_error is None:
            return None
        half = float(special.stdtrit(self.freedom, 1 - error_rate / 2)) * self.standard_error
        name = f"{_percent(error_rate)} interval of one look"
        return NamedInterval(name, self.value - half, self.value + half)

    def over_looks(self, looks: int, error_rate: float = LEVEL) -> NamedInterval | None:
        """Returns an interval of this look that is valid together with those of the other looks.

        The policy changes between looks, and so does its mean value. With probability 1 -
        `error_rate`, every one of the intervals covers the value at its own look, so that one may
        stop at any of them. Each look may spend `error_rate` / `looks` (union bound). See
        `_mixture_quantile` for its interval.

        Args:
            looks: planned number of looks; there may be fewer.
            error_rate: of all looks together.

        Returns:
            The interval; None if there is no standard error, or there are too few reviews.

        Raises:
            AmplifyError: if `looks` is below 1.
        """
        if looks < 1:
            raise AmplifyError(f"looks must be 1 or more, got {looks}")
        if self.standard_error is None:
            return None
        half = _mixture_quantile(self.freedom, error_rate / looks) * self.standard_error
        if not np.isfinite(half):
            return None
        name = f"{_percent(error_rate)} interval over all {looks} looks"
        return NamedInterval(name, self.value - half, self.value + half)


def _percent(error_rate: float) -> str:
    return f"{100 * (1 - error_rate):.4g} %"


def _mixture_quantile(freedom: float, error_rate: float) -> float:
    """The t statistic at which a normal mixture of likelihood ratios reaches 1 / `error_rate`.

    By Markov's inequality this is exceeded with probability `error_rate` at most if reviews are
    normal, and much more rarely in fact. This reserve is needed for skewed reviews, for which the t
    quantile at such a level is too small (`make audits`). The effect size has a normal
    distribution in the mixture, its scale is integrated out (Wang and Ramdas 2024, "Anytime-Valid
    T-Tests and Confidence Sequences Through Gaussian Mixtures", arXiv:2310.03722; normal mixtures
    of asymptotic confidence sequences: Waudby-Smith et al. 2021, arXiv:2103.06476).
    """
    rate = 2 * np.log(1 / error_rate)
    spread = rate + np.log1p(rate)  # nearly the narrowest interval, in variances of the estimate
    shrunk = (error_rate / np.sqrt(1 + spread)) ** (2 / (freedom + 1))
    if shrunk * (1 + spread) <= 1:
        return float("inf")
    return float(np.sqrt(freedom * (1 - shrunk) / (shrunk - 1 / (1 + spread))))


def sampling_probabilities(
    items: int,
    budget: float | int,
    uncertainty: Shaped[np.ndarray, " _items"] | None = None,
    floor: float | int = FLOOR,
) -> Float[np.ndarray, " items"]:
    """Returns the probability with which each item is to be reviewed.

    Random draws have equal probabilities. Active draws have probabilities in proportion to the
    proxy's uncertainty, which is most precise if it is proportional to the proxy's errors (Zrnic
    and Candès 2024, "Active Statistical Inference", arXiv:2403.03208). They are bounded below, so
    that no review has a weight without limit where the proxy is wrongly certain.

    Args:
        items: number of items.
        budget: expected number of reviews; from `items` on, every item is reviewed.
        uncertainty: 0 or more, such as the disagreement of an ensemble; None: a random draw.
        floor: smallest probability, as a share of that of a random draw; above 0, 1 at most.

    Returns:
        Probabilities above 0, 1 at most, that add up to `budget`.

    Raises:
        AmplifyError: if there are no items, or an argument is out of range.
    """
    if items < 1:
        raise AmplifyError("no items to audit")
    if not (np.isfinite(budget) and budget > 0):
        raise AmplifyError(f"the budget of an audit must be a number above 0, got {budget}")
    if not 0 < floor <= 1:
        raise AmplifyError(f"floor must be above 0 and at most 1, got {floor}")
    uniform = min(budget / items, 1.0)
    if uncertainty is None:
        return np.full(items, uniform)
    weights = np.asarray(uncertainty, dtype=np.float64)
    if len(weights) != items:
        raise AmplifyError(f"{items} items, but {len(weights)} uncertainties")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise AmplifyError("uncertainties must be finite and 0 or more")
    if uniform == 1 or not weights.any():
        return np.full(items, uniform)
    # Items of uncertainty 0 come last, when all others are certain to be reviewed.
    weights = np.maximum(weights / weights.max(), 1e-9)
    low, high = 0.0, 1 / weights.min()
    for _ in range(100):  # the sum rises with the scale
        scale = (low + high) / 2
        enough = np.clip(scale * weights, floor * uniform, 1).sum() >= budget
        low, high = (low, scale) if enough else (scale, high)
    return np.clip(high * weights, floor * uniform, 1)


def draw(
    probabilities: Float[np.ndarray, " items"], keys: Sequence[Hashable], seed: int
) -> Bool[np.ndarray, " items"]:
    """Draws items for review independently (Poisson sampling), by their keys.

    An item is drawn if a number that depends on nothing but its key and the seed is below its
    probability. Arms that are compared therefore review the same items, in whatever order and
    batches they come, and an item drawn with a low probability is also drawn with a higher one.

    Args:
        probabilities: see `sampling_probabilities`.
        keys: what identifies each item in all arms, such as step, problem and number of the sample.
            Its content is not enough: a policy may repeat an answer.
        seed: of the experiment.

    Raises:
        AmplifyError: if a probability is out of range, or two items have the same key.
    """
    _check_probabilities(probabilities)
    if len(keys) != len(probabilities):
        raise AmplifyError(f"{len(probabilities)} items to audit, but {len(keys)} keys")
    if len(set(keys)) < len(keys):
        again = next(key for n, key in enumerate(keys) if key in keys[:n])
        raise AmplifyError(f"two items to audit have the key {again!r}: number repeated samples")
    return uniforms(keys, seed) < probabilities


def uniforms(keys: Sequence[Hashable], seed: int) -> Float[np.ndarray, " items"]:
    """Returns a number in 0..1 (1 excluded) for each key, uniformly distributed over seeds.

    Args:
        keys: strings, integers, or tuples of them; their `repr` is hashed.
        seed: of the experiment.
    """
    digests = (
        hashlib.blake2b(repr((seed, key)).encode(), digest_size=8, person=b"audit").digest()
        for key in keys
    )
    return np.array([(int.from_bytes(digest) >> 11) / 2**53 for digest in digests], np.float64)


def estimate(
    proxy: Shaped[np.ndarray, " items"],
    values: Shaped[np.ndarray, " items"],
    audited: Bool[np.ndarray, " items"],
    probabilities: Float[np.ndarray, " items"],
    *,
    cluster: Shaped[np.ndarray, " items"] | None = None,
    tuning: float | int | None = None,
) -> AuditEstimate:
    """Estimates the mean value of a policy's answers from all proxies and some reviews.

    This is the prediction-powered estimate (Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient
    Prediction-Powered Inference", arXiv:2311.01453): the mean of tuning * proxy over all items,
    plus the mean of value - tuning * proxy over reviews, each weighted by 1 / probability. The
    second mean is divided by the sum of weights, so that a random number of reviews adds no noise.
    The tuning is the weighted least-squares slope of values on proxies. It may be negative and is
    not limited. Its use on the reviews it was fitted to is accounted for by leave-one-out residuals
    (HC3, MacKinnon and White 1985) and a degree of freedom.

    Args:
        proxy: predictions of all items, by a model that has not seen the reviews.
        values: of the reviews; those of items that are not audited are ignored and may be NaN.
        audited: whether an item was drawn for review.
        probabilities: with which items were drawn, whether they were or not.
        cluster: items in the same cluster are dependent, such as answers to one question. None: all
            items are independent.
        tuning: a fixed weight of the proxy: 0 is the mean of reviews, 1 plain prediction-powered
            inference. None: estimated.

    Returns:
        The estimate of the policy's mean, not only of these items'.

    Raises:
        AmplifyError: if lengths differ, a probability is out of range, a number is not finite, a
            review is missing, or there is none.
    """
    _check(proxy, values, audited, probabilities)
    items = len(proxy)
    proxy = np.asarray(proxy, dtype=np.float64)
    value = np.where(audited, values, 0.0).astype(np.float64)
    weight = np.where(audited, 1 / probabilities, 0.0)
    weight = weight / weight.sum()
    centred = proxy - weight @ proxy
    spread = float(weight @ centred**2)
    reviews = int(audited.sum())
    # Rounding can leave a spread where all audited proxies are equal.
    varies = spread > 1e-12 * float(weight @ proxy**2)
    tuned = tuning is None and varies and reviews >= FEWEST_TO_TUNE
    slope = float(weight @ (centred * value)) / spread if tuned else float(tuning or 0)
    rectifier = weight @ (value - slope * proxy)
    residual = value - slope * proxy - rectifier
    leverage = weight + (weight * centred**2 / spread if tuned else 0.0)
    left_out = residual / (1 - np.minimum(leverage, 0.9))
    sizes, (shifts, errors) = _by_cluster(
        cluster, weight, slope * (proxy - proxy.mean()) / items, weight * left_out
    )
    effective = 1 / float((sizes**2).sum())  # number of equally weighted reviews, or clusters
    # For a plain mean, this factor makes the jackknife variance exact. With a fitted slope there is
    # no such factor, and the leave-one-out residuals (HC3) are conservative.
    factor = 1.0 if tuned else float(np.sqrt(max(1 - 1 / effective, 0.0)))
    influence = shifts + factor * errors
    error = float(np.sqrt((influence**2).sum()))
    freedom = effective - 1 - tuned
    scale = float(np.abs(value).max())
    return AuditEstimate(
        value=float(slope * proxy.mean() + rectifier),
        standard_error=error if freedom >= 1 - 1e-9 and error > 1e-9 * scale else None,
        freedom=float(max(freedom, 0.0)),
        reviews=reviews,
        items=items,
        tuning=slope,
    )


def _by_cluster(
    cluster: Shaped[np.ndarray, " items"] | None,
    weight: Float[np.ndarray, " items"],
    *columns: Float[np.ndarray, " items"],
) -> tuple[Float[np.ndarray, " clusters"], list[Float[np.ndarray, " clusters"]]]:
    """Sums by cluster."""
    if cluster is None:
        return weight, list(columns)
    _, index = np.unique(cluster, return_inverse=True)
    sums = [np.bincount(index, weights=column) for column in (weight, *columns)]
    return sums[0], sums[1:]


def _check_probabilities(probabilities: Shaped[np.ndarray, " items"]) -> None:
    wrong = ~((probabilities > 0) & (probabilities <= 1))  # also of NaN
    if wrong.any():
        where = int(wrong.argmax())
        raise AmplifyError(
            f"sampling probabilities must be above 0 and at most 1, got {probabilities[where]:g}"
            f" for item {where}"
        )


def _check(
    proxy: Shaped[np.ndarray, " items"],
    values: Shaped[np.ndarray, " items"],
    audited: Bool[np.ndarray, " items"],
    probabilities: Float[np.ndarray, " items"],
) -> None:
    _check_probabilities(probabilities)
    if not np.isfinite(proxy).all():
        where = int((~np.isfinite(proxy)).argmax())
        raise AmplifyError(f"the proxy of item {where} is {proxy[where]}, not a finite number")
    if not audited.any():
        raise AmplifyError(f"none of {len(audited)} items was audited: nothing can be estimated")
    missing = audited & ~np.isfinite(values)
    if missing.any():
        raise AmplifyError(
            f"{int(missing.sum())} of {int(audited.sum())} audited items have no finite value, the"
            f" first is item {int(missing.argmax())}: leaving them out would bias the estimate"
        )
