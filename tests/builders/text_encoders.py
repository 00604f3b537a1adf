"""A text encoder for tests.

A word is a fixed random vector, so that equal words match exactly.
"""

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from muvera.data.multivectors import MultiVectors
from muvera.texts.encoders.base import TextSide


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
