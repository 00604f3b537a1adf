"""The product tile: against float64, and bits of an entry that do not depend on the rest of the product."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muvera.kernels.jit import kernel
from muvera.kernels.tile import (
    LANES,
    ROWS,
    pack_columns,
    tile_dot,
    tile_max,
    tile_signs,
)

Array = NDArray[Any]

# Intrinsics are called from compiled code only: one wrapper each.


@kernel
def _dot(rows: Array, row: int, last: int, depth: int, packed: Array, panel: int, out: Array) -> None:
    tile_dot(rows, row, last, depth, packed, panel, out, 0)


@kernel
def _signs(
    rows: Array, row: int, last: int, depth: int, packed: Array, panel: int, out: Array, step: int
) -> None:
    tile_signs(rows, row, last, depth, packed, panel, out, 1, step)


@kernel
def _max(rows: Array, row: int, last: int, depth: int, packed: Array, panel: int, out: Array) -> None:
    tile_max(rows, row, last, depth, packed, panel, out, 0)


def normals(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("last", [0, ROWS - 2, ROWS - 1, ROWS + 2])
def test_rows_past_the_last_repeat_it(last: int) -> None:
    """The memory behind it does not matter."""
    depth = 32
    rows = np.full((last + 1 + ROWS, depth), np.nan, np.float32)
    rows[: last + 1] = normals(last + 1, depth)
    matrix = normals(LANES, depth)
    packed = pack_columns(matrix)
    row = last // ROWS * ROWS
    picked = rows[np.minimum(np.arange(row, row + ROWS), last)].astype(np.float64)
    wanted = picked @ matrix.T

    flat, columns = rows.reshape(-1), packed.reshape(-1)
    out = np.full(ROWS * LANES + 1, 7, np.float32)
    _dot(flat, row, last, depth, columns, 0, out)
    np.testing.assert_allclose(out[:-1].reshape(ROWS, LANES), wanted, atol=2e-5)
    assert out[-1] == 7

    best = np.full(LANES + 1, -1, np.float32)
    _max(flat, row, last, depth, columns, 0, best)
    np.testing.assert_allclose(best[:-1], np.maximum(wanted.max(axis=0), -1), atol=2e-5)
    assert best[-1] == -1

    masks = np.zeros(1 + 3 * ROWS, np.uint16)
    _signs(flat, row, last, depth, columns, 0, masks, 3)
    np.testing.assert_array_equal(masks[1::3], ((wanted > 0) << np.arange(LANES)).sum(axis=1))
    assert not masks[0::3].any()
    assert not masks[2::3].any()
