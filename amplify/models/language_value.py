"""A language model with one output in place of its logits: the value network of a language policy,
or a reward model.

Reads what the policy reads, in the same form: a context's KV cache is computed once for all of its
questions. A pretrained policy's value network begins with the same checkpoint, and with LoRA trains
adapters of its own beside the head.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from amplify.models import prompts
from amplify.models.attention.attention_parts import PADDING
from amplify.models.axes import axes
from amplify.models.decoder.causal_lm import CausalLM, cast_kernels
from amplify.models.decoder.decoding import positions_after, prefill
from amplify.models.decoder.layers import Architecture
from amplify.models.language_model import LanguageModel
from amplify.types import Place

TRUNK, HEAD = "trunk", "head"
"""Names of the parameters: those of the language model, and those of the one output."""


class ScalarLM(nnx.Module):
    """A language model without logits, and a linear map of its hidden states to one number."""

    def __init__(self, policy: LanguageModel, rngs: nnx.Rngs) -> None:
        config, architecture = policy.config, without_logits(policy.architecture)
        self.trunk = CausalLM(architecture, rngs, jnp.dtype(config.dtype), config.rematerialise)
        self.head = nnx.Linear(
            architecture.width,
            1,
            kernel_init=nnx.initializers.zeros,
            bias_init=nnx.initializers.zeros,
            kernel_metadata=axes("embed", None),
            bias_metadata=axes(None),
            rngs=rngs,
        )


@dataclasses.dataclass(frozen=True)
class LanguageValueModel:
    """A `ScalarLM` as pure functions of its parameters; see `value_model.ValueModel`."""

    policy: LanguageModel
    """Decides the architecture, the checkpoint and the form of prompts."""

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Draws untrained parameters, which predict 0 for every answer."""
        return nnx.state(ScalarLM(self.policy, nnx.Rngs(params=key)), nnx.Param)

    def load(self, place: Place | None = None) -> PyTree[Array] | None:
        """Loads the policy's checkpoint, without its logits; see `models.abilities.loader_of`.

        Args:
            place: the sharding of each parameter; None: all on the default device.

        Returns:
            The parameters, which predict 0 for every answer; None: there is no checkpoint.

        Raises:
            AmplifyError: if the weights cannot be read.
        """
        loaded = self.policy.load(place)
        return None if loaded is None else self.begin_with(loaded)

    def begin_with(self, policy: PyTree[Array]) -> PyTree[Array]:
        """Makes parameters of those of the policy, without its logits.

        Args:
            policy: parameters of the policy.

        Returns:
            Parameters that predict 0 for every answer.
        """
        # Compiled, so that only the head is drawn, and not a second model beside this one.
        head = jax.jit(lambda key: self.init(key)[HEAD])(jax.random.key(0))
        leaves = {
            (name, *path): leaf
            for name, part in ((TRUNK, policy), (HEAD, head))
            for path, leaf in nnx.to_flat_state(part)
            if (name, *path)[:2] != (TRUNK, "out")
        }
        return nnx.from_flat_state(leaves)

    def split(self, params: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
        """Splits parameters into trained and frozen ones. With LoRA, only the adapters and the head
        are trained.
        """
        if self.policy.architecture.lora is None:
            return params, nnx.State({})
        trained = nnx.Any(nnx.LoRAParam, nnx.PathContains(HEAD))
        own, frozen = nnx.split_state(params, trained, ...)
        return own, frozen

    def join(self, trained: PyTree[Array], kept: PyTree[Array]) -> PyTree[Array]:
        """Inverse of `split`."""
        return nnx.merge_state(trained, kept)

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
            read: the contexts that the policy read.
            questions: about each context.
            answers: one to each question.

        Returns:
            For each token the predicted return of the answer, given the tokens before it; 0 after
            the answer's end.
        """
        values, is_target = self._at_targets(params, read, questions, answers)
        return jnp.where(is_target, values, 0.0)

    def score(
        self,
        params: PyTree[Array],
        read: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "batch questions"]:
        """The output after an answer's last token, whether or not the answer has an end.

        Args:
            params, read, questions, answers: as in `values`.
        """
        # One more token is predicted than there are: an answer without an end is read to its last.
        longer = jnp.pad(answers, [(0, 0), (0, 0), (0, 1)])
        values, is_target = self._at_targets(params, read, questions, longer)
        last = jnp.maximum(jnp.sum(is_target, axis=-1, keepdims=True) - 1, 0)
        return jnp.take_along_axis(values, last, axis=-1)[..., 0]

    def _at_targets(
        self,
        params: PyTree[Array],
        read: Int[Array, "batch facts fact_length"],
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions length"],
    ) -> tuple[Float[Array, "batch questions length"], Bool[Array, "batch questions length"]]:
        """The output where each token would be predicted; arbitrary after the answer's end, where
        the second array is False.
        """
        config, form = self.policy.config, self.policy.format
        cast = nnx.State({**params, TRUNK: cast_kernels(config.dtype, params[TRUNK])})
        network: ScalarLM = nnx.merge(_graph(self.policy), cast)
        prefix = prefill(network.trunk, prompts.encode_contexts(form, read))
        unpacked = prompts.encode_answers(form, questions, answers)
        x, _ = network.trunk.forward(
            jnp.maximum(unpacked.tokens, 0),
            positions_after(prefix, unpacked.positions),
            segments=unpacked.segments,
            prefix=prefix,
        )
        indices = jnp.maximum(unpacked.target_indices, 0)
        x = jnp.take_along_axis(x, indices[..., None], axis=2).astype(jnp.float32)
        return network.head(x)[..., 0], unpacked.targets != PADDING


def without_logits(architecture: Architecture) -> Architecture:
    """The architecture of a language model that has no parameters for logits alone."""
    return dataclasses.replace(architecture, tied=True)


@functools.cache
def _graph(policy: LanguageModel) -> nnx.GraphDef:
    """The network's structure, without parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: ScalarLM(policy, nnx.Rngs(0))))
