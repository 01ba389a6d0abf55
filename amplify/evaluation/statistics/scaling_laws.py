"""How gold and proxy change as a policy moves away from its base: best-of-n curves and Gao's laws.

Distances are d = √KL(policy ‖ base), in √nats (Gao, Schulman and Hilton 2022, "Scaling Laws for
Reward Model Overoptimization", arXiv:2210.10760, section 3).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from amplify.errors import AmplifyError

Optimiser = Literal["best_of_n", "reinforcement"]


@dataclasses.dataclass(frozen=True)
class ScalingLaw:
    """R(d) = d (alpha - beta d) for best-of-n, d (alpha - beta log d) for reinforcement."""

    optimiser: Optimiser
    alpha: float
    beta: float
    r_squared: float | None  # None: all rewards are equal

    def predict(self, kl: Shaped[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Returns the reward, relative to the base policy's, at each KL (nats, 0 or more)."""
        return _features(self.optimiser, kl) @ np.array([self.alpha, -self.beta])


def fit(
    optimiser: Optimiser, kl: Shaped[np.ndarray, " points"], reward: Shaped[np.ndarray, " _points"]
) -> ScalingLaw:
    """Fits a scaling law by least squares.

    Args:
        optimiser: how the policies were made; it decides the form.
        kl: of each policy to the base, in nats, 0 or more.
        reward: mean gold or proxy, minus the base policy's.

    Raises:
        AmplifyError: if a number is not finite or out of range, lengths differ, or there are fewer
            than three different distances above 0.
    """
    if len(kl) != len(reward):
        raise AmplifyError(f"{len(kl)} values of KL, but {len(reward)} rewards")
    if not (np.isfinite(kl).all() and (kl >= 0).all()):
        raise AmplifyError("values of KL must be finite and 0 or more")
    if not np.isfinite(reward).all():
        raise AmplifyError("rewards must be finite")
    if len(np.unique(kl[kl > 0])) < 3:
        raise AmplifyError("a scaling law needs three different values of KL above 0")
    features = _features(optimiser, kl)
    (alpha, minus_beta), *_ = np.linalg.lstsq(features, reward, rcond=None)
    left = float(((reward - features @ np.array([alpha, minus_beta])) ** 2).sum())
    total = float(((reward - reward.mean()) ** 2).sum())
    r_squared = 1 - left / total if total > 1e-18 else None
    return ScalingLaw(optimiser, float(alpha), float(-minus_beta), r_squared)


def _features(
    optimiser: Optimiser, kl: Shaped[np.ndarray, " points"]
) -> Float[np.ndarray, "points 2"]:
    distance = np.sqrt(np.asarray(kl, dtype=np.float64))
    if optimiser == "best_of_n":
        return np.stack([distance, distance**2], axis=-1)
    inside = np.maximum(distance, 1e-300)  # d log d is 0 at 0
    return np.stack([distance, distance * np.log(inside)], axis=-1)


def best_of_n_kl_bound(n: int) -> float:
    """Returns log n - (n - 1) / n: KL in nats of best-of-n to its base policy.

    It is exact if scores never tie, and an upper bound otherwise (Beirami et al. 2024, "Theoretical
    Guarantees on the Best-of-n Alignment Policy", arXiv:2401.01879).

    Args:
        n: 1 or more.

    Raises:
        AmplifyError: if n is below 1.
    """
    _check_n(n)
    return float(np.log(n) - (n - 1) / n)


def best_of_n_kl(
    probabilities: Shaped[np.ndarray, " answers"], scores: Shaped[np.ndarray, " _answers"], n: int
) -> float:
    """Returns the exact KL of best-of-n to its base policy, in nats.

    Ties are broken at random, so that answers with equal scores keep their relative probabilities.

    Args:
        probabilities: of all answers under the base policy; they add up to 1.
        scores: of each answer.
        n: 1 or more.

    Raises:
        AmplifyError: if lengths differ, n is below 1, these are not probabilities, or a score is
            NaN.
    """
    _check_n(n)
    if len(probabilities) != len(scores):
        raise AmplifyError(f"{len(probabilities)} probabilities, but {len(scores)} scores")
    if not ((probabilities >= 0).all() and abs(probabilities.sum() - 1) < 1e-6):
        raise AmplifyError("probabilities must be 0 or more and add up to 1")
    _check_scores(scores)
    possible = probabilities > 0
    _, level = np.unique(scores[possible], return_inverse=True)
    base = np.bincount(level, weights=probabilities[possible])
    below = np.concatenate([[0.0], np.minimum(np.cumsum(base), 1.0)])
    best = below[1:] ** n - below[:-1] ** n
    seen = best > 0
    return float((best[seen] * np.log(best[seen] / base[seen])).sum())


def best_of_n_curve(
    proxy: Shaped[np.ndarray, " samples"],
    gold: Shaped[np.ndarray, " _samples"],
    ns: Sequence[int],
) -> Float[np.ndarray, " ns"]:
    """Returns the mean gold of the best of n by proxy, from one sample of the base policy.

    This is the average over all subsets of n samples, and an unbiased estimate (Nakano et al. 2021,
    "WebGPT", arXiv:2112.09332, appendix I): the sample of rank r is the best of C(r - 1, n - 1) out
    of C(N, n) subsets. Ties are broken at random; the average over them is returned.

    Args:
        proxy: score by which the best is chosen.
        gold: value of each sample.
        ns: for which n, each from 1 to the number of samples.

    Raises:
        AmplifyError: if lengths differ, there are no samples, a score is NaN, a value is not
            finite, or an n is out of range.
    """
    if len(proxy) != len(gold):
        raise AmplifyError(f"{len(proxy)} samples have a proxy, but {len(gold)} have gold")
    if not len(proxy):
        raise AmplifyError("no samples to take the best of")
    _check_scores(proxy)
    if not np.isfinite(gold).all():
        raise AmplifyError("gold must be finite")
    for n in ns:
        _check_n(n, len(proxy))
    _, level = np.unique(proxy, return_inverse=True)
    counts = np.bincount(level)
    means = np.bincount(level, weights=gold) / counts
    ranked = np.repeat(means, counts)  # ascending by proxy
    return np.array([_chances(len(proxy), n) @ ranked for n in ns], dtype=np.float64)


def _chances(samples: int, n: int) -> Float[np.ndarray, " samples"]:
    """The probability that each rank, ascending, is the best of n; from logarithms of C(a, b)."""
    from scipy import special  # takes half a second to import, and pages may not need it

    def log_choose(a: np.ndarray | int, b: int) -> np.ndarray:
        return np.asarray(
            special.gammaln(a + 1) - special.gammaln(b + 1) - special.gammaln(a - b + 1)
        )

    ranks = np.arange(n, samples + 1)  # lower ones are never the best
    found = np.zeros(samples)
    found[n - 1 :] = np.exp(log_choose(ranks - 1, n - 1) - log_choose(samples, n))
    return found / found.sum()  # rounding


def _check_scores(scores: Shaped[np.ndarray, " samples"]) -> None:
    missing = np.isnan(scores)
    if missing.any():
        raise AmplifyError(
            f"{int(missing.sum())} of {len(scores)} scores are NaN, the first is that of sample"
            f" {int(missing.argmax())}: they cannot be ranked"
        )


def _check_n(n: int, samples: int | None = None) -> None:
    if n < 1 or (samples is not None and n > samples):
        limit = "1 or more" if samples is None else f"1 to {samples}, the number of samples"
        raise AmplifyError(f"n must be {limit}, got {n}")
