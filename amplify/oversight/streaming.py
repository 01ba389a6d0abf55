"""Streaming amplification: the target network's amplified answers, made while the assistant trains.

Where a round's stored answers all come from its parent, here the target network answers
sub-questions as it improves, and four things happen side by side: demonstrations, imitation of
them, amplification into a buffer, and training on it. All of it is one tree of arrays and one
compiled step from such a tree to the next, so that a killed training is resumed exactly.
Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.4 and appendix.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.experiment.sections import Curriculum, Experiment
from amplify.oversight import imitation
from amplify.oversight.imitation import Demonstrations
from amplify.oversight.labels import amplify_as_in, sample_trees
from amplify.oversight.work import Made, Work, draw_batch
from amplify.runtime import calls
from amplify.task_abilities import Sizes, sizes_of
from amplify.training.phase import Metrics, Roles, RoleState, Source, Update
from amplify.training.step import ASSISTANT_ANSWERS
from amplify.trees.amplification import amplified, assistant_alone, count_calls, helping
from amplify.types import DONT_KNOW, Interaction, Problems, Weights

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
    """The state of the source."""

    demonstrations: Demonstrations | None  # None where the overseer is not learned
    buffer: Buffer
    growth: Growth


Calls = dict[str, Int[Array, ""]]
"""Answers by the part that gave them."""


class Amplification(NamedTuple):
    """What a batch of newly amplified contexts changes."""

    stream: Stream
    assistant_answers: Int[Array, ""]  # sub-questions that the assistant answered for the overseer
    calls: Calls  # everybody's answers, for demonstrations and the curriculum too


@dataclasses.dataclass(frozen=True)
class Streaming(Source):
    """The source of a phase that trains the assistant, and its overseer if that is learned."""

    experiment: Experiment
    traced = True

    def begin(self, work: Work | None, carried: Roles) -> Stream:
        task, asked = self.experiment.task, self.experiment.questions

        def room(*shape: int) -> Array:
            return jnp.zeros((asked.contexts, *shape), jnp.int32)

        buffer = Buffer(
            room(task.facts, task.fact_length),
            room(asked.per_context, task.question_length),
            room(asked.per_context, task.answer_length),
            jnp.zeros((), jnp.int32),
        )
        learner, demonstrations = self.experiment.learner, carried.get("overseer")
        if learner is not None and demonstrations is None:
            demonstrations = imitation.begin(learner, self.experiment.training.batch)
        size = carried.get("assistant", jnp.int32(self.experiment.curriculum.start))
        growth = Growth(size, jnp.zeros(()), jnp.zeros((), jnp.int32))
        return Stream(demonstrations, buffer, growth)

    def next(
        self, frozen: Roles, live: Mapping[str, RoleState], state: Stream, key: Key[Array, ""]
    ) -> tuple[Stream, dict[str, Update], Metrics]:
        experiment, training = self.experiment, self.experiment.training
        keys = jax.random.split(key, 3)

        def amplify() -> Amplification:
            return _amplify(experiment, keys[0], live, state)

        if training.amplify_every == 1:
            done = amplify()
        else:
            shape = jax.eval_shape(amplify)
            counts = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape[1:])
            done = jax.lax.cond(
                live["assistant"].step % training.amplify_every == 0,
                amplify,
                lambda: Amplification(state, *counts),
            )
        state, updates = done.stream, {}
        if state.demonstrations is not None:
            learner, params = experiment.learner, live["overseer"].params
            assert learner is not None
            demonstrations, updates["overseer"] = imitation.lesson(
                learner, params, state.demonstrations, keys[1], experiment.mesh
            )
            state = state._replace(demonstrations=imitation.allow_more(learner, demonstrations))
        batch = experiment.mesh.spread_rows(_draw(state.buffer, keys[2], training.batch))
        updates["assistant"] = Update(batch)
        counts = {ASSISTANT_ANSWERS: done.assistant_answers, **calls.as_metrics(done.calls)}
        return state, updates, _progress(experiment, state) | counts

    def carry(self, state: Stream) -> dict[str, PyTree[Array]]:
        return {
            **({"assistant": state.growth.size} if self.experiment.curriculum.start else {}),
            **({} if state.demonstrations is None else {"overseer": state.demonstrations}),
        }

    def facts(self, carried: Roles, state: Stream, log: list[dict[str, Any]]) -> dict[str, Any]:
        taught = {}
        if state.demonstrations is not None:
            taught = imitation.describe(carried.get("overseer"), state.demonstrations)
        size = {"size": int(jax.device_get(state.growth.size))}
        return size | taught | count_answers(self.experiment, log)

    def sample(self, work: Work, live: Mapping[str, RoleState], state: Stream) -> Made:
        """The buffer's held-out part as a data set, and trees of the final target network."""
        experiment, mesh = self.experiment, self.experiment.mesh
        overseer = live["overseer"].answering if "overseer" in live else None
        weights, buffer = mesh.bring_here(
            (Weights(live["assistant"].answering, overseer), state.buffer)
        )
        rows = jax.device_get(held_out(buffer))
        place = jnp.asarray(rows["place"])
        problems = Problems(
            jnp.stack([jnp.full_like(place, work.this.number), place], axis=1).astype(jnp.uint32),
            jnp.asarray(rows["context"]),
            jnp.asarray(rows["questions"]),
        )
        [chunk, *_] = amplify_as_in(experiment, weights, problems)
        return Made(
            {name: rows[name] for name in ("context", "questions", "answers")},
            sample_trees(experiment, problems, chunk),
            {},
            f"Round {work.this.number}: a sample of the streamed answers, never trained on.",
        )


