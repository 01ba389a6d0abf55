"""Streaming distillation: the target network's amplified answers, made while the assistant trains.

Where a round's stored answers all come from its parent, here the target network answers
sub-questions as it improves, and four things happen side by side: demonstrations, imitation of
them, amplification into a buffer, and training on it. All of it is one tree of arrays and one
compiled step from such a tree to the next, so that a killed training is resumed exactly.
Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.4 and appendix.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify import distillation, imitation
from amplify.amplification import amplified, assistant_alone, count_assistant_answers, helping
from amplify.distillation import Metrics, TrainState
from amplify.experiment import Curriculum, Experiment
from amplify.imitation import Apprentice
from amplify.mesh import Mesh
from amplify.overseers.learned import Learned
from amplify.problems import draw_for_training
from amplify.types import DONT_KNOW, GradedTask, Interaction, Weights

HELD_OUT = 10
"""One of so many places of the buffer, the last, is never trained on."""


class Buffer(NamedTuple):
    """The newest contexts with their amplified answers; the oldest are written over."""

    contexts: Int[Array, "capacity facts fact_length"]
    questions: Int[Array, "capacity questions question_length"]
    answers: Int[Array, "capacity questions answer_length"]
    written: Int[Array, ""]  # contexts so far, those written over too


class Growth(NamedTuple):
    """Where the curriculum stands."""

    size: Int[Array, ""]  # of contexts; without a curriculum it means nothing
    agreement: Float[Array, ""]  # of the target network with its amplified answers, averaged
    batches: Int[Array, ""]  # since the size last grew


class Stream(NamedTuple):
    step: Int[Array, ""]
    student: TrainState
    apprentice: Apprentice | None  # None where the overseer is not learned
    buffer: Buffer
    growth: Growth

    @property
    def weights(self) -> Weights:
        """The target network and the overseer that it helps."""
        return Weights(self.student.target, self.apprentice and self.apprentice.params)


def begin(
    experiment: Experiment, parent: PyTree[Array], apprentice: Apprentice | None, size: int
) -> Stream:
    """The state before a round's first step. Apprentice and size are where the parent left them."""
    task, asked = experiment.task, experiment.questions

    def room(*shape: int) -> Array:
        return jnp.zeros((asked.contexts, *shape), jnp.int32)

    return Stream(
        jnp.zeros((), jnp.int32),
        distillation.begin(experiment.assistant, parent, experiment.training),
        apprentice,
        Buffer(
            room(task.facts, task.fact_length),
            room(asked.per_context, task.question_length),
            room(asked.per_context, task.answer_length),
            jnp.zeros((), jnp.int32),
        ),
        Growth(jnp.int32(size), jnp.zeros(()), jnp.zeros((), jnp.int32)),
    )


def abstract(experiment: Experiment) -> Stream:
    """Shapes and dtypes of the state, nothing allocated."""

    def make() -> Stream:
        key, learner, apprentice = jax.random.key(0), experiment.learner, None
        if learner is not None:
            apprentice = imitation.begin(learner, key, experiment.training.batch)
        return begin(experiment, experiment.assistant.init(key), apprentice, 0)

    return jax.eval_shape(make)


Step = Callable[[Key[Array, ""], Stream], tuple[Stream, Metrics]]


def make_step(experiment: Experiment) -> Step:
    """One step of everything, compiled once for an experiment and its mesh. Donates the state."""
    return _make_step(experiment, experiment.mesh)


@functools.cache
def _make_step(experiment: Experiment, mesh: Mesh) -> Step:
    step = functools.partial(_step, experiment)
    return mesh.compile_step(step, donates=1, returns=lambda: (abstract(experiment), None))


def _step(experiment: Experiment, root: Key[Array, ""], state: Stream) -> tuple[Stream, Metrics]:
    training = experiment.training
    keys = jax.random.split(jax.random.fold_in(root, state.step), 3)
    answered = Amplification(state.apprentice, state.buffer, state.growth, jnp.zeros(()))
    if training.amplify_every == 1:
        answered = _amplify(experiment, keys[0], state)
    else:
        answered = jax.lax.cond(
            state.step % training.amplify_every == 0,
            lambda: _amplify(experiment, keys[0], state),
            lambda: answered,
        )
    apprentice, buffer, growth, assistant_answers = answered
    if apprentice is not None:
        apprentice = _imitate(experiment, keys[1], apprentice)
    batch = experiment.mesh.spread_rows(_draw(buffer, keys[2], training.batch))
    student, metrics = distillation.update(experiment.assistant, training, state.student, batch)
    state = Stream(state.step + 1, student, apprentice, buffer, growth)
    return state, metrics | _progress(experiment, state) | {"assistant_answers": assistant_answers}


def _progress(experiment: Experiment, state: Stream) -> Metrics:
    """What else there is to log of a step."""
    progress = {}
    if state.apprentice is not None:
        progress["demonstrations"] = state.apprentice.used.astype(jnp.float32)
        progress["overseer_loss"] = state.apprentice.validation_loss
    if experiment.curriculum.start:
        progress["size"] = state.growth.size.astype(jnp.float32)
    return progress


