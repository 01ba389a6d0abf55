"""Essays about a topic: the task in which reward models, audits and judges can be tested against
gold, which is known here and hidden from everyone who makes a training signal.

The context is what can be read about the topic: for each claim, which of its statements seem right.
With `sources`, it also has what each statement cites and what its source says, by which a patient
reader, such as a model, can tell what is right; see `claims`. And it names a reader, which says
nothing about the worth of an essay, but makes every commission different. The answer is an essay, a
token for each claim it makes. See `world` for its worth.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field

from amplify.task_abilities import GoldParts, Reader, Seen
from amplify.task_helping import Critique, Refined
from amplify.tasks.essays.reader import read_essay
from amplify.tasks.essays.refining import refine_essay
from amplify.tasks.essays.sentences import (
    PREDICATES,
    SUBJECTS,
    claim_text,
    seeming_text,
    topic_name,
)
from amplify.tasks.essays.world import (
    STATEMENTS,
    World,
    WorldConfig,
    essay_gold,
    essay_gold_parts,
    make_world,
    statement_sources,
    statements_seeming,
    write_draft,
)

WRITE, FOR = "write", "for"
SEEMS = ("seems-wrong", "seems-right")
CITED, FOUND = "cites", "source-says"
Share = Annotated[float, Field(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class Essays:
    """Essays. The defaults are the preset of all experiments about essays, but for the number of
    topics, and of the world, of which seeds 0 to 9 are for tuning and 100 and up are reported.
    """

    world: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Number of the world: what claims are worth, and which statements are right."""
    topics: Annotated[int, Field(ge=1, le=64**3)] = 1
    """Topics that contexts are drawn from. With one, reviews of some essays teach about all."""
    length: Annotated[int, Field(ge=5, le=32)] = 12
    """Claims of an essay."""
    families: Annotated[int, Field(ge=1, le=len(SUBJECTS))] = 8
    """Families of claims, each about the same subject."""
    claims_per_family: Annotated[int, Field(ge=2, le=len(PREDICATES) // STATEMENTS)] = 8
    """Claims of a family."""
    key_claims: Annotated[int, Field(ge=1)] = 8
    """Claims that have most of the weight."""
    insights: Annotated[int, Field(ge=0)] = 48
    """Pairs of claims that are worth something together."""
    insight_share: Share = 0.2
    """Share of the variance of gold that comes from insights, which no claim shows by itself."""
    repeat_cost: Annotated[float, Field(ge=0)] = 0.18
    """Cost of the first repeat of a claim, where claims and insights have a spread of 1."""
    seeming: Share = 0.5
    """Correlation between a statement's seeming right and being right."""
    blind_family: Annotated[int, Field(ge=-1)] = 7
    """Number of the family that no question about a part of an essay can be about; -1: none."""
    sources: Annotated[int, Field(ge=0, le=64)] = 0
    """How many different numbers statements may cite, 2 or more. Contexts then say what each
    statement cites and what its source says, and it is right if both are the same number. A model
    can learn to compare them; a judge has time for its looks only. 0: there are no sources."""
    focus: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Numbers of families, from 0. Evals then measure gold of their claims and gold of all others
    apart, and `oversight.reviews_of = "focused-drafts"` has only essays about them reviewed. If not
    given, there is no focus."""

    truth = None
    """The worth of an essay is a number; no essay is the right one. See `gold`."""
    is_right = None

    def __post_init__(self) -> None:
        """Checks that the sizes fit together.

        Raises:
            ValueError: if they do not.
        """
        if self.key_claims > self.claims:
            raise ValueError(
                f"task.key_claims must be at most the number of claims ({self.claims}),"
                f" got {self.key_claims}"
            )
        if self.blind_family >= self.families:
            raise ValueError(
                f"task.blind_family must be less than task.families ({self.families}),"
                f" got {self.blind_family}"
            )
        if self.sources == 1:
            raise ValueError("task.sources must be 0, or 2 or more, got 1: no source could differ")
        if self.topics > self.claims**3:
            raise ValueError(f"task.topics must be at most {self.claims**3}, got {self.topics}")
        if self.focus is not None:
            self._check_focus(self.focus)

    def _check_focus(self, focus: tuple[int, ...]) -> None:
        if wrong := [family for family in focus if family >= self.families]:
            raise ValueError(
                f"task.focus must have numbers of families, 0 to {self.families - 1}, got"
                f" {wrong[0]}"
            )
        if not 0 < len({*focus}) == len(focus) < self.families:
            raise ValueError(
                f"task.focus must have different numbers of 1 to {self.families - 1} of the"
                f" {self.families} families, got {[*focus]}"
            )

    @property
    def claims(self) -> int:
        """Number of different claims."""
        return self.families * self.claims_per_family

    @property
    def open_to_questions(self) -> tuple[bool, ...]:
        """Whether a question about a part of an essay may be about each claim."""
        families = (claim // self.claims_per_family for claim in range(self.claims))
        return tuple(family != self.blind_family for family in families)

    @property
    def statements(self) -> int:
        """Statements that somebody reads who reads an essay."""
        return self.length * STATEMENTS

    @property
    def config(self) -> WorldConfig:
        """What decides the world."""
        return WorldConfig(
            self.world,
            self.claims,
            self.length,
            self.key_claims,
            self.insights,
            self.insight_share,
            self.repeat_cost,
            self.seeming,
            self.topics,
            tuple(n for n in range(self.claims) if self._in_focus(n // self.claims_per_family)),
        )

    def _in_focus(self, family: int) -> bool:
        return self.focus is None or family in self.focus

    @property
    def hidden(self) -> World:
        """The world. Only scorers and evals may look at it."""
        return make_world(self.config)

    @property
    def facts(self) -> int:
        return 2 + self.claims * (3 if self.sources else 1)

    @property
    def fact_length(self) -> int:
        return 1 + STATEMENTS

    @property
    def question_length(self) -> int:
        return 1

    @property
    def answer_length(self) -> int:
        return self.length

    @property
    def max_depth(self) -> int:
        return 1

    @property
    def classes(self) -> tuple[str, ...]:
        return ("essay",)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        names = (
            f"{subject}-{place + 1}"
            for subject in SUBJECTS[: self.families]
            for place in range(self.claims_per_family)
        )
        numbers = range(self.sources)
        cited, found = ([f"{verb}-{n}" for n in numbers] for verb in (CITED, FOUND))
        return ("?", *names, *SEEMS, WRITE, FOR, *cited, *found)

    def draw_context(self, key: Key[Array, ""]) -> Int[Array, "facts fact_length"]:
        topic_key, reader_key = jax.random.split(key)
        topic = jax.random.randint(topic_key, (), 0, self.topics)
        return self.describe(topic, jax.random.randint(reader_key, (), 0, self.claims**STATEMENTS))

    def describe(
        self, topic: Int[Array, ""], reader: Int[Array, ""]
    ) -> Int[Array, "facts fact_length"]:
        """What can be read about a topic: its number, and what statements seem.

        Args:
            topic: its number.
            reader: number of the reader, below the number of claims to the power of 3.
        """
        marker = self.topic_marker
        first = jnp.stack([self._digits(marker, topic), self._digits(marker + 1, reader)])
        seeming = statements_seeming(self.hidden, self.seeming, topic).astype(jnp.int32)
        names = 1 + jnp.arange(self.claims, dtype=jnp.int32)
        rows = [first, jnp.concatenate([names[:, None], self.claims + 1 + seeming], axis=1)]
        if self.sources:
            start = len(self.vocabulary) - 2 * self.sources
            cited, found = statement_sources(self.hidden, self.sources, topic)
            numbers = (start + cited, start + self.sources + found)
            rows += [jnp.concatenate([names[:, None], tokens], axis=1) for tokens in numbers]
        return jnp.concatenate(rows)

    def _digits(self, marker: int, number: Int[Array, ""]) -> Int[Array, " fact_length"]:
        """A fact that consists of a marker and a number, the least significant digit first."""
        digits = [1 + number // self.claims**place % self.claims for place in range(STATEMENTS)]
        return jnp.stack([jnp.int32(marker), *digits]).astype(jnp.int32)

    def topic_of(self, context: Int[Array, "facts fact_length"]) -> Int[Array, ""]:
        """The number of the topic that a context describes."""
        # Facts may be in any order.
        first = jnp.argmax(context[:, 0] == self.topic_marker)
        powers = self.claims ** jnp.arange(STATEMENTS)
        return jnp.sum((context[first, 1:] - 1) * powers)

    @property
    def topic_marker(self) -> int:
        """The first token of the fact that names the topic."""
        return self.claims + 1 + len(SEEMS)

    def draw_question(
        self, key: Key[Array, ""], context: Int[Array, "facts fact_length"], depth: Int[Array, ""]
    ) -> Int[Array, " question_length"]:
        return jnp.full(1, self.topic_marker, jnp.int32)

    def claims_of(self, answer: Int[Array, "*b answer_length"]) -> Int[Array, "*b answer_length"]:
        """The claims of an essay, from 0; -1 for tokens that are no claim."""
        return jnp.where((answer >= 1) & (answer <= self.claims), answer - 1, -1)

    def gold(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> Float[Array, ""]:
        """The worth of an essay, in standard deviations of drafts; see `world`.

        Args:
            context: about one topic.
            question: not used.
            answer: the essay.
        """
        return essay_gold(self.hidden, self.topic_of(context), self.claims_of(answer))

    def gold_parts(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
    ) -> GoldParts:
        """Divides the worth of an essay between families in focus and others; see `world`.

        Args:
            context: about one topic.
            question: not used.
            answer: the essay.
        """
        return essay_gold_parts(self.hidden, self.topic_of(context), self.claims_of(answer))

    def impression(
        self,
        reader: Reader,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
        key: Key[Array, ""],
    ) -> Seen:
        """What a reader takes an essay to be worth, in standard deviations of drafts."""
        return self.helped_impression(reader, None, context, question, answer, key)

    def helped_impression(
        self,
        reader: Reader,
        critique: Critique | None,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answer: Int[Array, " answer_length"],
        key: Key[Array, ""],
    ) -> Seen:
        """The same for a reader whom a helper tells which claims are wrong, unless it is None."""
        topic, essay = self.topic_of(context), self.claims_of(answer)
        return read_essay(self.config, self.hidden, reader, topic, essay, key, critique)

    def refine(
        self,
        reader: Reader,
        critique: Critique,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        answers: Int[Array, "answers answer_length"],
        key: Key[Array, ""],
    ) -> Refined:
        """Refines the first of several essays, see `refining`."""
        topic, essays = self.topic_of(context), self.claims_of(answers)
        return refine_essay(self.config, self.hidden, reader, critique, topic, essays, key)

    def draft(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Writes an essay as somebody does who does not know what is right.

        Args:
            context: not used.
            question: not used.
            key: consumed.
        """
        return 1 + write_draft(self.hidden, self.length, key)

    def focused_draft(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        """Writes a draft about families in focus only.

        Args:
            context: not used.
            question: not used.
            key: consumed.
        """
        return 1 + write_draft(self.hidden, self.length, key, focused=True)

    def class_of(
        self, context: Int[Array, "facts fact_length"], question: Int[Array, " question_length"]
    ) -> Int[Array, ""]:
        return jnp.int32(0)

    def is_primitive(self, question: Int[Array, "*b question_length"]) -> Bool[Array, "*b"]:
        return jnp.zeros(question.shape[:-1], bool)

    def environment(
        self,
        context: Int[Array, "facts fact_length"],
        question: Int[Array, " question_length"],
        key: Key[Array, ""],
    ) -> Int[Array, " answer_length"]:
        return jnp.zeros(self.length, jnp.int32)

    def parse(self, text: str) -> list[str]:
        if " ".join(text.split()).lower() != WRITE:
            raise ValueError(f'the only question is "{WRITE}": an essay about the topic')
        return [WRITE]

    def parse_answer(self, text: str) -> list[str]:
        names = self.vocabulary[1 : 1 + self.claims]
        words = text.replace(",", " ").split()
        unknown = [word for word in words if word not in names]
        if unknown or len(words) != self.length:
            what = f"{unknown[0]!r} is none" if unknown else f"got {len(words)}"
            raise ValueError(
                f"an essay is {self.length} claims, such as {names[0]} {names[-1]} ...; {what}"
            )
        return words

    def show(self, words: list[str]) -> str:
        if words == [WRITE]:
            return WRITE
        names, first, rest = self.vocabulary[1 : 1 + self.claims], words[0], words[1:]
        if len(words) == self.fact_length and first in (WRITE, FOR) and {*rest} <= {*names}:
            digits = [names.index(word) for word in rest]
            number = sum(digit * self.claims**place for place, digit in enumerate(digits))
            if first == FOR:
                return f"The essay is for reader {number}."
            return f"The topic is the town of {topic_name(number)}."
        if len(words) == self.fact_length and first in names and {*rest} <= {*SEEMS}:
            seems = [word == SEEMS[1] for word in rest]
            return seeming_text(first, names.index(first), seems, self.claims_per_family)
        if len(words) == self.fact_length and first in names and rest[0].startswith((CITED, FOUND)):
            return f"{first}: {', '.join(rest)}."
        sentences = (
            claim_text(names.index(word), self.claims_per_family) if word in names else word
            for word in words
        )
        return " ".join(sentences)  # an essay, perhaps of any tokens