def _progress(experiment: Experiment, state: Stream) -> Metrics:
    """What there is to log of a step."""
    found = {} if state.demonstrations is None else imitation.progress(state.demonstrations)
    if experiment.curriculum.start:
        found["size"] = state.growth.size.astype(jnp.float32)
    return found


def _amplify(
    experiment: Experiment, key: Key[Array, ""], live: Mapping[str, RoleState], state: Stream
) -> Amplification:
    """New contexts, every question answered by the overseer with the target network's help."""
    task, overseer, assistant = experiment.task, experiment.overseer, experiment.assistant
    draw_key, demonstrate_key, answer_key, alone_key = jax.random.split(key, 4)
    size = state.growth.size if experiment.curriculum.start else None
    contexts, questions = draw_batch(experiment, draw_key, size)
    alone = assistant_alone(task, assistant, live["assistant"].answering, contexts)
    helper = helping(task, contexts, alone, experiment.sub_answers)
    demonstrations, params = state.demonstrations, None
    shown: Calls = {}
    if demonstrations is not None:
        assert experiment.learner is not None
        params = live["overseer"].answering
        demonstrations, shown = imitation.demonstrate(
            experiment.learner, demonstrations, helper, contexts, questions, demonstrate_key
        )
    everywhere = jnp.ones(questions.shape[:2], bool)
    keys = jax.random.split(answer_key, everywhere.shape)
    respond = amplified(task, overseer.using(params), helper, contexts, depth=1)
    tree = respond(questions, everywhere, keys)
    counts = jax.tree.map(jnp.sum, count_calls(tree, everywhere))
    helped = counts[calls.ASSISTANT]
    growth = state.growth
    sizes = sizes_of(task)
    if experiment.curriculum.start and sizes is not None:
        keys = jax.random.split(alone_key, everywhere.shape)
        said = alone(questions, everywhere, keys)
        counts[calls.ASSISTANT] += jnp.int32(everywhere.size)
        growth = grow(experiment.curriculum, sizes, growth, said.answer, tree.answer)
    for part, number in shown.items():
        counts[part] = counts.get(part, jnp.int32(0)) + number
    return Amplification(
        Stream(demonstrations, _put(state.buffer, contexts, questions, tree), growth),
        helped,
        counts,
    )


def count_answers(experiment: Experiment, log: list[dict[str, Any]]) -> dict[str, int]:
    """How many answers a streaming round took, exactly.

    Args:
        log: rows of the training log; each has the sum of ASSISTANT_ANSWERS over its steps.
    """
    training = experiment.training
    batches = -(-training.steps // training.amplify_every)
    return {
        "overseer_answers": batches * training.batch * experiment.questions.per_context,
        ASSISTANT_ANSWERS: sum(row[ASSISTANT_ANSWERS] for row in log),
    }


def grow(
    curriculum: Curriculum,
    sizes: Sizes,
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
    grows &= growth.size < sizes.largest
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
