"""Questions over documents of one's own.

Somebody wrote the questions and says what each answer rests on, but nobody has said how they are
taken apart: the overseer is a language model. Passages are searched for, see `searched`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from amplify.answers import AnswerRule
from amplify.tasks.text.collection import Collection, Document
from amplify.tasks.text.searched import SEARCH, Count, Library, Searched, library_of
from amplify.tasks.text.sources import Question, read_documents, read_questions
from amplify.tasks.text.splitting import split_up


@dataclasses.dataclass(frozen=True)
class Documents(Searched):
    PATHS: ClassVar = ("tokenizer", "documents", "questions")

    documents: str = ""
    """A folder of .txt and .md files (a file's name is the title), a .jsonl file of {"title",
    "text"}, or a TFDS data set with text: its folder, or its name."""
    questions: str = ""
    """A .jsonl file of {"question", "answer", "documents": [titles of those that the answer rests
    on, hop by hop]}."""
    hits: Count = 2
    passages: Count = 16
    passage_length: Count = 96
    question_length: Count = 48
    answer_length: Annotated[int, Field(ge=2)] = 16

    answer_rule = AnswerRule("normalized")

    @property
    def max_depth(self) -> int:
        return _most_hops(self.questions)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("1 hop", *(f"{hops} hops" for hops in range(2, self.max_depth + 1)))

    @property
    def regions(self) -> int:
        """Each is what is asked of one document first; an eighth of them are held out."""
        return len(self._world.regions)

    def parse(self, text: str) -> list[str]:
        if not text.removeprefix(SEARCH).strip():
            raise ValueError(f"a question is any text, or {SEARCH} and what to search for")
        return self._question_words(text)

    def make_library(self) -> Library:
        documents = read_documents(self.documents)
        questions = read_questions(self.questions, documents)
        texts = [_told(document) for document in documents]
        said = [text for one in questions for text in (one.question, one.answer)]
        spelling = self._spelling([*texts, *said, SEARCH])
        longest = {
            "question_length": [one.question for one in questions],
            "answer_length": [one.answer for one in questions],
        }
        self._check_lengths(spelling, longest)
        passages = [
            Document(document.title, piece)
            for document in documents
            for piece in split_up(_told(document), spelling, self.passage_length)
        ]
        self._check_spelling(spelling, _named(passages, questions))
        rows = spelling.write([text for _, text in passages], self.passage_length)
        return Library(Asked.about(passages, questions), Collection(passages), spelling, rows)

    @property
    def _world(self) -> "Asked":
        world = library_of(self).world
        assert isinstance(world, Asked)
        return world

    def _class(self, question: str) -> int:
        known = self._world.by_text.get(question)
        return known.hops - 1 if known else 0


class Asked(NamedTuple):
    """The questions that somebody wrote, and where their answers stand; see `searched.World`."""

    questions: tuple[Question, ...]
    by_text: dict[str, Question]
    regions: tuple[tuple[Question, ...], ...]  # of those that begin with the same document
    places: dict[str, list[int]]  # the passages of each document, by its title

    @classmethod
    def about(cls, passages: Sequence[Document], questions: Sequence[Question]) -> "Asked":
        places: dict[str, list[int]] = {}
        for number, passage in enumerate(passages):
            places.setdefault(passage.title, []).append(number)
        regions: dict[str, list[Question]] = {}
        for question in questions:
            regions.setdefault(question.documents[0], []).append(question)
        by_text = {question.question: question for question in questions}
        return cls(tuple(questions), by_text, tuple(map(tuple, regions.values())), places)

    def draw(self, region: int, hops: int, new: int, first: int, second: int) -> str:
        questions = self.regions[region]
        nearest = min((question.hops for question in questions), key=lambda n: abs(n - hops))
        allowed = [question for question in questions if question.hops == nearest]
        return allowed[second % len(allowed)].question

    def answer(self, question: str) -> str:
        known = self.by_text.get(question)
        return known.answer if known else ""

    def path(self, question: str) -> list[list[int]]:
        known = self.by_text.get(question)
        return [self.places[title] for title in known.documents] if known else []


@functools.cache
def _most_hops(questions: str) -> int:
    """Hops of the question that needs most, in a file of questions. Documents are not needed, and
    so not read: it is asked for when the experiment file is read, and often after that.
    """
    return max(question.hops for question in read_questions(questions))


def _named(
    passages: Sequence[Document], questions: Sequence[Question]
) -> Iterator[tuple[str, str]]:
    """All texts, each with what it is called in an error."""
    for title, text in passages:
        yield f"document {title!r}", text
    for question in questions:
        yield f"question {question.question!r}", question.question
        yield f"the answer to {question.question!r}", question.answer


def _told(document: Document) -> str:
    """A document's text, with its title if the text does not say it."""
    title, text = document
    return text if title in text else f"{title}: {text}"
