"""The scan for numbers that are not finite, or too large."""

import numpy as np

from muvera.kernels.norms import first_beyond


def test_the_first_beyond_a_limit() -> None:
    values = np.full(5000, -99.5, np.float32)
    mask, limit = np.uint32(0x7FFFFFFF), np.float32(100).view(np.uint32)
    assert first_beyond(values.view(np.uint32), mask, limit) == -1
    assert first_beyond(values[:0].view(np.uint32), mask, limit) == -1
    for where, value in ((4999, np.nan), (4096, np.inf), (4095, -np.inf), (9, 100), (4, -100), (0, np.nan)):
        values[where] = value
        assert first_beyond(values.view(np.uint32), mask, limit) == where
