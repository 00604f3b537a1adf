"""FDEMatrices: the random matrices of an FDE encoder, drawn once from its configuration.

A saved index stores these arrays, because NumPy's streams may change between versions.

Every purpose and every repetition (or group of repetitions that share a rotation) has its own child of one
``SeedSequence``, so repetition r does not depend on the number of repetitions.

Structured rotations.  A random rotation of `width` coordinates costs width**2 products; two rounds of small
rotations need far fewer.  Round one (`mixing`) rotates LANES interleaved blocks of width / LANES coordinates
and permutes the result; round two, drawn anew for each group of hyperplanes or repetitions, rotates
interleaved blocks again.  The composition is an orthogonal map whose every row mixes up to (width / LANES)**2
coordinates, at most `width`, and fewer if the permutation brings two coordinates of one block together: about
31 of 96 columns, 52 of 128, 160 of 256.

Below width 96, rows would mix so few coordinates that the signs would differ visibly from those of random
hyperplanes (at 16 columns, each would be the sign of one coordinate).  So rotations are dense there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kernels.tile import LANES
from ..base import EncoderArrays
from . import reference_draws
from .config import FDEConfig

__all__ = ["FDEMatrices", "cell_positions", "draw_matrices", "final_signs", "padded_width"]

_HYPERPLANES, _PROJECTION, _FINAL, _MIXING = range(4)

# The least width of structured rotations; below it rotations are dense.
_LEAST_STRUCTURED = 96


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
        width, final = padded_width(config.dimension), config.final_projection_dimension
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
        """Normals of the hyperplanes in the tokens' own basis, float64 (R * k, width)."""
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
    """Draw the matrices of `config`; the same configuration always gives the same matrices."""
    seed, dimension, block = config.seed, config.dimension, config.block_width
    repetitions, bits = config.num_repetitions, config.num_simhash_projections
    if config.dialect == "reference":
        planes = reference_draws.hyperplanes(seed, dimension, repetitions, bits)
        count_sketch, final = reference_draws.count_sketches, reference_draws.count_sketch
    else:
        planes = _our_hyperplanes(config)
        count_sketch, final = count_sketches, final_count_sketch
    projections = np.empty((0, 0, 0), np.float32)
    if config.projection == "count_sketch":
        projections = _padded(count_sketch(seed, dimension, repetitions, block))
    elif config.projection == "complementary":
        projections = _padded(complementary_projections(seed, dimension, repetitions, block))
    elif config.projection == "rademacher":
        projections = _padded(rademacher_projections(seed, dimension, repetitions, block))
    mixed, places = np.empty((0, 0), np.float32), np.empty(0, np.int64)
    if _has_mixed_basis(config):
        mixed, places = mixing(seed, dimension)
    targets, signs = np.empty(0, np.int64), np.empty(0, np.float32)
    if config.final_projection == "count_sketch" and config.final_projection_dimension is not None:
        targets, signs = final(seed, config.sketch_dimension, config.final_projection_dimension)
    return FDEMatrices(_padded(planes), projections, mixed, places, targets, signs)


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
    width = padded_width(matrix.shape[-1])
    out = np.zeros((*matrix.shape[:-1], width), np.float32)
    out[..., : matrix.shape[-1]] = matrix
    return out


def _has_mixed_basis(config: FDEConfig) -> bool:
    return config.projection == "complementary" and is_structured(config.dimension)


def _our_hyperplanes(config: FDEConfig) -> NDArray[np.floating]:
    seed, dimension, repetitions = config.seed, config.dimension, config.num_repetitions
    bits, mixed = config.num_simhash_projections, _has_mixed_basis(config)
    if config.hyperplanes == "gaussian":
        # In the mixed basis a token has `width` coordinates, and normals must cover all of them.
        columns = padded_width(dimension) if mixed else dimension
        return gaussian_hyperplanes(seed, columns, repetitions, bits)
    planes = orthogonal_hyperplanes(seed, dimension, repetitions * bits)
    if is_structured(dimension) and not mixed:  # round one is multiplied into the normals
        matrix, places = mixing(seed, dimension)
        permuted = np.empty_like(matrix)
        permuted[places] = matrix
        planes = planes @ permuted
    return planes


def generator(seed: int, purpose: int, *key: int) -> np.random.Generator:
    """Return the stream of one purpose and repetition."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose, *key))))


def padded_width(dimension: int) -> int:
    """Return `dimension` rounded up to whole vectors of LANES."""
    return -(-dimension // LANES) * LANES


def is_structured(dimension: int) -> bool:
    """Return True if rotations have two rounds, False if they are dense because of few coordinates."""
    return padded_width(dimension) >= _LEAST_STRUCTURED


def rotation(stream: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Draw a uniformly random orthogonal matrix (Haar)."""
    q, r = np.linalg.qr(stream.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diag(r)), np.float64)


