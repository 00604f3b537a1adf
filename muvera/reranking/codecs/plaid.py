"""Fit of ColBERT's own codec, as its PLAID indexes keep it, to tokens."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...utils.checks import require_choice
from .clustering import direction_centroids, nearest_centroids, unit_rows
from .residual import ResidualCodec

__all__ = ["PLAID_BITS", "fit_plaid_codec", "plaid_centroids", "require_plaid_bits"]

#: Bits a coordinate that PLAID knows.
PLAID_BITS = (1, 2, 4, 8)


def plaid_centroids(num_tokens: int) -> int:
    """Return how many centroids ColBERT takes for so many tokens: the power of two below 16 of their roots.

    Examples
    --------
    >>> plaid_centroids(56_658)
    2048
    """
    return 1 << int(math.log2(16 * math.sqrt(max(1, num_tokens))))


def require_plaid_bits(nbits: int, dimension: int) -> None:
    """Raise ValueError unless PLAID can keep tokens of `dimension` in so many bits."""
    require_choice("nbits", nbits, PLAID_BITS)
    if dimension * nbits % 8:
        raise ValueError(
            f"A PLAID index needs whole bytes a token, but dimension={dimension} at nbits={nbits} makes "
            f"{dimension * nbits} bits. Use nbits=8, or cut the dimension to a multiple of {8 // nbits}."
        )


def fit_plaid_codec(
    tokens: NDArray[np.float32],
    nbits: int,
    num_centroids: int,
    *,
    bucket_means: bool = False,
    threads: int | None = None,
) -> ResidualCodec:
    """Return the codec for tokens like these, with ColBERT's recipe.

    Centroids are directions, rounded to half precision.  All coordinates share the weights of their
    residuals: the middle of each bucket, where buckets hold equally many.

    Parameters
    ----------
    tokens : float32 (n, dimension)
        At least one.
    nbits : {1, 2, 4, 8}
        Bits a coordinate.
    num_centroids : int
        At most; there are no more than tokens.
    bucket_means : bool
        Take the mean of each bucket, which leaves less than its middle does.
    threads : int, optional
        Default: all usable cores.  The codec does not depend on it.

    Raises
    ------
    ValueError
        For bits that do not fill whole bytes.
    """
    require_plaid_bits(nbits, tokens.shape[1])
    units, _ = unit_rows(tokens)
    stream = np.random.default_rng(0)
    means = direction_centroids(units, num_centroids, stream, threads)
    centroids = unit_rows(means)[0].astype(np.float16).astype(np.float32)
    residuals = units - centroids[nearest_centroids(units, centroids, threads)]
    count = 2**nbits
    ordered = np.sort(residuals, axis=None)
    if bucket_means:
        edges = np.linspace(0, len(ordered), count + 1).astype(np.int64)
        sums = np.add.reduceat(ordered, np.minimum(edges[:-1], len(ordered) - 1), dtype=np.float64)
        weights = sums / np.maximum(np.diff(edges), 1)
    else:
        weights = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    return ResidualCodec.of_plaid(centroids, weights.astype(np.float32))
