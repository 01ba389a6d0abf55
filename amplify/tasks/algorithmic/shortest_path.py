"""Shortest path: what is the distance from a to b in a directed graph, and the first step?

The facts are the edges. For the distance D(a, b), the overseer asks for the first step S(a, b) and
for the distance from there. For the first step it compares candidates by distance: two samples of
the assistant's own answer, each kept only if there is such an edge, and a random neighbour. So the
assistant improves by search over its own proposals. Primitive questions are whether there is an
edge from a to b, and next(a), a random neighbour. Christiano, Shlegeris and Amodei 2018
(arXiv:1810.08575), section 3.1 and appendix; there with 64 vertices and 128 edges.
"""

import dataclasses
import itertools
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from pydantic import Field

from amplify.tasks.algorithmic.drawing import choose, choose_nearest, random_order
from amplify.tasks.algorithmic.graphs import FAR, adjacency, distances
from amplify.types import DONT_KNOW, Ask, Strategy

BINS = (1, 2, 4, 8, 16)
"""Upper limits of the distance in each class."""


@dataclasses.dataclass(frozen=True)
class ShortestPath:
    """Shortest paths. Tokens: vertices, then the distances 1, 2, ..., then words."""

    vertices: Annotated[int, Field(ge=3, le=1000)] = 8
    """Number of vertices."""
    edges: Annotated[int, Field(ge=1)] = 16
    """Number of directed edges."""

    def __post_init__(self) -> None:
        most = self.vertices * (self.vertices - 1)
        if self.edges > most:
            raise ValueError(
                f"edges must be at most {most} between {self.vertices} vertices, got {self.edges}"
            )

    fact_length = 2  # an edge: from, to
    question_length = 3  # kind, from, to
    answer_length = 1

    @property
    def facts(self) -> int:
        return self.edges

    @property
    def vocabulary(self) -> tuple[str, ...]:
        vertices = (f"v{number}" for number in range(1, self.vertices + 1))
        lengths = (str(number) for number in range(1, self.vertices))
        return ("?", *vertices, *lengths, "unreachable", "yes", "no", "D", "S", "edge", "next")

    @property
    def _words(self) -> tuple[int, int, int, int, int, int, int]:
        """The tokens "unreachable", "yes", "no", "D", "S", "edge" and "next"."""
        first = 2 * self.vertices
        return first, first + 1, first + 2, first + 3, first + 4, first + 5, first + 6

    @property
    def longest(self) -> int:
        """A distance that contexts of this size rarely exceed; longer ones count as this one."""
        return max(2, 2 * (self.vertices - 1).bit_length() - 2)

    @property
    def max_depth(self) -> int:
        """Depth d is distance d; the last depth is for vertices that cannot be reached."""
        return self.longest + 1

    @property
    def classes(self) -> tuple[str, ...]:
        names = []
        for low, high in itertools.pairwise((0, *BINS)):
            if low < self.longest:
                names.append(str(high) if high - low == 1 else f"{low + 1}-{high}")
        return tuple(f"{kind} {name}" for name in (*names, "unreachable") for kind in "DS")

    @property
    def smallest(self) -> int:
        return 2

    @property
    def largest(self) -> int:
        return self.vertices

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        return self.draw_context_of_size(key, jnp.int32(self.vertices))

    def draw_context_of_size(
        self, key: Key[Array, ""], size: Int[Array, ""]
    ) -> Int[Array, "facts fact_length"]:
        """Draws `size` vertices and proportionally many distinct edges."""
        vertex_key, edge_key = jax.random.split(key)
        vertex, _ = random_order(vertex_key, self.vertices, size)
        start, end = jnp.divmod(jnp.arange(self.vertices**2), self.vertices)
        possible = (start < size) & (end < size) & (start != end)
        drawn = jax.random.uniform(edge_key, possible.shape)
        _, edge = jax.lax.top_k(jnp.where(possible, drawn, -1.0), self.edges)
        wanted = jnp.minimum(self.edges * size // self.vertices, size * (size - 1))
        there = jnp.arange(self.edges) < wanted
        ends = jnp.stack([vertex[start[edge]], vertex[end[edge]]], axis=1)
        return jnp.where(there[:, None], ends, 0).astype(jnp.int32)

    def _graph(self, context: Int[Array, "facts fact_length"]) -> Bool[Array, "n n"]:
        return adjacency(context, context[:, 0] > 0, self.vertices + 1)

    def _distances(self, context: Int[Array, "facts fact_length"]) -> Int[Array, "n n"]:
        here = jnp.where(jnp.eye(self.vertices + 1, dtype=bool), 0, FAR)
        return distances(self._graph(context), here, self.vertices - 1)

    def _depth(self, distance: Int[Array, "*n"]) -> Int[Array, "*n"]:
        return jnp.where(distance == FAR, self.max_depth, jnp.minimum(distance, self.longest))

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        """Draws D or S with equal probability, and two different vertices that have edges."""
        kind_key, pair_key = jax.random.split(key)
        graph = self._graph(context)
        there = jnp.any(graph, axis=0) | jnp.any(graph, axis=1)
        pairs = there[:, None] & there[None] & ~jnp.eye(len(there), dtype=bool)
        depths = self._depth(self._distances(context))
        pair = choose_nearest(pair_key, pairs.ravel(), depths.ravel(), depth)
        kind = jax.random.randint(kind_key, (), self._words[3], self._words[4] + 1)
        a, b = jnp.divmod(pair, len(there))
        return jnp.stack([kind, a, b]).astype(jnp.int32)

    def truth(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, " answer_length"]:
        """The true answer; of several shortest paths, the first step of lowest number."""
        unreachable, yes, no, *kinds = self._words
        kind, a, b = jnp.unstack(question)
        graph, distance = self._graph(context), self._distances(context)
        steps = self._first_steps(context, a, b)
        far = distance[a, b] == FAR
        answers = jnp.stack(
            [
                jnp.where(far, unreachable, self.vertices + distance[a, b]),
                jnp.where(far, unreachable, jnp.argmax(steps)),
                jnp.where(graph[a, b], yes, no),
                jnp.where(jnp.any(graph[a]), jnp.argmax(graph[a]), unreachable),
            ]
        )
        # There is neither a step nor a distance from a vertex to itself.
        is_valid = (a != b) | (kind == kinds[2]) | (kind == kinds[3])
        asked = (kind == jnp.array(kinds)) & is_valid
        return jnp.sum(jnp.where(asked, answers, DONT_KNOW), keepdims=True).astype(jnp.int32)

    def _first_steps(
        self, context: Int[Array, "facts fact_length"], a: Int[Array, ""], b: Int[Array, ""]
    ) -> Bool[Array, " n"]:
        """The second vertices of all shortest paths from a to b."""
        graph, distance = self._graph(context), self._distances(context)
        return graph[a] & (distance[:, b] + 1 == distance[a, b])

    def is_right(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Bool[Array, ""]:
        """A step is right if any shortest path begins with it; a neighbour, if there is an edge."""
        step_kind, next_kind = self._words[4], self._words[6]
        kind, a, b = jnp.unstack(question)
        vertex = jnp.minimum(answer[0], self.vertices)
        is_valid = jnp.where(
            kind == step_kind,
            self._first_steps(context, a, b)[vertex],
            self._graph(context)[a, vertex],
        )
        has_several = ((kind == step_kind) | (kind == next_kind)) & self._is_vertex(answer)
        return jnp.where(has_several, is_valid, jnp.all(answer == self.truth(context, question)))

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        kind, a, b = jnp.unstack(question)
        distance = self._distances(context)[a, b]
        bins = len(self.classes) // 2 - 1
        of_distance = jnp.sum(jnp.minimum(distance, self.longest) > jnp.array(BINS[:bins]))
        of_distance = jnp.where(distance == FAR, bins, of_distance)
        return 2 * of_distance + jnp.where(kind == self._words[4], 1, 0)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return (question[..., 0] != self._words[3]) & (question[..., 0] != self._words[4])

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Draws a random neighbour ("unreachable" if there is none); answers edges truly."""
        neighbours = self._graph(context)[question[1]]
        drawn = jnp.where(jnp.any(neighbours), choose(key, neighbours), self._words[0])
        truth = self.truth(context, question)
        return jnp.where(question[0] == self._words[6], drawn.astype(jnp.int32), truth)

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """Compares candidates for the first step by their distances; see the module's docstring."""
        unreachable, yes, no, distance, step, edge, neighbour = self._words
        kind, a, b = question[..., 0], question[..., 1], question[..., 2]
        for_step = kind == step
        adjacent = yield self._ask(edge, a, b)
        is_adjacent, is_apart = adjacent[..., 0] == yes, adjacent[..., 0] == no
        first = yield self._ask(step, a, b, is_apart)
        second = yield self._ask(step, a, b, is_apart & for_step)
        third = yield self._ask(neighbour, a, jnp.zeros_like(a), is_apart & for_step)
        propose_first = is_apart & self._is_vertex(first)
        propose_second = is_apart & for_step & self._is_vertex(second)
        is_first = yield self._ask(edge, a, first[..., 0], propose_first & for_step)
        is_second = yield self._ask(edge, a, second[..., 0], propose_second)
        kept = [
            propose_first & (~for_step | (is_first[..., 0] == yes)) & (first[..., 0] != b),
            propose_second & (is_second[..., 0] == yes) & (second[..., 0] != b),
            is_apart & for_step & self._is_vertex(third) & (third[..., 0] != b),
        ]
        candidates, lengths = [first, second, third], []
        for candidate, keep in zip(candidates, kept, strict=True):
            length = yield self._ask(distance, candidate[..., 0], b, keep)
            lengths.append(jnp.where(keep, length[..., 0], DONT_KNOW))
        is_unreachable = (first[..., 0] == unreachable) | (lengths[0] == unreachable)
        d = jnp.where(is_adjacent, self.vertices + 1, self._increment(lengths[0]))
        d = jnp.where(is_apart & is_unreachable, unreachable, d)
        s = jnp.where(is_adjacent, b, self._nearest(candidates, lengths, third[..., 0]))
        answer = jnp.where(for_step, s, d)
        return jnp.where(is_adjacent | is_apart, answer, DONT_KNOW)[..., None]

    def _increment(self, length: Int[Array, "*b"]) -> Int[Array, "*b"]:
        is_valid = self._is_length(length) & (length + 1 < 2 * self.vertices)
        return jnp.where(is_valid, length + 1, DONT_KNOW)

    def _nearest(
        self,
        candidates: list[Int[Array, "*b 1"]],
        lengths: list[Int[Array, "*b"]],
        neighbour: Int[Array, "*b"],
    ) -> Int[Array, "*b"]:
        """The candidate with the smallest distance. If no distance is known: "unreachable" if there
        is no neighbour or the target cannot be reached from a candidate, otherwise "don't know".
        """
        unreachable = self._words[0]
        ranked = jnp.stack(
            [jnp.where(self._is_length(length), length, FAR) for length in lengths], axis=-1
        )
        steps = jnp.concatenate(candidates, axis=-1)
        best = jnp.argmin(ranked, axis=-1, keepdims=True)
        nearest = jnp.take_along_axis(steps, best, axis=-1)[..., 0]
        is_unreachable = neighbour == unreachable
        for length in lengths:
            is_unreachable |= length == unreachable
        otherwise = jnp.where(is_unreachable, unreachable, DONT_KNOW)
        return jnp.where(jnp.min(ranked, axis=-1) < FAR, nearest, otherwise)

    def _ask(
        self,
        kind: int,
        a: Int[Array, "*b"],
        b: Int[Array, "*b"],
        where: Bool[Array, "*b"] | None = None,
    ) -> Ask:
        return Ask(jnp.stack([jnp.full_like(a, kind), a, b], axis=-1), where)

    def _is_vertex(self, answer: Int[Array, "*b 1"]) -> Bool[Array, "*b"]:
        return (answer[..., 0] > DONT_KNOW) & (answer[..., 0] <= self.vertices)

    def _is_length(self, token: Int[Array, "*b"]) -> Bool[Array, "*b"]:
        return (token > self.vertices) & (token < self._words[0])

    def parse(self, text: str) -> list[str]:
        words, vertices = text.split(), self.vocabulary[1 : self.vertices + 1]
        match words:
            case ["D" | "S" | "edge", a, b] if a in vertices and b in vertices:
                return words
            case ["next", a] if a in vertices:
                return [*words, "?"]
        raise ValueError(
            f"a question is D (how far), S (first step) or edge, and two vertices from v1 to"
            f" v{self.vertices}, such as D v1 v2; or next and one vertex"
        )

    def show(self, words: list[str]) -> str:
        is_fact = len(words) == 2 and words[0].startswith("v")
        return " → ".join(words) if is_fact else " ".join(words)
