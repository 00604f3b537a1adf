"""FinalProjection: a drawn map of whole sketches to fewer floats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels.final_projections import add_count_sketch, add_rademacher
from ...kernels.tile import LANES
from .config import FDEConfig
from .draws import own
from .matrices import FDEMatrices

__all__ = ["FinalProjection"]

# Sign bits of a dense projection are kept up to this size, else drawn again for each block of texts.
_KEPT_SIGN_BYTES = 64 << 20


class FinalProjection:
    """The last map of a configuration that has one.

    Parameters
    ----------
    config : FDEConfig
    matrices : FDEMatrices
    """

    def __init__(self, config: FDEConfig, matrices: FDEMatrices) -> None:
        assert config.final_projection_dimension is not None
        self._config, self._matrices = config, matrices
        self.dimension = config.final_projection_dimension
        self._kept_signs: list[NDArray[np.uint16]] | None = None
        panels = -(-self.dimension // LANES)
        dense = config.final_projection == "rademacher"
        if dense and config.sketch_dimension * panels * 2 <= _KEPT_SIGN_BYTES:
            self._kept_signs = [self._draw_signs(r) for r in range(config.num_repetitions)]

    def _draw_signs(self, repetition: int) -> NDArray[np.uint16]:
        rows = self._config.num_cells * self._config.block_width
        return own.final_signs(self._config.seed, repetition, rows, self.dimension)

    def write(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the maps of sketches (b, L) to `out` (b, D); each row's sum runs over repetitions in order."""
        out[:] = 0
        if self._config.final_projection == "count_sketch":
            add_count_sketch(block, self._matrices.final_targets, self._matrices.final_signs, out)
            return
        scale = np.float32(1 / np.sqrt(self.dimension))
        rows = self._config.num_cells * self._config.block_width
        for r in range(self._config.num_repetitions):
            signs = self._draw_signs(r) if self._kept_signs is None else self._kept_signs[r]
            add_rademacher(block, r * rows, signs, scale, out)
