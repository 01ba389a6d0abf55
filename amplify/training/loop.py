"""The training loop: steps, log rows, evaluation during training, and checkpoints."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from amplify.errors import AmplifyError
from amplify.runtime.device import working_seconds
from amplify.runtime.progress import Advance
from amplify.training.phase import Metrics, Schedule
from amplify.training.step import ANSWERED, TrainState, split_counts

LogRow = dict[str, Any]


def train(
    step: Callable[[TrainState], tuple[TrainState, Metrics]],
    schedule: Schedule,
    state: TrainState,
    *,
    evaluate: Callable[[TrainState], Mapping[str, Any]],
    save: Callable[[TrainState, list[LogRow]], None],
    log: list[LogRow],
    advance: Advance,
) -> TrainState:
    """Trains from `state.step` to the last step.

    Args:
        step: a training step, which donates its argument.
        schedule: number of steps, and the intervals below, in steps.
        state: the state to begin with.
        evaluate: returns what else to log of a state; called every `look_every` steps.
        save: saves the state and the log; called every `checkpoint_every` steps but the last.
        log: appended to, a row `{"step", "loss", ..., "seconds"}` every `log_every` steps;
            "seconds" leaves out compilation and evaluation.
        advance: called with the number of steps and the row after every log row, to show progress.

    Returns:
        The state after the last step.

    Raises:
        AmplifyError: if the loss is not finite.
    """
    interval: list[Metrics] = []
    began = working_seconds()
    with jax.transfer_guard("disallow"):
        for number in range(steps_taken(state) + 1, schedule.steps + 1):
            state, metrics = step(state)
            interval.append(metrics)
            if number % schedule.log_every == 0 or number == schedule.steps:
                jax.block_until_ready(interval)
                log.append(_log_row(number, interval, max(working_seconds() - began, 0.0)))
                if number % schedule.look_every == 0 or number == schedule.steps:
                    log[-1].update(evaluate(state))
                taken, interval, began = len(interval), [], working_seconds()
                advance(taken, log[-1])
            if number % schedule.checkpoint_every == 0 and number < schedule.steps:
                save(state, log)
    return state


def steps_taken(state: TrainState) -> int:
    """Number of steps that a state has been trained for, copied from its device."""
    return int(jax.device_get(state.step))


def _log_row(step: int, interval: list[Metrics], seconds: float) -> LogRow:
    counts, means = split_counts(_columns(jax.device_get(interval)))
    answered = counts[ANSWERED]
    weights = (
        answered if answered.any() else None
    )  # without any answer, every step has the same weight
    row = {name: float(np.average(values, weights=weights)) for name, values in means.items()}
    if not math.isfinite(row["loss"]):
        raise AmplifyError(
            f"the loss is {row['loss']} at step {step}: try a smaller training.learning_rate"
        )
    row |= {name: round(values.sum()) for name, values in counts.items()}
    return {"step": step, **row, "seconds": round(seconds, 3)}


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """A column for each metric. Counts may be missing from rows in which nothing was counted."""
    names = dict.fromkeys(name for row in rows for name in row)
    counts, _ = split_counts(names)
    return {
        name: np.array([row.get(name, 0) if name in counts else row[name] for row in rows], float)
        for name in names
    }
