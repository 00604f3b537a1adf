"""MomentsConfig and MomentsEncoder: mean token and covariance of a document, reduced to a few hundred floats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors
from ..kernels.moments import compact_queries
from ..utils.checks import given, require_int
from ..utils.parallel import stage
from .base import Encoder, EncoderArrays, EncoderConfig, FitSample, KernelArrays, Side, run_tasks
from .coefficients import SAMPLE_DOCUMENTS, fit_blocks
from .compact_map import CompactMaps, fit_maps, sample_windows, window_similarities
from .moment_blocks import MomentBlocks, moment_dimension

# Keeps long vectors within MAX_DEPTH of :mod:`muvera.kernels.byte_tile`.
_MAX_DIMENSION = 32768

# Number of texts per task with compact maps.  With more texts, a map is read less often; with fewer, the long vectors
# fit into the cache.
_COMPACT_TEXTS = 16


@dataclass(frozen=True, kw_only=True)
class MomentsConfig(EncoderConfig):
    """Configuration of vectors of a document's mean token, a bias and its covariance.

    ``MomentsConfig(dimension=d)`` is the preset "moments", the default of the library.
    ``MomentsConfig(dimension=d, covariance=False, compact_dimension=None)`` is the preset "mean": encoding is
    memory-bound and hardly needs a fit.  Use it as the baseline for any longer vector.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    covariance : bool
        Add the covariance of the document's tokens, which contains most of the information beyond the mean.
        It has r * (r + 1) / 2 floats for r = min(dimension, 128) directions.  Encoding takes longer than for the
        mean alone, and less than for an FDE.
    compact_dimension : int or None
        Size after a map that is fitted to documents, see :mod:`muvera.encoders.compact_map`.  Default: 256 for
        tokens of up to 128 columns, otherwise 512.  256 floats have the recall of the full covariance's thousands.
        Fitting takes seconds.  No map is fitted if this is None, or if the vector has at most this size without one.
    seed : int
        Seed of the sampled documents and windows.

    Examples
    --------
    >>> MomentsConfig(dimension=128).vector_dimension
    256
    >>> MomentsConfig(dimension=128, compact_dimension=None).vector_dimension
    8385
    >>> MomentsConfig(dimension=128, covariance=False, compact_dimension=None).vector_dimension
    129
    """

    kind: ClassVar[str] = "moments"

    dimension: int
    covariance: bool = True
    compact_dimension: int | None = cast("Any", "auto")
    seed: int = 42

    def __post_init__(self) -> None:
        require_int("dimension", self.dimension, 1, _MAX_DIMENSION)
        require_int("seed", self.seed, 0)
        if not isinstance(self.covariance, bool):
            raise TypeError(f"covariance must be a bool, got {given(self.covariance)}.")
        if self.compact_dimension == cast("Any", "auto"):
            # 256 floats cannot represent the mean token of 384 columns, and have a lower recall than an FDE.
            object.__setattr__(self, "compact_dimension", 256 if self.dimension <= 128 else 512)
        if self.compact_dimension is not None:
            size = require_int("compact_dimension", self.compact_dimension, 1)
            if size >= self.long_dimension:
                object.__setattr__(self, "compact_dimension", None)

    @property
    def long_dimension(self) -> int:
        """Floats before the compact map."""
        return moment_dimension(self.dimension, self.covariance)

    @property
    def vector_dimension(self) -> int:
        """Floats of a vector."""
        return self.compact_dimension or self.long_dimension

    @property
    def needs_fit_sample(self) -> bool:
        """True if a map is fitted to documents, and not only coefficients."""
        return self.compact_dimension is not None


class MomentsEncoder(Encoder):
    """Turn token sets into their mean token, a bias and their covariance.

    Parameters
    ----------
    config : MomentsConfig
    blocks : MomentBlocks, optional
        Those of a saved encoder, instead of fitting.
    compact : CompactMaps, optional
        Those of a saved encoder, instead of fitting.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import MomentsConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(400)])
    >>> MomentsEncoder(MomentsConfig(dimension=32)).fit(documents).encode_documents(documents).shape
    (400, 256)
    """

    config_class = MomentsConfig
    config: MomentsConfig
    blocks: MomentBlocks | None = None
    compact: CompactMaps | None = None

    @staticmethod
    def _array_classes(config: MomentsConfig) -> dict[str, type[EncoderArrays]]:
        if config.compact_dimension is None:
            return {"blocks": MomentBlocks}
        return {"blocks": MomentBlocks, "compact": CompactMaps}

    # -- fitting --------------------------------------------------------------

    @property
    def _fit_size(self) -> tuple[int, int]:
        most = SAMPLE_DOCUMENTS if self.config.compact_dimension is None else MAX_FIT_DOCUMENTS
        return self.config.long_dimension, most

    def _fit(self, sample: FitSample, threads: int | None) -> None:
        config, size = self.config, self.config.compact_dimension
        blocks = fit_blocks(
            sample.documents, sample.queries, covariance=config.covariance,
            balance="length" if size is None else "range", seed=config.seed, threads=threads,
        )  # fmt: skip
        if size is not None:
            self.compact = self._fitted_maps(blocks, sample, size, threads)
        self.blocks = blocks

    def _fitted_maps(
        self, blocks: MomentBlocks, sample: FitSample, size: int, threads: int | None
    ) -> CompactMaps:
        config = self.config
        windows = sample_windows(sample.documents, sample.queries, config.long_dimension, config.seed)
        with stage("learning moments, 1 of 2"):
            similarities = window_similarities(windows, sample.documents, blocks.directions, threads)

        def long_vectors(texts: MultiVectors, side: Side) -> NDArray[np.float32]:
            out = np.empty((len(texts), config.long_dimension), np.float32)
            return run_tasks(partial(blocks.write, side, 0), texts, out, threads)

        with stage("learning moments, 2 of 2"):
            queries, means = long_vectors(windows, "queries"), config.dimension + 1
            maps = fit_maps(
                queries, long_vectors(sample.documents, "documents"), similarities, size, means, config.seed,
                threads,
            )  # fmt: skip
            return CompactMaps.rounded(queries, maps, means, threads)

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        tokens, most = super()._task_size(side)
        return tokens, most if self.compact is None else _COMPACT_TEXTS

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        assert self.blocks is not None
        if self.compact is None:
            self.blocks.write(side, 0, arrays, start, stop, out)
        elif side == "queries":
            compact_queries(
                *arrays, start, stop, *self.blocks.query_arguments, *self.compact.query_arguments, out
            )
        else:
            block = np.empty((stop - start, self.config.long_dimension), np.float32)
            self.blocks.write(side, 0, arrays, start, stop, block)
            self.compact.multiply(block, out)
