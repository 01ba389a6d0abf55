"""What the tests of several tasks share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from amplify.overseers.simulated import Simulated
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import draw_problems
from amplify.trees.amplification import amplified, true_answers
from amplify.types import Interaction, Task
from amplify.words import format_tokens, read_question


def say(task: Task, context, text: str) -> str:
    """The truth about a question, both as a person reads them."""
    return format_tokens(task, np.asarray(_truth(task, context, read_question(task, text))))


@functools.partial(jax.jit, static_argnums=0)
def _truth(task: Task, context, question):
    return task.truth(context, question)


def play(task: Task, question: str, answers: list[str]) -> tuple[list[str], str]:
    """What the overseer asks when it is told these answers in turn, and its own answer."""
    tokens = {word: token for token, word in enumerate(task.vocabulary)}
    strategy = task.strategy(jnp.asarray(read_question(task, question)))
    asked = []
    ask, left = next(strategy), list(answers)
    while True:
        told = "?"
        if ask.where is None or bool(ask.where):
            asked.append(format_tokens(task, np.asarray(ask.question)))
            told = left.pop(0)
        try:
            ask = strategy.send(jnp.array([tokens[told]], jnp.int32))
        except StopIteration as end:
            assert not left, f"{left} was never asked for"
            return asked, format_tokens(task, np.asarray(end.value))


def overseen(task: Task, wrong: float, count: int = 64) -> tuple[Interaction, np.ndarray]:
    """Trees of an overseer whose sub-answers are true but for a share of random tokens; and which
    of its answers are right.
    """
    depths = list(range(1, task.max_depth + 1))
    problems = draw_problems(task, 3, 1, "train", count, depths)

    @jax.jit
    def run(contexts, questions, keys):
        def sampler(questions, where, keys):
            told = true_answers(task, contexts)(questions, where, keys)

            def one(key, answer):
                errs = jax.random.bernoulli(key, wrong)
                anything = jax.random.randint(key, answer.shape, 0, len(task.vocabulary))
                return jnp.where(errs, anything, answer)

            return told._replace(answer=jax.vmap(jax.vmap(one))(keys, told.answer))

        everywhere = jnp.ones(questions.shape[:2], bool)
        respond = amplified(task, Simulated(task).using(), sampler, contexts, depth=1)
        tree = respond(questions, everywhere, keys)
        return tree, vmap_questions(task.is_right)(contexts, questions, tree.answer)

    keys = jax.random.split(jax.random.key(8), problems.questions.shape[:2])
    tree, right = run(problems.contexts, problems.questions, keys)
    return jax.tree.map(np.asarray, tree), np.asarray(right)
