"""FDEMatrices: the random matrices of an FDE encoder, drawn once from its configuration.

A saved index stores these arrays, because NumPy's streams may change between versions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kernels.tile import LANES, pack_columns
from ..base import EncoderArrays
from . import draws, reference_draws
from .config import FDEConfig

__all__ = ["FDEMatrices", "cell_positions", "draw_matrices", "is_interleaved", "pack_rows"]


@dataclass(frozen=True)
class FDEMatrices(EncoderArrays):
    """The random matrices of an encoder; width = dimension rounded up to 16.

    Parameters
    ----------
    hyperplanes : float32 (R * k, width)
        Normals, in the mixed basis if there is one.
    projections : float32 (R, p, width), or (0, 0, 0) for the identity
        Map of a cell's vector, scale included.
    mixing : float32 (width, width), or (0, 0)
        The orthogonal map into the mixed basis, before its permutation.
    places : int64 (width,), or (0,)
        Position of each mixed coordinate.
    final_targets : int64 (R * 2**k * p,), or (0,)
        Targets of a final count sketch.
    final_signs : float32, as `final_targets`
        Its signs.
    """

    hyperplanes: NDArray[np.float32]
    projections: NDArray[np.float32]
    mixing: NDArray[np.float32]
    places: NDArray[np.int64]
    final_targets: NDArray[np.int64]
    final_signs: NDArray[np.float32]

    def require_shape(self, config: FDEConfig) -> None:
        """Raise ValueError if the matrices belong to another configuration, or a position is out of range."""
        width, final = draws.padded_width(config.dimension), config.final_projection_dimension
        repetitions, block = config.num_repetitions, config.block_width
        mixed = width if _has_mixed_basis(config) else 0
        targets = config.sketch_dimension if config.final_projection == "count_sketch" else 0
        projections = (0, 0, 0) if config.projection == "identity" else (repetitions, block, width)
        self.require(
            {
                "hyperplanes": ((repetitions * config.num_simhash_projections, width), np.float32),
                "projections": (projections, np.float32),
                "mixing": ((mixed, mixed), np.float32),
                "places": ((mixed,), np.int64),
                "final_targets": ((targets,), np.int64),
                "final_signs": ((targets,), np.float32),
            }
        )
        if not np.array_equal(np.sort(self.places), np.arange(mixed)):
            raise ValueError(
                f"The encoder's array 'places' must have each of 0..{mixed - 1} once. "
                "Restore the encoder from a copy."
            )
        if targets and not 0 <= self.final_targets.min() <= self.final_targets.max() < (final or 0):
            raise ValueError(
                f"The encoder's array 'final_targets' must be within 0..{(final or 0) - 1}, got "
                f"{self.final_targets.min()}..{self.final_targets.max()}. Restore the encoder from a copy."
            )

    @property
    def dense_hyperplanes(self) -> NDArray[np.float64]:
        """Hyperplane normals in the tokens' own basis, float64 (R * k, width)."""
        return np.asarray(self.hyperplanes @ self.basis)

    @property
    def basis(self) -> NDArray[np.float64]:
        """The map into the mixed basis, permutation included; the identity without one."""
        if not self.mixing.size:
            return np.eye(self.hyperplanes.shape[1])
        permuted = np.empty(self.mixing.shape, np.float64)
        permuted[self.places] = self.mixing
        return permuted


def draw_matrices(config: FDEConfig) -> FDEMatrices:
    """Draw the matrices of `config`; the same configuration always gives the same."""
    seed, dimension, block = config.seed, config.dimension, config.block_width
    repetitions, bits = config.num_repetitions, config.num_simhash_projections
    source = reference_draws if config.dialect == "reference" else draws
    if config.dialect == "reference":
        planes = reference_draws.hyperplanes(seed, dimension, repetitions, bits)
    else:
        planes = _our_hyperplanes(config)
    projections = np.empty((0, 0, 0), np.float32)
    if config.projection == "count_sketch":
        projections = _padded(source.count_sketches(seed, dimension, repetitions, block))
    elif config.projection == "complementary":
        projections = _padded(draws.complementary_projections(seed, dimension, repetitions, block))
    elif config.projection == "rademacher":
        projections = _padded(draws.rademacher_projections(seed, dimension, repetitions, block))
    mixing, places = np.empty((0, 0), np.float32), np.empty(0, np.int64)
    if _has_mixed_basis(config):
        mixing, places = draws.mixing(seed, dimension)
    targets, signs = np.empty(0, np.int64), np.empty(0, np.float32)
    final = config.final_projection_dimension
    if config.final_projection == "count_sketch" and final is not None:
        draw = reference_draws.count_sketch if config.dialect == "reference" else draws.final_count_sketch
        targets, signs = draw(seed, config.sketch_dimension, final)
    return FDEMatrices(_padded(planes), projections, mixing, places, targets, signs)


def cell_positions(config: FDEConfig) -> NDArray[np.int64]:
    """Return the position of each code's block in its repetition, int64 (2**k,).

    Bit j of a code is the sign at hyperplane j.  The reference reads hyperplane 0 first, as
    the high bit, and numbers cells by the inverse Gray code; we number them by the code itself.
    """
    codes = np.arange(config.num_cells)
    if config.dialect != "reference":
        return codes
    position = np.zeros_like(codes)
    for j in range(config.num_simhash_projections):
        position = (position << 1) + (((codes >> j) & 1) ^ (position & 1))
    return position


def _padded(matrix: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return float32 with the last axis rounded up to whole vectors."""
    width = draws.padded_width(matrix.shape[-1])
    out = np.zeros((*matrix.shape[:-1], width), np.float32)
    out[..., : matrix.shape[-1]] = matrix
    return out


def _has_mixed_basis(config: FDEConfig) -> bool:
    return config.projection == "complementary" and draws.is_structured(config.dimension)


def _our_hyperplanes(config: FDEConfig) -> NDArray[np.floating]:
    seed, dimension, repetitions = config.seed, config.dimension, config.num_repetitions
    bits, mixed = config.num_simhash_projections, _has_mixed_basis(config)
    if config.hyperplanes == "gaussian":
        # In the mixed basis a token has `width` coordinates, and normals must see all of them.
        columns = draws.padded_width(dimension) if mixed else dimension
        return draws.gaussian_hyperplanes(seed, columns, repetitions, bits)
    planes = draws.orthogonal_hyperplanes(seed, dimension, repetitions * bits)
    if draws.is_structured(dimension) and not mixed:  # round one goes into the normals
        matrix, places = draws.mixing(seed, dimension)
        permuted = np.empty_like(matrix)
        permuted[places] = matrix
        planes = planes @ permuted
    return planes


def is_interleaved(matrix: NDArray[np.float32]) -> bool:
    """Return whether row i is zero wherever the column is not i modulo LANES."""
    rows = np.arange(len(matrix))[:, np.newaxis] % LANES
    columns = np.arange(matrix.shape[1])[np.newaxis] % LANES
    return not matrix[rows != columns].any()


def pack_rows(matrix: NDArray[np.float32], interleaved: bool) -> NDArray[np.float32]:
    """Pack rows as panels of LANES columns, flat; interleaved ones have one entry per lane."""
    packed = pack_columns(matrix)
    if not interleaved:
        return packed.reshape(-1)
    panels, width, _ = packed.shape
    lanes = packed.reshape(panels, width // LANES, LANES, LANES)
    return np.ascontiguousarray(np.diagonal(lanes, axis1=2, axis2=3)).reshape(-1)
