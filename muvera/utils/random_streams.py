"""Independent random streams of one seed."""

from __future__ import annotations

import numpy as np


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random stream of one purpose.

    Parameters
    ----------
    seed : int
        Seed of a configuration.
    *key : int
        Number of the purpose, then for example of the repetition.  Streams of
        different keys are independent.

    Returns
    -------
    numpy.random.Generator
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
