"""Questions over a generated encyclopedia that take several hops.

"In which country is the birthplace of the founder of Zelto Pim?" Passages are searched for, see
`searched`. The overseer searches and reads a sentence where one hop is asked for; a longer question
it takes apart by its grammar: it asks for what stands inside, and then for the outermost hop from
there.

With `show_work`, answers say what was found on the way, as in the scratchpads of Nye et al. 2021
(arXiv:2112.00114): "Dorba Kel > Zelto Pim > Franconia". So a longer question is answered hop by
hop, each read from the passages where the one before it ended; only the last name counts.
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
from amplify.tasks.text.encyclopedia import NAMES, RELATIONS, SIZE, ask, chains, generate, parse
from amplify.tasks.text.searched import SEARCH, Library, Searched
from amplify.types import Ask, Strategy

EXAMPLE = "In which country is the birthplace of the founder of Zelto Pim?"
WAY = " > "
"""Between what was found on the way to an answer."""


@dataclasses.dataclass(frozen=True)
class Search(Searched):
    regions: Annotated[int, Field(ge=64, le=NAMES // SIZE)] = 2048
    """Of the generated encyclopedia; an eighth of them are held out, with all that is in them."""
    hops: Annotated[int, Field(ge=1, le=4)] = 3
    """Of the longest questions."""
    seed: int = 0
    """Of the encyclopedia."""
    show_work: bool = False
    """Whether answers say what was found on the way, from the inside out; only the end counts."""

    answer_rule = AnswerRule(separator=WAY)
    max_depth = property(lambda self: self.hops)
    way = property(lambda self: WAY if self.show_work else "")

    @property
    def classes(self) -> tuple[str, ...]:
        several = range(2, self.hops + 1)
        return ("1 hop", *(f"{n} hops{new}" for n in several for new in ("", ", new chain")))

    def strategy(self, question: Int[Array, "*b question_length"]) -> Strategy:
        inside = self._in_words(ask_inside, self.question_length, question)
        found = yield Ask(inside, where=jnp.any(inside != 0, axis=-1))
        last = self._in_words(ask_last_hop, self.question_length, question, found)
        reached = yield Ask(last, where=jnp.any(last != 0, axis=-1))
        say = functools.partial(conclude, way=self.way)
        return self._in_words(say, self.answer_length, question, found, reached)

    def parse(self, text: str) -> list[str]:
        if parse(text) is None and not text.startswith(SEARCH):
            raise ValueError(
                f"a question is such as {EXAMPLE!r}, or {SEARCH} and what to search for"
            )
        return self._question_words(text)

    def make_library(self) -> Library:
        world = generate(self.regions, self.seed)
        texts = [text for _, text in world.documents]
        chain_of = itertools.cycle(chains(2))  # so that words of questions come as often as names
        said = [
            ask(name, chain) for (name, _), chain in zip(world.documents, chain_of, strict=False)
        ]
        spelling = self._spelling([*texts, *said, (SEARCH + self.way) * len(texts)])
        name = max(world.numbers, key=lambda name: len(spelling.tokens(name)))
        longest_answers = [relation.sentence.format(name, name) for relation in RELATIONS]
        if self.show_work:
            longest_answers.append(WAY.join([name] * self.hops))
        longest = {
            "passage_length": texts,
            "question_length": [ask(name, chain) for chain in chains(self.hops)],
            "answer_length": longest_answers,
        }
        self._check_lengths(spelling, longest)
        if self.tokenizer:
            names = world.numbers
            self._check_spelling(spelling, ((f"the name {name!r}", name) for name in names))
            self._check_spelling(
                spelling, ((f"question {text!r}", text) for text in longest["question_length"])
            )
        passages = spelling.write(texts, self.passage_length)
        return Library(world, Collection(world.documents), spelling, passages)

    def _class(self, question: str) -> int:
        asked = parse(question)
        if asked is None or len(asked.chain) == 1:
            return 0
        return 2 * len(asked.chain) - 3 + asked.is_new


def ask_inside(question: str) -> str:
    """The first thing to ask: what stands inside a longer question; for a single hop, a search."""
    asked = parse(question)
    if asked is None:
        return ""
    if len(asked.chain) > 1:
        return ask(asked.name, asked.chain[:-1])
    return f"{SEARCH} {asked.name} {asked.chain[0].keyword}"


def ask_last_hop(question: str, found: str) -> str:
    """The outermost hop, from what was found; nothing if all is said, or nothing was found."""
    asked = parse(question)
    if asked is None or len(asked.chain) == 1 or not found:
        return ""
    return ask(end_of(found), asked.chain[-1:])


def conclude(question: str, found: str, reached: str, way: str = "") -> str:
    """The answer: what the last hop reached, or what the sentence that was found says."""
    asked = parse(question)
    if asked is None or len(asked.chain) > 1:
        return f"{found}{way}{reached}" if way and reached else reached
    [relation] = asked.chain
    return relation.read(found, asked.name)


def end_of(answer: str) -> str:
    """What counts of an answer that says how it was reached."""
    return answer.rpartition(WAY)[-1]
