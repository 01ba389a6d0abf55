"""Sequential assignments: what is the value of a variable that is computed from earlier ones?

Some variables are given a value; each other one is x := f(y, z) of two earlier variables. The facts
list the assignments and the entries of the table f that they need. The overseer asks for y and z,
for their values, and for f of these values. Primitive questions look up a fact: A(x) is the first
variable that x is computed from (or the value of x, if it is given), B(x) the second, f(a, b) an
entry of the table. Christiano, Shlegeris and Amodei 2018 (arXiv:1810.08575), section 3.1 and
appendix; there with 64 variables and 8 values.
"""

import dataclasses
import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.task_abilities import Reader, Seen
from amplify.tasks.algorithmic.drawing import choose_nearest, random_order
from amplify.tasks.strategies import check_answer
from amplify.types import DONT_KNOW, Ask, Strategy


class Graph(NamedTuple):
    """The assignments of a context, indexed by token; 0 where undefined."""

    given: Int[Array, " tokens"]  # value of a variable that is given one
    first: Int[Array, " tokens"]  # first variable that it is computed from, otherwise
    second: Int[Array, " tokens"]  # second variable that it is computed from
    f: Int[Array, "tokens tokens"]
    value: Int[Array, " tokens"]
    depth: Int[Array, " tokens"]  # levels of decomposition needed; 1: the value is given


