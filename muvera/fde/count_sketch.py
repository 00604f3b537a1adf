"""SketchedCells: the paper's final projection of the cells to fewer floats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..kernels.rows import add_count_sketch
from . import projection, reference
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig
from .steps import CountSketch, SimHash
from .tasks import ArrayClasses, CellStep, Rows, Side, Texts, Tokens, Value


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


class SketchedCells(CellStep):
    """The cells of the step before, projected by a count sketch."""

    value: CountSketch
    before: CellStep
    array_classes: ClassVar[ArrayClasses] = {"sketch": FinalSketch}

    @cached_property
    def sketch(self) -> FinalSketch:
        """The sketch, drawn unless it is given."""
        config, cells = self.config, self.config.cells
        draws = reference if isinstance(cells, SimHash) and cells.dialect == "reference" else projection
        return FinalSketch(*draws.draw_final_count_sketch(config.seed, config.cell_dimension, self.columns))

    @property
    def columns(self) -> int:
        """Floats of the sketch, d_final."""
        return self.value.final_projection_dimension

    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows, weight: float = 1) -> None:
        """Write the sketch of `weight` times the cells of texts start..stop."""
        cells = np.empty((stop - start, self.before.columns), np.float32)
        self.before.write(side, tokens, start, stop, cells, weight)
        out[:, : self.columns] = 0
        add_count_sketch(cells, self.sketch.targets, self.sketch.signs, out[:, : self.columns])

    def onnx(self, side: Side, texts: Texts, weight: float = 1) -> Value:
        """Return the sums of the cells with each target, times their signs."""
        targets = self.sketch.targets
        order, sizes = np.argsort(targets, kind="stable"), np.bincount(targets, minlength=self.columns)
        places = np.arange(len(targets)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        # One more float, which is zero, fills up the rows of sources.
        sources = np.full((self.columns, sizes.max()), len(targets), np.int32)
        sources[targets[order], places] = order
        cells = self.before.onnx(side, texts, weight) * self.sketch.signs
        return cells.op("Pad", np.array([0, 0, 0, 1])).op("Gather", sources, axis=1).sum(2)
