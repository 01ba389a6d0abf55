"""The paper's five tasks beside their supervised baselines: `make paper` prints the table.

Runs the experiments where they lie, so that what is there is not run again, and `make compare`
afterwards shows each in detail.
"""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from amplify import round as page
from amplify.launch import enable_compilation_cache
from amplify.report.results import FINAL, best, finished_rounds
from amplify.store import Store
from amplify.terminal import progress_bars

ROOT = Path(__file__).parents[2]
ROUNDS = {
    "permutation": 6,
    "assignments": 5,
    "wildcard-learned": 3,
    "shortest-path": 6,
    "union-find": 3,
}


class Result(NamedTuple):
    accuracy: float  # of the best round's target network on root questions, in %
    demonstrations: int
    seconds: float  # a round takes, compilation left out


def run(name: str, rounds: int) -> Result:
    store = Store(ROOT / "rounds" / name)
    with store.lock():
        for number in range(rounds + 1):
            if not store.round(number).complete:
                page.run(store, number, progress_bars(f"{name}, round {number}"))
    finished = [one for one in finished_rounds(store) if one.number <= rounds]
    right = best(finished).items.only(FINAL).alone
    ledgers = [store.round(one.number).record["ledger"] for one in finished[1:]]
    return Result(
        100 * right.mean(),
        sum(ledger["demonstrations"] for ledger in ledgers),
        sum(ledger["seconds"] - ledger["compile_seconds"] for ledger in ledgers) / rounds,
    )


def main() -> None:
    enable_compilation_cache()
    table = Table(
        "task", "rounds", "seconds a round", "demonstrations", "amplified", "supervised",
        "short of it",
    )  # fmt: skip
    for name, rounds in ROUNDS.items():
        amplified, supervised = run(name, rounds), run(f"{name}-supervised", rounds)
        table.add_row(
            name,
            f"{rounds}",
            f"{amplified.seconds:.0f}",
            f"{amplified.demonstrations:,} / {supervised.demonstrations:,}",
            f"{amplified.accuracy:.1f}",
            f"{supervised.accuracy:.1f}",
            f"{supervised.accuracy - amplified.accuracy:+.1f}",
        )
    console = Console()
    console.print("right root questions of `final` in %, best round's target network alone", table)


if __name__ == "__main__":
    main()
