"""Sketch: tokens in random cells, written as one long vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels.fde_encoding import (
    CELL_LENGTH,
    CELL_MEAN,
    CELL_UNIT,
    FILL_NEAREST_CELL,
    FILL_NEAREST_TOKEN,
    FILL_NONE,
    encode_documents,
    encode_queries,
)
from ...kernels.tile import LANES
from ..moments.blocks import KernelArrays
from .config import FDEConfig
from .draws import own
from .matrices import FDEMatrices, cell_positions, is_interleaved, pack_rows

__all__ = ["Sketch"]

_CELL_VALUES = {"mean": CELL_MEAN, "unit": CELL_UNIT, "length": CELL_LENGTH}


class Sketch:
    """The random matrices of an FDE, packed as the kernels read them, and the vector that is subtracted.

    Parameters
    ----------
    config : FDEConfig
    matrices : FDEMatrices
    """

    def __init__(self, config: FDEConfig, matrices: FDEMatrices) -> None:
        repetitions, width = config.num_repetitions, own.padded_width(config.dimension)
        if matrices.hyperplanes.shape != (repetitions * config.num_simhash_projections, width):
            raise ValueError(
                f"The hyperplanes have shape {matrices.hyperplanes.shape}, which does not fit {config}."
            )
        self.config, self.matrices = config, matrices
        self._lane_planes = bool(matrices.mixing.size) and is_interleaved(matrices.hyperplanes)
        self._planes = pack_rows(matrices.hyperplanes, self._lane_planes)
        flat = matrices.projections.reshape(-1, width)
        self._lane_projection = (
            bool(matrices.mixing.size) and config.block_width % LANES == 0 and is_interleaved(flat)
        )
        self._projection = np.concatenate(
            [
                np.empty(0, np.float32),
                *(pack_rows(rows, self._lane_projection) for rows in matrices.projections),
            ]
        )
        self._mixing = pack_rows(matrices.mixing, True) if matrices.mixing.size else np.empty(0, np.float32)
        # Of the tokens' own columns: where the basis is padded, a normal also has others.
        norms = np.linalg.norm(matrices.dense_hyperplanes[:, : config.dimension], axis=1)
        self._inverse_norms = (1 / np.maximum(norms, 1e-30)).astype(np.float32)
        self._position = cell_positions(config)
        self._code_at = np.argsort(self._position)
        self._center = np.zeros(width, np.float32)
        self._fill = FILL_NONE
        if config.fill_empty_partitions:
            self._fill = FILL_NEAREST_CELL if config.dialect == "fastembed" else FILL_NEAREST_TOKEN

    def center_at(self, center: NDArray[np.float32]) -> None:
        """Let `center` (d,) be what is subtracted from tokens."""
        self._center[: self.config.dimension] = center

    def write_documents(
        self, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32], weight: float
    ) -> None:
        """Write `weight` times the sketches of documents start..stop to the first columns of `out`."""
        config = self.config
        encode_documents(
            *arrays, start, stop, self._center, self._mixing, self.matrices.places,
            self._planes, self._lane_planes, config.num_repetitions, config.num_simhash_projections,
            self._position, self._code_at, self._projection, self._lane_projection, config.block_width,
            self._fill, _CELL_VALUES[config.document_cells], config.split_mean, np.float32(weight), out,
        )  # fmt: skip

    def write_queries(
        self, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32], weight: float
    ) -> None:
        """Write `weight` times the sketches of queries start..stop to the first columns of `out`."""
        config = self.config
        encode_queries(
            *arrays, start, stop, self._center, self._mixing, self.matrices.places,
            self._planes, self._lane_planes, self._inverse_norms, config.num_repetitions,
            config.num_simhash_projections, self._position, self._projection, self._lane_projection,
            config.block_width, np.float32(config.soft_query_cells), np.float32(weight), out,
        )  # fmt: skip
