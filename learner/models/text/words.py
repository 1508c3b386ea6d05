"""Words of texts, and the vocabulary that numbers them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.ports import Arrays

PADDING = 0
UNKNOWN = 1
SPECIAL = 2
"""How many numbers mean no word of the vocabulary."""

# Python's \w leaves combining marks out: without the ranges named here a Hindi word falls apart into its consonants.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u06ed\u0900-\u109f\u1780-\u17ff\u200c\u200d"
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_LETTER = f"(?:(?![{_SIGNS}])[\\w{_MARKS}])"
_WORD = re.compile(f"[{_SIGNS}]|{_LETTER}+(?:['’]{_LETTER}+)*|[^\\w\\s]")


def words_of(text: str) -> list[str]:
    """Return the words of a text, lower-cased: runs of letters, digits and marks; other signs each by itself.

    An apostrophe between letters belongs to the word. Han and kana, written without spaces, are a word a sign.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()))


class Vocabulary:
    """Numbers for words: PADDING, UNKNOWN, and from SPECIAL on the words in the order given.

    Parameters
    ----------
    words
        Distinct, none with a line break.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._numbers: Mapping[str, int] = {word: SPECIAL + place for place, word in enumerate(self.words)}
        if len(self._numbers) < len(self.words):
            raise ValueError("the vocabulary has a word twice")

    @classmethod
    def of(cls, texts: Iterable[str], size: int) -> "Vocabulary":
        """Return the `size` most frequent words of `texts`, most frequent first, equals in the order of their letters.

        A function of which texts there are, not of their order.
        """
        counts = Counter(word for text in texts for word in words_of(text))
        return cls(sorted(counts, key=lambda word: (-counts[word], word))[:size])

    @classmethod
    def load(cls, arrays: Arrays) -> "Vocabulary":
        """Return the vocabulary that was saved; raise KeyError or ValueError where `arrays` hold none."""
        array = arrays["vocabulary"]
        if array.dtype != np.uint8 or array.ndim != 1:
            raise ValueError(f"the vocabulary is {array.dtype} {array.shape}, not bytes")
        text = array.tobytes().decode()
        return cls(text.split("\n") if text else ())

    def __len__(self) -> int:
        """How many numbers there are, the special ones included."""
        return SPECIAL + len(self.words)

    def encode(self, text: str, max_words: int) -> NDArray[np.int32]:
        """Return the numbers of the first `max_words` words of a text; none for an empty one."""
        numbers = self._numbers
        return np.array([numbers.get(word, UNKNOWN) for word in words_of(text)[:max_words]], np.int32)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return the words as the bytes of UTF-8 text, one a line."""
        return {"vocabulary": np.frombuffer("\n".join(self.words).encode(), np.uint8).copy()}


class WordEmbedding(nn.Module):
    """A vector a word. Padding is zero and stays it; an unknown word, which no labelled text holds, begins at zero."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, dimension, padding_idx=PADDING)
        with torch.no_grad():
            self.table.weight[UNKNOWN] = 0

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return (…, dimension) of words (…) int64."""
        vectors: torch.Tensor = self.table(words)
        return vectors
