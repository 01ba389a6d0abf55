"""Splits text into sentences, words and passages, also in scripts without spaces."""

import re
from collections.abc import Callable, Iterator

from amplify.tasks.text.text_tokenizer import TextTokenizer

_SENTENCE_ENDS = re.compile(
    r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f\u0964])[\u300d\u300f\uff09]*\s*"
)
_WORD = re.compile(r"\b\w\w+\b")
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)
"""Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese."""


def sentences(text: str) -> list[str]:
    """Splits a text into sentences, without the white space between them.

    Args:
        text: the text.
    """
    return [sentence.strip() for sentence in _pieces_between(_SENTENCE_ENDS, text.strip())]


def is_unspaced(text: str) -> bool:
    """Whether a text has characters of a script without spaces between words.

    Args:
        text: the text.
    """
    return _UNSPACED.search(text) is not None


def words_of(text: str) -> list[str]:
    """The words by which a text is indexed.

    Args:
        text: the text. Scripts without spaces give character bigrams, as in search engines without
            a dictionary.
    """
    if not is_unspaced(text):
        return _WORD.findall(text)
    pairs = [
        run[0][place : place + 2]
        for run in _UNSPACED.finditer(text)
        for place in range(max(len(run[0]) - 1, 1))
    ]
    return re.findall(r"\w+", _UNSPACED.sub(" ", text)) + pairs


def split_passages(text: str, tokenizer: TextTokenizer, length: int) -> list[str]:
    """Splits a text into passages that together contain all of it.

    Passages consist of whole sentences; of whole words if a sentence is too long for a passage; of
    characters if a word is too long, as in scripts without spaces and in long URLs. White space is
    collapsed to one space inside a passage, and removed between passages.

    Args:
        text: the text.
        tokenizer: counts tokens.
        length: maximum tokens of a passage.

    Returns:
        The passages.

    Raises:
        ValueError: if a single character has more than `length` tokens.
    """
    pieces = [""]
    for part in _parts(" ".join(text.split()), lambda part: len(tokenizer.encode(part)), length):
        longer = pieces[-1] + part
        if len(tokenizer.encode(longer.strip())) <= length:
            pieces[-1] = longer
        else:
            pieces.append(part)
    return [piece.strip() for piece in pieces if piece.strip()]


def _parts(text: str, count: Callable[[str], int], length: int) -> Iterator[str]:
    """Yields sentences, words or parts of words that fit, each with the space after it."""
    for sentence in _pieces_between(_SENTENCE_ENDS, text):
        if count(sentence.strip()) <= length:
            yield sentence
            continue
        for word in re.findall(r"\s*\S+\s*", sentence):
            yield from [word] if count(word.strip()) <= length else _cut(word, count, length)


def _pieces_between(ends: re.Pattern[str], text: str) -> Iterator[str]:
    """Yields the parts of a text that end with a match, and the rest."""
    start = 0
    for found in ends.finditer(text):
        if found.end() > start:
            yield text[start : found.end()]
            start = found.end()
    if start < len(text):
        yield text[start:]


def _cut(word: str, count: Callable[[str], int], length: int) -> Iterator[str]:
    """Yields the longest prefix of a word that fits, repeatedly, until the word is used up."""
    while count(word.strip()) > length:
        fits, too_many = 0, min(len(word), 64 * length)  # characters; binary search
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if count(word[:middle]) <= length:
                fits = middle
            else:
                too_many = middle
        if fits == 0:
            raise ValueError(
                f"passage_length must be at least {count(word[:1])}, the tokens of {word[:1]!r};"
                f" got {length}"
            )
        yield word[:fits]
        word = word[fits:]
    yield word
