"""FinalSketch: the paper's final projection of the cells to fewer floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.rows import add_count_sketch
from . import projection, reference
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig


@dataclass(frozen=True)
class FinalSketch(EncoderArrays):
    """A count sketch psi' of all cells (arXiv 2405.19504, section 2)."""

    #: Position of each float in the sketch, below d_final, (floats of the cells,).
    targets: NDArray[np.int64] = array(np.int64)
    #: +1 or -1, (floats of the cells,).
    signs: NDArray[np.float32] = array(np.float32)

    prefix = "final_"

    def _shapes(self, config: FDEConfig) -> Shapes:
        return (config.cell_dimension,), (config.cell_dimension,)

    def require_shape(self, config: FDEConfig) -> None:
        """Raise ValueError for another configuration, or a target out of range."""
        super().require_shape(config)
        targets, size = self.targets, config.final_projection_dimension
        assert size is not None
        if not 0 <= targets.min() <= targets.max() < size:
            raise ValueError(
                f"The encoder's array 'targets' must be within 0..{size - 1}, got "
                f"{targets.min()}..{targets.max()}. Restore the encoder from a copy."
            )

    def project(self, cells: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the sketch of `cells` (n, floats) to `out` (n, d_final)."""
        out[:] = 0
        add_count_sketch(cells, self.targets, self.signs, out)


def draw_final_sketch(config: FDEConfig) -> FinalSketch:
    """Draw the final projection of a configuration, always the same one.

    The configuration has ``final_projection="count_sketch"``.
    """
    draws = reference if config.dialect == "reference" else projection
    assert config.final_projection_dimension is not None
    return FinalSketch(
        *draws.draw_final_count_sketch(config.seed, config.cell_dimension, config.final_projection_dimension)
    )
