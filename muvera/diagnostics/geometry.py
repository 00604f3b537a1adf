"""Geometry of token vectors: their mean, anisotropy, effective rank, and use of SimHash cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import as_array

__all__ = ["CellUse", "TokenGeometry", "cell_use", "token_geometry"]

#: Norms this near to 1 count as unit: bfloat16 keeps 8 bits, of which a norm loses one.
UNIT_TOLERANCE = 4e-3


@dataclass(frozen=True)
class TokenGeometry:
    """Shape of a set of token vectors; zero vectors have no direction and are left out.

    Parameters
    ----------
    tokens : int
        Vectors that were measured.
    zero_tokens : int
        Vectors that are entirely zero.
    dimension : int
        Their columns.
    mean_cosine, cosine_deviation : float
        Mean and standard deviation of the cosine over all pairs of different tokens: 0 and
        1 / sqrt(dimension) where directions are uniform, near 1 and near 0 where anisotropy is
        high.
    mean_norm : float
        Norm of the mean token, divided by the mean norm of the tokens: 1 where all have one
        direction, 1 / sqrt(tokens) where directions are uniform.
    effective_rank, centered_effective_rank : float
        (sum of eigenvalues)**2 / sum of squared eigenvalues of the second moments about zero
        and about the mean: the number of dimensions that the tokens fill, at most `dimension`.
        A direction that all tokens share brings the first near 1 and does not change the second.
    norms : tuple of float
        Least, mean and greatest norm.
    unit_norms : bool
        Whether every norm is 1, up to 0.004.
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
    """Spread of tokens over the SimHash cells of a configuration, as means over repetitions.

    Parameters
    ----------
    cells : int
        2**k, the cells of one repetition.
    used_per_document : float
        Mean share of the cells in which a document has a token.
    entropy : float
        Entropy of the distribution of tokens over cells, in bits, at most k.
    effective_cells : float
        2**entropy: so many equally full cells have the same entropy.
    """

    cells: int
    used_per_document: float
    entropy: float
    effective_cells: float


def token_geometry(tokens: NDArray[np.floating]) -> TokenGeometry:
    """Return the geometry of token vectors.

    All pairs count, without a sample: with u the unit vectors, the cosines of all pairs sum to
    ``|sum u|**2 - n`` and their squares to ``|sum u u^T|**2 - n`` (Frobenius).

    Parameters
    ----------
    tokens : float (n, dimension)
        At least two rows that are not zero.

    Raises
    ------
    ValueError
        For fewer rows that are not zero.

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
    pairs = count - 1  # both sums are means over n already
    mean_cosine = (count * float(directions @ directions) - 1) / pairs
    square_cosine = (count * float((unit_moments**2).sum()) - 1) / pairs
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
        unit_norms=bool(np.abs(lengths - 1).max() <= UNIT_TOLERANCE and not zeros),
    )


def cell_use(
    documents: MultiVectors,
    hyperplanes: NDArray[np.floating],
    repetitions: int,
    center: NDArray[np.floating] | None = None,
) -> CellUse:
    """Return how the tokens of `documents` spread over SimHash cells.

    Parameters
    ----------
    documents : MultiVectors
        At least one token.
    hyperplanes : float (repetitions * k, dimension)
        Normals in the tokens' own basis, such as
        ``encoder.matrices.dense_hyperplanes[:, :dimension]``.
    repetitions : int
        Number of partitions, each of which has an equal share of the hyperplanes.
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
    holders = max(1, int((documents.lengths > 0).sum()))
    used, entropies, effective = 0.0, 0.0, 0.0
    for r in range(repetitions):
        planes = np.asarray(hyperplanes[r * bits : (r + 1) * bits], np.float32)
        codes = ((rows @ planes.T > 0) << np.arange(bits)).sum(axis=1, dtype=np.int64)
        used += len(np.unique(owners * cells + codes)) / (holders * cells)
        shares = np.bincount(codes, minlength=cells) / len(codes)
        shares = shares[shares > 0]
        entropy = float(-(shares * np.log2(shares)).sum())
        entropies += entropy
        effective += 2**entropy
    return CellUse(cells, used / repetitions, entropies / repetitions + 0.0, effective / repetitions)


def _effective_rank(moments: NDArray[np.float64]) -> float:
    # Trace and Frobenius norm are the sums of the eigenvalues and of their squares.
    square = float((moments**2).sum())
    return float(np.trace(moments)) ** 2 / square if square > 0 else 0.0
