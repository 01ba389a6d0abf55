"""Reinforcement learning beside plain search at equal samples: best-of-n of the reference policy,
by the same reward model.

A *sample* is an answer that a policy gives while it is trained, or that search chooses from.
Reinforcement learning pays for its samples once, and then answers any number of questions; search
pays for each question again. So "equal samples" has two readings, and both are reported: search
spends all of them on one question, or divides them over the questions that reinforcement learning
was trained on, and answers each. Gao, Schulman and Hilton 2022 (arXiv:2210.10760) compare the two
methods at equal KL instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amplify.experiment.sections import Experiment
from amplify.studies.best_of_n import Scored, curve


class Search(NamedTuple):
    """Best-of-n for every number of samples with which reinforcement learning is compared."""

    per_step: int
    """Samples of a step of reinforcement learning."""
    per_question: int
    """Samples that it takes of each question that it is trained on."""
    ns: list[int]
    """Samples of a question, ascending."""
    gold: list[float]
    """For each of `ns`."""
    proxy: list[float]
    """Reward, in standard deviations of the reference policy's."""

    def gold_of(self, n: int) -> float:
        """Returns the gold of the best of n by the reward model; n is one of `ns`."""
        return self.gold[self.ns.index(n)]

    def proxy_of(self, n: int) -> float:
        """Returns the reward of the best of n; n is one of `ns`."""
        return self.proxy[self.ns.index(n)]


def samples_in(experiment: Experiment, steps: int) -> int:
    """Returns the samples that reinforcement learning takes.

    Args:
        experiment: its batch.
        steps: number of training steps.
    """
    return steps * experiment.training.batch * experiment.questions.per_context


def measure_search(
    experiment: Experiment, scored: Scored, steps: Sequence[int], also: Sequence[int]
) -> dict[str, Any]:
    """Takes the best of as many samples as reinforcement learning has used after some steps.

    Args:
        experiment: a cell.
        scored: samples of the reference policy, as many for each question as `steps` ask for.
        steps: of the looks at the policy.
        also: further numbers of samples of a question.

    Returns:
        The fields of `Search`.
    """
    per_question = experiment.questions.per_context
    used = [samples_in(experiment, step) for step in steps]
    ns = sorted({*used, *also, per_question})
    return {
        "per_step": samples_in(experiment, 1),
        "per_question": per_question,
        "ns": ns,
        **curve(scored, tuple(ns)),
    }


def read_search(results: Mapping[str, Any]) -> Search:
    """Returns what `measure_search` returned, as read from a file."""
    return Search(**results)


def samples_to_reach(searches: Sequence[Search], gold: float) -> float | None:
    """Returns the samples of a question with which search reaches some gold, in the mean of seeds.

    Args:
        searches: one of each seed, with the same `ns`.
        gold: to be reached.

    Returns:
        The number of samples, interpolated between logarithms; None: it is not reached.
    """
    means = np.mean([one.gold for one in searches], axis=0)
    ns = searches[0].ns
    reached = np.flatnonzero(means >= gold)
    if not len(reached):
        return None
    after = int(reached[0])
    if after == 0:
        return float(ns[0])
    share = (gold - means[after - 1]) / (means[after] - means[after - 1])
    return float(ns[after - 1] * (ns[after] / ns[after - 1]) ** share)
