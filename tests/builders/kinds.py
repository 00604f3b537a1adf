"""Documents of different kinds, and an encoder that is fitted in a moment."""

import numpy as np

from muvera import FDEConfig, Landmarks, LearnedProjection, MultiVectors

DIMENSION = 24
CONFIG = FDEConfig(DIMENSION, cells=Landmarks(64), projection=LearnedProjection(24))


def kind(which: int, count: int, seed: int = 0) -> MultiVectors:
    """Return documents about topics of one kind, in one half of the space."""
    topics = np.random.default_rng(which).standard_normal((60, DIMENSION))
    topics[:, which * 8 : which * 8 + 16] *= 0.1
    rng = np.random.default_rng((which, seed))
    lengths = rng.integers(2, 9, count)
    first = np.repeat(rng.integers(0, 60, count), lengths)
    other = rng.integers(0, 60, len(first))
    tokens = topics[first] + 0.6 * topics[other] + 0.2 * rng.standard_normal((len(first), DIMENSION))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    ids = [f"{which}-{seed}-{i}" for i in range(count)]
    return MultiVectors.from_flat(tokens.astype(np.float32), lengths, ids=ids)
