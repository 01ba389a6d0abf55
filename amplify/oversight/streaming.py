"""Streaming amplification: the target network's amplified answers, made during training.

In place of the round's parent, the improving target network answers sub-questions. Each step does
four things: it demonstrates, trains the overseer on demonstrations, amplifies new questions into a
buffer, and trains the assistant on the buffer. The state is one tree of arrays, and a step one
compiled function of it, so a killed run resumes exactly. Christiano, Shlegeris and Amodei 2018
(arXiv:1810.08575), section 2.4 and appendix.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.experiment.sections import Curriculum, Experiment
from amplify.models.abilities import simulates_person
from amplify.oversight import imitation
from amplify.oversight.imitation import Demonstrations
from amplify.oversight.make_data import amplify_for, sample_trees
from amplify.oversight.work import Made, Work, draw_batch
from amplify.runtime import calls, effort
from amplify.task_abilities import Sizes, sizes_of
from amplify.training.phase import Metrics, RoleState, Source, Update
from amplify.training.step import ASSISTANT_ANSWERS
from amplify.trees.amplification import amplified, assistant_alone, sub_answerer
from amplify.trees.counting import count_calls
from amplify.types import DONT_KNOW, Interaction, Problems, Roles

HELD_OUT = 10
"""The last of every 10 slots of the buffer is held out from training."""


class Buffer(NamedTuple):
    """Ring buffer of the newest contexts with their amplified answers."""

    contexts: Int[Array, "capacity facts fact_length"]
    questions: Int[Array, "capacity questions question_length"]
    answers: Int[Array, "capacity questions answer_length"]
    written: Int[Array, ""]  # contexts written so far, including those overwritten


class Growth(NamedTuple):
    """State of the curriculum."""

    size: Int[Array, ""]  # of contexts; meaningless without a curriculum
    agreement: Float[Array, ""]  # mean fraction of amplified answers that the target network gives
    batches: Int[Array, ""]  # since the size last grew


class Stream(NamedTuple):
    """State of the source."""

    demonstrations: Demonstrations | None  # None if the overseer is not learned
    buffer: Buffer
    growth: Growth


Calls = dict[str, Int[Array, ""]]
"""Number of answers by the part that gave them."""


class AmplifiedBatch(NamedTuple):
    """Result of amplifying a batch of new contexts."""

    stream: Stream
    assistant_answers: Int[Array, ""]  # sub-questions that the assistant answered for the overseer
    calls: Calls  # all answers, including those for demonstrations and the curriculum
    effort: Calls  # actions that a simulated person took, by `runtime.effort`


@dataclasses.dataclass(frozen=True)
class Streaming(Source):
    """Source of a phase that trains the assistant, and a learned overseer."""

    experiment: Experiment
    traced = True

    def begin(self, work: Work | None, carried: Roles) -> Stream:
        task, asked = self.experiment.task, self.experiment.questions

        def empty(*shape: int) -> Array:
            return jnp.zeros((asked.contexts, *shape), jnp.int32)

        buffer = Buffer(
            empty(task.facts, task.fact_length),
            empty(asked.per_context, task.question_length),
            empty(asked.per_context, task.answer_length),
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

        def amplify() -> AmplifiedBatch:
            return _amplify(experiment, keys[0], live, state)

        if training.amplify_every == 1:
            done = amplify()
        else:
            shape = jax.eval_shape(amplify)
            counts = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape[1:])
            done = jax.lax.cond(
                live["assistant"].step % training.amplify_every == 0,
                amplify,
                lambda: AmplifiedBatch(state, *counts),
            )
        state, updates = done.stream, {}
        if state.demonstrations is not None:
            learner, params = experiment.learner, live["overseer"].params
            assert learner is not None
            demonstrations, updates["overseer"] = imitation.next_batch(
                learner, params, state.demonstrations, keys[1], experiment.mesh
            )
            state = state._replace(demonstrations=imitation.update_budget(learner, demonstrations))
        batch = experiment.mesh.spread_rows(_draw(state.buffer, keys[2], training.batch))
        updates["assistant"] = Update(batch)
        counts = {
            ASSISTANT_ANSWERS: done.assistant_answers,
            **calls.as_metrics(done.calls),
            **effort.as_metrics(done.effort),
        }
        return state, updates, _metrics(experiment, state) | counts

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
        """Returns the buffer's held-out slots, and trees of the final target network."""
        experiment, mesh = self.experiment, self.experiment.mesh
        overseer = live["overseer"].answering if "overseer" in live else None
        weights, buffer = mesh.bring_here(
            ({"assistant": live["assistant"].answering, "overseer": overseer}, state.buffer)
        )
        rows = jax.device_get(held_out(buffer))
        place = jnp.asarray(rows["place"])
        problems = Problems(
            jnp.stack([jnp.full_like(place, work.this.number), place], axis=1).astype(jnp.uint32),
            jnp.asarray(rows["context"]),
            jnp.asarray(rows["questions"]),
        )
        [chunk, *_] = amplify_for(experiment, weights, problems)
        return Made(
            {name: rows[name] for name in ("context", "questions", "answers")},
            sample_trees(experiment, problems, chunk),
            {},
            f"Round {work.this.number}: a sample of the streamed answers, never trained on.",
        )


