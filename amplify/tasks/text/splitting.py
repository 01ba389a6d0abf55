"""Texts in pieces: sentences, words, and what stands for words where none are written apart."""

import re
from collections.abc import Callable, Iterator

from amplify.tasks.text.spelling import Spelling

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
    """A text's sentences, without the white space between them."""
    return [sentence.strip() for sentence in _pieces_between(_SENTENCE_ENDS, text.strip())]


def is_unspaced(text: str) -> bool:
    """Whether any of a text is in a script without spaces between words."""
    return _UNSPACED.search(text) is not None


def words_of(text: str) -> list[str]:
    """The words that a text is found by. Scripts without spaces give pairs of characters, as in
    search engines that have no dictionary.
    """
    if not is_unspaced(text):
        return _WORD.findall(text)
    pairs = [
        run[0][place : place + 2]
        for run in _UNSPACED.finditer(text)
        for place in range(max(len(run[0]) - 1, 1))
    ]
    return re.findall(r"\w+", _UNSPACED.sub(" ", text)) + pairs


def split_up(text: str, spelling: Spelling, length: int) -> list[str]:
    """Pieces of at most `length` tokens that together say all that a text does.

    A piece consists of whole sentences; of whole words where a sentence is too long itself; of
    characters where a word is, as in scripts without spaces and in long addresses. White space is
    one space inside a piece, and left out between two.

    Raises:
        ValueError: if a single character has more tokens than that.
    """
    pieces = [""]
    for part in _parts(" ".join(text.split()), lambda part: len(spelling.tokens(part)), length):
        longer = pieces[-1] + part
        if len(spelling.tokens(longer.strip())) <= length:
            pieces[-1] = longer
        else:
            pieces.append(part)
    return [piece.strip() for piece in pieces if piece.strip()]


def _parts(text: str, count: Callable[[str], int], length: int) -> Iterator[str]:
    """Sentences, words or characters that fit by themselves, each with the space after it."""
    for sentence in _pieces_between(_SENTENCE_ENDS, text):
        if count(sentence.strip()) <= length:
            yield sentence
            continue
        for word in re.findall(r"\s*\S+\s*", sentence):
            yield from [word] if count(word.strip()) <= length else _cut(word, count, length)


def _pieces_between(ends: re.Pattern[str], text: str) -> Iterator[str]:
    """A text cut after each match."""
    start = 0
    for found in ends.finditer(text):
        if found.end() > start:
            yield text[start : found.end()]
            start = found.end()
    if start < len(text):
        yield text[start:]


def _cut(word: str, count: Callable[[str], int], length: int) -> Iterator[str]:
    """The longest beginnings of a word that fit, one after another."""
    while count(word.strip()) > length:
        few, many = 0, min(len(word), 64 * length)  # so many characters fit, and so many do not
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if count(word[:middle]) <= length else (few, middle)
        if few == 0:
            raise ValueError(
                f"passage_length must be at least {count(word[:1])}, the tokens of {word[:1]!r};"
                f" got {length}"
            )
        yield word[:few]
        word = word[few:]
    yield word
