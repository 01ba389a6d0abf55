"""A value network: predicts the return of an answer before each of its tokens is said. Read after
the last one, it is a reward model.
"""

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from amplify.models.axes import axes
from amplify.models.fact_transformer import FactTransformerConfig, fact_mask
from amplify.models.transformer import Memory, Transformer
from amplify.types import Task


@dataclasses.dataclass(frozen=True)
class ValueModel:
    """A transformer like the policy's with one output, as pure functions of its parameters."""

    sizes: FactTransformerConfig
    """Those of the policy; nothing is copied from facts, whatever `copies` says."""
    task: Task

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Draws untrained parameters, which predict 0 for every answer.

        Huang et al. 2023, "The N implementation details of RLHF with PPO".
        """
        network = _network(self.sizes, self.task, nnx.Rngs(params=key))
        network.out = nnx.Linear(
            self.sizes.width,
            1,
            kernel_init=nnx.initializers.zeros,
            bias_init=nnx.initializers.zeros,
            kernel_metadata=axes("embed", None),
            bias_metadata=axes(None),
            rngs=nnx.Rngs(params=key),
        )
        return nnx.state(network, nnx.Param)

    def values(
        self,
        params: PyTree[Array],
        read: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions answer_length"]:
        """Predicts returns.

        Args:
            params: as from `init`.
            read: the contexts that the policy read; facts of zeros are padding.
            questions: about each context.
            answers: one to each question.

        Returns:
            For each token the predicted return of the answer, given the tokens before it.
        """
        length = answers.shape[-1]
        network, memory, mask = self._read(params, read)

        def before(step: int) -> Float[Array, "batch questions"]:
            known = jnp.where(jnp.arange(length) < step, answers + 1, 0)
            queries = jnp.concatenate([questions, known], axis=-1)
            return network.outputs(memory, queries, mask)[..., 0]

        return jnp.stack([before(step) for step in range(length)], axis=-1)

    def score(
        self,
        params: PyTree[Array],
        read: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions"]:
        """The output for whole answers.

        Args:
            params, read, questions, answers: as in `values`.
        """
        network, memory, mask = self._read(params, read)
        queries = jnp.concatenate([questions, answers + 1], axis=-1)
        return network.outputs(memory, queries, mask)[..., 0]

    def _read(
        self, params: PyTree[Array], read: Int[Array, "batch facts fact_length"]
    ) -> tuple[Transformer, Memory, Bool[Array, "batch 1 facts"] | None]:
        network: Transformer = nnx.merge(_graph(self.sizes, self.task), params)
        mask = fact_mask(self.task, read)
        return network, network.encode(read, mask), mask


def _network(sizes: FactTransformerConfig, task: Task, rngs: nnx.Rngs) -> Transformer:
    words = len(task.vocabulary)
    return Transformer(
        dataclasses.replace(sizes, copies=False),
        row_length=task.fact_length,
        row_vocabulary=words,
        query_length=task.question_length + task.answer_length,
        query_vocabulary=words + 1,
        vocabulary=1,
        rngs=rngs,
    )


@functools.cache
def _graph(sizes: FactTransformerConfig, task: Task) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: _network(sizes, task, nnx.Rngs(0))))
