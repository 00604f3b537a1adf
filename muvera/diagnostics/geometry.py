"""Geometry of token vectors: mean, anisotropy, effective rank, and use of SimHash cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import as_array

__all__ = ["CellUse", "TokenGeometry", "cell_use", "token_geometry"]

# Norms within this distance of 1 count as unit: bfloat16 has 8 bits, and a norm loses one of them.
_UNIT_TOLERANCE = 4e-3


@dataclass(frozen=True)
class TokenGeometry:
    """Shape of a set of token vectors, without the zero vectors.

    Parameters
    ----------
    tokens, zero_tokens : int
        Number of measured vectors, and of vectors that are all zero.
    dimension : int
    mean_cosine, cosine_deviation : float
        Mean and standard deviation of the cosine over all pairs of tokens: 0 and 1 / sqrt(dimension) for
        uniform directions; near 1 and near 0 for high anisotropy.
    mean_norm : float
        Norm of the mean token divided by the mean norm of the tokens: 1 if all have one direction,
        1 / sqrt(tokens) for uniform directions.
    effective_rank, centered_effective_rank : float
        (sum of eigenvalues)**2 / sum of squared eigenvalues of the second moments about zero and about the
        mean: the number of dimensions that the tokens use.  A direction that all tokens share lowers the
        first towards 1 and does not change the second.
    norms : tuple of float
        Smallest, mean and largest norm.
    unit_norms : bool
        True if every norm is 1, up to 0.004.
    """

    tokens: int
    zero_tokens: int
    dimension: int
    mean_cosine: float
    cosine_deviation: float
    mean_norm: float
    effective_rank: float
    centered_effective_rank: float
    norms: tuple[float, float, float]
    unit_norms: bool


@dataclass(frozen=True)
class CellUse:
    """Distribution of tokens over SimHash cells, averaged over repetitions.

    Parameters
    ----------
    cells : int
        2**k, the cells of one repetition.
    used_per_document : float
        Mean share of the cells in which a document has a token.
    entropy : float
        Entropy of the distribution of tokens over cells in bits, at most k.
    effective_cells : float
        2**entropy, the number of equally full cells with the same entropy.
    """

    cells: int
    used_per_document: float
    entropy: float
    effective_cells: float


def token_geometry(tokens: NDArray[np.floating]) -> TokenGeometry:
    """Return the geometry of token vectors.

    All pairs count: with u the unit vectors, the cosines of all pairs sum to ``|sum u|**2 - n`` and their
    squares to ``|sum u u^T|**2 - n`` (Frobenius).

    Parameters
    ----------
    tokens : float (n, dimension)
        At least two rows that are not zero.

    Raises
    ------
    ValueError
        If fewer rows are not zero.

    Examples
    --------
    >>> import numpy as np
    >>> cross = token_geometry(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
    >>> cross.effective_rank, cross.mean_norm, cross.unit_norms
    (2.0, 0.0, True)
    """
    rows = as_array(tokens, "tokens").astype(np.float64, copy=False)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    zeros = int((lengths == 0).sum())
    if zeros:
        rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    count = len(rows)
    if count < 2:
        raise ValueError(f"A geometry needs at least 2 tokens that are not zero, got {count}.")
    mean, moments = rows.mean(axis=0), rows.T @ rows / count
    if np.abs(lengths - 1).max() <= 1e-6:
        directions, unit_moments = mean, moments
    else:
        units = rows / lengths[:, np.newaxis]
        directions, unit_moments = units.mean(axis=0), units.T @ units / count
    mean_cosine = (count * float(directions @ directions) - 1) / (count - 1)
    square_cosine = (count * float((unit_moments**2).sum()) - 1) / (count - 1)
    return TokenGeometry(
        tokens=count,
        zero_tokens=zeros,
        dimension=rows.shape[1],
        mean_cosine=mean_cosine,
        cosine_deviation=float(np.sqrt(max(0.0, square_cosine - mean_cosine**2))),
        mean_norm=float(np.linalg.norm(mean) / lengths.mean()),
        effective_rank=_effective_rank(moments),
        centered_effective_rank=_effective_rank(moments - np.outer(mean, mean)),
        norms=(float(lengths.min()), float(lengths.mean()), float(lengths.max())),
        unit_norms=bool(np.abs(lengths - 1).max() <= _UNIT_TOLERANCE and not zeros),
    )


def cell_use(
    documents: MultiVectors,
    hyperplanes: NDArray[np.floating],
    repetitions: int,
    center: NDArray[np.floating] | None = None,
) -> CellUse:
    """Return how the tokens of `documents` are distributed over SimHash cells.

    Parameters
    ----------
    documents : MultiVectors
        With at least one token.
    hyperplanes : float (repetitions * k, dimension)
        Normals, such as ``encoder.matrices.hyperplanes[:, :dimension]``.
    repetitions : int
        Number of partitions, each with k of the hyperplanes.
    center : float (dimension,), optional
        Subtracted from the tokens first.

    Examples
    --------
    >>> import numpy as np
    >>> one = MultiVectors.from_arrays([np.array([[1.0, 1], [-1, 1], [1, -1]])])
    >>> use = cell_use(one, np.eye(2), 1)
    >>> use.cells, use.used_per_document
    (4, 0.75)
    """
    bits = len(hyperplanes) // repetitions
    cells = 1 << bits
    rows = np.asarray(documents.tokens, np.float32)
    if center is not None:
        rows = rows - as_array(center, "center").astype(np.float32, copy=False)
    owners = np.repeat(np.arange(len(documents), dtype=np.int64), documents.lengths)
    filled = max(1, int((documents.lengths > 0).sum()))
    used, entropies = np.empty(repetitions), np.empty(repetitions)
    for r in range(repetitions):
        planes = np.asarray(hyperplanes[r * bits : (r + 1) * bits], np.float32)
        codes = ((rows @ planes.T > 0) << np.arange(bits)).sum(axis=1, dtype=np.int64)
        used[r] = len(np.unique(owners * cells + codes)) / (filled * cells)
        shares = np.bincount(codes, minlength=cells) / len(codes)
        shares = shares[shares > 0]
        entropies[r] = abs((shares * np.log2(shares)).sum())
    return CellUse(cells, float(used.mean()), float(entropies.mean()), float((2**entropies).mean()))


def _effective_rank(moments: NDArray[np.float64]) -> float:
    # Trace and Frobenius norm are the sums of the eigenvalues and of their squares.
    square = float((moments**2).sum())
    return float(np.trace(moments)) ** 2 / square if square > 0 else 0.0
