"""A helper of a judge: the assistant of another experiment, which reads what the judge cannot.

Leike et al. 2018 (arXiv:1811.07871), section 3: whoever evaluates answers to a task is helped by
agents that are trained on the parts of that evaluation. Its weights stay as they are.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from amplify.task_helping import Critique, helping_of
from amplify.training.weights import abstract_weights, restore_weights
from amplify.types import Assistant, Place, Task


@dataclasses.dataclass(frozen=True)
class Helper:
    """The assistant at the end of a round of another experiment."""

    task: Task
    """What it was trained on."""
    assistant: Assistant
    checkpoint: Path
    digest: str
    """Of its weights."""

    def fits(self, task: Task) -> bool:
        """Returns whether it can be asked about answers to a task."""
        helping = helping_of(self.task)
        return helping is not None and helping.fits(task)

    def load(self, place: Place) -> PyTree[Array]:
        """Loads its weights.

        Args:
            place: the sharding of each parameter.

        Raises:
            AmplifyError: a checkpoint is missing or damaged.
        """
        shapes = abstract_weights(self.assistant)
        like = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            place(shapes),
        )
        return restore_weights(self.checkpoint, like, "assistant", self.digest)

    def criticise(
        self, params: PyTree[Array], contexts: Int[Array, "batch facts fact_length"]
    ) -> Critique:
        """Asks it about every part that an answer may have; it decodes greedily.

        Args:
            params: its weights.
            contexts: what the answers are about.

        Returns:
            A critique for each context, with a leading axis "batch".
        """
        helping = helping_of(self.task)
        assert helping is not None  # see `fits`
        passages = jax.vmap(helping.passages)(contexts)
        batch, parts = passages.shape[:2]
        read = passages.reshape(batch * parts, *passages.shape[2:])
        questions = jnp.broadcast_to(helping.question, (len(read), 1, *helping.question.shape))
        memory = self.assistant.encode(params, read)
        answers = self.assistant.answer(params, memory, questions, None).tokens
        return jax.vmap(helping.critique)(answers.reshape(batch, parts, -1))
