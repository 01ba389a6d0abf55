"""How the supervised parts of reward modelling are fitted: the reference policy to drafts, and the
reward model to reviews.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import optax
from jaxtyping import Array, Key, PyTree
from pydantic import Field

from amplify.experiment.sections import Experiment
from amplify.oversight.work import Work, draw_batch
from amplify.task_abilities import draft_of
from amplify.tasks.batching import vmap_questions
from amplify.training.phase import Metrics, RoleState, Source, Update
from amplify.types import Roles

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclasses.dataclass(frozen=True)
class Fitting:
    """How a reward model is fitted: AdamW, with cosine decay of the learning rate."""

    steps: Count = 300
    """Number of training steps."""
    learning_rate: Positive = 3e-3
    """At the first step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decay of the weights per step, as a multiple of the learning rate."""

    def make_optimizer(self) -> optax.GradientTransformation:
        """Makes the optimizer."""
        schedule = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        descent = optax.adamw(schedule, weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(1.0), descent)


@dataclasses.dataclass(frozen=True)
class DraftFitting(Fitting):
    """How the reference policy is fitted to drafts, likewise."""

    steps: Count = 400
    """Number of training steps."""
    learning_rate: Positive = 2e-3
    """At the first step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of the weights per step, as a multiple of the learning rate."""


@dataclasses.dataclass(frozen=True)
class Drafts(Source):
    """Drafts, which the reference policy imitates: answers of somebody who does not know what is
    right.
    """

    experiment: Experiment
    traced = True

    def begin(self, work: Work | None, carried: Roles) -> tuple[()]:
        """There is no state."""
        return ()

    def next(
        self,
        frozen: Roles,
        live: Mapping[str, RoleState],
        state: PyTree[Array],
        key: Key[Array, ""],
    ) -> tuple[PyTree[Array], dict[str, Update], Metrics]:
        """Writes a draft for each of a batch of questions."""
        draft = draft_of(self.experiment.task)
        assert draft is not None  # checked when the experiment file was read
        draw_key, draft_key = jax.random.split(key)
        contexts, questions = draw_batch(self.experiment, draw_key)
        keys = jax.random.split(draft_key, questions.shape[:2])
        answers = vmap_questions(draft)(contexts, questions, keys)
        batch = {"context": contexts, "questions": questions, "answers": answers}
        return (), dict.fromkeys(live, Update(batch)), {}
