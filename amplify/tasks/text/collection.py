"""Documents, and a real search engine over them.

The engine is bm25s (Lu 2024, arXiv:2407.03618), kept in memory: over 40,960 documents a search
takes 0.2 ms, where SQLite's FTS5, asked for any of the same words, takes 11. Knows nothing of
questions or tokens.
"""

import functools
import itertools
import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from amplify.tasks.text.splitting import is_unspaced, sentences, words_of


class Document(NamedTuple):
    title: str
    text: str


class Collection:
    """Documents that can be searched."""

    def __init__(self, documents: Sequence[Document]) -> None:
        import bm25s  # takes a second, and most experiments search nothing
        from bm25s.stopwords import STOPWORDS_EN

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it says what it builds

        self.documents = tuple(documents)
        self._engine = bm25s.BM25()
        self._stop_words = frozenset(STOPWORDS_EN)
        texts = [self._words(f"{title}. {text}") for title, text in self.documents]
        self._engine.index(texts, show_progress=False)
        self._known: dict[tuple[str, int], tuple[int, ...]] = {}
        self._titles = {title: number for number, (title, _) in enumerate(self.documents)}
        self._longest_title = max((len(title.split()) for title in self._titles), default=1)
        self._unspaced_titles = tuple(title for title in self._titles if is_unspaced(title))

    def _words(self, text: str) -> list[str]:
        return [word for word in words_of(text.lower()) if word not in self._stop_words]

    def search(self, queries: Sequence[str], hits: int) -> list[tuple[int, ...]]:
        """Numbers of the documents that match each query best, at most `hits`, best first."""
        for query in dict.fromkeys(queries):
            if (query, hits) not in self._known:
                self._known[query, hits] = self._best(query, hits)
        return [self._known[query, hits] for query in queries]

    def _best(self, query: str, hits: int) -> tuple[int, ...]:
        """The engine's own choice of the best would weigh all documents, and most match nothing."""
        words = self._words(query)
        if not words:
            return ()
        scores = self._engine.get_scores(words)
        if hits == 1:  # sorting takes ten times as long as all the rest
            best = int(np.argmax(scores))
            return (best,) if scores[best] > 0 else ()
        matching = np.flatnonzero(scores > 0)
        order = np.argsort(-scores[matching], kind="stable")[:hits]
        return tuple(matching[order].tolist())

    def follow(self, queries: Sequence[str], hits: int, follow_ups: int) -> list[tuple[int, ...]]:
        """What each query finds, and then searches for names that stand in what was found, as many
        as `follow_ups` in the order in which they are met; each gives its best document.
        """
        found = [dict.fromkeys(documents) for documents in self.search(queries, hits)]
        asked: list[dict[str, None]] = [{} for _ in queries]
        newest = [list(documents) for documents in found]
        while any(newest):
            for documents, names in zip(newest, asked, strict=True):
                for name in itertools.chain.from_iterable(map(self.names_in, documents)):
                    if len(names) < follow_ups:
                        names.setdefault(name)
            self.search(list(itertools.chain.from_iterable(asked)), 1)  # all at once
            for row, names in enumerate(asked):
                reached = itertools.chain.from_iterable(self.search(list(names), 1))
                newest[row] = [number for number in reached if number not in found[row]]
                found[row].update(dict.fromkeys(newest[row]))
        return [tuple(documents) for documents in found]

    def sentence(self, number: int, query: str) -> str:
        """The sentence of a document that has most words of a query."""
        wanted = _different_words(query)
        return max(
            sentences(self.documents[number].text) or [""],
            key=lambda sentence: len(wanted & _different_words(sentence)),
        )

    @functools.cache  # noqa: B019 - a collection lives as long as the process
    def names_in(self, number: int) -> tuple[str, ...]:
        """Titles of other documents that stand in a document, in the order in which they do."""
        title, text = self.documents[number]
        words = re.findall(r"\w+", text)
        names = (
            " ".join(words[start : start + length])
            for start in range(len(words))
            for length in range(self._longest_title, 0, -1)
        )
        spaced = [n for n in names if n in self._titles and n != title]
        there = [n for n in self._unspaced_titles if n in text and n != title]
        return tuple(dict.fromkeys([*spaced, *sorted(there, key=text.index)]))


def _different_words(text: str) -> set[str]:
    return {*re.findall(r"\w+", text), *(words_of(text) if is_unspaced(text) else ())}
