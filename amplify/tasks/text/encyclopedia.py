"""A generated encyclopedia of people, towns, countries and companies, and multi-hop questions about
it.

Entities belong to regions. Documents of one region do not mention entities of another, so that a
region can be held out with all of its entities. A name is two words, each of which is part of many
names. Everything is determined by the seed. Independent of tokens, search and overseers.
"""

import dataclasses
import functools
import itertools
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from amplify.tasks.text.collection import Document


@dataclasses.dataclass(frozen=True)
class Relation:
    """A relation between entities, such as from a company to its founder."""

    of: str  # kind of the subject
    gives: str  # kind of the object
    question: str  # question for the object, with {} for the subject
    phrase: str  # noun phrase for the object inside a longer question
    sentence: str  # sentence of the encyclopedia, with {} for subject and object
    keyword: str  # search term, in addition to the subject's name

    def read(self, sentence: str, name: str) -> str:
        """Reads the object from a sentence.

        Args:
            sentence: of the encyclopedia.
            name: of the subject.

        Returns:
            The object's name; "" if the sentence does not state this relation of the subject.
        """
        before, _, after = self.sentence.format(name, "|").partition("|")
        if sentence.startswith(before) and sentence.endswith(after):
            return sentence[len(before) : len(sentence) - len(after)]
        return ""


RELATIONS = (
    Relation(
        "country", "town", "What is the capital of {}?", "the capital of {}",
        "The capital of {} is {}.", "capital",
    ),
    Relation(
        "country", "person", "Who rules {}?", "the ruler of {}", "{} is ruled by {}.", "ruled",
    ),
    Relation(
        "town", "country", "In which country is {}?", "the country of {}",
        "{} is in the country of {}.", "country",
    ),
    Relation(
        "town", "person", "Who is the mayor of {}?", "the mayor of {}",
        "The mayor of {} is {}.", "mayor",
    ),
    Relation(
        "person", "town", "Where was {} born?", "the birthplace of {}", "{} was born in {}.",
        "born",
    ),
    Relation(
        "person", "person", "Who taught {}?", "the teacher of {}", "{} was taught by {}.",
        "taught",
    ),
    Relation(
        "company", "person", "Who founded {}?", "the founder of {}", "{} was founded by {}.",
        "founded",
    ),
    Relation(
        "company", "town", "Where is the seat of {}?", "the seat of {}",
        "The seat of {} is in {}.", "seat",
    ),
)  # fmt: skip

ENTITY_COUNTS = {"country": 2, "town": 3, "person": 3, "company": 2}
"""Entities of each kind in a region."""
KINDS = tuple(kind for kind, count in ENTITY_COUNTS.items() for _ in range(count))
"""Kind of each entity of a region, in order."""
ENTITIES_PER_REGION = len(KINDS)

ONSETS = (*"bdfghjklmnprstvwz", "br", "dr", "gr", "kl", "pl", "st", "tr")
VOWELS = tuple("aeiou")
CODAS = tuple("lmnrstx")
NAME_WORDS = 300
"""Number of words that names begin with; as many others end them."""
NAME_COUNT = NAME_WORDS**2
"""Number of different names."""


Chain = tuple[Relation, ...]
"""The relations of a multi-hop question, innermost first."""


class ParsedQuestion(NamedTuple):
    """A question in terms of the encyclopedia: the entity it starts from, and the relations."""

    name: str
    chain: Chain

    @property
    def is_new(self) -> bool:
        """Whether two consecutive hops are a pair that does not occur in training."""
        return any(pair in NEW_PAIRS for pair in itertools.pairwise(self.chain))


def phrase_question(name: str, chain: Chain) -> str:
    """Phrases a question.

    Args:
        name: of the entity that the question starts from.
        chain: the relations to follow from there, at least one.
    """
    phrase = name
    for relation in chain[:-1]:
        phrase = relation.phrase.format(phrase)
    return chain[-1].question.format(phrase)


def parse(text: str) -> ParsedQuestion | None:
    """Parses a question; the inverse of `phrase_question`.

    Args:
        text: the question.

    Returns:
        The parsed question; None if it is not a question about the encyclopedia.
    """
    for relation, pattern in _patterns("question"):
        if match := pattern.fullmatch(text):
            inner = _parse_phrase(match[1])
            return ParsedQuestion(inner.name, (*inner.chain, relation))
    return None


def _parse_phrase(text: str) -> ParsedQuestion:
    for relation, pattern in _patterns("phrase"):
        if match := pattern.fullmatch(text):
            inner = _parse_phrase(match[1])
            return ParsedQuestion(inner.name, (*inner.chain, relation))
    return ParsedQuestion(text, ())


