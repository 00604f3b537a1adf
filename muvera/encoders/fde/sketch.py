"""Sketch: tokens summed in random cells, written as one long vector, and its final projection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels.fde_encoding import (
    CELL_LENGTH,
    CELL_MEAN,
    CELL_UNIT,
    encode_documents,
    encode_queries,
)
from ...kernels.products import add_count_sketch, add_rademacher
from ...kernels.tile import LANES
from ..base import Side
from ..moment_blocks import KernelArrays
from . import draws
from .config import FDEConfig
from .matrices import FDEMatrices, cell_positions, is_interleaved, pack_rows

__all__ = ["FinalProjection", "Sketch"]

_CELL_VALUES = {"mean": CELL_MEAN, "unit": CELL_UNIT, "length": CELL_LENGTH}

# Sign bits of a dense final projection are kept up to this size; else they are drawn for each task.
_SIGN_BYTES = 64 << 20


class Sketch:
    """The random matrices of an FDE, packed for the kernels, and the center.

    Parameters
    ----------
    config : FDEConfig
    matrices : FDEMatrices
    """

    def __init__(self, config: FDEConfig, matrices: FDEMatrices) -> None:
        self._config, self._matrices = config, matrices
        mixed = bool(matrices.mixing.size)
        self._lane_planes = mixed and is_interleaved(matrices.hyperplanes)
        self._planes = pack_rows(matrices.hyperplanes, self._lane_planes)
        width = draws.padded_width(config.dimension)
        self._lane_projection = (
            mixed
            and config.block_width % LANES == 0
            and is_interleaved(matrices.projections.reshape(-1, width))
        )
        packed = [pack_rows(rows, self._lane_projection) for rows in matrices.projections]
        self._projection = np.concatenate([np.empty(0, np.float32), *packed])
        self._mixing = pack_rows(matrices.mixing, True) if mixed else np.empty(0, np.float32)
        # Norms in the tokens' own columns: in a padded basis a normal has others, too.
        norms = np.linalg.norm(matrices.dense_hyperplanes[:, : config.dimension], axis=1)
        self._inverse_norms = (1 / np.maximum(norms, 1e-30)).astype(np.float32)
        self._position = cell_positions(config)
        self._center = np.zeros(width, np.float32)

    def center_at(self, center: NDArray[np.float32]) -> None:
        """Subtract `center` (d,) from tokens from now on."""
        self._center[: self._config.dimension] = center

    def write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, weight: float, out: NDArray[np.float32]
    ) -> None:
        """Write `weight` times the sketches of texts start..stop to the first columns of `out`."""
        config = self._config
        common = (
            *arrays, start, stop, self._center, self._mixing, self._matrices.places, self._planes,
            self._lane_planes,
        )  # fmt: skip
        if side == "documents":
            encode_documents(
                *common, config.num_repetitions, config.num_simhash_projections, self._position,
                self._projection, self._lane_projection, config.block_width, config.fill_empty_partitions,
                _CELL_VALUES[config.document_cells], config.split_mean, np.float32(weight), out,
            )  # fmt: skip
        else:
            encode_queries(
                *common, self._inverse_norms, config.num_repetitions, config.num_simhash_projections,
                self._position, self._projection, self._lane_projection, config.block_width,
                np.float32(config.soft_query_cells), np.float32(weight), out,
            )  # fmt: skip


class FinalProjection:
    """The final projection of a configuration that has one.

    Parameters
    ----------
    config : FDEConfig
    matrices : FDEMatrices
    """

    def __init__(self, config: FDEConfig, matrices: FDEMatrices) -> None:
        assert config.final_projection_dimension is not None
        self._config, self._matrices = config, matrices
        self.dimension = config.final_projection_dimension
        self._signs: list[NDArray[np.uint16]] | None = None
        panels = -(-self.dimension // LANES)
        dense = config.final_projection == "rademacher"
        if dense and config.sketch_dimension * panels * 2 <= _SIGN_BYTES:
            self._signs = [self._draw_signs(r) for r in range(config.num_repetitions)]

    def _draw_signs(self, repetition: int) -> NDArray[np.uint16]:
        rows = self._config.num_cells * self._config.block_width
        return draws.final_signs(self._config.seed, repetition, rows, self.dimension)

    def write(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the maps of sketches (b, L) to `out` (b, D); each row's sum runs over repetitions in order."""
        out[:] = 0
        if self._config.final_projection == "count_sketch":
            add_count_sketch(block, self._matrices.final_targets, self._matrices.final_signs, out)
            return
        scale = np.float32(1 / np.sqrt(self.dimension))
        rows = self._config.num_cells * self._config.block_width
        for r in range(self._config.num_repetitions):
            signs = self._draw_signs(r) if self._signs is None else self._signs[r]
            add_rademacher(block, r * rows, signs, scale, out)
