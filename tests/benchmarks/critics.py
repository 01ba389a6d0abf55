"""What a critic of planted accuracy is worth to a judge: `python -m tests.benchmarks.critics`.

A judge says which of two drafts is worth more. It looks at a few statements of each: any, those
that it is least sure of, or those that a critic calls wrong; or it believes the critic. What the
critic knows is planted, so the figures say what a critic would be worth, not that one can be had.
Compare Saunders et al. 2022 (arXiv:2206.05802); Elasky 2026 (arXiv:2605.27483).
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from rich.console import Console
from rich.table import Table

from amplify.overseers.judge import JudgeConfig
from amplify.studies.seeds import over_seeds, say
from amplify.task_abilities import Reader
from amplify.tasks.essays.reader import read_essay
from amplify.tasks.essays.task import Essays
from amplify.tasks.essays.world import World, WorldConfig, essay_gold, write_draft

WORLDS = range(100, 110)
PAIRS = 2000
LOOKS = 6
"""At each of the two drafts."""
ALONE, RANDOM, UNSURE, STAKES = (
    "no looks",
    f"{LOOKS} looks at random",
    f"{LOOKS} where the judge is least sure",
    f"{LOOKS} likewise, weighed by what depends on it",
)
ACCURACIES = (1.0, 0.9, 0.8, 0.6)


def verified(accuracy: float) -> str:
    return f"{LOOKS} at the flaws of a critic, accuracy {accuracy:g}"


def believed(accuracy: float) -> str:
    return f"believes a critic, accuracy {accuracy:g}"


def judges() -> dict[str, JudgeConfig]:
    """The judges that are compared; none errs but from what it does not know."""
    judge = functools.partial(JudgeConfig, looks=LOOKS, credulity=0.0, errors=0.0)
    return {
        ALONE: judge(looks=0),
        RANDOM: judge(),
        UNSURE: judge(checks="unsure"),
        STAKES: judge(checks="stakes"),
        **{verified(accuracy): judge(critic=accuracy) for accuracy in ACCURACIES},
        **{believed(accuracy): judge(critic=accuracy, trust="believe") for accuracy in ACCURACIES},
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def verdicts(
    config: WorldConfig, length: int, reader: Reader, world: World, keys: Key[Array, "pairs 5"]
) -> tuple[Array, Array]:
    """What a reader makes of two drafts about each of some topics, and gold; one program for all
    worlds.

    Args:
        config: of a world; its number does not matter.
        length: claims of a draft.
        reader: how the judge reads.
        world: the world.
        keys: of each pair.
    """

    def one(key: Array) -> tuple[Array, Array]:
        topic = jax.random.randint(key[0], (), 0, config.topics)
        drafts = [write_draft(world, length, write) for write in key[1:3]]
        worth = [
            read_essay(config, world, reader, topic, draft, read).worth
            for draft, read in zip(drafts, key[3:5], strict=True)
        ]
        gold = [essay_gold(world, topic, draft) for draft in drafts]
        return jnp.stack(worth), jnp.stack(gold)

    return jax.vmap(one)(keys)


def share_right(config: JudgeConfig, number: int, pairs: int = PAIRS) -> float:
    """How often a judge finds the better of two drafts about a topic; a tie counts half.

    Args:
        config: the judge.
        number: of the world.
        pairs: number of pairs.
    """
    task, any_world = Essays(world=number), Essays().config
    keys = jax.random.split(jax.random.key(number), (pairs, 5))
    found = verdicts(any_world, task.length, config.reader, task.hidden, keys)
    worth, gold = (np.subtract(*np.asarray(part).T) for part in found)
    return float(np.mean(np.where(worth == 0, 0.5, (worth > 0) == (gold > 0))))


def results(worlds: range = WORLDS, pairs: int = PAIRS) -> dict[str, list[float]]:
    """The shares of right verdicts of each judge, by world."""
    return {
        name: [share_right(config, world, pairs) for world in worlds]
        for name, config in judges().items()
    }


def difference(found: dict[str, list[float]], one: str, other: str) -> list[float]:
    """How much more often one judge is right than another, by world."""
    return [a - b for a, b in zip(found[one], found[other], strict=True)]


def main() -> None:
    console, began = Console(width=150), time.monotonic()
    found = results()
    shown = Table(
        "the judge", "right", "more than at random", "than where least sure", "than by stakes",
        title=f"which of two drafts is better? {PAIRS:,} pairs in each of {len(WORLDS)} worlds;"
        " means and 95 % intervals over worlds, differences paired",
    )  # fmt: skip
    for name in found:
        changes = [difference(found, name, other) for other in (RANDOM, UNSURE, STAKES)]
        told = [say(over_seeds(change)) if any(change) else "" for change in changes]
        shown.add_row(name, say(over_seeds(found[name])), *told)
    console.print(shown)
    for number, world in enumerate(WORLDS):
        each = (f"{values[number]:.3f}" for values in found.values())
        console.print(f"world {world}: {' '.join(each)}")
    console.print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
