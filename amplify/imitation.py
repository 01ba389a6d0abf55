"""Imitation: teaches a learned overseer from demonstrations, and asks for as few as it can.

An apprentice is a learned overseer with what it was shown so far; everything about it is one tree
of arrays, so that it is trained inside a larger compiled step and saved with it. Christiano,
Shlegeris and Amodei 2018 (arXiv:1810.08575), section 2.2 and appendix.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from amplify.amplification import amplified, assistant_alone, helping
from amplify.experiment import Experiment
from amplify.mesh import ONE_DEVICE, Mesh
from amplify.overseers.human import Human
from amplify.overseers.learned import FIRST_DEMONSTRATIONS, Learned, Transcript
from amplify.overseers.simulated import Simulated
from amplify.problems import draw_for_training
from amplify.types import Interaction, Respond

HELD_OUT = 10
"""One of so many demonstrations is for validation, never for training."""
RECENT = 50
"""So many of those, the newest, are looked at: what is demonstrated changes with the assistant."""
VALIDATE_EVERY = 10
"""Training steps between two looks at those."""
SETTLED = 0.01
"""Validation loss, in nats a demonstration, below which an apprentice trains only when it
validates."""


class Apprentice(NamedTuple):
    params: PyTree[Array]
    optimizer: PyTree[Array]
    demonstrations: Transcript  # room for all that may be used, and a batch
    used: Int[Array, ""]  # demonstrations there are
    wanted: Float[Array, ""]  # that the budget allows by now
    validation_loss: Float[Array, ""]  # nats a demonstration, averaged over some five looks
    step: Int[Array, ""]


def begin(overseer: Learned, key: Key[Array, ""], at_once: int) -> Apprentice:
    """Untrained and shown nothing; `at_once` demonstrations at most will be shown at a time."""
    params = overseer.init(key)
    room = (overseer.config.demonstrations + at_once, overseer.asks + 1)
    return Apprentice(
        params,
        _optimizer(overseer).init(params),
        Transcript(
            jnp.zeros((*room, overseer.row_length), jnp.int32),
            jnp.zeros((*room, overseer.utterance_length), jnp.int32),
        ),
        used=jnp.zeros((), jnp.int32),
        wanted=jnp.float32(FIRST_DEMONSTRATIONS),
        validation_loss=jnp.float32(jnp.inf),
        step=jnp.zeros((), jnp.int32),
    )


@functools.cache
def abstract(overseer: Learned, at_once: int) -> Apprentice:
    """Shapes and dtypes of an apprentice, nothing allocated."""
    return jax.eval_shape(lambda: begin(overseer, jax.random.key(0), at_once))


def teach(
    overseer: Learned,
    apprentice: Apprentice,
    helper: Respond,
    contexts: Int[Array, "batch facts fact_length"],
    questions: Int[Array, "batch questions question_length"],
    key: Key[Array, ""],
) -> Apprentice:
    """Demonstrates one question of each context, if more demonstrations are wanted. Consumes the
    key.

    The task's own strategy demonstrates, with the same helper as the learned overseer has.
    """
    pick_key, answer_key = jax.random.split(key)
    batch, per_context = questions.shape[:2]
    picked = jax.random.randint(pick_key, (batch, 1, 1), 0, per_context)
    questions = jnp.take_along_axis(questions, picked, axis=1)

    def demonstrate() -> Transcript:
        task = overseer.task
        respond = amplified(task, Simulated(task).using(), helper, contexts, depth=1)
        keys = jax.random.split(answer_key, (batch, 1))
        shown = overseer.transcript(respond(questions, jnp.ones((batch, 1), bool), keys))
        return jax.tree.map(lambda part: part[:, 0], shown)

    room = jnp.floor(apprentice.wanted).astype(jnp.int32) - apprentice.used
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(demonstrate))
    shown = jax.lax.cond(room > 0, demonstrate, lambda: nothing)
    kept = jax.tree.map(
        # What is not wanted lies beyond `used`, and the next ones are written over it.
        lambda all_, new: jax.lax.dynamic_update_slice_in_dim(all_, new, apprentice.used, 0),
        apprentice.demonstrations,
        shown,
    )
    return apprentice._replace(demonstrations=kept, used=apprentice.used + jnp.clip(room, 0, batch))


def show(overseer: Learned, apprentice: Apprentice, demonstrated: Interaction) -> Apprentice:
    """Adds what people did, as much as there is room for: interactions of depth 1, with one
    leading axis.
    """
    new = overseer.transcript(demonstrated)
    room = overseer.config.demonstrations - int(jax.device_get(apprentice.used))
    new = jax.tree.map(lambda part: part[:room], new)
    kept = jax.tree.map(
        lambda all_, part: jax.lax.dynamic_update_slice_in_dim(all_, part, apprentice.used, 0),
        apprentice.demonstrations,
        new,
    )
    return apprentice._replace(demonstrations=kept, used=apprentice.used + len(new.rows))


def ask_for_more(overseer: Learned, apprentice: Apprentice) -> Apprentice:
    """The budget rule, once a training step of the assistant (or a lesson): so many demonstrations
    more while the validation loss is 0.1 or above, a tenth of that below, a hundredth below 0.01.
    """
    loss, config = apprentice.validation_loss, overseer.config
    share = jnp.where(loss >= 0.1, 1.0, jnp.where(loss >= 0.01, 0.1, 0.01))
    wanted = apprentice.wanted + config.demonstrations_per_step * share
    return apprentice._replace(wanted=jnp.minimum(wanted, float(config.demonstrations)))


def learn(
    overseer: Learned, apprentice: Apprentice, key: Key[Array, ""], mesh: Mesh = ONE_DEVICE
) -> Apprentice:
    """A training step, unless it has settled, and at times a look at the held-out demonstrations.
    Consumes the key. `mesh`: over which the demonstrations of a batch are spread.
    """
    validates = apprentice.step % VALIDATE_EVERY == 0
    train_key, validation_key = jax.random.split(key)
    params, optimizer = jax.lax.cond(
        validates | (apprentice.validation_loss >= SETTLED),
        lambda: _train(overseer, apprentice, train_key, mesh),
        lambda: (apprentice.params, apprentice.optimizer),
    )
    loss = jax.lax.cond(
        validates,
        lambda: _validate(overseer, apprentice, validation_key, mesh),
        lambda: apprentice.validation_loss,
    )
    return apprentice._replace(
        params=params, optimizer=optimizer, validation_loss=loss, step=apprentice.step + 1
    )


def _train(
    overseer: Learned, apprentice: Apprentice, key: Key[Array, ""], mesh: Mesh
) -> tuple[PyTree[Array], PyTree[Array]]:
    """Parameters and optimizer after one step."""
    batch = mesh.spread_rows(_draw(overseer, apprentice, key, held_out=False))
    gradients, _ = jax.grad(overseer.loss, has_aux=True)(apprentice.params, batch)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
        updates, optimizer = _optimizer(overseer).update(
            gradients, apprentice.optimizer, apprentice.params
        )
    return optax.apply_updates(apprentice.params, updates), optimizer


def _validate(
    overseer: Learned, apprentice: Apprentice, key: Key[Array, ""], mesh: Mesh
) -> Float[Array, ""]:
    """The validation loss, what it was before counting for four fifths."""
    batch = mesh.spread_rows(_draw(overseer, apprentice, key, held_out=True))
    _, metrics = overseer.loss(apprentice.params, batch)
    before, now = apprentice.validation_loss, metrics["nats"]
    return jnp.where(jnp.isfinite(before), 0.8 * before + 0.2 * now, now)


def _draw(
    overseer: Learned, apprentice: Apprentice, key: Key[Array, ""], *, held_out: bool
) -> Transcript:
    """A batch of demonstrations, with replacement: of the newest that are held out, or of all
    others.
    """
    tens = apprentice.used // HELD_OUT
    first = jnp.maximum(tens - RECENT, 0) if held_out else 0
    end = jnp.maximum(tens if held_out else apprentice.used - tens, first + 1)
    index = jax.random.randint(key, (overseer.config.batch,), first, end)
    # Of each ten the last is held out.
    place = HELD_OUT * (index + 1) - 1 if held_out else index + index // (HELD_OUT - 1)
    return jax.tree.map(lambda all_: all_[place], apprentice.demonstrations)


def _optimizer(overseer: Learned) -> optax.GradientTransformation:
    warm_up = optax.linear_schedule(0.0, overseer.config.learning_rate, 100)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(warm_up, b2=0.98))


Lesson = Callable[[Key[Array, ""], int, PyTree[Array], Apprentice], Apprentice]


def make_lesson(experiment: Experiment) -> Lesson:
    """Demonstrations and a training step, without an assistant that learns; compiled once for an
    experiment and its mesh.

    The parent's target network answers the sub-questions of what is demonstrated. What is random is
    drawn from the key and the lesson's number. Donates the apprentice.
    """
    return _make_lesson(experiment, experiment.mesh)


@functools.cache
def _make_lesson(experiment: Experiment, mesh: Mesh) -> Lesson:
    learner, batch = experiment.learner, experiment.training.batch
    assert learner is not None
    lesson = functools.partial(_lesson, experiment)
    return mesh.compile_step(lesson, donates=3, returns=lambda: abstract(learner, batch))


def _lesson(
    experiment: Experiment,
    root: Key[Array, ""],
    number: int | Int[Array, ""],
    parent: PyTree[Array],
    apprentice: Apprentice,
) -> Apprentice:
    task, overseer, assistant = experiment.task, experiment.learner, experiment.assistant
    assert overseer is not None
    mesh, key = experiment.mesh, jax.random.fold_in(root, number)
    draw_key, teach_key, learn_key = jax.random.split(key, 3)
    if isinstance(experiment.overseer, Human):  # people have shown what there is to see
        return learn(overseer, apprentice, learn_key, mesh)
    contexts, questions = mesh.spread_rows(
        draw_for_training(
            task,
            draw_key,
            experiment.training.batch,
            experiment.all_depths,
            apart=experiment.evals.apart,
        )
    )
    alone = assistant_alone(task, assistant, parent, contexts)
    helper = helping(task, contexts, alone, experiment.questions.sub_answers)
    apprentice = teach(overseer, apprentice, helper, contexts, questions, teach_key)
    return ask_for_more(overseer, learn(overseer, apprentice, learn_key, mesh))