@functools.cache
def _patterns(field: str) -> list[tuple[Relation, re.Pattern[str]]]:
    def pattern(relation: Relation) -> re.Pattern[str]:
        before, after = getattr(relation, field).split("{}")
        return re.compile(f"{re.escape(before)}(.+){re.escape(after)}")

    return [(relation, pattern(relation)) for relation in RELATIONS]


@functools.cache
def chains(hops: int) -> tuple[Chain, ...]:
    """All chains of a given length.

    Args:
        hops: number of relations, at least 1.
    """
    if hops == 1:
        return tuple((relation,) for relation in RELATIONS)
    return tuple(
        (*chain, relation)
        for chain in chains(hops - 1)
        for relation in RELATIONS
        if chain[-1].gives == relation.of
    )


NEW_PAIRS = frozenset([pair for pair in chains(2) if pair[1].of != "country"][::4])
"""Pairs of consecutive hops that occur only in evals, not in training. Each hop also occurs in
other pairs.
"""


class Encyclopedia(NamedTuple):
    """The encyclopedia. Entity e of region r has the index r * ENTITIES_PER_REGION + e."""

    numbers: dict[str, int]  # entity of each name
    holds: Int[np.ndarray, "entities relations"]  # the relation's object, an entity, or -1
    documents: tuple[Document, ...]  # one per entity, titled by its name

    def answer(self, question: str) -> str:
        """The true answer to a question; "" if there is none."""
        reached = self._walk(question)
        return self.documents[reached[-1]].title if reached else ""

    def path(self, question: str) -> list[list[int]]:
        """The documents that the answer rests on, as lists of one index per hop; empty if there is
        no answer.
        """
        return [[entity] for entity in self._walk(question)[:-1]]

    def _walk(self, question: str) -> list[int]:
        """The entities from the first to the answer; empty if there is no answer."""
        asked = parse(question)
        if asked is None or asked.name not in self.numbers:
            return []
        reached = [self.numbers[asked.name]]
        for relation in asked.chain:
            following = int(self.holds[reached[-1], RELATIONS.index(relation)])
            if following < 0:
                return []
            reached.append(following)
        return reached

    def draw(self, region: int, hops: int, new: int, first: int, second: int) -> str:
        """Draws a question about a region; see `retrieval.World.draw`."""
        allowed = [chain for chain in chains(hops) if new or not ParsedQuestion("", chain).is_new]
        chain = allowed[first % len(allowed)]
        places = [place for place, kind in enumerate(KINDS) if kind == chain[0].of]
        entity = region * ENTITIES_PER_REGION + places[second % len(places)]
        return phrase_question(self.documents[entity].title, chain)


@functools.cache
def generate(regions: int, seed: int) -> Encyclopedia:
    """Generates an encyclopedia. Depends only on the arguments, not on the machine.

    Args:
        regions: number of regions, at most NAME_COUNT // ENTITIES_PER_REGION.
        seed: of the random names and relations.
    """
    entities = regions * ENTITIES_PER_REGION
    # NumPy guarantees that raw random bits never change between versions.
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64))
    names = tuple(
        map(_name, np.argsort(bits.random_raw(NAME_COUNT), kind="stable").tolist()[:entities])
    )
    chosen = bits.random_raw(entities * len(RELATIONS)).reshape(entities, len(RELATIONS))
    holds = np.full(chosen.shape, -1, np.int64)
    for entity in range(entities):
        first, place = entity - entity % ENTITIES_PER_REGION, entity % ENTITIES_PER_REGION
        for number, relation in enumerate(RELATIONS):
            if KINDS[place] == relation.of:
                others = [e for e, k in enumerate(KINDS) if k == relation.gives and e != place]
                holds[entity, number] = first + others[int(chosen[entity, number]) % len(others)]
    documents = tuple(
        Document(
            names[entity],
            " ".join(
                relation.sentence.format(names[entity], names[other])
                for relation, other in zip(RELATIONS, holds[entity], strict=True)
                if other >= 0
            ),
        )
        for entity in range(entities)
    )
    return Encyclopedia({name: n for n, name in enumerate(names)}, holds, documents)


def _name(number: int) -> str:
    first, last = divmod(number, NAME_WORDS)
    return f"{_word(2 * first)} {_word(2 * last + 1)}"


def _word(number: int) -> str:
    # A word of two syllables. The factor is coprime to their number, so that no word repeats.
    number = number * 7919 % ((len(ONSETS) * len(VOWELS)) ** 2 * len(CODAS))
    parts = []
    for syllables in (CODAS, VOWELS, ONSETS, VOWELS, ONSETS):
        number, place = divmod(number, len(syllables))
        parts.append(syllables[place])
    return "".join(reversed(parts)).capitalize()
