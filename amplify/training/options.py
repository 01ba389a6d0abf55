"""`[training]` of an experiment file, and the optimizer that it describes."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import optax
import optax.contrib
from jaxtyping import Array, PyTree
from pydantic import Field

from amplify.training.phase import Schedule

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclasses.dataclass(frozen=True)
class Training:
    """`[training]` of an experiment file: how the next assistant is trained."""

    targets: Literal["stored", "streaming"] = "stored"
    """Where training targets come from: the round's data set, written before training; or amplified
    answers of the target network, made while training, for a buffer of `questions.contexts`
    contexts and questions of all depths."""
    amplify_every: Count = 1
    """With streaming: training steps per batch of newly amplified contexts."""
    steps: Count = 1000
    """Training steps of a round."""
    batch: Count = 32
    """Contexts of a training step, each with all of its questions."""
    accumulate: Count = 1
    """Microbatches that a batch is split into to save memory; gradients are accumulated."""
    optimizer: Literal["adam", "muon"] = "adam"
    """"muon": Muon for the matrices inside layers, and Adam for all other parameters."""
    learning_rate: Positive = 2e-3
    """Learning rate after the warmup, from which a cosine schedule decays."""
    final_learning_rate: Share = 0.05
    """Learning rate at the end of the cosine schedule, as a share of `learning_rate`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Steps over which the learning rate rises from 0."""
    b2: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """Decay rate of Adam's average of squared gradients."""
    gradient_clip: Positive = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it."""
    target_horizon: Count = 100
    """Steps over which the target network, a moving average of the weights, averages."""
    log_every: Count = 50
    """Steps between two lines of `metrics.jsonl`."""
    look_every: Count = 100
    """Steps between two evaluations on held-out problems during training."""
    checkpoint_every: Count = 500
    """Steps between two checkpoints from which an interrupted round resumes."""

    @property
    def schedule(self) -> Schedule:
        """Steps, batch size and intervals."""
        return Schedule(
            self.steps, self.batch, self.log_every, self.look_every, self.checkpoint_every
        )

    def make_optimizer(self) -> optax.GradientTransformation:
        """Makes the optimizer: clipped gradients, warmup and cosine decay of the learning rate."""
        schedule = optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=self.learning_rate,
            warmup_steps=min(self.warmup_steps, self.steps - 1),
            decay_steps=self.steps,
            end_value=self.learning_rate * self.final_learning_rate,
        )
        if self.optimizer == "adam":
            descent = optax.adam(schedule, b2=self.b2)
        else:
            descent = optax.contrib.muon(
                schedule,
                adam_b2=self.b2,
                consistent_rms=0.2,  # steps as large as Adam's: Liu et al. 2025 (arXiv:2502.16982)
                muon_weight_dimension_numbers=_matrices_of_layers,
            )
        return optax.chain(optax.clip_by_global_norm(self.gradient_clip), descent)


def _matrices_of_layers(params: PyTree[Array]) -> PyTree[Any]:
    """For matrices stacked over layers, the axes that Muon orthogonalises; None for parameters that
    Adam trains. Jordan et al. 2024 (kellerjordan.github.io/posts/muon).
    """
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)

    def of(path: tuple[Any, ...], leaf: Array) -> Any:
        return axes if "kernel" in jax.tree_util.keystr(path) and leaf.ndim == 3 else None

    return jax.tree_util.tree_map_with_path(of, params)
