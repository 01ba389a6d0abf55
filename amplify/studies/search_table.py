"""Reinforcement learning beside search at equal samples, as tables, lines and criteria of the
over-optimisation study. See `search` for what is compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from amplify.evaluation.statistics import Proportion
from amplify.studies.overoptimisation import PENALTY, Look, Run
from amplify.studies.search import samples_to_reach
from amplify.studies.seeds import Criterion, empty_table, mean_cell, over_seeds, say

SHOWN = 6
"""Looks that the table shows, at about equal ratios of samples."""
NOTE = (
    "RL: after as many samples. Search: the best of as many samples of the reference policy to one"
    " question, by the same reward model. RL has paid for all questions; search pays for each."
)


def at_equal_samples(done: Mapping[str, Sequence[Run]]) -> Table:
    """Returns means over seeds, at some numbers of samples.

    Args:
        done: runs of each arm, in the same order of seeds; three seeds or more.
    """
    columns = ["arm", "samples", "gold: RL", "search", "RL - search"]
    columns += ["reward: RL", "search ", "RL - search "]
    found = empty_table("RL and search at equal samples: all of them for one question", columns)
    for arm, runs in done.items():
        looks = _shown(runs[0])
        for place in looks:
            values = [_beside(run, run.looks[place]) for run in runs]
            cells = [mean_cell([one[name] for one in values], 2) for name in values[0]]
            samples = runs[0].looks[place].step * runs[0].search.per_step
            found.add_row(arm, f"{samples:,}", *cells, end_section=place == looks[-1])
    return found


def by_seed(runs: Mapping[str, Mapping[int, Run]]) -> Table:
    """Returns gold of each seed when training has ended.

    Args:
        runs: of each arm, by seed.
    """
    columns = ["arm", "seed", "RL", "search, one question", "RL - it"]
    columns += ["search, divided", "RL - it "]
    found = empty_table("Gold of RL at its end, and of search with as many samples", columns)
    for arm, of in runs.items():
        for seed, run in of.items():
            one, divided = run.search.gold_of(_used(run)), _divided(run)
            values = [run.end.gold, one, run.end.gold - one, divided, run.end.gold - divided]
            found.add_row(arm, str(seed), *(f"{value:.2f}" for value in values))
    return found


def _shown(run: Run) -> list[int]:
    """Places of looks: the last one, and about every second as many samples."""
    last = len(run.looks)
    wanted = {round(last / 2**halved) for halved in range(SHOWN)}
    return [place - 1 for place in sorted(wanted) if place >= 1]


def _beside(run: Run, look: Look) -> dict[str, float]:
    """Gold and reward of reinforcement learning at a look, and of search."""
    n = look.step * run.search.per_step
    gold, proxy = run.search.gold_of(n), run.search.proxy_of(n)
    return {
        "gold": look.gold,
        "search_gold": gold,
        "more_gold": look.gold - gold,
        "proxy": look.proxy,
        "search_proxy": proxy,
        "more_proxy": look.proxy - proxy,
    }


def _used(run: Run) -> int:
    """Samples that reinforcement learning has used when it ends."""
    return run.end.step * run.search.per_step


def _divided(run: Run) -> float:
    """Gold of search that answers as many questions as reinforcement learning was trained on."""
    return run.search.gold_of(run.search.per_question)


def more_than_one_question(runs: Sequence[Run]) -> Proportion:
    """Returns how much more gold reinforcement learning ends with than search that spends as many
    samples on one question, paired by seed.
    """
    return over_seeds([run.end.gold - run.search.gold_of(_used(run)) for run in runs])


def more_than_divided(runs: Sequence[Run]) -> Proportion:
    """Returns the same for search that answers as many questions as reinforcement learning was
    trained on.
    """
    return over_seeds([run.end.gold - _divided(run) for run in runs])


def lines(done: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Yields what follows for each arm.

    Args:
        done: as in `at_equal_samples`.
    """
    yield NOTE
    for arm, runs in done.items():
        used, each = _used(runs[0]), runs[0].search.per_question
        peak = over_seeds([_beside(run, run.peak)["more_gold"] for run in runs])
        yield (
            f"{arm}, RL minus search with {used:,} samples, paired by seed: one question"
            f" {say(more_than_one_question(runs))}; {used // each:,} questions, {each} samples each"
            f" {say(more_than_divided(runs))}; at RL's oracle peak, one question {say(peak)}"
        )
        yield f"{arm}: {_break_even(runs)}"


def _break_even(runs: Sequence[Run]) -> str:
    """From how many questions on reinforcement learning takes fewer samples for the same gold."""
    end, used = over_seeds([run.end.gold for run in runs]).estimate, _used(runs[0])
    each = samples_to_reach([run.search for run in runs], end)
    if each is None:
        return f"search does not reach RL's {end:.2f} with {used:,} samples of a question"
    if each <= 1:
        return f"RL's {end:.2f} is no more than one sample of the reference policy has"
    return (
        f"search reaches RL's {end:.2f} with {each:,.0f} samples of a question: RL takes fewer from"
        f" {np.ceil(used / each):,.0f} questions on"
    )


def criteria(done: Mapping[str, Sequence[Run]]) -> list[Criterion]:
    """Says whether reinforcement learning gains more than search at equal samples, in both
    readings, with a penalty: gold is not needed to know when to stop there.

    Args:
        done: as in `at_equal_samples`.
    """
    runs = done[PENALTY]
    readings = {
        "all spent on one question": more_than_one_question(runs),
        "divided over the questions RL was trained on": more_than_divided(runs),
    }
    return [_gains_more(reading, found) for reading, found in readings.items()]


def _gains_more(reading: str, found: Proportion) -> Criterion:
    more = found.low is not None and found.low > 0
    said = f"with the penalty, RL gains more gold than search at equal samples, {reading}"
    return Criterion(said, f"{'yes' if more else 'no'}, {say(found)}", more)


def row(run: Run) -> dict[str, Any]:
    """Returns the comparison of a cell at its end, for JSON."""
    return {
        "samples": _used(run),
        "search_one_question": run.search.gold_of(_used(run)),
        "search_divided": _divided(run),
    }
