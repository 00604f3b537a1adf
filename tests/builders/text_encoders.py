"""Text encoders for tests.

A word is a fixed random vector, so that equal words match exactly.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from muvera.data.multivectors import MultiVectors
from muvera.texts.encoders.base import ModelEncoder, TableEncoder, TextSide
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


class SignTable(TableEncoder):
    """Words to rows of a table of 256 unit vectors, by the words' checksums.

    The rows have the same bits on every machine.
    """

    name = "signs"
    passage = 8

    def __init__(self) -> None:
        bits = np.unpackbits(
            np.frombuffer(b"".join(crc32(bytes([i])).to_bytes(4, "big") for i in range(256)), np.uint8)
        )
        super().__init__(np.where(bits.reshape(256, 32)[:, :16], 0.25, -0.25).astype(np.float32))

    def document_rows(self, texts: list[str]) -> list[list[int]]:
        return [[crc32(word.encode()) % 256 for word in re.findall(r"\w+", text.lower())] for text in texts]

    def query_matrices(self, texts: list[str]) -> list[Any]:
        return [self.table[np.array(rows, np.int64)] for rows in self.document_rows(texts)]


#: Tokens that a :class:`ShortModel` reads.
LIMIT = 16


def tokens_of(text: str) -> Spans:
    """Return parts of words: at most four letters."""
    return [match.span() for match in re.finditer(r"\w{1,4}", text)]


class ShortModel(ModelEncoder):
    """Reads 16 tokens and a special one, and drops the rest without a word."""

    name = "short"
    dimension = 16

    def matrices(self, texts: list[str], side: TextSide) -> Iterable[Any]:
        words = [["cls", *(text[a:b] for a, b in tokens_of(text)[:LIMIT])] for text in texts]
        return list(HashEncoder(self.dimension).encode_documents([" ".join(own) for own in words]))

    def window_spans(self, text: str, side: TextSide) -> list[tuple[int, int]]:
        return [(0, 0), *tokens_of(text)[:LIMIT]]

    def reader(self, side: TextSide) -> Reader:
        return Reader(tokens_of, LIMIT)
