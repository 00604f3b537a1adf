"""The encoder of the bundled sample: stored vectors of its texts, and a model for all others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ...data.demo_sample import DemoSample
from ...data.multivectors import MultiVectors
from .base import Side, TextEncoder, from_matrices
from .registry import load_text_encoder

__all__ = ["SampleEncoder"]


class SampleEncoder:
    """Token vectors that the sample holds; the model that made them encodes other texts, where it is installed.

    Parameters
    ----------
    sample : DemoSample
    """

    name = "minilm-demo"

    def __init__(self, sample: DemoSample) -> None:
        sides = {
            "document": (sample.texts, sample.documents, sample.token_strings),
            "query": (sample.query_texts, sample.queries, sample.query_token_strings),
        }
        self._vectors = {
            side: dict(zip(texts, vectors, strict=True)) for side, (texts, vectors, _) in sides.items()
        }
        self._strings = {
            side: dict(zip(texts, strings, strict=True)) for side, (texts, _, strings) in sides.items()
        }
        self._dimension = sample.documents.dimension

    @cached_property
    def model(self) -> TextEncoder:
        """The model.

        Raises
        ------
        ImportError
            Without the extra "minilm".
        """
        return load_text_encoder(self.name)

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return self._encode(texts, "document")

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return self._encode(texts, "query")

    def _encode(self, texts: Sequence[str], side: Side) -> MultiVectors:
        stored = self._vectors[side]
        matrices = []
        for text in texts:
            if text in stored:
                matrices.append(np.asarray(stored[text]))
            else:
                encode = self.model.encode_documents if side == "document" else self.model.encode_queries
                matrices.append(np.asarray(encode([text])[0], np.float16))
        return from_matrices(matrices, self._dimension)

    def token_spans(self, text: str, side: Side) -> list[tuple[int, int]] | None:
        """Return where each token vector of a text comes from."""
        strings = self._strings[side].get(text)
        return self.model.token_spans(text, side) if strings is None else _places(text.lower(), strings)


def _places(text: str, strings: Sequence[str]) -> list[tuple[int, int]]:
    """Find wordpieces one after the other; what is not found, as special tokens, has no place."""
    at, places = 0, []
    for string in strings:
        piece = string.removeprefix("##")
        start = text.find(piece, at)
        if start < 0:
            places.append((at, at))
        else:
            at = start + len(piece)
            places.append((start, at))
    return places
