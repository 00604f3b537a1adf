"""Independent random streams of one seed."""

from __future__ import annotations

import numpy as np


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random stream of one purpose.

    `key` is the number of the purpose, then for example the number of the repetition.
    Streams of different keys are independent.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
