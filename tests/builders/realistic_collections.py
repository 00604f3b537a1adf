"""Collections with topics, as texts have them: queries are noisy parts of documents."""

from typing import Any

import numpy as np

from muvera import FDEConfig, MultiVectors

DIM = 16

#: Small and good enough for the topics below: 512 floats.
CONFIG = FDEConfig.preset(
    "simhash", DIM, num_repetitions=8, num_simhash_projections=3, projection_dimension=8
)


def documents_like_real(
    count: int, seed: int = 0, *, ids: Any = None, dtype: Any = np.float32
) -> MultiVectors:
    """3 to 12 unit tokens per text, around topics; every 17th text is empty."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(1234).standard_normal((40, DIM))
    texts = []
    for i in range(count):
        tokens = topics[rng.integers(0, 40, 3)][rng.integers(0, 3, rng.integers(3, 13))]
        tokens = tokens + 0.5 * rng.standard_normal(tokens.shape)
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        texts.append(tokens[: 0 if i % 17 == 16 else None].astype(dtype))
    return MultiVectors.from_arrays(texts, ids=ids, dimension=DIM, dtype=dtype)


def queries_like_real(documents: MultiVectors, count: int, seed: int = 1) -> MultiVectors:
    """Noisy halves of documents that have tokens."""
    rng = np.random.default_rng(seed)
    texts = []
    for i in rng.choice(np.flatnonzero(documents.lengths > 0), count):
        tokens = np.asarray(documents[int(i)], np.float32)
        half = len(tokens) // 2 + 1
        texts.append((tokens[:half] + 0.15 * rng.standard_normal((half, DIM))).astype(np.float32))
    return MultiVectors.from_arrays(texts, dimension=DIM)
