"""Questions about the user's own documents.

Each question comes with its answer and the documents that the answer rests on, but without a
decomposition strategy: the overseer is a language model, or people. The assistant reads the
passages that a search finds.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from amplify.answers import AnswerRule
from amplify.tasks.text.collection import Collection, Document
from amplify.tasks.text.retrieval import SEARCH_PREFIX, Count, Library, RetrievalTask, library_of
from amplify.tasks.text.sources import Question, read_documents, read_questions
from amplify.tasks.text.splitting import split_passages


@dataclasses.dataclass(frozen=True)
class Documents(RetrievalTask):
    """Question answering over the user's own documents."""

    PATHS: ClassVar = ("tokenizer", "documents", "questions")

    documents: str = ""
    """A folder of .txt and .md files (titled by file name), a .jsonl file of {"title", "text"}, or
    a TFDS data set with text, as a folder or by name."""
    questions: str = ""
    """A .jsonl file of {"question", "answer", "documents": [titles of the documents that the answer
    rests on, hop by hop]}."""
    hits: Count = 2
    """Passages that the search for a question returns."""
    passages: Count = 16
    """Passages of a context, which all questions of a problem share."""
    passage_length: Count = 96
    """Maximum number of tokens of a passage."""
    question_length: Count = 48
    """Maximum number of tokens of a question."""
    answer_length: Annotated[int, Field(ge=2)] = 16
    """Maximum number of tokens of an answer."""

    answer_rule = AnswerRule("normalized")

    @property
    def max_depth(self) -> int:
        return _max_hops(self.questions)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("1 hop", *(f"{hops} hops" for hops in range(2, self.max_depth + 1)))

    @property
    def regions(self) -> int:
        """Number of regions; the questions of one have the same first document. An eighth of the
        regions are held out.
        """
        return len(self._world.regions)

    def parse(self, text: str) -> list[str]:
        if not text.removeprefix(SEARCH_PREFIX).strip():
            raise ValueError(f"a question is any text, or {SEARCH_PREFIX} and what to search for")
        return self._question_words(text)

    def make_library(self) -> Library:
        """Reads the documents and questions; see `RetrievalTask.make_library`."""
        documents = read_documents(self.documents)
        questions = read_questions(self.questions, documents)
        texts = [_with_title(document) for document in documents]
        question_texts = [text for one in questions for text in (one.question, one.answer)]
        tokenizer = self._make_tokenizer([*texts, *question_texts, SEARCH_PREFIX])
        longest = {
            "question_length": [one.question for one in questions],
            "answer_length": [one.answer for one in questions],
        }
        self._check_lengths(tokenizer, longest)
        passages = [
            Document(document.title, piece)
            for document in documents
            for piece in split_passages(_with_title(document), tokenizer, self.passage_length)
        ]
        self._check_round_trips(tokenizer, _labelled(passages, questions))
        rows = tokenizer.encode_batch([text for _, text in passages], self.passage_length)
        return Library(
            QuestionSet.build(passages, questions), Collection(passages), tokenizer, rows
        )

    @property
    def _world(self) -> "QuestionSet":
        world = library_of(self).world
        assert isinstance(world, QuestionSet)
        return world

    def _class(self, question: str) -> int:
        known = self._world.by_text.get(question)
        return known.hops - 1 if known else 0


class QuestionSet(NamedTuple):
    """The user's questions, and the passages that have their answers; see `retrieval.World`."""

    questions: tuple[Question, ...]
    by_text: dict[str, Question]
    regions: tuple[tuple[Question, ...], ...]  # questions with the same first document
    places: dict[str, list[int]]  # indices of each document's passages, by title

    @classmethod
    def build(cls, passages: Sequence[Document], questions: Sequence[Question]) -> "QuestionSet":
        """Indexes questions by region and passages by document.

        Args:
            passages: of the documents, titled like these.
            questions: the user's questions.
        """
        places: dict[str, list[int]] = {}
        for number, passage in enumerate(passages):
            places.setdefault(passage.title, []).append(number)
        regions: dict[str, list[Question]] = {}
        for question in questions:
            regions.setdefault(question.documents[0], []).append(question)
        by_text = {question.question: question for question in questions}
        return cls(tuple(questions), by_text, tuple(map(tuple, regions.values())), places)

    def draw(self, region: int, hops: int, new: int, first: int, second: int) -> str:
        """Draws a question; see `retrieval.World.draw`. All questions occur in training."""
        questions = self.regions[region]
        nearest = min((question.hops for question in questions), key=lambda n: abs(n - hops))
        allowed = [question for question in questions if question.hops == nearest]
        return allowed[second % len(allowed)].question

    def answer(self, question: str) -> str:
        """The true answer; see `retrieval.World.answer`."""
        known = self.by_text.get(question)
        return known.answer if known else ""

    def path(self, question: str) -> list[list[int]]:
        """The passages that the answer rests on; see `retrieval.World.path`."""
        known = self.by_text.get(question)
        return [self.places[title] for title in known.documents] if known else []


@functools.cache
def _max_hops(questions: str) -> int:
    """The largest number of hops in a file of questions. Does not read the documents, because it is
    needed when the experiment file is read.
    """
    return max(question.hops for question in read_questions(questions))


def _labelled(
    passages: Sequence[Document], questions: Sequence[Question]
) -> Iterator[tuple[str, str]]:
    """All texts, each with its description for error messages."""
    for title, text in passages:
        yield f"document {title!r}", text
    for question in questions:
        yield f"question {question.question!r}", question.question
        yield f"the answer to {question.question!r}", question.answer


def _with_title(document: Document) -> str:
    """A document's text, with its title in front if the text does not contain it."""
    title, text = document
    return text if title in text else f"{title}: {text}"
