"""MomentBlocks: the part of a vector that holds a document's own mean and covariance.

For any vector m, ``chamfer(Q, P) = <sum_q q, m> + chamfer(Q, P - m)``, since ``max_p <q, p> =
<q, m> + max_p <q, p - m>``.  With m the document's mean token the first term is a block of d floats
that has no error, and a sketch has to approximate the second alone, whose tokens are shorter.  A noisy
sketch deserves less than its full weight, and the maximum over many tokens exceeds their mean by what
depends on the document's spread and length: six coefficients say how much
(:mod:`muvera.encoders.moments.calibration`).

Where the rest P - m is nearly normal with covariance C_P, the maximum over n tokens exceeds the mean by
``sqrt(2 log n) sqrt(q' C_P q)``.  Its root is linearized at the documents' mean covariance C: one more
inner product, of d * (d + 1) / 2 floats and without any random draw.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.moments import document_moments, query_moments, weigh_moments
from ...kernels.tile import LANES, pack_columns

__all__ = [
    "DEFAULT_COEFFICIENTS",
    "TERMS",
    "KernelArrays",
    "MomentBlocks",
    "default_blocks",
    "moment_dimension",
]

#: Tokens as float32, as float16 bit patterns (one of both is empty), and the texts' offsets.
KernelArrays = tuple[NDArray[np.float32], NDArray[np.uint16], NDArray[np.int64]]

#: What the coefficients multiply: the sketch; the covariance; the mean m; m / |m|; and of the bias
#: |m|, |m|**2 and the logarithm of the number of tokens.
TERMS = ("sketch", "covariance", "mean", "direction", "length", "square_length", "log_count")

#: Coefficients where there are no documents to learn them from: the identity, with the weight that a
#: sketch of some thousand floats has on most models.
DEFAULT_COEFFICIENTS = (0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0)


def moment_dimension(dimension: int, covariance: bool) -> int:
    """Return the floats of the blocks: mean, bias and, where asked for, covariance."""
    return dimension + 1 + (dimension * (dimension + 1) // 2 if covariance else 0)


@dataclass(frozen=True)
class MomentBlocks:
    """What the blocks beside a sketch are made with.

    Parameters
    ----------
    coefficients : float64 (7,)
        Of the :data:`TERMS`.
    units : float32 (4,)
        Documents' blocks are multiplied and queries' divided by them: sketch, covariance, mean, bias.
        Products stay; both sides become about equally long, which graphs and rounding need.
    offset : float32 (w,)
        The sampled documents' mean blocks, which are subtracted: no ranking changes.
    metric : float32 (d, d), or (0, 0) without covariance
        C, the documents' mean covariance.
    """

    coefficients: NDArray[np.float64]
    units: NDArray[np.float32]
    offset: NDArray[np.float32]
    metric: NDArray[np.float32]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, as they are saved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def require_shape(self, dimension: int, covariance: bool) -> None:
        """Raise ValueError where the blocks belong to another configuration."""
        wanted = {
            "coefficients": (len(TERMS),),
            "units": (4,),
            "offset": (moment_dimension(dimension, covariance),),
            "metric": (dimension, dimension) if covariance else (0, 0),
        }
        for name, array in self.to_arrays().items():
            if array.shape != wanted[name]:
                raise ValueError(
                    f"The moments' {name} has shape {array.shape}, but the configuration asks for "
                    f"{wanted[name]}."
                )

    @property
    def _second(self) -> bool:
        return self.metric.size > 0

    def packed_metric(self) -> NDArray[np.float32]:
        """Return C as the query kernel reads it."""
        if not self._second:
            return np.empty(0, np.float32)
        size = len(self.metric)
        width = -(-size // LANES) * LANES
        padded = np.zeros((width, width), np.float32)
        padded[:size, :size] = self.metric
        return pack_columns(padded).reshape(-1)

    def write_documents(
        self, arrays: KernelArrays, start: int, stop: int, at: int, out: NDArray[np.float32]
    ) -> None:
        """Write the blocks of documents start..stop to the columns of `out` from `at` on.

        Parameters
        ----------
        arrays : tuple
            Tokens as float32, as float16 bit patterns (one of both is empty), and the texts' offsets.
        start, stop, at : int
        out : float32 (stop - start, columns)
        """
        floats, halves, offsets = arrays
        document_moments(floats, halves, offsets, start, stop, at, self._second, out)
        depth = max(floats.shape[1], halves.shape[1])
        weigh_moments(
            offsets, start, stop, at, depth, self._second, self.coefficients[1:], self.units[1:],
            self.offset, out,
        )  # fmt: skip

    def write_queries(
        self,
        arrays: KernelArrays,
        start: int,
        stop: int,
        at: int,
        out: NDArray[np.float32],
        metric: NDArray[np.float32],
    ) -> None:
        """Write the blocks of queries start..stop; `metric` is :meth:`packed_metric`."""
        query_moments(*arrays, start, stop, at, metric, self.units[1:], out)


def default_blocks(
    dimension: int, covariance: bool, metric: NDArray[np.float32] | None = None
) -> MomentBlocks:
    """Return blocks that were learned from nothing: :data:`DEFAULT_COEFFICIENTS`."""
    if metric is None:
        metric = np.eye(dimension, dtype=np.float32) if covariance else np.empty((0, 0), np.float32)
    return MomentBlocks(
        np.array(DEFAULT_COEFFICIENTS),
        np.ones(4, np.float32),
        np.zeros(moment_dimension(dimension, covariance), np.float32),
        metric,
    )
