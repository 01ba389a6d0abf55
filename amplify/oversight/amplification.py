"""Iterated amplification: an overseer answers with the best assistant's help, and the next
assistant imitates the answers.

A learned overseer is taught first, by demonstrations with the same help. With streaming, answers
are made while the assistant trains. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from jaxtyping import Array, PyTree

from amplify.experiment.sections import Experiment
from amplify.oversight.draws import draw_round
from amplify.oversight.imitation import Lessons, trained_overseer
from amplify.oversight.labels import amplified_answers, ask_people
from amplify.oversight.loading import load_weights
from amplify.oversight.streaming import Streaming
from amplify.oversight.work import Made, Work
from amplify.records.round_folder import RoundFolder
from amplify.training.options import Training
from amplify.training.phase import Metrics, Phase, Roles, Trained
from amplify.types import Assistant

IMITATION, DISTILLATION, STREAMING = "imitation", "distillation", "streaming"
"""Phases by name."""


@dataclasses.dataclass(frozen=True)
class ImitateAnswers:
    """The objective: the assistant's own loss on amplified answers."""

    assistant: Any

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        loss: tuple[Array, Metrics] = self.assistant.loss(params, batch)
        return loss


def trained_assistant(assistant: Assistant, training: Training) -> Trained:
    """How an assistant is trained: with a fresh optimizer every round, and a target network."""
    return Trained(
        "assistant",
        assistant,
        ImitateAnswers(assistant),
        training,
        horizon=training.target_horizon,
        accumulate=training.accumulate,
    )


def distillation(assistant: Assistant, training: Training) -> Phase:
    """The phase that trains an assistant on stored answers."""
    return Phase(DISTILLATION, (trained_assistant(assistant, training),), training.schedule)


def streaming(experiment: Experiment) -> Phase:
    """The phase that trains the assistant, and its overseer if that learns, on answers made
    meanwhile.
    """
    trained = AMPLIFICATION.roles(experiment)
    return Phase(STREAMING, tuple(trained), experiment.training.schedule, Streaming(experiment))


@dataclasses.dataclass(frozen=True)
class Amplification:
    """`[oversight] kind = "amplification"`."""

    sub_answers: ClassVar = "assistant"
    """Who answers sub-questions, in training signals; see `oversight.work.Oversight`."""

    def roles(self, experiment: Experiment) -> list[Trained]:
        """The roles that rounds train; round 0 initialises them."""
        learner = experiment.learner
        overseers = [] if learner is None else [trained_overseer(learner)]
        return [trained_assistant(experiment.assistant, experiment.training), *overseers]

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """A round's phases, in order: a function of what the phases before have committed."""
        training, learner = experiment.training, experiment.learner
        streams = training.targets == "streaming"
        # With streaming the overseer learns along with the assistant; only at first it is alone.
        if learner is not None and not (streams and this.record["parent"]["round"]):
            yield Phase(
                IMITATION,
                (trained_overseer(learner),),
                dataclasses.replace(training.schedule, steps=learner.config.steps),
                Lessons(experiment),
                frozen=(("assistant", experiment.assistant),),
            )
        if streams:
            yield streaming(experiment)
        else:
            yield distillation(experiment.assistant, training)

    def signal(self, phase: Phase, work: Work) -> Made:
        """The round's questions, answered by the overseer with the best assistant's help; some of
        them by people, where people oversee.
        """
        experiment = work.experiment
        problems = draw_round(experiment, work.this.number)
        digest = work.roles["assistant"].digest
        people = ask_people(work)
        weights = load_weights(experiment, work.roles)
        return amplified_answers(
            experiment, work.this.number, weights, digest, problems, people, work.watch
        )


AMPLIFICATION = Amplification()
