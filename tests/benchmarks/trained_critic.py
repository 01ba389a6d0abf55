"""What a trained critic is worth to a judge.

    python -m tests.benchmarks.trained_critic rounds/claims

The critic is the assistant of the best round of an experiment about claims. A judge says which of
two drafts about a topic is worth more, alone or with its help. Every pair is about another topic,
with statements of its own, so that only whoever reads can help. Compare Saunders et al. 2022
(arXiv:2206.05802), and `critics`, where the critic's accuracy is planted.
"""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from rich.console import Console
from rich.table import Table

from amplify.evaluation.statistics.intervals import Proportion, accuracy, average
from amplify.overseers.helper import Helper
from amplify.overseers.judge import Judge, JudgeConfig
from amplify.reading.experiment_file import read_experiment
from amplify.reading.helpers import open_helper
from amplify.studies.seeds import say
from amplify.tasks.essays.claims import Claims
from amplify.tasks.essays.task import Essays

PAIRS, CHUNK = 4000, 200
LOOKS, ASKS = 6, 6
"""At each of the two drafts."""
RANDOM = f"{LOOKS} looks at random"


def judges() -> dict[str, JudgeConfig]:
    """The judges that are compared; none errs but from what it does not know."""
    judge = functools.partial(JudgeConfig, looks=LOOKS, credulity=0.0, errors=0.0)
    helped = functools.partial(judge, helper="named on the command line", helper_asks=ASKS)
    return {
        "no looks": judge(looks=0),
        RANDOM: judge(),
        f"{LOOKS} where it is least sure": judge(checks="unsure"),
        f"{LOOKS} likewise, weighed by what depends on it": judge(checks="stakes"),
        f"{LOOKS} at what the critic says is wrong in {ASKS} claims": helped(),
        f"no looks, and believes the critic about {ASKS} claims": helped(looks=0, trust="believe"),
        f"{LOOKS} looks, and believes the critic about {ASKS} claims": helped(trust="believe"),
        "the same, asking about what depends most on it": helped(trust="believe", checks="stakes"),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def verdicts(
    judge: Judge, essays: Essays, params: PyTree[Array], keys: Key[Array, "pairs 4"]
) -> tuple[Array, Array]:
    """Which of two drafts about each of some topics a judge prefers, and which is worth more.

    Args:
        judge: the judge.
        essays: the task.
        params: the critic's weights.
        keys: of each pair.

    Returns:
        1 for the second draft, 0 for the first one.
    """
    contexts = jax.vmap(essays.draw_context)(keys[:, 0])
    questions = jax.vmap(essays.draw_question, (0, 0, None))(keys[:, 0], contexts, jnp.int32(1))
    drafts = jax.vmap(jax.vmap(essays.draft, (None, None, 0)))(contexts, questions, keys[:, 1:3])
    roles = {"overseer": params}
    said = judge.choose(roles, contexts, questions[:, None], drafts[:, None], keys[:, 3:])
    gold = jax.vmap(jax.vmap(essays.gold, (None, None, 0)))(contexts, questions, drafts)
    return said.best[:, 0], jnp.argmax(gold, axis=1)


def right(judge: Judge, essays: Essays, params: PyTree[Array]) -> Float[np.ndarray, " pairs"]:
    """Whether a judge finds the better draft of each pair.

    Args:
        judge: the judge.
        essays: the task.
        params: the critic's weights.
    """
    keys = jax.random.split(jax.random.key(essays.world), (PAIRS, 4))
    parts = [
        np.equal(*jax.device_get(verdicts(judge, essays, params, keys[at : at + CHUNK])))
        for at in range(0, PAIRS, CHUNK)
    ]
    return np.concatenate(parts).astype(np.float64)


def results(helper: Helper, params: PyTree[Array]) -> dict[str, Float[np.ndarray, " pairs"]]:
    """Which verdicts of each judge are right.

    Args:
        helper: the critic.
        params: its weights.
    """
    assert isinstance(helper.task, Claims)
    essays = helper.task.essays
    return {
        name: right(Judge(essays, config, helper if config.helper else None), essays, params)
        for name, config in judges().items()
    }


def more(one: Float[np.ndarray, " pairs"], other: Float[np.ndarray, " pairs"]) -> Proportion:
    """How much more often one judge is right than another, paired."""
    return average(one - other, np.arange(len(one)))


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "rounds/claims")
    helper = open_helper(str(folder), "the experiment", read_experiment)
    if helper is None:
        sys.exit(f"{folder}: none of its rounds was promoted; run some first")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = results(helper, helper.load(lambda tree: jax.tree.map(lambda _: device, tree)))
    table = Table(
        "the judge", "right", "more than at random",
        title=f"which of two drafts is better? {PAIRS:,} pairs, each about another topic; 95 %"
        " intervals over pairs, differences paired",
    )  # fmt: skip
    for name, values in found.items():
        change = "" if name == RANDOM else say(more(values, found[RANDOM]))
        table.add_row(name, say(accuracy(values, np.arange(PAIRS))), change)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
