"""What the protocols do when their sides are simulated: `python -m tests.benchmarks.protocols`.

These figures follow from the construction; they test the protocols, and are no evidence for debate,
whose sides an experiment has to train. Accuracy is the share of problems in which the judge accepts
the right one of two answers; an undecided verdict counts half. The honest side is `pro` in one half
of the problems and `con` in the other.
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

from amplify.protocols import Consultancy, Debate, Direct
from amplify.protocols.protocol import JudgeProtocol, play
from amplify.protocols.rewards import zero_sum
from amplify.protocols.sides import Lies, dishonest, either, honest, limited, parts, plan_lies
from amplify.protocols.statements import same
from amplify.tasks.algorithmic.assignments import Assignments
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.types import OTHERS, Interaction, Task

TRIALS = 3000
LEVELS = 16
"""Deeper than any question here."""


class Problems(NamedTuple):
    contexts: Array
    questions: Array


class Found(NamedTuple):
    """What came of each problem."""

    verdicts: np.ndarray  # 1 for the honest side, -1 for the other, 0: undecided
    turns: np.ndarray  # statements that each side made


def permutation_problems(
    symbols: int, k: int, trials: int, bits: int, seed: int = 0, one_cycle: bool = True
) -> tuple[Task, Problems]:
    """A question σ^k(x) about each of some random permutations.

    In a permutation that is one cycle no question comes up twice in a debate. In short cycles one
    may, and then a side that is bound by what it said may have to contradict itself.
    """
    task = Permutation(symbols, bits)
    keys = jax.random.split(jax.random.key(seed), (2, trials))
    drawn = jax.vmap(lambda key: 1 + jax.random.permutation(key, symbols))(keys[0])
    start = drawn if one_cycle else jnp.broadcast_to(1 + jnp.arange(symbols), drawn.shape)
    contexts = jnp.stack([start, jnp.roll(drawn, -1, axis=1)], axis=-1)
    x = jax.vmap(lambda key: jax.random.randint(key, (1,), 1, symbols + 1))(keys[1])
    digits = jnp.array([[1 + int(bit) for bit in f"{k:0{task.bits}b}"]])
    return task, Problems(
        contexts, jnp.concatenate([x, jnp.repeat(digits, trials, 0)], axis=1)[:, None]
    )


def assignments_problems(
    variables: int, values: int, least: int, contexts: int, seed: int = 0, most: int = LEVELS
) -> tuple[Task, Problems]:
    """Variables of some depths, as many of each context, in contexts that have any."""
    task = Assignments(variables, values)
    drawn = jax.vmap(task.draw_context)(jax.random.split(jax.random.key(seed), 8 * contexts))
    depth = np.asarray(jax.jit(jax.vmap(lambda context: task._graph(context).depth))(drawn))
    random, rows, asked = np.random.default_rng(seed), [], []
    for row in range(len(drawn)):
        wanted = np.flatnonzero((depth[row] >= least) & (depth[row] <= most))
        if len(wanted) and len(rows) < contexts:
            rows.append(row)
            asked.append(random.choice(wanted, PER_CONTEXT))
    kind = task.vocabulary.index("value")
    questions = [[[kind, x, 0] for x in some] for some in asked]
    return task, Problems(drawn[np.array(rows)], jnp.array(questions, jnp.int32))


PER_CONTEXT = 16
"""Questions about a context of assignments."""


def transcripts(
    task: Task, problems: Problems, protocol: JudgeProtocol, knows: int | None = None
) -> Found:
    """Plays a protocol between an honest side and a liar, each on either side.

    Args:
        task: the task.
        problems: what is debated.
        protocol: the rules.
        knows: the largest k that the honest side knows about; None: it knows everything.
    """
    both = jax.tree.map(lambda column: jnp.concatenate([column, column]), problems)
    keys = jax.random.split(jax.random.key(1), (3, *both.questions.shape[:2]))
    lies = _lies(task, both, keys[0])
    return jax.device_get(_played(task, protocol, knows, both, lies, keys[1:]))


@functools.partial(jax.jit, static_argnums=0)
def _lies(task: Task, problems: Problems, keys: Array) -> Lies:
    return plan_lies(task, *problems, LEVELS, keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _played(
    task: Task,
    protocol: JudgeProtocol,
    knows: int | None,
    problems: Problems,
    lies: Lies,
    keys: Array,
) -> Found:
    contexts, questions = problems
    liar, good = dishonest(task, contexts, lies), honest(task, contexts)
    if knows is not None:
        good = limited(
            task, contexts, questions, liar, lambda asked: task._steps(asked) <= knows,
            LEVELS, keys[0],
        )  # fmt: skip

    is_pro = jnp.broadcast_to(_halves(contexts)[:, None], questions.shape[:2])
    people = parts(task, contexts, either(is_pro, good, liar), either(is_pro, liar, good))
    everywhere = jnp.ones(questions.shape[:2], bool)
    played = play(protocol, questions, everywhere, keys[1], people)
    return Found(jnp.where(is_pro, 1.0, -1.0) * zero_sum(played), statements(protocol, played))


def _halves(contexts: Array) -> Array:
    """True in the first half of the problems."""
    return jnp.arange(len(contexts)) < len(contexts) // 2


def statements(protocol: JudgeProtocol, transcript: Interaction) -> Array:
    """Number of statements that `pro` makes: each begins where what is asked was just disputed."""
    step = transcript.steps.step
    mine = step.asked & (step.sub.answered_by == OTHERS)
    con_said = jnp.roll(step.sub.answer, -1, axis=0)  # `con` answers right after `pro`
    disputed = mine & ~same(step.sub.answer, con_said)
    disputed &= ~protocol.task.is_primitive(step.sub.question)
    return jnp.sum(disputed, axis=0)


def accuracy(found: Found) -> float:
    """The share of right verdicts."""
    return float(np.mean((1 + found.verdicts) / 2))


def powers(console: Console) -> None:
    shown = Table(
        "k", "looks alone, 16", "consultancy, 16", "turns", "debate", "honest knows k <= 4",
        "in any permutation", "judge errs 10 %",
        title=f"powers of one cycle of 64 symbols, {TRIALS:,} problems, twice",
    )  # fmt: skip
    for k in (2, 4, 8, 16, 32, 64):
        task, problems = permutation_problems(64, k, TRIALS, bits=7)
        _, any_cycles = permutation_problems(64, k, TRIALS, bits=7, one_cycle=False)
        run = functools.partial(transcripts, task, problems)
        debated = run(Debate(task, 7))
        shown.add_row(
            f"{k}", f"{accuracy(run(Direct(task, 7, 16))):.3f}",
            f"{accuracy(run(Consultancy(task, 7, 16))):.3f}",
            f"{debated.turns.min()} to {debated.turns.max()}", f"{accuracy(debated):.3f}",
            f"{accuracy(run(Debate(task, 7), knows=4)):.3f}",
            f"{accuracy(transcripts(task, any_cycles, Debate(task, 7), knows=4)):.3f}",
            f"{accuracy(run(Debate(task, 7, errors=0.1))):.3f}",
        )  # fmt: skip
    console.print(shown)


def assignments(console: Console) -> None:
    shown = Table(
        "depth", "problems", "looks alone, 16", "consultancy, 1", "4", "16", "debate",
        "<= 2 turns", "<= 4 turns", "judge errs 10 %",
        title="assignments, 64 variables, 8 values; each problem twice",
    )  # fmt: skip
    for least, most in ((4, 4), (6, 6), (9, LEVELS)):
        task, problems = assignments_problems(64, 8, least, TRIALS // PER_CONTEXT, most=most)
        run = functools.partial(transcripts, task, problems)
        protocols = [
            Direct(task, LEVELS, 16),
            *(Consultancy(task, LEVELS, looks) for looks in (1, 4, 16)),
            Debate(task, LEVELS), Debate(task, 2), Debate(task, 4),
            Debate(task, LEVELS, errors=0.1),
        ]  # fmt: skip
        rates = [f"{accuracy(run(protocol)):.3f}" for protocol in protocols]
        depth = f"{least}" if least == most else f"{least}+"
        shown.add_row(depth, f"{problems.questions[..., 0].size:,}", *rates)
    console.print(shown)


def main() -> None:
    console, began = Console(width=150), time.monotonic()
    for table in (powers, assignments):
        table(console)
        console.print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
