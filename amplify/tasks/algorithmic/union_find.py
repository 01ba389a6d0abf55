"""Union find: what is the value of a variable, if only one variable of its class is given a value?

The facts state which variables are equal, and the value of one variable of each class, the root of
a tree. The value V(x) is that of the parent P(x); the depth D(x) is the parent's depth plus one.
For the parent the overseer compares candidates by depth: two samples of the assistant's own answer,
each kept only if a fact says that it equals x, and a random neighbour. Primitive questions are
given(x), the value of a root; next(x), a random neighbour; and equal(x, y), whether a fact says so.
Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 3.1 and appendix; there with 64
variables in 8 classes.
"""

import dataclasses
import itertools
import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.tasks.algorithmic.drawing import choose, choose_nearest, random_order
from amplify.tasks.algorithmic.graphs import FAR, adjacency, distances
from amplify.types import DONT_KNOW, Ask, Strategy

BINS = (0, 1, 2, 4, 8, 16)
"""Upper limits of the depth in each class of questions."""


class Forest(NamedTuple):
    """The trees of a context, indexed by token; 0 where undefined."""

    given: Int[Array, " tokens"]  # the value of a root
    equal: Bool[Array, "tokens tokens"]
    depth: Int[Array, " tokens"]  # edges to the root; FAR for tokens that are not variables
    parent: Int[Array, " tokens"]  # itself for a root
    value: Int[Array, " tokens"]


