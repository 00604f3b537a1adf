"""Text encoders for tests.

A word is a fixed random vector, so that equal words match exactly.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from muvera.data.multivectors import MultiVectors
from muvera.texts.encoders.base import ModelEncoder, TextSide
from muvera.texts.encoders.windows import Reader, Spans


class HashEncoder:
    """Words to unit vectors drawn from the words' checksums."""

    def __init__(self, dimension: int = 16, name: str = "hash") -> None:
        self.name = name
        self._dimension = dimension

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        return MultiVectors.from_arrays([self._matrix(text) for text in texts], dimension=self._dimension)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        return self.encode_documents(texts)

    def token_spans(self, text: str, side: TextSide) -> list[tuple[int, int]] | None:
        return [match.span() for match in re.finditer(r"\w+", text)]

    def _matrix(self, text: str) -> np.ndarray:
        words = re.findall(r"\w+", text.lower())
        rows = [np.random.default_rng(crc32(word.encode())).normal(size=self._dimension) for word in words]
        matrix = np.array(rows, np.float32).reshape(-1, self._dimension)
        return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12))


#: Tokens that a :class:`ShortModel` reads.
LIMIT = 16


def tokens_of(text: str) -> Spans:
    """Return parts of words: at most four letters."""
    return [match.span() for match in re.finditer(r"\w{1,4}", text)]


class ShortModel(ModelEncoder):
    """Reads 16 tokens and a special one, and drops the rest without a word."""

    name = "short"

    def matrices(self, texts: list[str], side: TextSide) -> Iterable[Any]:
        words = [["cls", *(text[a:b] for a, b in tokens_of(text)[:LIMIT])] for text in texts]
        return list(HashEncoder().encode_documents([" ".join(own) for own in words]))

    def window_spans(self, text: str, side: TextSide) -> list[tuple[int, int]]:
        return [(0, 0), *tokens_of(text)[:LIMIT]]

    def reader(self, side: TextSide) -> Reader:
        return Reader(tokens_of, LIMIT)
