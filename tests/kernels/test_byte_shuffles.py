"""Unpacked half bytes: every instruction gives what a table of whole bytes gives."""

from typing import Any

import numpy as np
import pytest

from muvera.kernels.jit import kernel
from muvera.kernels.token_codes import CHUNK, SHUFFLES, make_unpack


@pytest.mark.parametrize("shuffles", SHUFFLES)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shuffles_look_up_what_a_table_says(shuffles: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    packed = rng.integers(0, 256, CHUNK * bits // 8 + 3).astype(np.uint8)
    levels = rng.integers(0, 100, 2**bits).astype(np.uint8)
    centers = rng.integers(0, 100, CHUNK + 5).astype(np.uint8)
    nibble_bits = (np.arange(16)[:, np.newaxis] >> np.arange(3, -1, -1)) & 1
    buckets = (nibble_bits.reshape(16, 4 // bits, bits) << np.arange(bits)).sum(axis=2)
    tables = np.ascontiguousarray(levels[buckets].T).reshape(-1)
    unpack = make_unpack(bits, shuffles)

    @kernel
    def run(packed: Any, centers: Any, tables: Any, out: Any) -> None:
        unpack(packed, 3, centers, 5, tables, out, 2)

    out = np.zeros(CHUNK + 4, np.uint8)
    run(packed, centers, tables, out)
    flat = np.unpackbits(packed[3:]).reshape(CHUNK, bits)
    expected = centers[5:] + levels[(flat.astype(int) << np.arange(bits)).sum(axis=1)]
    np.testing.assert_array_equal(out[2:-2], expected)
    assert not out[:2].any() and not out[-2:].any()
