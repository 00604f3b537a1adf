"""What a learned encoder learns from: tokens, documents, and documents mixed of others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors

__all__ = ["mixed_documents", "sample_tokens", "training_sample"]

# Children of the configuration's seed.
_LANDMARKS, _MIXING, _TRAINING = 0xE2, 0xE3, 0xE5

# Documents whose values features are trained on, and tokens at which they are, at most.
_TRAINING_DOCUMENTS, _TRAINING_TOKENS = 1024, 40_000


def sample_tokens(
    documents: MultiVectors, queries: MultiVectors | None, count: int, seed: int, purpose: int = _LANDMARKS
) -> NDArray[np.float32]:
    """Return up to `count` tokens, float32 (n, d): up to half of them from `queries`.

    Queries' own tokens say where documents will be asked; documents' tokens stand in for them.
    `purpose` separates the random streams of what tokens are sampled for.
    """
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))
    parts = []
    if queries is not None:
        parts.append(_pick(queries, -(-count // 2), stream))
    parts.append(_pick(documents, count - sum(map(len, parts)), stream))
    return np.concatenate(parts)


def training_sample(
    documents: MultiVectors, queries: MultiVectors | None, seed: int
) -> tuple[MultiVectors, NDArray[np.float32]]:
    """Return documents and tokens, float32 (t, d), that features are trained on."""
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_TRAINING, 1)))
    picked = stream.choice(len(documents), min(_TRAINING_DOCUMENTS, len(documents)), replace=False)
    return documents[np.sort(picked)], sample_tokens(documents, queries, _TRAINING_TOKENS, seed, _TRAINING)


def _pick(texts: MultiVectors, count: int, stream: np.random.Generator) -> NDArray[np.float32]:
    places = np.sort(stream.choice(texts.num_tokens, min(count, texts.num_tokens), replace=False))
    return np.asarray(texts.tokens[places], np.float32)


def mixed_documents(documents: MultiVectors, count: int, seed: int) -> MultiVectors:
    """Return `count` documents, each of a span of half of one and half of another one's tokens.

    They show directions in which documents differ beyond those that a small sample shows.
    """
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MIXING,)))
    mixed = []
    for pair in stream.integers(0, len(documents), (count, 2)).tolist():
        spans = []
        for i in pair:
            length = int(documents.lengths[i])
            half = -(-length // 2)
            start = int(documents.offsets[i]) + int(stream.integers(0, length - half + 1))
            spans.append(documents.tokens[start : start + half])
        mixed.append(np.concatenate(spans))
    return MultiVectors.from_arrays(mixed, dimension=documents.dimension)
