"""What intervals of audits cover, and what the alarm sees: `make audits` prints the tables of
docs/statistics.md. The defaults were chosen on seeds 0 to 199 and 1,000 to 1,439; the seeds here
are others.
"""

import itertools
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from amplify.evaluation.statistics.alarm import AlarmRules
from tests.statistics.audits_simulation import POPULATIONS, covered
from tests.statistics.trajectories import before_losing, flat, hacked, table

REPEATS = 2000
RUNS = range(2040, 2440)
FIRST = range(2000, 2040)
"""The forty runs of the tests, beside the larger number."""


def coverage(console: Console) -> None:
    shown = Table(
        "answers", "draw", "reviews", "one look", "all 20 looks", "t instead", "width",
        "times as wide", "bias",
        title=f"coverage, {REPEATS:,} runs of 20 looks; bias in standard errors of the mean error",
    )  # fmt: skip
    cells = itertools.product(POPULATIONS, (False, True), (40, 100, 400))
    for seed, (population, active, budget) in enumerate(cells):
        found = covered(np.random.default_rng(seed), population, budget, active, REPEATS)
        shown.add_row(
            population.name, "active" if active else "random", f"{budget}", f"{found.one_look:.3f}",
            f"{found.over_looks:.3f}", f"{found.students:.3f}", f"{found.width:.2f}",
            f"{found.wider:.2f}", f"{found.bias:+.1f}",
        )  # fmt: skip
    console.print(shown)


ALARMS = {
    "24 every 8 (default)": {},
    "same, proxy correlated .5": {"correlation": 0.5},
    "same, margin .1": {"rules": AlarmRules(margin=0.1)},
    "same, raw best look": {"smoothed": 1},
    "same, best mean of 5": {"smoothed": 5},
    "10 every 5": {"every": 5, "per_look": 10},
    "20 every 10": {"every": 10, "per_look": 20},
    "40 every 10": {"every": 10, "per_look": 40},
    "30 every 20": {"every": 20, "per_look": 30},
    "15 every 8, check 70, 600": {
        "per_look": 15,
        "rules": AlarmRules(check_reviews=70, budget=600),
    },
    "10 every 8, check 50, 400": {
        "per_look": 10,
        "rules": AlarmRules(check_reviews=50, budget=400),
    },
    "8 every 12, check 30, 200": {
        "every": 12,
        "per_look": 8,
        "rules": AlarmRules(checks=2, check_reviews=30, budget=200),
    },
}
"""Reviews of each look, and steps between looks."""


def alarms(console: Console) -> None:
    for seeds in (FIRST, RUNS):
        shown = Table(
            "reviews per look", "before .5 / 1 / 1.5 lost", "false: flat / losing .1",
            "below the peak", "above the last", "reviews, falling / flat / most",
            title=f"{len(seeds)} runs each, seeds from {seeds[0]:,}",
        )  # fmt: skip
        for name, options in ALARMS.items():
            runs = table(seeds, hacked, **options)
            stays, loses = (
                table(seeds, lambda random, by=drift: flat(random, by), **options)
                for drift in (0.0, 0.1)
            )
            hits = [sum(before_losing(*one, loss) for one in runs) for loss in (0.5, 1.0, 1.5)]
            false = [sum(one.alarm is not None for _, one in flats) for flats in (stays, loses)]
            used = [np.mean([one.reviews for _, one in some]) for some in (runs, stays)]
            below = np.mean([run.gold.max() - run.gold[one.chosen] for run, one in runs])
            above = sum(run.gold[one.chosen] > run.gold[-1] for run, one in runs)
            most = max(one.reviews for some in (runs, stays, loses) for _, one in some)
            shown.add_row(
                name, " / ".join(map(str, hits)), " / ".join(map(str, false)), f"{below:.2f}",
                f"{above}", f"{used[0]:.0f} / {used[1]:.0f} / {most}",
            )  # fmt: skip
        console.print(shown)


def main() -> None:
    console, began = Console(width=150), time.monotonic()
    for tables in (alarms, coverage):
        tables(console)
        console.print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
