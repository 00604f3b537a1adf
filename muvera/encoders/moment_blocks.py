"""MomentBlocks: a document's mean token, a bias and its covariance, as columns of a vector; see docs/how-it-works.md.

For tokens of more than MAX_DIRECTIONS columns the covariance is taken in the r principal directions of tokens
around their own document's mean; the mean token keeps all columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.moments import document_moments, first_moments, query_moments, weigh_moments
from ..kernels.rows import pack_map
from ..kernels.tile import LANES, pack_columns
from .base import EncoderArrays, KernelArrays, Shapes, Side, random_stream, run_tasks
from .matmul import gram, leading_eigenvectors

#: Coefficients that are used if there are no documents to fit them to.  The sketch has the weight that a sketch of a
#: few thousand floats gets on most models.  The terms are the sketch, the covariance, the mean m, m / |m|, and for the
#: bias |m|, |m|**2 and the logarithm of the number of tokens.
DEFAULT_COEFFICIENTS = (0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0)

#: Largest number of directions of the covariance.
MAX_DIRECTIONS = 128

# Maximum number of tokens whose deviations determine the directions, and maximum bytes of the deviations.
_DIRECTION_TOKENS, _DIRECTION_BYTES = 16384, 128 << 20

# A child of the configuration's seed.
_DIRECTIONS = 0xC5


def covariance_directions(dimension: int, covariance: bool) -> int:
    """Return r, the directions of the covariance; 0 without one."""
    return min(dimension, MAX_DIRECTIONS) if covariance else 0


def moment_dimension(dimension: int, covariance: bool) -> int:
    """Return the floats of the blocks: covariance (if any), mean and bias."""
    directions = covariance_directions(dimension, covariance)
    return directions * (directions + 1) // 2 + dimension + 1


@dataclass(frozen=True)
class MomentBlocks(EncoderArrays):
    """Coefficients and arrays of the blocks, which are written into the columns of vectors.

    Parameters
    ----------
    coefficients : float64 (7,)
        Of the terms of :data:`DEFAULT_COEFFICIENTS`.
    units : float32 (4,)
        Documents' blocks are multiplied and queries' blocks divided by them: sketch, covariance, mean, bias.
        Products stay the same, and both sides become about equally long, which is needed by graphs and
        rounding.
    offset : float32 (w,)
        The sampled documents' mean blocks, which are subtracted; this does not change the ranking.
    metric : float32 (r, r), or (0, 0) without covariance
        C, the documents' mean covariance.
    directions : float32 (r, d), or (0, 0) if r is d or there is no covariance
        Orthonormal rows: the directions of the covariance.
    """

    coefficients: NDArray[np.float64]
    units: NDArray[np.float32]
    offset: NDArray[np.float32]
    metric: NDArray[np.float32]
    directions: NDArray[np.float32]

    prefix: ClassVar[str] = "moments_"

    def _shapes(self, config: Any) -> Shapes:
        size, dimension = covariance_directions(config.dimension, config.covariance), config.dimension
        directions = (size, dimension) if 0 < size < dimension else (0, 0)
        columns = moment_dimension(dimension, config.covariance)
        return (len(DEFAULT_COEFFICIENTS),), (4,), (columns,), (size, size), directions

    def require_shape(self, config: Any) -> None:
        """Raise ValueError if the blocks belong to another configuration, or a unit is not positive."""
        super().require_shape(config)
        if self.units.min() <= 0:
            raise ValueError(
                f"The encoder's units must be positive, got {self.units.min()}. Restore the encoder from a copy."
            )

    @cached_property
    def document_arguments(self) -> tuple[NDArray[np.float32], int]:
        """Arguments of the kernel for documents: the packed directions and their number."""
        if not self.directions.size:
            return np.empty(0, np.float32), len(self.metric)
        padding = -self.directions.shape[1] % LANES
        return pack_map(np.pad(self.directions.T, ((0, padding), (0, 0)))), len(self.metric)

    @cached_property
    def query_arguments(self) -> tuple[Any, ...]:
        """Arguments of the kernels for queries: those for documents, the packed metric, the units."""
        padding = -len(self.metric) % LANES
        metric = pack_columns(np.pad(self.metric, (0, padding))).reshape(-1)
        return (*self.document_arguments, metric, self.units)

    def write_moments(
        self, at: int, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write covariances and means of documents start..stop to the columns of `out` from `at` on."""
        document_moments(*arrays, start, stop, at, *self.document_arguments, out)

    def write(
        self, side: Side, at: int, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write the blocks of texts start..stop to the columns of `out` from `at` on."""
        if side == "queries":
            query_moments(*arrays, start, stop, at, *self.query_arguments, out)
            return
        self.write_moments(at, arrays, start, stop, out)
        size = len(self.metric)
        weigh_moments(
            arrays[2], start, stop, at, size * (size + 1) // 2, self.coefficients[1:], self.units[1:],
            self.offset, out,
        )  # fmt: skip


def default_blocks(
    dimension: int,
    covariance: bool,
    directions: NDArray[np.float32] | None = None,
) -> MomentBlocks:
    """Return blocks with the :data:`DEFAULT_COEFFICIENTS`."""
    size = covariance_directions(dimension, covariance)
    if directions is None:
        shape = (size, dimension) if 0 < size < dimension else (0, 0)
        directions = np.eye(*shape, dtype=np.float32)
    return MomentBlocks(
        np.array(DEFAULT_COEFFICIENTS),
        np.ones(4, np.float32),
        np.zeros(moment_dimension(dimension, covariance), np.float32),
        np.eye(size, dtype=np.float32),
        directions,
    )


def mean_tokens(texts: MultiVectors, threads: int | None = None) -> NDArray[np.float32]:
    """Return the mean token of each text, float32 (n, d)."""

    def write(arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]) -> None:
        first_moments(*arrays, start, stop, 0, True, out)

    return run_tasks(write, texts, np.empty((len(texts), texts.dimension), np.float32), threads)


def principal_directions(
    documents: MultiVectors, count: int, seed: int, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the `count` leading directions of tokens around their own document's mean, orthonormal float32 (r, d)."""
    tokens = min(documents.num_tokens, _DIRECTION_TOKENS, _DIRECTION_BYTES // (4 * documents.dimension))
    stream = random_stream(seed, _DIRECTIONS)
    positions = np.sort(stream.choice(documents.num_tokens, tokens, replace=False))
    owners = np.searchsorted(documents.offsets, positions, side="right") - 1
    means = mean_tokens(documents, threads)
    deviations = np.asarray(documents.tokens[positions], np.float32) - means[owners]
    covariance = gram(deviations.T, threads) / np.float32(max(1, tokens))
    start = random_stream(seed, _DIRECTIONS, 1)
    axes = leading_eigenvectors(covariance, count, start, threads)[1]
    # A random rotation gives all entries of a covariance about the same range, because they are rounded with one step.
    turn = np.linalg.qr(stream.standard_normal((axes.shape[1], axes.shape[1])))[0]
    return np.ascontiguousarray((axes @ turn.astype(np.float32)).T)
