"""Imitation: makes demonstrations for a learned overseer, as few as suffice, and trains it on them.

All demonstrations so far are one tree of arrays, so they can be part of a compiled training step
and be saved with its state. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.2
and appendix.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from amplify.experiment.sections import Experiment
from amplify.overseers.human import Human
from amplify.overseers.learned import FIRST_DEMONSTRATIONS, Learned, Transcript
from amplify.overseers.simulated import Simulated
from amplify.oversight.make_data import ask_people
from amplify.oversight.work import Work, draw_batch
from amplify.runtime import calls, effort
from amplify.training.mesh import ONE_DEVICE, Mesh
from amplify.training.phase import Metrics, RoleState, Source, Trained, Update
from amplify.training.step import ANSWERED
from amplify.trees.amplification import amplified, assistant_alone, sub_answerer
from amplify.trees.counting import count_calls
from amplify.types import Interaction, Respond, Roles

HELD_OUT = 10
"""Every 10th demonstration is held out for validation."""
RECENT = 50
"""Held-out demonstrations to validate on: the newest ones, since they change with the assistant."""
VALIDATE_EVERY = 10
"""Training steps of the overseer between validations."""
SETTLED = 0.01
"""Validation loss, in nats per demonstration, below which an overseer trains only in steps that
validate.
"""


class Demonstrations(NamedTuple):
    """Demonstrations for a learned overseer, and how well it imitates them."""

    shown: Transcript  # capacity: the whole budget, and a batch
    used: Int[Array, ""]  # number of demonstrations in `shown`
    wanted: Float[Array, ""]  # number that the budget allows so far
    validation_loss: Float[Array, ""]  # nats per demonstration; moving average of about 5 values
    lessons: Int[Array, ""]  # steps of the overseer so far, in all rounds


@dataclasses.dataclass(frozen=True)
class ImitateOverseer:
    """Objective of the overseer: cross-entropy of the utterances in demonstrations."""

    overseer: Learned

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: Transcript
    ) -> tuple[Array, Metrics]:
        loss, metrics = self.overseer.loss(params, batch)
        count = jnp.float32(len(batch.rows))
        return loss, {**metrics, "loss": loss, ANSWERED: count}


def trained_overseer(overseer: Learned) -> Trained:
    """Returns how a phase trains a learned overseer; its optimizer state is kept between rounds."""
    return Trained(
        "overseer", overseer, ImitateOverseer(overseer), overseer.config, keeps_optimizer=True
    )


def begin(overseer: Learned, at_once: int) -> Demonstrations:
    """Allocates demonstrations, none of them used yet.

    Args:
        overseer: its `demonstrations` is the largest number that may be used.
        at_once: the largest number that will be added at a time.
    """
    room = (overseer.config.demonstrations + at_once, overseer.asks + 1)
    return Demonstrations(
        Transcript(
            jnp.zeros((*room, overseer.row_length), jnp.int32),
            jnp.zeros((*room, overseer.utterance_length), jnp.int32),
        ),
        used=jnp.zeros((), jnp.int32),
        wanted=jnp.float32(FIRST_DEMONSTRATIONS),
        validation_loss=jnp.float32(jnp.inf),
        lessons=jnp.zeros((), jnp.int32),
    )


def demonstrate(
    overseer: Learned,
    demonstrations: Demonstrations,
    helper: Respond,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    key: Key[Array, ""],
) -> tuple[Demonstrations, dict[str, Int[Array, ""]]]:
    """Demonstrates one question of each context, if the budget allows more demonstrations.

    The task's own strategy demonstrates, with the same helper as the learned overseer.

    Args:
        overseer: the learner.
        demonstrations: those so far.
        helper: answers sub-questions.
        contexts: of the questions.
        questions: one of each context is chosen at random.
        key: consumed.

    Returns:
        The demonstrations, and how many answers each part gave for the new ones.
    """
    pick_key, answer_key = jax.random.split(key)
    batch, per_context = questions.shape[:2]
    picked = jax.random.randint(pick_key, (batch, 1, 1), 0, per_context)
    questions = jnp.take_along_axis(questions, picked, axis=1)

    def demonstrate_batch() -> tuple[Transcript, dict[str, Int[Array, ""]]]:
        task = overseer.task
        respond = amplified(task, Simulated(task).using(), helper, contexts, depth=1)
        keys = jax.random.split(answer_key, (batch, 1))
        everyone = jnp.ones((batch, 1), bool)
        tree = respond(questions, everyone, keys)
        counts = jax.tree.map(jnp.sum, count_calls(tree, everyone))
        counts[calls.DEMONSTRATOR] = counts.pop(calls.OVERSEER)
        return jax.tree.map(lambda part: part[:, 0], overseer.transcript(tree)), counts

    room = jnp.floor(demonstrations.wanted).astype(jnp.int32) - demonstrations.used
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(demonstrate_batch))
    new, counts = jax.lax.cond(room > 0, demonstrate_batch, lambda: nothing)
    # Demonstrations in excess lie beyond `used`, and will be overwritten.
    shown = _append(demonstrations, new)
    used = demonstrations.used + jnp.clip(room, 0, batch)
    return demonstrations._replace(shown=shown, used=used), counts


def add_from_people(
    overseer: Learned, demonstrations: Demonstrations, interactions: Interaction
) -> Demonstrations:
    """Adds demonstrations by people, as many as the budget allows.

    Args:
        overseer: the learner.
        demonstrations: those so far.
        interactions: of depth 1, with one leading axis.
    """
    new = overseer.transcript(interactions)
    room = overseer.config.demonstrations - int(jax.device_get(demonstrations.used))
    new = jax.tree.map(lambda part: part[:room], new)
    used = demonstrations.used + len(new.rows)
    return demonstrations._replace(shown=_append(demonstrations, new), used=used)


def _append(demonstrations: Demonstrations, new: Transcript) -> Transcript:
    """Writes new transcripts after those that are used."""
    return jax.tree.map(
        lambda all_, part: jax.lax.dynamic_update_slice_in_dim(all_, part, demonstrations.used, 0),
        demonstrations.shown,
        new,
    )


def next_batch(
    overseer: Learned,
    params: PyTree[Array],
    demonstrations: Demonstrations,
    key: Key[Array, ""],
    mesh: Mesh = ONE_DEVICE,
) -> tuple[Demonstrations, Update]:
    """Draws the overseer's next batch, and validates it every `VALIDATE_EVERY` calls.

    Args:
        overseer: the learner.
        params: its parameters.
        demonstrations: to draw from.
        key: consumed.
        mesh: shards the batch.

    Returns:
        The demonstrations with their validation loss updated, and the update. The update is skipped
        if the loss is below `SETTLED`, unless this call validates.
    """
    validates = demonstrations.lessons % VALIDATE_EVERY == 0
    train_key, validation_key = jax.random.split(key)
    trains: Bool[Array, ""] = validates | (demonstrations.validation_loss >= SETTLED)
    batch = mesh.spread_rows(_sample(overseer, demonstrations, train_key, held_out=False))
    loss = jax.lax.cond(
        validates,
        lambda: _validate(overseer, params, demonstrations, validation_key, mesh),
        lambda: demonstrations.validation_loss,
    )
    after = demonstrations._replace(validation_loss=loss, lessons=demonstrations.lessons + 1)
    return after, Update(batch, trains)


def update_budget(overseer: Learned, demonstrations: Demonstrations) -> Demonstrations:
    """Raises the budget of demonstrations, once per training step.

    It grows by `demonstrations_per_step` while the validation loss is at least 0.1 nats, by a tenth
    of that below, and by a hundredth below 0.01.

    Args:
        overseer: its config has `demonstrations_per_step`, and the largest budget.
        demonstrations: with the validation loss and the budget, both of which are scalars.
    """
    loss, config = demonstrations.validation_loss, overseer.config
    share = jnp.where(loss >= 0.1, 1.0, jnp.where(loss >= 0.01, 0.1, 0.01))
    wanted = demonstrations.wanted + config.demonstrations_per_step * share
    return demonstrations._replace(wanted=jnp.minimum(wanted, float(config.demonstrations)))


def _validate(
    overseer: Learned,
    params: PyTree[Array],
    demonstrations: Demonstrations,
    key: Key[Array, ""],
    mesh: Mesh,
) -> Float[Array, ""]:
    """The validation loss, what it was before counting for four fifths."""
    batch = mesh.spread_rows(_sample(overseer, demonstrations, key, held_out=True))
    _, metrics = overseer.loss(params, batch)
    before, now = demonstrations.validation_loss, metrics["nats"]
    return jnp.where(jnp.isfinite(before), 0.8 * before + 0.2 * now, now)


def _sample(
    overseer: Learned, demonstrations: Demonstrations, key: Key[Array, ""], *, held_out: bool
) -> Transcript:
    """Draws a batch with replacement: of the newest held-out demonstrations, or of all others."""
    tens = demonstrations.used // HELD_OUT
    first = jnp.maximum(tens - RECENT, 0) if held_out else 0
    end = jnp.maximum(tens if held_out else demonstrations.used - tens, first + 1)
    index = jax.random.randint(key, (overseer.config.batch,), first, end)
    # The last of each ten is held out.
    place = HELD_OUT * (index + 1) - 1 if held_out else index + index // (HELD_OUT - 1)
    return jax.tree.map(lambda all_: all_[place], demonstrations.shown)


def metrics(demonstrations: Demonstrations) -> Metrics:
    """Returns metrics to log."""
    return {
        "demonstrations": demonstrations.used.astype(jnp.float32),
        "overseer_loss": demonstrations.validation_loss,
    }


def describe(before: Demonstrations | None, after: Demonstrations) -> dict[str, Any]:
    """Returns entries for the round's record.

    Args:
        before: the demonstrations before the round; None: there were none.
        after: those after it.
    """
    used, loss = jax.device_get((after.used, after.validation_loss))
    known = 0 if before is None else int(jax.device_get(before.used))
    return {
        "demonstrations": int(used) - known,
        "demonstrations_so_far": int(used),
        "overseer_loss": round(float(loss), 5),
    }


@dataclasses.dataclass(frozen=True)
class ImitationSource(Source):
    """Source of a phase that trains only the overseer: in demonstrations, the best assistant so far
    answers sub-questions.
    """

    experiment: Experiment
    traced = True

    @property
    def overseer(self) -> Learned:
        assert self.experiment.learner is not None
        return self.experiment.learner

    def begin(self, work: Work | None, carried: Roles) -> Demonstrations:
        before = carried.get("overseer")
        if before is None:
            before = begin(self.overseer, self.experiment.training.batch)
        people = None if work is None else ask_people(work)
        if people is None or people.demonstrated is None:
            return before
        return add_from_people(self.overseer, before, people.demonstrated)

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: Demonstrations,
        key: Key[Array, ""],
    ) -> tuple[Demonstrations, dict[str, Update], Metrics]:
        experiment, overseer = self.experiment, self.overseer
        draw_key, demonstrate_key, lesson_key = jax.random.split(key, 3)
        by_people, asked = isinstance(experiment.overseer, Human), {}
        if not by_people:  # otherwise all demonstrations come from people, in `begin`
            contexts, questions = draw_batch(experiment, draw_key)
            alone = assistant_alone(
                experiment.task, experiment.assistant, frozen["assistant"], contexts
            )
            helper = sub_answerer(experiment.task, contexts, alone, experiment.sub_answers)
            state, counts = demonstrate(
                overseer, state, helper, contexts, questions, demonstrate_key
            )
            worked = {effort.DEMONSTRATION: counts[calls.DEMONSTRATOR]}
            asked = calls.as_metrics(counts) | effort.as_metrics(worked)
        params = live["overseer"].params
        state, update = next_batch(overseer, params, state, lesson_key, experiment.mesh)
        state = state if by_people else update_budget(overseer, state)
        return state, {"overseer": update}, metrics(state) | asked

    def carry(self, state: Demonstrations) -> dict[str, PyTree[Array]]:
        return {"overseer": state}

    def facts(
        self, carried: Roles, state: Demonstrations, log: list[dict[str, Any]]
    ) -> dict[str, Any]:
        return describe(carried.get("overseer"), state)
