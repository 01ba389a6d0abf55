"""Names the files of comparisons after the experiments in them, so that a person recognises them.

The files are in the first experiment's folder, so its own name is left out:
`compare-seeds-0-1-2-and-people-seeds-0-1-2` are three seeds of it and three of `people`.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence

from amplify.report.groups import seed_of
from amplify.store import Store

LONGEST = 100
"""Most characters of a name that lists all experiments."""
LONGEST_NAME = 40
"""Most characters that a longer list's name takes from experiments."""

SEED_OF = re.compile(r"(.+)-seed-(\d+)")
"""The name of an experiment that `--seeds` made: of which one, and its seed."""
AMBIGUOUS = re.compile(r"(^|-)(and|seeds)(-|$)")
"""Names that could be mistaken for a part of a list."""


def comparison_stem(stores: Sequence[Store]) -> str:
    """Returns the beginning of the names of a comparison's files.

    Different comparisons in one folder have different names: with a digest of all paths where the
    names of the experiments do not tell.

    Args:
        stores: the experiments, in the order in which they are compared.
    """
    first, *others = stores
    if not others:
        return "compare"
    listed = "-and-".join(_listed(stores))
    here = first.path.resolve().parent
    tells = all(
        store.path.resolve().parent == here and not AMBIGUOUS.search(store.name) for store in stores
    )
    stem = f"compare-{listed}"
    if tells and len(stem.encode()) <= LONGEST:
        return stem
    paths = "\n".join(str(store.path.resolve()) for store in stores)
    digest = hashlib.sha256(paths.encode()).hexdigest()[:8]
    if len(stem.encode()) <= LONGEST:
        return f"{stem}-{digest}"
    return f"compare-{_summary(stores)}-{digest}"


def _listed(stores: Sequence[Store]) -> list[str]:
    """Each experiment with its seeds, in order; the first one's name is left out."""
    groups: dict[str, list[Store]] = {}
    for store in stores:
        groups.setdefault(_base(store.name), []).append(store)
    first = _base(stores[0].name)
    return [
        _with_seeds("" if base == first else base, group) if len(group) > 1 else group[0].name
        for base, group in groups.items()
        if base != first or len(group) > 1
    ]


def _base(name: str) -> str:
    found = SEED_OF.fullmatch(name)
    return found[1] if found else name


def _with_seeds(base: str, group: Sequence[Store]) -> str:
    seeds = [found[2] if (found := SEED_OF.fullmatch(one.name)) else seed_of(one) for one in group]
    return "-".join([*filter(None, [base]), "seeds", *map(str, seeds)])


def _summary(stores: Sequence[Store]) -> str:
    """The words that all names but the first begin with, or else the second name, and how many
    experiments there are.
    """
    names = [store.name for store in stores[1:]]
    words = zip(*(name.split("-") for name in names), strict=False)
    stem = "-".join(word[0] for word in itertools.takewhile(lambda word: len({*word}) == 1, words))
    shown = (stem or names[0]).encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{shown}-{len(stores)}-experiments"