@dataclasses.dataclass(frozen=True)
class UnionFind:
    """Union find. Tokens: variables, values, depths 0, 1, ..., then words. Facts are (given, x, v)
    and (equal, x, y), with each edge once.
    """

    variables: Annotated[int, Field(ge=2, le=1000)] = 8
    """Number of variables."""
    values: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of classes of equal variables, each with its own value."""

    def __post_init__(self) -> None:
        if self.values >= self.variables:
            raise ValueError(
                f"values must be fewer than variables ({self.variables}), got {self.values}"
            )

    fact_length = 3
    question_length = 3
    answer_length = 1

    @property
    def facts(self) -> int:
        return self.variables

    @property
    def vocabulary(self) -> tuple[str, ...]:
        variables = (f"x{number}" for number in range(1, self.variables + 1))
        values = (f"v{number}" for number in range(1, self.values + 1))
        depths = (str(number) for number in range(self.variables - self.values + 1))
        words = ("none", "yes", "no", "V", "P", "D", "given", "next", "equal")
        return ("?", *variables, *values, *depths, *words)

    @property
    def _zero(self) -> int:
        """The token of depth 0."""
        return 1 + self.variables + self.values

    @property
    def _words(self) -> tuple[int, ...]:
        """The tokens "none", "yes", "no", "V", "P", "D", "given", "next" and "equal"."""
        first = self._zero + self.variables - self.values + 1
        return tuple(range(first, first + 9))

    @property
    def deepest(self) -> int:
        """About as deep as trees of this size get; what is deeper counts as this deep."""
        return max(1, round(math.e * math.log(self.variables / self.values)))

    @property
    def max_depth(self) -> int:
        return self.deepest + 1

    @property
    def classes(self) -> tuple[str, ...]:
        names = ["0"]
        for low, high in itertools.pairwise(BINS):
            if low < self.deepest:
                names.append(str(high) if high - low == 1 else f"{low + 1}-{high}")
        return tuple(f"{kind} {name}" for name in names for kind in "VPD")

    @property
    def smallest(self) -> int:
        return self.values + 1

    @property
    def largest(self) -> int:
        return self.variables

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        return self.draw_context_of_size(key, jnp.int32(self.variables))

    def draw_context_of_size(
        self, key: Key[Array, ""], size: Int[Array, ""]
    ) -> Int[Array, "facts fact_length"]:
        """Draws `size` variables in random order: roots, then each below a random earlier one."""
        order_key, parent_key, value_key = jax.random.split(key, 3)
        variable, present = random_order(order_key, self.variables, size)
        place = jnp.arange(self.variables)
        root = place < self.values
        above = jax.random.randint(parent_key, (self.variables,), 0, jnp.maximum(place, 1))
        value = 1 + self.variables + jax.random.permutation(value_key, self.values)
        other = jnp.where(root, value[jnp.minimum(place, self.values - 1)], variable[above])
        kind = jnp.where(root, self._words[6], self._words[8])
        facts = jnp.stack([kind, variable, other], axis=1)
        return jnp.where(present[:, None], facts, 0).astype(jnp.int32)

    def _forest(self, context: Int[Array, "facts fact_length"]) -> Forest:
        """Reads the facts, which may be in any order."""
        tokens = len(self.vocabulary)
        kind, x, y = jnp.unstack(context, axis=1)
        is_root = kind == self._words[6]
        given = jnp.zeros(tokens, jnp.int32).at[jnp.where(is_root, x, 0)].set(y).at[0].set(0)
        equal = adjacency(context[:, 1:], kind == self._words[8], tokens)
        equal |= equal.T
        start = jnp.where(given > 0, 0, FAR)[None]
        longest = self.variables - self.values
        depth = distances(equal, start, longest)[0]
        above = equal & (depth[None] + 1 == depth[:, None])
        parent = jnp.where(given > 0, jnp.arange(tokens), jnp.argmax(above, axis=1))

        def inherit(_: Int[Array, ""], value: Int[Array, " tokens"]) -> Int[Array, " tokens"]:
            return jnp.where(given > 0, given, value[parent])

        return Forest(given, equal, depth, parent, jax.lax.fori_loop(0, longest, inherit, given))

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Draws V, P or D with equal probability."""
        kind_key, variable_key = jax.random.split(key)
        forest = self._forest(context)
        depths = jnp.minimum(forest.depth, self.deepest) + 1
        x = choose_nearest(variable_key, forest.depth < FAR, depths, depth)
        kind = jax.random.randint(kind_key, (), self._words[3], self._words[5] + 1)
        return jnp.stack([kind, x, jnp.zeros_like(x)]).astype(jnp.int32)

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        none, yes, no, *kinds = self._words
        forest, (kind, x, y) = self._forest(context), jnp.unstack(question)
        exists = forest.depth[x] < FAR
        neighbours = forest.equal[x]
        answers = jnp.stack(
            [
                forest.value[x],
                forest.parent[x],
                jnp.where(exists, self._zero + forest.depth[x], DONT_KNOW),
                jnp.where(forest.given[x] > 0, forest.given[x], none),
                jnp.where(jnp.any(neighbours), jnp.argmax(neighbours), none),
                jnp.where(forest.equal[x, y], yes, no),
            ]
        )
        asked = kind == jnp.array(kinds)
        return jnp.sum(jnp.where(asked, answers, DONT_KNOW), keepdims=True).astype(jnp.int32)

    def is_right(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        """Whether the answer is the true one; for next(x), whether it is any neighbour."""
        is_next = question[0] == self._words[7]
        neighbour = self._forest(context).equal[question[1], answer[0]]
        exact = jnp.all(answer == self.truth(context, question))
        return exact | (is_next & neighbour)

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        depth = jnp.minimum(self._forest(context).depth[question[1]], self.deepest)
        bins = len(self.classes) // 3 - 1
        kind = jnp.clip(question[0] - self._words[3], 0, 2)
        return 3 * jnp.sum(depth > jnp.array(BINS[:bins])) + kind

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return (question[..., 0] < self._words[3]) | (question[..., 0] > self._words[5])

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Draws a random neighbour ("none" if there is none); answers other questions truly."""
        neighbours = self._forest(context).equal[question[1]]
        drawn = jnp.where(jnp.any(neighbours), choose(key, neighbours), self._words[0])
        truth = self.truth(context, question)
        return jnp.where(question[0] == self._words[7], drawn.astype(jnp.int32), truth)

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """Compares candidates for the parent by their depths; see the module's docstring."""
        none, yes, _, value, parent, depth, given, neighbour, equal = self._words
        kind, x = question[..., 0], question[..., 1]
        for_value, for_parent = kind == value, kind == parent
        given_value = yield self._ask(given, x)
        root, below = self._is_value(given_value), given_value[..., 0] == none
        first = yield self._ask(parent, x, where=below)
        second = yield self._ask(parent, x, where=below & for_parent)
        third = yield self._ask(neighbour, x, where=below & for_parent)
        propose_first = below & self._is_variable(first)
        propose_second = below & for_parent & self._is_variable(second)
        is_first = yield self._ask(equal, x, first[..., 0], where=propose_first & for_parent)
        is_second = yield self._ask(equal, x, second[..., 0], where=propose_second)
        kept = [
            propose_first & (~for_parent | (is_first[..., 0] == yes)),
            propose_second & (is_second[..., 0] == yes),
            below & for_parent & self._is_variable(third),
        ]
        candidates, answers = [first, second, third], []
        for candidate, keep in zip(candidates, kept, strict=True):
            wanted = jnp.where(for_value, value, depth)
            answer = yield self._ask(wanted, candidate[..., 0], where=keep)
            answers.append(jnp.where(keep[..., None], answer, DONT_KNOW))
        v = jnp.where(
            root, given_value[..., 0], jnp.where(self._is_value(answers[0]), answers[0][..., 0], 0)
        )
        d = jnp.where(root, self._zero, self._increment(answers[0]))
        p = jnp.where(root, x, self._shallowest(candidates, answers))
        answer = jnp.where(for_value, v, jnp.where(for_parent, p, d))
        return jnp.where(root | below, answer, DONT_KNOW)[..., None]

    def _increment(self, depth: Int[Array, "*b 1"]) -> Int[Array, "*b"]:
        is_valid = self._is_depth(depth) & (depth[..., 0] + 1 < self._words[0])
        return jnp.where(is_valid, depth[..., 0] + 1, DONT_KNOW)

    def _shallowest(
        self, candidates: list[Int[Array, "*b 1"]], depths: list[Int[Array, "*b 1"]]
    ) -> Int[Array, "*b"]:
        ranked = jnp.stack(
            [jnp.where(self._is_depth(depth), depth[..., 0], FAR) for depth in depths], axis=-1
        )
        best = jnp.argmin(ranked, axis=-1, keepdims=True)
        nearest = jnp.take_along_axis(jnp.concatenate(candidates, axis=-1), best, axis=-1)
        return jnp.where(jnp.min(ranked, axis=-1) < FAR, nearest[..., 0], DONT_KNOW)

    def _ask(
        self,
        kind: int | Int[Array, "*b"],
        x: Int[Array, "*b"],
        y: Int[Array, "*b"] | None = None,
        *,
        where: Bool[Array, "*b"] | None = None,
    ) -> Ask:
        parts = [jnp.full_like(x, kind), x, jnp.zeros_like(x) if y is None else y]
        return Ask(jnp.stack(parts, axis=-1), where)

    def _is_variable(self, answer: Int[Array, "*b 1"]) -> Bool[Array, "*b"]:
        return (answer[..., 0] > DONT_KNOW) & (answer[..., 0] <= self.variables)

    def _is_value(self, answer: Int[Array, "*b 1"]) -> Bool[Array, "*b"]:
        return (answer[..., 0] > self.variables) & (answer[..., 0] < self._zero)

    def _is_depth(self, answer: Int[Array, "*b 1"]) -> Bool[Array, "*b"]:
        return (answer[..., 0] >= self._zero) & (answer[..., 0] < self._words[0])

    def parse(self, text: str) -> list[str]:
        words, variables = text.split(), self.vocabulary[1 : self.variables + 1]
        match words:
            case ["V" | "P" | "D" | "given" | "next", x] if x in variables:
                return [*words, "?"]
            case ["equal", x, y] if x in variables and y in variables:
                return words
        raise ValueError(
            f"a question is V (value), P (parent), D (depth), given or next, and a variable from x1"
            f" to x{self.variables}, such as V x1; or equal and two of them"
        )

    def show(self, words: list[str]) -> str:
        match words:
            case ["given", x, value]:
                return f"{x} = {value}"
            case ["equal", x, y]:
                return f"equal {x} {y}"
        return " ".join(words)
