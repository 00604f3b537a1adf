"""FDEEncoder: from token sets to Fixed Dimensional Encodings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.validation import as_array
from ..base import ReadArray, Side
from ..long_vectors import LongVectorEncoder, read_learned
from ..moments.blocks import MomentBlocks
from .compact_maps import CompactMaps
from .config import FDEConfig
from .final_projection import FinalProjection
from .matrices import FDEMatrices, draw_matrices
from .sketch import Sketch

__all__ = ["FDEEncoder"]

# Sketches held by one thread before a final projection.
_BLOCK_BYTES = 64 << 20


class FDEEncoder(LongVectorEncoder):
    """Turn token sets into vectors whose inner product approximates Chamfer.

    Parameters
    ----------
    config : FDEConfig
        With ``split_mean``, ``center`` or ``compact_dimension`` the encoder needs :meth:`fit` first.
    matrices : FDEMatrices, optional
        Instead of drawing them from the configuration: those of a saved index.
    center : float32 (dimension,), optional
        Instead of fitting: the mean token of a saved index.
    blocks : MomentBlocks, optional
        Instead of fitting: the blocks of a saved index.
    compact : CompactMaps, optional
        Instead of fitting: the maps of a saved index.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import FDEConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(4)])
    >>> encoder = FDEEncoder(FDEConfig(dimension=32)).fit(documents)
    >>> encoder.encode_documents(documents).shape
    (4, 5153)
    """

    config: FDEConfig

    def __init__(
        self,
        config: FDEConfig,
        *,
        matrices: FDEMatrices | None = None,
        center: Any = None,
        blocks: MomentBlocks | None = None,
        compact: CompactMaps | None = None,
    ) -> None:
        if not isinstance(config, FDEConfig):
            raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
        self.matrices = draw_matrices(config) if matrices is None else matrices
        super().__init__(config, blocks, compact)
        self._sketch = Sketch(config, self.matrices)
        self._center: NDArray[np.float32] | None = None
        if center is not None:
            vector = as_array(center, "center").astype(np.float32).reshape(-1)
            if vector.shape != (config.dimension,):
                raise ValueError(f"center has {vector.size} entries, but dimension={config.dimension}.")
            self._take_center(vector)
        self._final: FinalProjection | None = None
        if config.final_projection is not None:
            self._final = FinalProjection(config, self.matrices)
            self._task_texts = max(1, _BLOCK_BYTES // (4 * config.sketch_dimension))

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """Whether something is still to be learned from documents before encoding."""
        return super().needs_fit or (self.config.center and self._center is None)

    @property
    def center(self) -> NDArray[np.float32]:
        """The vector that is subtracted, float32 (dimension,); zero without ``center``."""
        self._require_fit()
        if self._center is None:
            return np.zeros(self.config.dimension, np.float32)
        return self._center

    def _take_center(self, center: NDArray[np.float32]) -> None:
        if self.config.center:
            self._sketch.center_at(center)
            self._center = center

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> FDEEncoder:
        """Learn what the configuration asks for: the mean token, the coefficients, the compact maps.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: some thousand tokens for the mean, a thousand documents for the
            coefficients, as many as there are up to 4,096 for the maps (of more, a random sample is
            used, held in memory).  Very few leave the coefficients near their defaults.
            Fitting again is an error once something was encoded with the old fit, so it is
            not offered: make a new encoder.
        queries : MultiVectors or arrays, optional
            Queries to learn the coefficients and the compact maps from beside the documents' own
            tokens, which stand in for them otherwise.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        FDEEncoder
            This encoder.

        Raises
        ------
        ValueError
            Where it is fitted already, or the documents have no tokens, numbers that are not finite, or
            another dimension.
        """
        config = self.config
        if not config.center and not config.split_mean and config.compact_dimension is None:
            return self
        if not self.needs_fit or self._center is not None:
            raise ValueError(
                "This encoder is fitted, and FDEs of two fits do not compare. Make a new encoder."
            )
        try:
            self._learn(documents, queries, threads)
        except BaseException:
            self._center = self._blocks = self.compact = None  # to be fitted again, not half fitted
            raise
        return self

    def _require_fit(self) -> None:
        if self.needs_fit:
            size = self.config.compact_dimension
            asks, instead = "center=True", "center=False"
            if self.config.split_mean:
                asks, instead = "split_mean=True", "split_mean=False and center=False"
            if size is not None:
                asks, instead = f"compact_dimension={size}", "compact_dimension=None"
            raise ValueError(
                f"This configuration has {asks}, which is learned from documents: call fit(documents) "
                f"first, or use {instead}."
            )

    # -- encoding -------------------------------------------------------------

    @property
    def _sketch_columns(self) -> int:
        return self.config.final_projection_dimension or self.config.sketch_dimension

    @property
    def _sketch_scale(self) -> float:
        return float(self.config.num_repetitions)

    def _write_sketch(
        self, side: Side, arrays: Any, start: int, stop: int, weight: float, out: NDArray[np.float32]
    ) -> None:
        write = self._sketch.write_documents if side == "documents" else self._sketch.write_queries
        if self._final is None:
            write(arrays, start, stop, out, weight)
            return
        block = np.empty((stop - start, self.config.sketch_dimension), np.float32)
        write(arrays, start, stop, block, weight)
        self._final.write(block, out[:, : self._final.dimension])

    # -- keeping --------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the matrices, the center, the blocks and the compact maps by name.

        Matrices are kept although the seed gives them, since random streams may change between
        versions of NumPy.

        Raises
        ------
        ValueError
            Where the encoder is not fitted.
        """
        return {**self.matrices.to_arrays(), "center": self.center, **self._learned_arrays()}

    @classmethod
    def from_arrays(cls, config: FDEConfig, read: ReadArray) -> FDEEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        blocks, maps = read_learned(config, read)
        return cls(
            config,
            matrices=FDEMatrices(**{f.name: read(f.name) for f in fields(FDEMatrices)}),
            center=read("center") if config.center else None,
            blocks=blocks,
            compact=maps,
        )
