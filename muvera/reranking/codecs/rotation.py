"""Orthogonal matrices, packed once for products with few rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.validation import read_only_view
from ...kernels.final_projections import PRODUCT_DEPTH, add_product, pack_map

__all__ = ["Rotation", "random_rotation"]


class Rotation:
    """An orthogonal matrix (dimension, dimension), float32."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self.matrix = read_only_view(matrix)
        self._forward, self._back = pack_map(matrix), pack_map(np.ascontiguousarray(matrix.T))

    def rotate(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``rows @ matrix``."""
        return _product(rows, self._forward)

    def rotate_back(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``rows @ matrix.T``."""
        return _product(rows, self._back)


def _product(rows: NDArray[np.float32], packed: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.zeros(rows.shape, np.float32)
    add_product(np.ascontiguousarray(rows), packed, PRODUCT_DEPTH, out)
    return out


def random_rotation(dimension: int, stream: np.random.Generator) -> NDArray[np.float32]:
    """Return a random orthogonal matrix."""
    orthogonal, upper = np.linalg.qr(stream.standard_normal((dimension, dimension)))
    return np.ascontiguousarray(orthogonal * np.where(np.diag(upper) < 0, -1, 1), np.float32)