@dataclasses.dataclass(frozen=True)
class Assignments:
    """Sequential assignments. Tokens: variables, then values, then the four kinds of question,
    which facts also begin with: (value, x, v) for a given value, (A, x, y, z) for x := f(y, z), and
    (f, a, b, f(a, b)).
    """

    variables: Annotated[int, Field(ge=3, le=1000)] = 10
    """Number of variables."""
    values: Annotated[int, Field(ge=2, le=100)] = 3
    """Number of values, and of variables that are given one."""

    def __post_init__(self) -> None:
        if self.values >= self.variables:
            raise ValueError(
                f"values must be fewer than variables ({self.variables}), got {self.values}"
            )

    fact_length = 4
    question_length = 3  # kind, and a variable or two values
    answer_length = 1

    @property
    def facts(self) -> int:
        return self.variables + min(self.values**2, self.variables - self.values)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        variables = (f"x{number}" for number in range(1, self.variables + 1))
        values = (str(number) for number in range(1, self.values + 1))
        return ("?", *variables, *values, "value", "A", "B", "f")

    @property
    def max_depth(self) -> int:
        """About the depth that contexts of this size reach; greater depths count as this one."""
        return 1 + max(1, round(math.e * math.log(self.variables / self.values)))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"depth {depth}" for depth in range(1, self.max_depth + 1))

    @property
    def smallest(self) -> int:
        return self.values + 1

    @property
    def largest(self) -> int:
        return self.variables

    @property
    def _kinds(self) -> tuple[int, int, int, int]:
        """The tokens "value", "A", "B" and "f"."""
        first = 1 + self.variables + self.values
        return first, first + 1, first + 2, first + 3

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        return self.draw_context_of_size(key, jnp.int32(self.variables))

    def draw_context_of_size(
        self, key: Key[Array, ""], size: Int[Array, ""]
    ) -> Int[Array, "facts fact_length"]:
        """Draws `size` variables in random order, of which the first are given random values."""
        order_key, first_key, second_key, given_key, table_key = jax.random.split(key, 5)
        count, tokens = self.variables, len(self.vocabulary)
        variable, present = random_order(order_key, count, size)
        place = jnp.arange(count)
        is_given = place < self.values
        earlier = jnp.maximum(place, 1)
        first, second = (
            jnp.where(is_given, 0, variable[jax.random.randint(key, (count,), 0, earlier)])
            for key in (first_key, second_key)
        )
        low, high = 1 + count, 1 + count + self.values
        given = jnp.where(is_given, jax.random.randint(given_key, (count,), low, high), 0)
        f = jax.random.randint(table_key, (tokens, tokens), low, high)
        value = self._evaluate(variable, first, second, given, f)
        value_kind, a_kind, _, f_kind = self._kinds
        assignments = jnp.where(
            is_given[:, None],
            jnp.stack([jnp.full(count, value_kind), variable, given, jnp.zeros(count, int)], 1),
            jnp.stack([jnp.full(count, a_kind), variable, first, second], axis=1),
        )
        a, b = value[first], value[second]
        needed = jnp.zeros((tokens, tokens), bool).at[a, b].max(~is_given & present)
        needed = needed.at[DONT_KNOW].set(False)
        a, b = jnp.nonzero(needed, size=self.facts - count, fill_value=0)
        entries = jnp.stack([jnp.full(len(a), f_kind), a, b, f[a, b]], axis=1)
        facts = [
            jnp.where(present[:, None], assignments, 0),
            jnp.where(a[:, None] != 0, entries, 0),
        ]
        return jnp.concatenate(facts).astype(jnp.int32)

    def _evaluate(
        self,
        variable: Int[Array, " n"],
        first: Int[Array, " n"],
        second: Int[Array, " n"],
        given: Int[Array, " n"],
        f: Int[Array, "tokens tokens"],
    ) -> Int[Array, " tokens"]:
        """Computes the value of every variable, in order of assignment."""

        def assign(place: Int[Array, ""], value: Int[Array, " tokens"]) -> Int[Array, " tokens"]:
            computed = f[value[first[place]], value[second[place]]]
            here = jnp.where(given[place] != 0, given[place], computed)
            return value.at[variable[place]].set(here)

        values = jnp.zeros(len(f), given.dtype)
        return jax.lax.fori_loop(0, len(variable), assign, values).at[0].set(0)

    def _graph(self, context: Int[Array, "facts fact_length"]) -> Graph:
        """Reads the facts, which may be in any order."""
        tokens = len(self.vocabulary)
        value_kind, a_kind, _, f_kind = self._kinds
        kind, x, y, z = jnp.unstack(context, axis=1)

        def column(where: Bool[Array, " facts"], what: Int[Array, " facts"]) -> Array:
            # Facts of other kinds are written to token 0, which is cleared.
            written = jnp.zeros(tokens, jnp.int32).at[jnp.where(where, x, 0)].set(what)
            return written.at[0].set(0)

        given = column(kind == value_kind, y)
        first, second = column(kind == a_kind, y), column(kind == a_kind, z)
        entry = kind == f_kind
        f = jnp.zeros((tokens, tokens), jnp.int32)
        f = f.at[jnp.where(entry, x, 0), jnp.where(entry, y, 0)].set(z).at[0].set(0)

        def propagate(_: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
            value, depth = state
            value = jnp.where(given != 0, given, f[value[first], value[second]])
            below = jnp.maximum(depth[first], depth[second])
            return value, jnp.where(given != 0, 1, jnp.where(value != 0, 1 + below, 0))

        start = given, (given != 0).astype(jnp.int32)
        longest = self.variables - self.values
        value, depth = jax.lax.fori_loop(0, longest, propagate, start)
        return Graph(given, first, second, f, value, depth)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        graph = self._graph(context)
        depths = jnp.minimum(graph.depth, self.max_depth)
        x = choose_nearest(key, graph.depth > 0, depths, depth)
        return jnp.stack([jnp.int32(self._kinds[0]), x.astype(jnp.int32), jnp.int32(0)])

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        graph, (kind, x, y) = self._graph(context), jnp.unstack(question)
        answers = jnp.stack(
            [
                graph.value[x],
                graph.given[x] + graph.first[x],
                graph.given[x] + graph.second[x],
                graph.f[x, y],
            ]
        )
        asked = kind == jnp.array(self._kinds)
        return jnp.sum(jnp.where(asked, answers, 0), keepdims=True)

    def is_right(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        return jnp.all(answer == self.truth(context, question))

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return jnp.clip(self._graph(context).depth[question[1]], 1, self.max_depth) - 1

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return question[..., 0] != self._kinds[0]

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return self.truth(context, question)

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """Asks for the two variables, their values, and f of these values."""
        value, first, second, f = self._kinds
        x = question[..., 1]
        y = yield self._ask(first, x)
        computed = self._is_variable(y)
        a = yield self._ask(value, y[..., 0], where=computed)
        known = computed & self._is_value(a)
        z = yield self._ask(second, x, where=known)
        known &= self._is_variable(z)
        b = yield self._ask(value, z[..., 0], where=known)
        known &= self._is_value(b)
        result = yield self._ask(f, a[..., 0], b[..., 0], where=known)
        known &= self._is_value(result)
        answer = jnp.where(known[..., None], result, DONT_KNOW)
        return jnp.where(self._is_value(y)[..., None], y, answer)

    def impression(
        self,
        reader: Reader,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
        key: Key[Array, ""],
    ) -> Seen:
        """What a reader makes of an answer; a computed variable takes three look-ups, and
        those of the two that it is computed from.
        """
        return check_answer(self, reader, 1 / self.values, context, question, answer, key)

    def draft(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Draws any value."""
        return 1 + self.variables + jax.random.randint(key, (1,), 0, self.values)

    def _ask(
        self,
        kind: int,
        x: Int[Array, "*b"],
        y: Int[Array, "*b"] | None = None,
        where: Bool[Array, "*b"] | None = None,
    ) -> Ask:
        parts = [jnp.full_like(x, kind), x, jnp.zeros_like(x) if y is None else y]
        return Ask(jnp.stack(parts, axis=-1), where)

    def _is_variable(self, answer: Int[Array, "*b 1"]) -> Bool[Array, "*b"]:
        return (answer[..., 0] > DONT_KNOW) & (answer[..., 0] <= self.variables)

    def _is_value(self, answer: Int[Array, "*b 1"]) -> Bool[Array, "*b"]:
        return (answer[..., 0] > self.variables) & (answer[..., 0] < self._kinds[0])

    def parse(self, text: str) -> list[str]:
        words = text.split()
        variables, values = self.vocabulary[1:][: self.variables], self._value_words
        match words:
            case ["value" | "A" | "B", x] if x in variables:
                return [*words, "?"]
            case ["f", a, b] if a in values and b in values:
                return words
        raise ValueError(
            f"a question is value, A or B of a variable from x1 to x{self.variables}, such as"
            f" value x1, or f of two values from 1 to {self.values}, such as f 1 2"
        )

    @property
    def _value_words(self) -> tuple[str, ...]:
        return self.vocabulary[1 + self.variables :][: self.values]

    def show(self, words: list[str]) -> str:
        match words:
            case ["value", x, value]:
                return f"{x} = {value}"
            case ["A", x, y, z]:
                return f"{x} := f({y}, {z})"
            case ["f", a, b, value]:
                return f"f({a}, {b}) = {value}"
        return " ".join(words)
