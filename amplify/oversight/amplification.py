"""Iterated amplification: an overseer answers questions with the best assistant's help, and the
next assistant imitates the answers.

A learned overseer is trained first, on demonstrations made with the same help. With streaming,
answers are made during training. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from jaxtyping import Array, PyTree

from amplify.experiment.sections import Experiment
from amplify.oversight.draws import draw_round
from amplify.oversight.imitation import ImitationSource, trained_overseer
from amplify.oversight.make_data import amplified_answers, ask_people
from amplify.oversight.restore import load_weights
from amplify.oversight.streaming import Streaming
from amplify.oversight.work import Made, Work
from amplify.records.round_folder import RoundFolder
from amplify.training.options import Training
from amplify.training.phase import Metrics, Phase, Trained
from amplify.types import Assistant, Roles

IMITATION, DISTILLATION, STREAMING = "imitation", "distillation", "streaming"
"""Names of phases."""


@dataclasses.dataclass(frozen=True)
class ImitateAnswers:
    """Objective of the assistant: its model's own loss on amplified answers."""

    assistant: Any

    def __call__(
        self, params: PyTree[Array], frozen: Roles, batch: dict[str, Array]
    ) -> tuple[Array, Metrics]:
        loss: tuple[Array, Metrics] = self.assistant.loss(params, batch)
        return loss


def trained_assistant(assistant: Assistant, training: Training) -> Trained:
    """Returns how a phase trains the assistant: with a target network and a new optimizer state.

    Args:
        assistant: the model.
        training: steps, optimizer, microbatches and horizon of the target network.
    """
    return Trained(
        "assistant",
        assistant,
        ImitateAnswers(assistant),
        training,
        horizon=training.target_horizon,
        accumulate=training.accumulate,
    )


def distillation(assistant: Assistant, training: Training) -> Phase:
    """Returns the phase that trains the assistant on stored answers.

    Args:
        assistant: the model.
        training: steps, optimizer, microbatches and horizon of the target network.
    """
    return Phase(DISTILLATION, (trained_assistant(assistant, training),), training.schedule)


def streaming(experiment: Experiment) -> Phase:
    """Returns the phase that trains the assistant, and a learned overseer, on answers made during
    training.
    """
    trained = AMPLIFICATION.roles(experiment)
    return Phase(STREAMING, tuple(trained), experiment.training.schedule, Streaming(experiment))


@dataclasses.dataclass(frozen=True)
class Amplification:
    """Oversight by iterated amplification: `[oversight] kind = "amplification"`."""

    sub_answers: ClassVar = "assistant"
    """Who answers sub-questions in training signals; see `oversight.work.Oversight`."""

    def roles(self, experiment: Experiment) -> list[Trained]:
        """Returns the roles that rounds train and round 0 initialises."""
        learner = experiment.learner
        overseers = [] if learner is None else [trained_overseer(learner)]
        return [trained_assistant(experiment.assistant, experiment.training), *overseers]

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """Yields the phases of a round, in order.

        Args:
            experiment: whose assistant, and overseer if it is learned, are trained.
            this: the round's folder, with the stages that are done.
        """
        training, learner = experiment.training, experiment.learner
        streams = training.targets == "streaming"
        # With streaming, the overseer trains alone only before the first round, then with the
        # assistant.
        if learner is not None and not (streams and this.record["parent"]["round"]):
            yield Phase(
                IMITATION,
                (trained_overseer(learner),),
                dataclasses.replace(training.schedule, steps=learner.config.steps),
                ImitationSource(experiment),
                frozen=(("assistant", experiment.assistant),),
            )
        if streams:
            yield streaming(experiment)
        else:
            yield distillation(experiment.assistant, training)

    def signal(self, phase: Phase, work: Work) -> Made:
        """Answers the round's questions by the overseer with the best assistant's help, and some of
        them by people if people oversee.

        Args:
            phase: the one that trains on the answers.
            work: the round and its roles.

        Returns:
            Questions and answers, a row for each context.
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