def _metrics(experiment: Experiment, state: Stream) -> Metrics:
    """Returns metrics to log."""
    found = {} if state.demonstrations is None else imitation.metrics(state.demonstrations)
    if experiment.curriculum.start:
        found["size"] = state.growth.size.astype(jnp.float32)
    return found


def _amplify(
    experiment: Experiment, key: Key[Array, ""], live: Mapping[str, RoleState], state: Stream
) -> AmplifiedBatch:
    """Draws new contexts; the overseer answers all questions with the target network's help."""
    task, overseer, assistant = experiment.task, experiment.overseer, experiment.assistant
    draw_key, demonstrate_key, answer_key, alone_key = jax.random.split(key, 4)
    size = state.growth.size if experiment.curriculum.start else None
    contexts, questions = draw_batch(experiment, draw_key, size)
    alone = assistant_alone(task, assistant, live["assistant"].answering, contexts)
    helper = sub_answerer(task, contexts, alone, experiment.sub_answers)
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
    worked = effort.of_answers(counts) if simulates_person(overseer) else {}
    if shown:
        worked |= {effort.DEMONSTRATION: shown[calls.DEMONSTRATOR]}
    growth = state.growth
    sizes = sizes_of(task)
    if experiment.curriculum.start and sizes is not None:
        keys = jax.random.split(alone_key, everywhere.shape)
        own = alone(questions, everywhere, keys)
        counts[calls.ASSISTANT] += jnp.int32(everywhere.size)
        growth = grow(experiment.curriculum, sizes, growth, own.answer, tree.answer)
    for part, number in shown.items():
        counts[part] = counts.get(part, jnp.int32(0)) + number
    return AmplifiedBatch(
        Stream(demonstrations, _write(state.buffer, contexts, questions, tree), growth),
        helped,
        counts,
        worked,
    )


def count_answers(experiment: Experiment, log: list[dict[str, Any]]) -> dict[str, int]:
    """Counts the answers in a streaming round.

    Args:
        experiment: its batches determine the overseer's answers.
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
    """Increases the size of contexts by one once the target network reproduces enough of its own
    amplified answers, without those of "don't know". The truth is not used.

    Args:
        curriculum: the fraction of answers to reproduce, and over how many batches.
        sizes: of the task; contexts stop growing at the largest.
        growth: the curriculum's state.
        alone: the target network's own answers.
        amplified: its amplified answers.
    """
    knows = jnp.any(amplified != DONT_KNOW, axis=-1)
    reproduced = knows & jnp.all(alone == amplified, axis=-1)
    share = jnp.sum(reproduced, dtype=jnp.float32) / jnp.maximum(
        jnp.sum(knows, dtype=jnp.float32), 1
    )
    batches = growth.batches + 1
    # A mean over all batches at first, then an exponential moving average.
    weight = jnp.maximum(1 / curriculum.batches, 1 / batches.astype(jnp.float32))
    mean = growth.agreement + weight * (share - growth.agreement)
    grows = (batches > curriculum.batches) & (mean > curriculum.agreement)
    grows &= growth.size < sizes.largest
    return Growth(
        growth.size + jnp.where(grows, 1, 0),
        jnp.where(grows, 0.0, mean),
        jnp.where(grows, 0, batches),
    )


def _write(
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
    """Draws a training batch with replacement from all slots that are not held out."""
    filled = jnp.minimum(buffer.written, len(buffer.contexts))
    index = jax.random.randint(key, (batch,), 0, filled - filled // HELD_OUT)
    place = index + index // (HELD_OUT - 1)
    return {
        "context": buffer.contexts[place],
        "questions": buffer.questions[place],
        "answers": buffer.answers[place],
    }


def held_out(buffer: Buffer) -> dict[str, Array]:
    """Returns the contents of the held-out slots that are filled, and their places.

    Args:
        buffer: on the devices of this process.
    """
    filled = min(int(jax.device_get(buffer.written)), len(buffer.contexts))
    place = jnp.arange(HELD_OUT - 1, filled, HELD_OUT)
    return {
        "place": place,
        "context": buffer.contexts[place],
        "questions": buffer.questions[place],
        "answers": buffer.answers[place],
    }
