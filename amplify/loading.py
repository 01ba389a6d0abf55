"""What a round left behind, read back: the assistant's weights and the overseer's.

`stages` and `inspection` call it. Knows which folder holds what; errors say how to make it again.
"""

import jax
from jaxtyping import Array, Key, PyTree

from amplify import checkpoint, distillation, imitation
from amplify.errors import AmplifyError
from amplify.experiment import Experiment
from amplify.imitation import Apprentice
from amplify.overseers.learned import Learned
from amplify.store import RoundFolder
from amplify.types import Loads, Weights

RANDOM_STAGES = {"overseer": 2**32 - 1, "checkpoint": 2**32 - 2}
"""Streams of random numbers apart from those of problems, which are numbered by rounds."""


def load_weights(experiment: Experiment, round_: RoundFolder) -> Weights:
    """Those of a finished round."""
    return Weights(load_assistant(experiment, round_)[0], load_overseer(experiment, round_))


def load_assistant(experiment: Experiment, round_: RoundFolder) -> tuple[PyTree[Array], str]:
    """The target network of a round's checkpoint, and its digest."""
    like = abstract_state(experiment)
    with round_.intact("checkpoint"):
        target = checkpoint.restore(round_.checkpoint, like).target
        digest = checkpoint.digest(target)
        if digest != round_.record["stages"]["checkpoint"]["digest"]:
            raise AmplifyError(f"{round_.checkpoint}: not the checkpoint that was written")
    return target, digest


def load_overseer(experiment: Experiment, round_: RoundFolder) -> PyTree[Array] | None:
    """The parameters of a round's overseer, if it has any: learned, or from somewhere else. They
    are on the devices of this process.
    """
    if experiment.overseer_learns:
        return experiment.mesh.bring_here(load_apprentice(experiment, round_).params)
    if isinstance(experiment.overseer, Loads):
        return experiment.overseer.load(experiment.mesh.here.of_tree)
    return None


def load_apprentice(experiment: Experiment, round_: RoundFolder) -> Apprentice:
    """The learned overseer as a round left it; at round 0 it has seen nothing."""
    overseer, at_once = learned(experiment), experiment.training.batch
    if round_.number == 0:
        key = stage_key(experiment, round_, "overseer")
        begin = jax.jit(imitation.begin, static_argnums=(0, 2))
        return experiment.mesh.place(begin(overseer, key, at_once))
    stages = round_.record["stages"]
    stage = "overseer" if "overseer" in stages else "checkpoint"
    with round_.intact(stage):
        like = experiment.mesh.place(imitation.abstract(overseer, at_once))
        apprentice = checkpoint.restore(round_.overseer, like)
        if checkpoint.digest(apprentice.params) != stages[stage]["overseer_digest"]:
            raise AmplifyError(f"{round_.overseer}: not the overseer that was written")
    return apprentice


def learned(experiment: Experiment) -> Learned:
    assert experiment.learner is not None
    return experiment.learner


def abstract_state(experiment: Experiment) -> distillation.TrainState:
    """Shapes of the assistant in training, and where they lie."""
    state = distillation.abstract_state(experiment.assistant, experiment.training)
    return experiment.mesh.place(state)


def stage_key(experiment: Experiment, this: RoundFolder, stage: str) -> Key[Array, ""]:
    """What is random in one stage of one round; problems have seeds of their own."""
    root = jax.random.fold_in(jax.random.key(experiment.seed), RANDOM_STAGES[stage])
    return jax.random.fold_in(root, this.number)
