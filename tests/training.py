"""An assistant's training without a round: its state before the first step, and the step."""

from amplify.oversight.amplification import distillation, trained_assistant
from amplify.training.mesh import ONE_DEVICE
from amplify.training.step import begin, fresh_role, stored_step


def untrained(assistant, params, training):
    before = fresh_role(trained_assistant(assistant, training), params)
    return begin(distillation(assistant, training), {"assistant": before})


def step_of(assistant, training, mesh=ONE_DEVICE):
    """`(state, batch)` to the next state and metrics; donates the state."""
    step = stored_step(distillation(assistant, training), mesh)
    return lambda state, batch: step({}, state, batch)
