"""Finds the seeds of experiments that lie beside them and were left out of a comparison."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from amplify.errors import AmplifyError, command
from amplify.reading.derived import seed_folder
from amplify.report.groups import are_seeds, seed_of
from amplify.store import Store


def seeds_beside(stores: Sequence[Store]) -> str | None:
    """Says which seeds of experiments lie beside them, and how to compare means over seeds.

    Args:
        stores: the experiments that are compared.

    Returns:
        One line with the command; None if no seed was left out.
    """
    compared = {store.path.resolve() for store in stores}
    found = {
        store.path: {
            seed: path for seed, path in _siblings(store) if path.resolve() not in compared
        }
        for store in stores
    }
    left_out = [f"{_seeds([*seeds])} of {path}" for path, seeds in found.items() if seeds]
    if not left_out:
        return None
    return f"Not compared: {', '.join(left_out)}. For means over seeds: {_command(stores, found)}"


def _siblings(store: Store) -> Iterator[tuple[int, Path]]:
    """Yields the seed and the folder of each experiment that differs in its seed only."""
    here = seed_folder(store.path, 0).parent
    pattern = re.compile(re.escape(store.path.resolve().name) + r"-seed-(\d{1,10})")
    names = (pattern.fullmatch(entry.name) for entry in here.iterdir())
    for seed in sorted({int(name[1]) for name in names if name}):
        path = seed_folder(store.path, seed)
        if _is_seed(store, seed, path):
            yield seed, path


def _is_seed(store: Store, seed: int, path: Path) -> bool:
    """Whether a folder is an experiment with a finished round that differs in its seed only."""
    try:
        other = Store(path, runs_code=False)
    except (AmplifyError, OSError):
        return False
    finished = any(other.round(number).complete for number in other.rounds())
    return finished and seed_of(other) == seed and are_seeds(store, other)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"


def _command(stores: Sequence[Store], found: dict[Path, dict[int, Path]]) -> str:
    """The command that compares all seeds: by number if every experiment has the same ones."""
    paths = [store.path for store in stores]
    numbers = [sorted([seed_of(store), *found[store.path]]) for store in stores]
    if all(one == numbers[0] for one in numbers):
        return command("compare", *paths, "--seeds", ",".join(map(str, numbers[0])))
    return command(
        "compare", *(one for path in paths for one in (path, *found.get(path, {}).values()))
    )
