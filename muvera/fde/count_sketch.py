"""SketchedCells: the paper's final projection of the cells to fewer floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.rows import add_count_sketch
from . import projection, reference
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig
from .steps import CountSketch, SimHash
from .tasks import CellWriter, Side, Tokens


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
        assert isinstance(config.projection, CountSketch)
        targets, size = self.targets, config.projection.final_projection_dimension
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
    """Draw the final projection of a configuration, always the same."""
    cells, sketch = config.cells, config.projection
    assert isinstance(sketch, CountSketch)
    draws = reference if isinstance(cells, SimHash) and cells.dialect == "reference" else projection
    size = sketch.final_projection_dimension
    return FinalSketch(*draws.draw_final_count_sketch(config.seed, config.cell_dimension, size))


class SketchedCells:
    """Cells that are projected to `size` floats by a count sketch."""

    def __init__(self, cells: CellWriter, sketch: FinalSketch, size: int) -> None:
        self._cells = cells
        self._sketch = sketch
        self._size = size

    def write(
        self, side: Side, weight: float, tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write the sketch of `weight` times the cells of texts start..stop."""
        cells = np.empty((stop - start, len(self._sketch.signs)), np.float32)
        self._cells.write(side, weight, tokens, start, stop, cells)
        self._sketch.project(cells, out[:, : self._size])
