"""FDEMatrices: the random matrices of an FDE encoder, drawn once from its configuration.

A saved index stores these arrays, because NumPy's streams may change between versions.

Every purpose has its own child of one ``SeedSequence``.  So does every repetition, or every group of repetitions that
share a rotation.  Therefore repetition r does not depend on the number of repetitions, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.tile import LANES, pack_columns
from ..base import EncoderArrays, Shapes, random_stream
from . import reference_draws
from .config import FDEConfig

_HYPERPLANES, _PROJECTION, _FINAL = range(3)

_NONE = np.empty(0, np.float32)


@dataclass(frozen=True)
class FDEMatrices(EncoderArrays):
    """The random matrices of an encoder; width = dimension rounded up to 16.

    Parameters
    ----------
    hyperplanes : float32 (R * k, width)
        Normals.
    projections : float32 (R, p, width), or (0, 0, 0) for the identity
        Map of a cell's vector, scale included.
    final_targets : int64 (R * 2**k * p,), or (0,)
        Targets of a final count sketch.
    final_signs : float32, as `final_targets`
        Its signs.
    """

    hyperplanes: NDArray[np.float32]
    projections: NDArray[np.float32]
    final_targets: NDArray[np.int64]
    final_signs: NDArray[np.float32]

    def _shapes(self, config: Any) -> Shapes:
        width, repetitions = padded_width(config.dimension), config.num_repetitions
        planes = (repetitions * config.num_simhash_projections, width)
        projections = (repetitions, config.block_width, width)
        targets = config.sketch_dimension if config.final_projection_dimension else 0
        return planes, (0, 0, 0) if config.projection == "identity" else projections, (targets,), (targets,)

    def require_shape(self, config: Any) -> None:
        """Raise ValueError if the matrices belong to another configuration, or a position is out of range."""
        super().require_shape(config)
        targets, final = self.final_targets, config.final_projection_dimension
        if targets.size and not 0 <= targets.min() <= targets.max() < final:
            raise ValueError(
                f"The encoder's array 'final_targets' must be within 0..{final - 1}, got "
                f"{targets.min()}..{targets.max()}. Restore the encoder from a copy."
            )

    @cached_property
    def packed(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Hyperplanes and projections, packed for the kernels; the projections of the identity are empty."""
        projections = [pack_columns(rows).reshape(-1) for rows in self.projections]
        return pack_columns(self.hyperplanes).reshape(-1), np.concatenate([_NONE, *projections])

    @cached_property
    def inverse_norms(self) -> NDArray[np.float32]:
        """One over the length of each hyperplane's normal."""
        norms = np.linalg.norm(self.hyperplanes.astype(np.float64), axis=1)
        return np.asarray(1 / np.maximum(norms, 1e-30), np.float32)


@dataclass(frozen=True)
class MeanToken(EncoderArrays):
    """The mean token of documents, float32 (d,), which is subtracted from tokens."""

    center: NDArray[np.float32]

    def _shapes(self, config: Any) -> Shapes:
        return ((config.dimension,),)

    @cached_property
    def padded(self) -> NDArray[np.float32]:
        """The mean token with its width rounded up to whole vectors."""
        return _padded(self.center)


def draw_matrices(config: FDEConfig) -> FDEMatrices:
    """Draw the matrices of `config`; the same configuration always gives the same matrices."""
    seed, dimension, block = config.seed, config.dimension, config.block_width
    repetitions, bits = config.num_repetitions, config.num_simhash_projections
    draws: dict[str, Any] = {
        "complementary": complementary_projections,
        "rademacher": rademacher_projections,
        "count_sketch": count_sketches,
    }
    hyperplanes, final = gaussian_hyperplanes, final_count_sketch
    if config.dialect == "reference":
        hyperplanes, final = reference_draws.hyperplanes, reference_draws.count_sketch
        draws["count_sketch"] = reference_draws.count_sketches
    planes = _padded(hyperplanes(seed, dimension, repetitions, bits))
    projections = _NONE.reshape(0, 0, 0)
    if config.projection in draws:
        projections = _padded(draws[config.projection](seed, dimension, repetitions, block))
    targets, signs = np.empty(0, np.int64), _NONE
    if config.final_projection_dimension is not None:
        targets, signs = final(seed, config.sketch_dimension, config.final_projection_dimension)
    return FDEMatrices(planes, projections, targets, signs)


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


def padded_width(dimension: int) -> int:
    """Return `dimension` rounded up to whole vectors of LANES."""
    return -(-dimension // LANES) * LANES


def _padded(matrix: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return float32 with the last axis rounded up to whole vectors."""
    width = padded_width(matrix.shape[-1])
    out = np.zeros((*matrix.shape[:-1], width), np.float32)
    out[..., : matrix.shape[-1]] = matrix
    return out


def orthonormal_rows(stream: np.random.Generator, count: int, size: int) -> NDArray[np.float64]:
    """Draw the first `count` rows of a uniformly random orthogonal matrix (Haar), float64 (count, size)."""
    q, r = np.linalg.qr(stream.standard_normal((count, size)).T)
    return np.asarray((q * np.sign(np.diag(r))).T, np.float64)


def gaussian_hyperplanes(seed: int, dimension: int, repetitions: int, bits: int) -> NDArray[np.float32]:
    """Draw Gaussian normals, float32 (repetitions * bits, dimension)."""
    rows = [
        random_stream(seed, _HYPERPLANES, r).standard_normal((bits, dimension)) for r in range(repetitions)
    ]
    return np.concatenate(rows).astype(np.float32)


def complementary_projections(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw projections that share rotations, float32 (R, block, dimension).

    Each group of dimension / block repetitions gets the rows of one orthogonal matrix, scaled by
    sqrt(dimension / block).  Inner products after one repetition are unbiased; those of a whole group are exact.
    """
    groups = -(-dimension // block)
    size = groups * block
    rows = [
        orthonormal_rows(
            random_stream(seed, _PROJECTION, first // groups), min(groups, repetitions - first) * block, size
        )
        for first in range(0, repetitions, groups)
    ]
    projections = np.concatenate(rows).reshape(repetitions, block, size)[:, :, :dimension]
    return np.asarray(projections * np.sqrt(groups), np.float32)


def rademacher_projections(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw the paper's dense +-1/sqrt(p), float32 (R, block, dimension)."""
    signs = [
        random_stream(seed, _PROJECTION, r).integers(0, 2, (block, dimension)) * 2 - 1
        for r in range(repetitions)
    ]
    return np.asarray(np.stack(signs) / np.sqrt(block), dtype=np.float32)


def count_sketches(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw one +-1 per column, float32 (R, block, dimension)."""
    out = np.zeros((repetitions, block, dimension), np.float32)
    for r in range(repetitions):
        stream = random_stream(seed, _PROJECTION, r)
        rows = stream.integers(0, block, dimension)
        out[r, rows, np.arange(dimension)] = stream.integers(0, 2, dimension) * 2 - 1
    return out


def final_count_sketch(seed: int, rows: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw the target (below `size`) and the sign of each of `rows` floats."""
    stream = random_stream(seed, _FINAL)
    targets = stream.integers(0, size, rows)
    return targets, (stream.integers(0, 2, rows) * 2 - 1).astype(np.float32)
