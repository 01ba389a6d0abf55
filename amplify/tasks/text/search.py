"""Multi-hop questions about a generated encyclopedia.

"In which country is the birthplace of the founder of Zelto Pim?" The assistant reads the passages
that a search finds. The overseer answers a question of one hop by searching and reading a sentence.
It decomposes a longer question by its grammar: it asks the inner question, and then for the
outermost hop from its answer.

With `show_work`, answers list the entities on the way, like the scratchpads of Nye et al. 2021
(arXiv:2112.00114): "Dorba Kel > Zelto Pim > Franconia". A longer question is then answered hop by
hop; only the last name is compared.
"""

import dataclasses
import functools
import itertools
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Int
from pydantic import Field

from amplify.answers import AnswerRule
from amplify.tasks.text.collection import Collection
from amplify.tasks.text.encyclopedia import (
    ENTITIES_PER_REGION,
    NAME_COUNT,
    RELATIONS,
    chains,
    generate,
    parse,
    phrase_question,
)
from amplify.tasks.text.retrieval import SEARCH_PREFIX, Library, RetrievalTask
from amplify.types import Ask, Strategy

EXAMPLE_QUESTION = "In which country is the birthplace of the founder of Zelto Pim?"
STEP_SEPARATOR = " > "
"""Separates the entities on the way to an answer."""


@dataclasses.dataclass(frozen=True)
class Search(RetrievalTask):
    """Multi-hop question answering over a generated encyclopedia."""

    regions: Annotated[int, Field(ge=64, le=NAME_COUNT // ENTITIES_PER_REGION)] = 2048
    """Regions of the encyclopedia. An eighth of them are held out, with all of their entities."""
    hops: Annotated[int, Field(ge=1, le=4)] = 3
    """Hops of the longest questions."""
    seed: int = 0
    """Seed of the encyclopedia."""
    show_work: bool = False
    """Whether answers list the entities on the way, innermost first; only the last is compared."""

    answer_rule = AnswerRule(separator=STEP_SEPARATOR)
    max_depth = property(lambda self: self.hops)
    separator = property(lambda self: STEP_SEPARATOR if self.show_work else "")

    @property
    def classes(self) -> tuple[str, ...]:
        several = range(2, self.hops + 1)
        return ("1 hop", *(f"{n} hops{new}" for n in several for new in ("", ", new chain")))

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        """Asks the inner question, then for the outermost hop; searches if there is one hop."""
        inside = self._map_texts(ask_inside, self.question_length, question)
        found = yield Ask(inside, where=jnp.any(inside != 0, axis=-1))
        last = self._map_texts(ask_last_hop, self.question_length, question, found)
        reached = yield Ask(last, where=jnp.any(last != 0, axis=-1))
        conclusion = functools.partial(conclude, separator=self.separator)
        return self._map_texts(conclusion, self.answer_length, question, found, reached)

    def parse(self, text: str) -> list[str]:
        if parse(text) is None and not text.startswith(SEARCH_PREFIX):
            raise ValueError(
                f"a question is such as {EXAMPLE_QUESTION!r}, or {SEARCH_PREFIX} and what to"
                " search for"
            )
        return self._question_words(text)

    def make_library(self) -> Library:
        """Generates the encyclopedia; see `RetrievalTask.make_library`."""
        world = generate(self.regions, self.seed)
        texts = [text for _, text in world.documents]
        chain_of = itertools.cycle(chains(2))  # so that words of questions are as frequent as names
        question_texts = [
            phrase_question(name, chain)
            for (name, _), chain in zip(world.documents, chain_of, strict=False)
        ]
        tokenizer = self._make_tokenizer(
            [*texts, *question_texts, (SEARCH_PREFIX + self.separator) * len(texts)]
        )
        name = max(world.numbers, key=lambda name: len(tokenizer.encode(name)))
        longest_answers = [relation.sentence.format(name, name) for relation in RELATIONS]
        if self.show_work:
            longest_answers.append(STEP_SEPARATOR.join([name] * self.hops))
        longest = {
            "passage_length": texts,
            "question_length": [phrase_question(name, chain) for chain in chains(self.hops)],
            "answer_length": longest_answers,
        }
        self._check_lengths(tokenizer, longest)
        if self.tokenizer:
            names = world.numbers
            self._check_round_trips(tokenizer, ((f"the name {name!r}", name) for name in names))
            self._check_round_trips(
                tokenizer, ((f"question {text!r}", text) for text in longest["question_length"])
            )
        passages = tokenizer.encode_batch(texts, self.passage_length)
        return Library(world, Collection(world.documents), tokenizer, passages)

    def _class(self, question: str) -> int:
        asked = parse(question)
        if asked is None or len(asked.chain) == 1:
            return 0
        return 2 * len(asked.chain) - 3 + asked.is_new


def ask_inside(question: str) -> str:
    """The first sub-question: the inner question; for a question of one hop, a search.

    Args:
        question: the question.

    Returns:
        The sub-question; "" if the question cannot be parsed.
    """
    asked = parse(question)
    if asked is None:
        return ""
    if len(asked.chain) > 1:
        return phrase_question(asked.name, asked.chain[:-1])
    return f"{SEARCH_PREFIX} {asked.name} {asked.chain[0].keyword}"


def ask_last_hop(question: str, found: str) -> str:
    """The second sub-question: the last hop, starting from the answer to the first sub-question.

    Args:
        question: the question.
        found: the answer to the inner question.

    Returns:
        The sub-question; "" if the question has one hop or nothing was found.
    """
    asked = parse(question)
    if asked is None or len(asked.chain) == 1 or not found:
        return ""
    return phrase_question(last_step(found), asked.chain[-1:])


def conclude(question: str, found: str, reached: str, separator: str = "") -> str:
    """The answer, from the answers to the sub-questions.

    Args:
        question: the question.
        found: the answer to the first sub-question: an entity or, for one hop, a sentence.
        reached: the answer to the second sub-question.
        separator: separates the two in the answer; "": the answer is the second alone.

    Returns:
        The answer; "" if a sub-question was not answered.
    """
    asked = parse(question)
    if asked is None or len(asked.chain) > 1:
        return f"{found}{separator}{reached}" if separator and reached else reached
    [relation] = asked.chain
    return relation.read(found, asked.name)


def last_step(answer: str) -> str:
    """The last entity of an answer that lists the entities on the way.

    Args:
        answer: names separated by `STEP_SEPARATOR`.
    """
    return answer.rpartition(STEP_SEPARATOR)[-1]