def interleaved_rotation(stream: np.random.Generator, lanes: int, groups: int) -> NDArray[np.float64]:
    """Draw an orthogonal matrix whose entries are 0 unless row and column are equal modulo `lanes`.

    Returns
    -------
    float64 (groups * lanes, groups * lanes)
        Entry ``[j * lanes + l, g * lanes + l]`` is entry (j, g) of lane l's own rotation.
    """
    matrix = np.zeros((groups, lanes, groups, lanes))
    for lane in range(lanes):
        matrix[:, lane, :, lane] = rotation(stream, groups)
    return matrix.reshape(groups * lanes, groups * lanes)


def mixing(seed: int, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw round one: an interleaved rotation and the position of each of its coordinates.

    Returns
    -------
    matrix : float32 (width, width)
    places : int64 (width,)
        Coordinate i of the product moves to ``places[i]``.
    """
    width = padded_width(dimension)
    stream = generator(seed, _MIXING)
    matrix = interleaved_rotation(stream, LANES, width // LANES).astype(np.float32)
    return matrix, stream.permutation(width)


def orthogonal_hyperplanes(seed: int, dimension: int, count: int) -> NDArray[np.float32]:
    """Draw `count` unit normals, in sets of orthogonal ones.

    Returns
    -------
    float32 (count, width) or (count, dimension)
        Round two of structured rotations, in the mixed basis; otherwise in the tokens' own basis.
    """
    structured = is_structured(dimension)
    size = padded_width(dimension) if structured else dimension
    sets = []
    for s in range(-(-count // size)):
        stream = generator(seed, _HYPERPLANES, s)
        if structured:
            sets.append(interleaved_rotation(stream, LANES, size // LANES))
        else:
            sets.append(rotation(stream, size))
    normals: NDArray[np.float64] = np.concatenate([*sets, np.empty((0, size))])[:count]
    rounded: NDArray[np.float32] = normals.astype(np.float32)
    return rounded


def gaussian_hyperplanes(seed: int, dimension: int, repetitions: int, bits: int) -> NDArray[np.float32]:
    """Draw the paper's hyperplanes, float32 (repetitions * bits, dimension)."""
    rows = [generator(seed, _HYPERPLANES, r).standard_normal((bits, dimension)) for r in range(repetitions)]
    return np.concatenate(rows).astype(np.float32)


def complementary_projections(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw projections that share rotations.

    Each group of width / block repetitions gets the rows of one orthogonal matrix, scaled by sqrt(width /
    block): each alone is unbiased, and together they preserve inner products exactly.

    Returns
    -------
    float32 (R, block, width) or (R, block, dimension)
        In the mixed basis if rotations are structured, otherwise in the tokens' own basis.
    """
    structured = is_structured(dimension)
    width = padded_width(dimension) if structured else dimension
    groups = -(-width // block)
    parts = []
    for first in range(0, repetitions, groups):
        stream = generator(seed, _PROJECTION, first // groups)
        if structured:
            matrix = interleaved_rotation(stream, block, groups)
        else:
            matrix = rotation(stream, groups * block)
        parts.append(matrix.reshape(groups, block, groups * block)[:, :, :width])
    scale = np.sqrt(groups)
    return np.asarray(np.concatenate(parts)[:repetitions] * scale, dtype=np.float32)


def rademacher_projections(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw the paper's dense +-1/sqrt(p), float32 (R, block, dimension)."""
    signs = [
        generator(seed, _PROJECTION, r).integers(0, 2, (block, dimension)) * 2 - 1 for r in range(repetitions)
    ]
    return np.asarray(np.stack(signs) / np.sqrt(block), dtype=np.float32)


def count_sketches(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw one +-1 per column, float32 (R, block, dimension)."""
    out = np.zeros((repetitions, block, dimension), np.float32)
    for r in range(repetitions):
        stream = generator(seed, _PROJECTION, r)
        rows = stream.integers(0, block, dimension)
        out[r, rows, np.arange(dimension)] = stream.integers(0, 2, dimension) * 2 - 1
    return out


def final_count_sketch(seed: int, rows: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw the target (below `size`) and the sign of each of `rows` floats."""
    stream = generator(seed, _FINAL)
    targets = stream.integers(0, size, rows)
    return targets, (stream.integers(0, 2, rows) * 2 - 1).astype(np.float32)


def final_signs(seed: int, repetition: int, rows: int, final: int) -> NDArray[np.uint16]:
    """Draw one repetition's rows of the dense final map as sign bits.

    Returns
    -------
    uint16 (panels, rows)
        Bit j of ``[p, i]`` is set if row i, column ``p * 16 + j`` is +1; otherwise that entry is -1.
    """
    panels = -(-final // 16)
    return generator(seed, _FINAL, repetition).integers(0, 2**16, (panels, rows), np.uint16)
