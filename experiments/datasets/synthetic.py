"""Tiny synthetic collections with texts and judgements, for quick runs.

Each text is about random topics.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from .collection import Collection

#: Names of the collections; tokens of the second share a direction, as with many
#: models.
NAMES = ("quick-wide", "quick-cone")

_DIMENSION, _WORDS, _TOPICS = 128, 312, 24


def synthetic_collection(name: str, documents: int = 150, queries: int = 12) -> Collection:
    """Return a collection of texts about topics, by a name of NAMES.

    Every word has a vector near its topic's; a token is its word's vector with noise.
    A query repeats words of one document, its only judged one.
    """
    stream = np.random.default_rng(NAMES.index(name))
    topics = stream.normal(size=(_TOPICS, _DIMENSION))
    words = 0.8 * topics[np.arange(_WORDS) % _TOPICS] + stream.normal(size=(_WORDS, _DIMENSION))
    common = 25 * _unit(stream.normal(size=(1, _DIMENSION))) if name == "quick-cone" else np.zeros(1)

    def embedded(text: NDArray[np.int64], noise: float) -> NDArray[np.float32]:
        vectors = words[text] + noise * stream.normal(size=(len(text), _DIMENSION)) + common
        return _unit(vectors).astype(np.float32)

    texts = []
    for _ in range(documents):
        about = stream.integers(0, _TOPICS, 3)
        near = np.arange(_WORDS).reshape(-1, _TOPICS)[:, about].ravel()
        texts.append(stream.choice(near, stream.integers(8, 25)))
    answers = stream.choice(documents, queries, replace=False)
    asked = [stream.choice(texts[i], min(6, len(texts[i])), replace=False) for i in answers]
    tokens = [MultiVectors.from_arrays([embedded(text, 0.5) for text in side]) for side in (texts, asked)]
    digest = hashlib.sha256(tokens[0].tokens.tobytes() + tokens[1].tokens.tobytes()).hexdigest()[:16]
    return Collection(
        name,
        tokens[0],
        tokens[1],
        digest,
        [f"d{i}" for i in range(documents)],
        [f"q{i}" for i in range(queries)],
        document_texts=[_written(text) for text in texts],
        query_texts=[_written(text) for text in asked],
        document_pooled=_pooled(tokens[0]),
        query_pooled=_pooled(tokens[1]),
        document_token_ids=texts,
        query_token_ids=asked,
        judgements=[{int(i): 1} for i in answers],
    )


def _written(text: NDArray[np.int64]) -> str:
    return " ".join(f"word{i}" for i in text.tolist())


def _pooled(texts: MultiVectors) -> NDArray[np.float32]:
    return _unit(np.stack([tokens.mean(axis=0) for tokens in texts])).astype(np.float32)


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    unit: NDArray[Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