def _imitate(experiment: Experiment, key: Key[Array, ""], apprentice: Apprentice) -> Apprentice:
    assert isinstance(experiment.overseer, Learned)
    learned = imitation.learn(experiment.overseer, apprentice, key, experiment.mesh)
    return imitation.ask_for_more(experiment.overseer, learned)


class Amplification(NamedTuple):
    """What a batch of newly amplified contexts changes."""

    apprentice: Apprentice | None
    buffer: Buffer
    growth: Growth
    assistant_answers: Float[Array, ""]


def _amplify(experiment: Experiment, key: Key[Array, ""], state: Stream) -> Amplification:
    """New contexts, every question answered by the overseer with the target network's help."""
    task, overseer, assistant = experiment.task, experiment.overseer, experiment.assistant
    draw_key, teach_key, answer_key, alone_key = jax.random.split(key, 4)
    size = state.growth.size if experiment.curriculum.start else None
    contexts, questions = experiment.mesh.spread_rows(
        draw_for_training(
            task,
            draw_key,
            experiment.training.batch,
            experiment.all_depths,
            size,
            apart=experiment.evals.apart,
        )
    )
    target = state.student.target
    alone = assistant_alone(task, assistant, target, contexts)
    helper = helping(task, contexts, alone, experiment.questions.sub_answers)
    apprentice = state.apprentice
    if apprentice is not None:
        assert isinstance(overseer, Learned)
        apprentice = imitation.teach(overseer, apprentice, helper, contexts, questions, teach_key)
    bound = overseer.using(apprentice and apprentice.params)
    everywhere = jnp.ones(questions.shape[:2], bool)
    keys = jax.random.split(answer_key, everywhere.shape)
    tree = amplified(task, bound, helper, contexts, depth=1)(questions, everywhere, keys)
    growth = state.growth
    if experiment.curriculum.start and isinstance(task, GradedTask):
        keys = jax.random.split(alone_key, everywhere.shape)
        said = alone(questions, everywhere, keys)
        growth = grow(experiment.curriculum, task, growth, said.answer, tree.answer)
    return Amplification(
        apprentice,
        _put(state.buffer, contexts, questions, tree),
        growth,
        jnp.sum(count_assistant_answers(tree, everywhere)).astype(jnp.float32),
    )


def grow(
    curriculum: Curriculum,
    task: GradedTask,
    growth: Growth,
    alone: Int[Array, "batch questions answer_length"],
    amplified: Int[Array, "batch questions answer_length"],
) -> Growth:
    """Contexts grow by one once the target network agrees with its own amplified answers, those of
    "don't know" left out. The truth has no part in it.
    """
    knows = jnp.any(amplified != DONT_KNOW, axis=-1)
    agrees = knows & jnp.all(alone == amplified, axis=-1)
    share = jnp.sum(agrees, dtype=jnp.float32) / jnp.maximum(jnp.sum(knows, dtype=jnp.float32), 1)
    batches = growth.batches + 1
    # A plain mean at first, then one that forgets.
    weight = jnp.maximum(1 / curriculum.batches, 1 / batches.astype(jnp.float32))
    agreement = growth.agreement + weight * (share - growth.agreement)
    grows = (batches > curriculum.batches) & (agreement > curriculum.agreement)
    grows &= growth.size < task.largest
    return Growth(
        growth.size + jnp.where(grows, 1, 0),
        jnp.where(grows, 0.0, agreement),
        jnp.where(grows, 0, batches),
    )


def _put(
    buffer: Buffer,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    tree: Interaction,
) -> Buffer:
    capacity, new = len(buffer.contexts), len(contexts)
    place = (buffer.written + jnp.arange(new)) % capacity
    return Buffer(
        buffer.contexts.at[place].set(contexts),
        buffer.questions.at[place].set(questions),
        buffer.answers.at[place].set(tree.answer),
        buffer.written + new,
    )


def _draw(buffer: Buffer, key: Key[Array, ""], batch: int) -> dict[str, Array]:
    """A batch to train on, drawn with replacement from all places that are not held out."""
    filled = jnp.minimum(buffer.written, len(buffer.contexts))
    index = jax.random.randint(key, (batch,), 0, filled - filled // HELD_OUT)
    place = index + index // (HELD_OUT - 1)
    return {
        "context": buffer.contexts[place],
        "questions": buffer.questions[place],
        "answers": buffer.answers[place],
    }


def held_out(buffer: Buffer) -> dict[str, Array]:
    """What stands in the places that are never trained on, as far as they are filled."""
    filled = min(int(jax.device_get(buffer.written)), len(buffer.contexts))
    place = jnp.arange(HELD_OUT - 1, filled, HELD_OUT)
    return {
        "place": place,
        "context": buffer.contexts[place],
        "questions": buffer.questions[place],
        "answers": buffer.answers[place],
    }
