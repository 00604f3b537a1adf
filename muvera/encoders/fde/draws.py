"""Draws of this library: rotations whose parts complement each other, and the paper's.

Every purpose and every repetition (or group of repetitions that share a rotation) has its
own child of one ``SeedSequence``, so repetition r does not depend on how many there are.

Structured rotations.  A random rotation of `width` coordinates costs width**2 products; two
rounds of small ones cost far fewer.  Round one (`mixing`) rotates LANES interleaved blocks
of width / LANES coordinates and permutes the result; round two, drawn anew for each group
of hyperplanes or repetitions, rotates interleaved blocks again.  The composition is an
orthogonal map whose every row mixes up to (width / LANES)**2 coordinates, at most `width`, and
fewer where the permutation brings two coordinates of one block together: about 31 of 96 columns,
52 of 128, 160 of 256.

Below width 96 they would be so few that signs are visibly not those of random hyperplanes (at
16 columns each is the sign of one of them): rotations are dense there.
"""

import numpy as np
from numpy.typing import NDArray

from ...kernels.tile import LANES

_HYPERPLANES, _PROJECTION, _FINAL, _MIXING = range(4)

# The least width of structured rotations; below it rotations are dense.
_LEAST_STRUCTURED = 96


def generator(seed: int, purpose: int, *key: int) -> np.random.Generator:
    """Return the stream of one purpose and repetition."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose, *key))))


def padded_width(dimension: int) -> int:
    """Return `dimension` rounded up to whole vectors of LANES."""
    return -(-dimension // LANES) * LANES


def is_structured(dimension: int) -> bool:
    """Return whether rotations have two rounds, or are dense because there are few coordinates."""
    return padded_width(dimension) >= _LEAST_STRUCTURED


def rotation(stream: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Draw a uniformly random orthogonal matrix (Haar)."""
    q, r = np.linalg.qr(stream.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diag(r)), np.float64)


def interleaved_rotation(stream: np.random.Generator, lanes: int, groups: int) -> NDArray[np.float64]:
    """Draw an orthogonal matrix whose row and column agree modulo `lanes` wherever it is not 0.

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
    """Draw round one: an interleaved rotation and where each of its coordinates goes.

    Returns
    -------
    matrix : float32 (width, width)
    places : int64 (width,)
        Coordinate i of the product stands at ``places[i]`` afterwards.
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
        Round two of structured rotations, in the mixed basis; else in the tokens' own basis.
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

    Each group of width / block repetitions takes the rows of one orthogonal matrix, scaled
    by sqrt(width / block): alone each is unbiased, together they lose nothing.

    Returns
    -------
    float32 (R, block, width) or (R, block, dimension)
        In the mixed basis where rotations are structured, else in the tokens' own.
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
    """Draw one +-1 a column, float32 (R, block, dimension)."""
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
        Bit j of ``[p, i]`` is set where row i, column ``p * 16 + j`` is +1, else it is -1.
    """
    panels = -(-final // 16)
    return generator(seed, _FINAL, repetition).integers(0, 2**16, (panels, rows), np.uint16)
