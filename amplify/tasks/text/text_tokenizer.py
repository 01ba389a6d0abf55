"""Encodes text as a task's tokens, and decodes it.

Token t of a task is the tokenizer's token t - 1; 0 is padding, ends a text, and alone means "don't
know". Text never becomes control tokens: "</s>" in a text is encoded like the characters "<", "/s"
and ">", not as the control token of this name.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from amplify.errors import AmplifyError, first_line
from amplify.models.pretrained.control_tokens import control_tokens, without_control

PAD_WORD = "<?>"
"""The word for token 0 in a task's vocabulary, distinct from all tokens of a tokenizer."""


class TextTokenizer:
    """Encodes and decodes texts.

    Args:
        tokenizer: the underlying tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._plain = without_control(tokenizer)
        self._control = frozenset(control_tokens(tokenizer))
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        tokens = (tokenizer.id_to_token(number) or "" for number in range(size))
        self.vocabulary = (PAD_WORD, *tokens)
        self._cached_encode = functools.lru_cache(maxsize=1 << 18)(self._encode_uncached)

    def encode(self, text: str) -> tuple[int, ...]:
        """Encodes a text, without tokens for its beginning and end.

        A space is prepended, so that a word at the beginning of a text has the same tokens as
        elsewhere.

        Args:
            text: the text.
        """
        return self._cached_encode(text)

    def encode_batch(self, texts: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
        """Encodes texts as padded rows of tokens.

        Args:
            texts: the texts.
            length: of a row, in tokens. Longer texts are truncated, between characters.
        """
        rows = np.zeros((len(texts), length), np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.encode(text)
            if len(tokens) > length:
                tokens = self._truncate(tokens, length)
            row[: len(tokens)] = tokens
        return rows

    def _truncate(self, tokens: tuple[int, ...], length: int) -> tuple[int, ...]:
        """At most `length` tokens, without those of an incomplete character at the end."""
        for end in range(length, max(length - 4, 0), -1):
            if not self._tokenizer.decode([t - 1 for t in tokens[:end]]).endswith("\ufffd"):
                return tokens[:end]
        return tokens[:length]

    def check_round_trip(self, text: str) -> None:
        """Checks that decoding a text's tokens restores the text.

        Args:
            text: the text.

        Raises:
            ValueError: if it does not; the message shows the first difference.
        """
        tokens = self.encode(text)
        [back] = self.decode_batch(np.array([(*tokens, 0)], np.int32))
        if back != text.strip():
            place = next(
                (n for n, (a, b) in enumerate(zip(text.strip(), back, strict=False)) if a != b),
                min(len(text.strip()), len(back)),
            )
            expected, decoded = (
                one[max(place - 5, 0) : place + 15] for one in (text.strip(), back)
            )
            raise ValueError(f"the tokenizer makes {decoded!r} of {expected!r}")

    def decode_batch(self, rows: Int[np.ndarray, "n length"]) -> list[str]:
        """Decodes rows of tokens.

        Args:
            rows: each is decoded up to its first 0; an answer of FAILED gives "".
        """
        ends = np.where((rows <= 0).any(-1), (rows <= 0).argmax(-1), rows.shape[-1])
        ids = [(row[:end] - 1).tolist() for row, end in zip(rows, ends, strict=True)]
        return [text.strip() for text in self._tokenizer.decode_batch(ids)]

    def join_words(self, words: Sequence[str]) -> str:
        """Joins words of the vocabulary to a text.

        Args:
            words: of the vocabulary.

        Returns:
            The text; "?" if it is empty.
        """
        kept = [word for word in words if word != PAD_WORD]
        decoder = self._tokenizer.decoder
        text = decoder.decode(kept) if decoder is not None else " ".join(kept)
        return text.strip() or "?"

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        ids = self._plain.encode(" " + text, add_special_tokens=False).ids
        # A tokenizer without merges may have a control token as a word; see `check_round_trip`.
        return tuple(number + 1 for number in ids if number not in self._control)


def train_tokenizer(texts: Iterable[str], size: int) -> TextTokenizer:
    """Trains a byte-level BPE tokenizer.

    Args:
        texts: to train on.
        size: maximum size of the vocabulary, at least 256.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator((" " + text for text in texts), trainer)
    return TextTokenizer(tokenizer)


def load_tokenizer(folder: Path) -> TextTokenizer:
    """Loads the tokenizer of a checkpoint.

    Args:
        folder: the checkpoint's folder.

    Raises:
        AmplifyError: if it has no tokenizer, or one that cannot be read.
    """
    file = folder / "tokenizer.json"
    try:
        return TextTokenizer(Tokenizer.from_file(str(file)))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise AmplifyError(f"{file}: cannot be read: {first_line(error)}") from None
