"""Reward models: networks that predict how much a judge values an answer.

An ensemble has several members that are trained on different parts of the reviews: each review
belongs to one of `FOLDS` folds, and member i never sees fold i. So every member has reviews to be
measured on, and the members' disagreement shows where they guess.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree
from pydantic import Field

from amplify.models.abilities import trainable_of
from amplify.models.language_value import LanguageValueModel
from amplify.models.transformer import TokenTuple, linear
from amplify.models.value_model import ValueModel
from amplify.types import Place, Task

FOLDS = 5
"""Parts into which reviews are divided; also the largest number of members."""
Size = Annotated[int, Field(ge=1)]
Aggregate = Literal["mean", "worst", "mean-variance"]


@dataclasses.dataclass(frozen=True)
class RewardModelConfig:
    """The size of a reward model."""

    members: Annotated[int, Field(ge=1, le=FOLDS)] = 1
    """Networks of the ensemble."""
    network: Literal["mlp", "policy"] = "mlp"
    """"policy": a network like the assistant's with one output, read after the answer's last token.
    With a pretrained assistant it begins with the same checkpoint, and trains LoRA adapters if the
    assistant does."""
    initial: Literal["random", "reference"] = "random"
    """What the network begins with in the first round. reference: the reference policy, which has
    imitated drafts (Stiennon et al. 2020, arXiv:2009.01325); `network` must be "policy" and the
    assistant a language model. random: random weights, or those of a pretrained assistant."""
    width: Size = 64
    """Width of each MLP."""
    layers: Size = 2
    """Layers of each MLP."""
    aggregate: Aggregate = "mean-variance"
    """How members are combined: their mean, the lowest value, or the mean minus the variance
    between them (Coste et al. 2023, arXiv:2310.02743). With one member, they are the same."""
    reviews_as: Literal["preferences", "scores"] = "preferences"
    """What reviewers say, and the reward model learns: which of `candidates` answers is best, or a
    number for each answer."""
    candidates: Annotated[int, Field(ge=2, le=16)] = 2
    """Answers of which a reviewer chooses the best; 2: comparisons."""
    confidence: bool = False
    """Whether a choice weighs as much as the judge is sure of it: 0 by chance, 1 certainly."""
    reads_context: bool = False
    """Whether the reward model reads the facts that a question is about; then `network` must be
    "policy"."""

    def __post_init__(self) -> None:
        """Checks that reviews and network fit together.

        Raises:
            ValueError: if they do not.
        """
        if self.reads_context and self.network != "policy":
            raise ValueError('reads_context needs network = "policy": an MLP reads no facts')
        if self.initial == "reference" and self.network != "policy":
            raise ValueError(
                'initial = "reference" needs network = "policy": an MLP has no weights in common'
                " with the reference policy"
            )
        if self.reviews_as == "scores" and self.candidates != 2:
            raise ValueError(
                'candidates must be left out if reviews_as = "scores", which rates answers one at'
                f" a time; got {self.candidates}"
            )
        if self.reviews_as == "scores" and self.confidence:
            raise ValueError('confidence must be false if reviews_as = "scores"; got true')

    @property
    def shown(self) -> int:
        """Number of answers that a reviewer sees at a time."""
        return self.candidates if self.reviews_as == "preferences" else 1


@dataclasses.dataclass(frozen=True)
class RewardModel:
    """An ensemble, as pure functions of its parameters.

    It reads the question and the answer, and the context only if it is configured to: otherwise it
    can learn what is good in every context.
    """

    config: RewardModelConfig
    task: Task
    scorer: ValueModel | LanguageValueModel | None = None
    """A network like the policy's; None: an MLP."""

    def init(self, key: Key[Array, ""]) -> PyTree[Array]:
        """Draws untrained parameters, one tree for each member."""
        keys = jax.random.split(key, self.config.members)
        if self.scorer is not None:
            return [self.scorer.init(key) for key in keys]
        return [
            nnx.state(RewardNetwork(self.config, self.task, nnx.Rngs(params=key)), nnx.Param)
            for key in keys
        ]

    def load(self, place: Place | None = None) -> PyTree[Array] | None:
        """Loads the policy's checkpoint for each member; see `models.abilities.loader_of`.

        Args:
            place: the sharding of each parameter; None: all on the default device.

        Returns:
            The parameters; None: there is no checkpoint.

        Raises:
            AmplifyError: if the weights cannot be read.
        """
        if not isinstance(self.scorer, LanguageValueModel):
            return None
        members = [self.scorer.load(place) for _ in range(self.config.members)]
        return None if members[0] is None else members

    def begin_with(self, policy: PyTree[Array]) -> PyTree[Array]:
        """Makes parameters for each member of those of a language policy; see `training.phase`.

        Args:
            policy: parameters of the policy.

        Returns:
            Parameters that give every answer the reward 0.
        """
        assert isinstance(self.scorer, LanguageValueModel)  # checked when the file was read
        return [self.scorer.begin_with(policy) for _ in range(self.config.members)]

    def split(self, params: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
        """Splits parameters into trained and frozen ones, for each member."""
        parts = [trainable_of(self.scorer).split(member) for member in params]
        return [own for own, _ in parts], [kept for _, kept in parts]

    def join(self, trained: PyTree[Array], kept: PyTree[Array]) -> PyTree[Array]:
        """Inverse of `split`."""
        join = trainable_of(self.scorer).join
        return [join(*parts) for parts in zip(trained, kept, strict=True)]

    def rewards(
        self,
        params: PyTree[Array],
        contexts: Int[Array, "batch facts fact_length"] | None,
        questions: Int[Array, "batch questions question_length"],
        answers: Int[Array, "batch questions answer_length"],
    ) -> Float[Array, "members batch questions"]:
        """The reward that each member gives to answers.

        Differences between rewards are log-odds that one answer is preferred to another; where a
        reward begins is arbitrary.

        Args:
            params: as from `init`.
            contexts: what the policy reads; None only if the reward model does not read it.
            questions: about each context.
            answers: one to each question.
        """
        if self.scorer is not None:
            read = contexts if self.config.reads_context else None
            if read is None:
                read = jnp.zeros((len(questions), 1, self.task.fact_length), jnp.int32)
            score = self.scorer.score
            return jnp.stack([score(member, read, questions, answers) for member in params])
        graph = _graph(self.config, self.task)
        return jnp.stack([nnx.merge(graph, member)(questions, answers) for member in params])

    def combine(self, rewards: Float[Array, "members *b"]) -> Float[Array, "*b"]:
        """Combines the members' rewards, which must be normalised, to one.

        Args:
            rewards: of each member, with mean 0 and standard deviation 1 on reference answers.
        """
        if self.config.aggregate == "worst":
            return jnp.min(rewards, axis=0)
        mean = jnp.mean(rewards, axis=0)
        return mean if self.config.aggregate == "mean" else mean - jnp.var(rewards, axis=0)


class RewardNetwork(nnx.Module):
    """An MLP on embedded tokens of question and answer, with one output.

    Answers are embedded both by position and as a bag, in which only counts of tokens matter.
    """

    def __init__(self, config: RewardModelConfig, task: Task, rngs: nnx.Rngs) -> None:
        words, width = len(task.vocabulary), config.width
        length = task.question_length + task.answer_length
        self.words = words
        self.tokens = TokenTuple(length, words, width, rngs)
        self.counts = linear(words, width, ("vocabulary", "embed"), rngs)
        self.presence = linear(words, width, ("vocabulary", "embed"), rngs)
        self.direct = linear(words, 1, ("vocabulary", None), rngs, biased=False)
        self.layers = nnx.List(
            [linear(width, width, ("embed", "mlp"), rngs) for _ in range(config.layers)]
        )
        self.out = linear(width, 1, ("embed", None), rngs)

    def __call__(
        self,
        questions: Int[Array, "*b question_length"],
        answers: Int[Array, "*b answer_length"],
    ) -> Float[Array, "*b"]:
        """The reward of each answer."""
        count = jnp.sum(jax.nn.one_hot(answers, self.words), axis=-2)
        x = self.counts(count) + self.presence(jnp.minimum(count, 1))
        x += 0.1 * self.tokens(jnp.concatenate([questions, answers], axis=-1))
        for layer in self.layers:
            x = jax.nn.gelu(layer(x))
        return (self.out(x) + self.direct(count))[..., 0]


@functools.cache
def _graph(config: RewardModelConfig, task: Task) -> nnx.GraphDef:
    """The network's structure, without parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: RewardNetwork(config, task, nnx.Rngs(0))))
