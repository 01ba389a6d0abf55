"""A generated encyclopedia: people, towns, countries and companies in plain sentences, and the
questions that can be asked about them.

The world is made of regions. What is said in one names nothing of another, so that a region can be
held out with every entity in it. A name is two words, each of them in many names; everything
follows from the seed. Knows nothing of tokens, searches or overseers.
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
    """Something that each entity of a kind has, such as a founder."""

    of: str  # kind of entity
    gives: str
    question: str  # who or what is it, of {}?
    phrase: str  # how it is called inside a longer question
    sentence: str  # how the encyclopedia says that {} has {}
    keyword: str  # what one would type into a search box, beside the name

    def read(self, sentence: str, name: str) -> str:
        """What a sentence says that this name has; "" if it does not."""
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

REGION = {"country": 2, "town": 3, "person": 3, "company": 2}
"""How many entities of each kind a region has."""
KINDS = tuple(kind for kind, count in REGION.items() for _ in range(count))
"""The kind of each entity of a region, by its place."""
SIZE = len(KINDS)

ONSETS = (*"bdfghjklmnprstvwz", "br", "dr", "gr", "kl", "pl", "st", "tr")
VOWELS = tuple("aeiou")
CODAS = tuple("lmnrstx")
WORDS = 300
"""Words that are first ones of names; as many others are last ones."""
NAMES = WORDS**2
"""How many names there are."""


Chain = tuple[Relation, ...]
"""Relation after relation, the innermost first."""


class Asked(NamedTuple):
    """What a question is about."""

    name: str
    chain: Chain

    @property
    def is_new(self) -> bool:
        """Whether two of its hops follow each other as in no question of training."""
        return any(pair in NEW for pair in itertools.pairwise(self.chain))


def ask(name: str, chain: Chain) -> str:
    """The question of what one reaches from a name."""
    inside = name
    for relation in chain[:-1]:
        inside = relation.phrase.format(inside)
    return chain[-1].question.format(inside)


def parse(text: str) -> Asked | None:
    """What a question asks for; None if it is no question about the encyclopedia."""
    for relation, pattern in _patterns("question"):
        if match := pattern.fullmatch(text):
            inside = _parse_phrase(match[1])
            return Asked(inside.name, (*inside.chain, relation))
    return None


def _parse_phrase(text: str) -> Asked:
    for relation, pattern in _patterns("phrase"):
        if match := pattern.fullmatch(text):
            inside = _parse_phrase(match[1])
            return Asked(inside.name, (*inside.chain, relation))
    return Asked(text, ())


@functools.cache
def _patterns(field: str) -> list[tuple[Relation, re.Pattern[str]]]:
    def pattern(relation: Relation) -> re.Pattern[str]:
        before, after = getattr(relation, field).split("{}")
        return re.compile(f"{re.escape(before)}(.+){re.escape(after)}")

    return [(relation, pattern(relation)) for relation in RELATIONS]


@functools.cache
def chains(hops: int) -> tuple[Chain, ...]:
    """All chains of so many relations."""
    if hops == 1:
        return tuple((relation,) for relation in RELATIONS)
    return tuple(
        (*chain, relation)
        for chain in chains(hops - 1)
        for relation in RELATIONS
        if chain[-1].gives == relation.of
    )


NEW = frozenset([pair for pair in chains(2) if pair[1].of != "country"][::4])
"""Pairs of hops that no round asks for, only evals; each of the two is in other pairs, too."""


class Encyclopedia(NamedTuple):
    """Entity e of region r has the number r * SIZE + e."""

    numbers: dict[str, int]  # of each name
    holds: Int[np.ndarray, "entities relations"]  # the entity that the relation gives, or -1
    documents: tuple[Document, ...]  # one for each entity, under its name

    def answer(self, question: str) -> str:
        """The true answer; "" if there is none."""
        reached = self._walk(question)
        return self.documents[reached[-1]].title if reached else ""

    def path(self, question: str) -> list[list[int]]:
        """The document of each hop, by number, that the answer rests on; none if there is no
        answer.
        """
        return [[entity] for entity in self._walk(question)[:-1]]

    def _walk(self, question: str) -> list[int]:
        """The entities from the name to the answer; none if it leads nowhere."""
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
        """A question about a region, chosen by two large numbers; of chains that no round asks for
        only if `new`.
        """
        allowed = [chain for chain in chains(hops) if new or not Asked("", chain).is_new]
        chain = allowed[first % len(allowed)]
        places = [place for place, kind in enumerate(KINDS) if kind == chain[0].of]
        entity = region * SIZE + places[second % len(places)]
        return ask(self.documents[entity].title, chain)


@functools.cache
def generate(regions: int, seed: int) -> Encyclopedia:
    """The same for the same seed, on every machine; of at most NAMES // SIZE regions."""
    entities = regions * SIZE
    # Raw random bits are what NumPy promises never to change.
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64))
    names = tuple(map(_name, np.argsort(bits.random_raw(NAMES), kind="stable").tolist()[:entities]))
    chosen = bits.random_raw(entities * len(RELATIONS)).reshape(entities, len(RELATIONS))
    holds = np.full(chosen.shape, -1, np.int64)
    for entity in range(entities):
        first, place = entity - entity % SIZE, entity % SIZE
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
    first, last = divmod(number, WORDS)
    return f"{_word(2 * first)} {_word(2 * last + 1)}"


def _word(number: int) -> str:
    """Two syllables. The factor has none in common with their number: no word comes twice."""
    number = number * 7919 % ((len(ONSETS) * len(VOWELS)) ** 2 * len(CODAS))
    parts = []
    for syllables in (CODAS, VOWELS, ONSETS, VOWELS, ONSETS):
        number, place = divmod(number, len(syllables))
        parts.append(syllables[place])
    return "".join(reversed(parts)).capitalize()
