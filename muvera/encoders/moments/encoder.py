"""MeanEncoder: from token sets to their calibrated moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import ReadArray
from ..fde.compact_maps import CompactMaps
from ..long_vectors import LongVectorEncoder, read_learned
from .blocks import MomentBlocks
from .config import MeanConfig

__all__ = ["MeanEncoder"]


class MeanEncoder(LongVectorEncoder):
    """Turn token sets into their mean token, a bias and, where asked for, their covariance.

    The same interface as :class:`muvera.FDEEncoder`, of which these are the blocks beside the sketch.

    Parameters
    ----------
    config : MeanConfig
    blocks : MomentBlocks, optional
        Instead of fitting: the blocks of a saved index.
    compact : CompactMaps, optional
        Instead of fitting: the maps of a saved index.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import MeanConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(4)])
    >>> MeanEncoder(MeanConfig(dimension=32)).fit(documents).encode_documents(documents).shape
    (4, 33)
    """

    config: MeanConfig

    def __init__(
        self,
        config: MeanConfig,
        *,
        blocks: MomentBlocks | None = None,
        compact: CompactMaps | None = None,
    ) -> None:
        if not isinstance(config, MeanConfig):
            raise TypeError(f"config must be a MeanConfig, got {type(config).__name__}.")
        super().__init__(config, blocks, compact)

    def _take_center(self, center: NDArray[np.float32]) -> None:
        """Nothing is hashed, so nothing is subtracted before."""

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> MeanEncoder:
        """Learn the coefficients and, where asked for, the compact maps.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: a thousand documents for the coefficients, up to 4,096 for the maps.
            Very few leave the coefficients near their defaults.
        queries : MultiVectors or arrays, optional
            Queries to learn from beside the documents' own tokens, which stand in for them otherwise.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        MeanEncoder
            This encoder.

        Raises
        ------
        ValueError
            Where it is fitted already, or the documents have no tokens, numbers that are not finite, or
            another dimension.
        """
        if not self.needs_fit:
            raise ValueError(
                "This encoder is fitted, and vectors of two fits do not compare. Make a new encoder."
            )
        try:
            self._learn(documents, queries, threads)
        except BaseException:
            self._blocks = self.compact = None  # to be fitted again, not half fitted
            raise
        return self

    def _require_fit(self) -> None:
        if self.needs_fit:
            raise ValueError(
                "A mean encoder learns its coefficients from documents: call fit(documents) first."
            )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the blocks and the compact maps by name.

        Raises
        ------
        ValueError
            Where the encoder is not fitted.
        """
        self._require_fit()
        return self._learned_arrays()

    @classmethod
    def from_arrays(cls, config: MeanConfig, read: ReadArray) -> MeanEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        blocks, maps = read_learned(config, read)
        return cls(config, blocks=blocks, compact=maps)
