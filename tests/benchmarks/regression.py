"""The table of a student's replication report, run again: `make regression` prints both.

Permutation powering with 4 symbols and k up to 7; with probability p the overseer's answer is
replaced by a random token, of which there are 5. Reference: a replication report of 2020, whose
table stands after the end of the document, among material that was left out of it.

`amplified` is the overseer's answer, with sub-answers that the assistant samples. `alone` is the
target network's answer: the likeliest one here, and probably a sampled one in the report.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from amplify import report
from amplify import round as page
from amplify.launch import enable_compilation_cache
from amplify.store import Store
from amplify.terminal import progress_bars

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
DEPTH_2 = "k 2-3"  # questions of which every sub-question is primitive


class Reference(NamedTuple):
    amplified: float | None  # None: the report's figure is not at hand
    alone: float | None


REFERENCE = {
    0.0: Reference(100.0, 99.97),
    0.01: Reference(99.27, 99.72),
    0.1: Reference(92.31, 94.50),
    0.3: Reference(75.83, 78.47),
    1.0: Reference(None, None),
}


def theory(noise: float) -> float:
    """A random one of 5 tokens is right one time in 5."""
    return 100 * (1 - 0.8 * noise)


def figure(value: float | None) -> str:
    return "not at hand" if value is None else f"{value:.2f}"


def run(folder: Path, noise: float, seed: int) -> tuple[float, float]:
    """Accuracy at depth 2 in %: amplified, and the target network's likeliest answers."""
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text(
        f'seed = {seed}\nbase = "{ROOT / "rounds/regression"}"\n[overseer]\nnoise = {noise}\n'
    )
    store = Store(folder)
    for number in (0, 1):
        page.run(store, number, progress_bars(f"noise {noise}, seed {seed}"))
    [row] = [
        row
        for row in report.results(store)
        if (row["round"], row["split"], row["class"]) == (1, "final", DEPTH_2)
    ]
    return 100 * row["amplified"], 100 * row["alone"]


def main() -> None:
    enable_compilation_cache()
    table = Table("p", "theory", "amplified, reference", "amplified", "alone, reference", "alone")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for noise, reference in REFERENCE.items():
            results = [run(Path(folder) / f"{noise}-{seed}", noise, seed) for seed in SEEDS]
            amplified, alone = (
                f"{statistics.mean(column):.2f} ({min(column):.2f} to {max(column):.2f})"
                for column in zip(*results, strict=True)
            )
            table.add_row(
                f"{noise}", f"{theory(noise):.2f}",
                figure(reference.amplified), amplified, figure(reference.alone), alone,
            )  # fmt: skip
    console = Console()
    console.print("accuracy at depth 2 in %, mean of 3 seeds (lowest to highest)", table)
    console.print(f"{len(REFERENCE) * len(SEEDS)} runs in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
