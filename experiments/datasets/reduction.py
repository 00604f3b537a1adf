"""The linear map to fewer dimensions that wide token vectors are reduced by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera.texts.encoders.minilm import Reduction

__all__ = ["fit_reduction"]


def fit_reduction(samples: Iterable[npt.NDArray[np.floating[Any]]], dimension: int) -> Reduction:
    """Fit the linear map that keeps most of the vectors' energy (PCA without centering).

    The columns are the leading eigenvectors of the uncentered second moment, so inner products, which MaxSim
    is made of, are kept as well as any map of this size can on average. Each column's largest entry is made
    positive, which settles the sign that an eigenvector leaves open.

    Parameters
    ----------
    samples : iterable of (n, width) float arrays
        Token vectors; read once, a piece at a time.
    dimension : int
        Columns of what it returns. Fewer cost fidelity and save memory and time everywhere.

    Returns
    -------
    Reduction
        The fitted map.

    Raises
    ------
    ValueError
        For no samples, or a dimension that is not between 1 and theirs.
    """
    moment: npt.NDArray[np.float64] | None = None
    for sample in samples:
        rows = np.asarray(sample, dtype=np.float64)
        moment = rows.T @ rows if moment is None else moment + rows.T @ rows
    if moment is None:
        raise ValueError("samples is empty: a reduction needs at least one matrix of token vectors.")
    if not 1 <= dimension <= len(moment):
        raise ValueError(
            f"The 'dimension' parameter of fit_reduction must be between 1 and {len(moment)}, the samples' width. "
            f"Got {dimension} instead."
        )
    components = np.linalg.eigh(moment)[1][:, ::-1][:, :dimension]
    largest = components[np.abs(components).argmax(axis=0), np.arange(dimension)]
    return Reduction((components * np.sign(largest)).astype(np.float32))
