"""Geometry of token vectors: norms, anisotropy and effective rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.validation import as_array

__all__ = ["TokenGeometry", "token_geometry"]

# Norms within this distance of 1 count as unit: bfloat16 has 8 bits, and a norm loses one of them.
_UNIT_TOLERANCE = 4e-3


@dataclass(frozen=True)
class TokenGeometry:
    """Shape of a set of token vectors, without the zero vectors.

    Parameters
    ----------
    zero_tokens : int
        Number of vectors that are all zero.
    dimension : int
    mean_cosine, cosine_deviation : float
        Mean and standard deviation of the cosine over all pairs of tokens: 0 and 1 / sqrt(dimension) for
        uniform directions; near 1 and near 0 for high anisotropy.
    effective_rank, centered_effective_rank : float
        (sum of eigenvalues)**2 / sum of squared eigenvalues of the second moments about zero and about the
        mean: the number of dimensions that the tokens use.  A direction that all tokens share lowers the
        first towards 1 and does not change the second.
    norms : tuple of float
        Smallest, mean and largest norm.
    unit_norms : bool
        True if every norm is 1, up to 0.004.
    """

    zero_tokens: int
    dimension: int
    mean_cosine: float
    cosine_deviation: float
    effective_rank: float
    centered_effective_rank: float
    norms: tuple[float, float, float]
    unit_norms: bool


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
    >>> cross.effective_rank, cross.unit_norms
    (2.0, True)
    """
    rows = as_array(tokens, "tokens").astype(np.float64, copy=False)
    lengths = np.linalg.norm(rows, axis=1)
    zeros = int((lengths == 0).sum())
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    count = len(rows)
    if count < 2:
        raise ValueError(f"A geometry needs at least 2 tokens that are not zero, got {count}.")
    units = rows / lengths[:, np.newaxis]
    mean, direction = rows.mean(axis=0), units.mean(axis=0)
    moments, unit_moments = rows.T @ rows / count, units.T @ units / count
    mean_cosine = (count * float(direction @ direction) - 1) / (count - 1)
    square_cosine = (count * float((unit_moments**2).sum()) - 1) / (count - 1)
    return TokenGeometry(
        zero_tokens=zeros,
        dimension=rows.shape[1],
        mean_cosine=mean_cosine,
        cosine_deviation=float(np.sqrt(max(0.0, square_cosine - mean_cosine**2))),
        effective_rank=_effective_rank(moments),
        centered_effective_rank=_effective_rank(moments - np.outer(mean, mean)),
        norms=(float(lengths.min()), float(lengths.mean()), float(lengths.max())),
        unit_norms=bool(np.abs(lengths - 1).max() <= _UNIT_TOLERANCE and not zeros),
    )


def _effective_rank(moments: NDArray[np.float64]) -> float:
    # Trace and Frobenius norm are the sums of the eigenvalues and of their squares.
    square = float((moments**2).sum())
    return float(np.trace(moments)) ** 2 / square if square > 0 else 0.0
