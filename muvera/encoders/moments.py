"""MomentsConfig and MomentsEncoder: mean token and covariance of a document, reduced to a few hundred floats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.sampling import MAX_FIT_DOCUMENTS, DocumentSample, as_batches, mean_token
from ..data.validation import validated_out
from ..utils.checks import given, require_int
from ..utils.parallel import run_in_ranges, split_by_weight
from ..utils.stages import stage
from .base import Encoder, EncoderConfig, ReadArray, Side
from .calibration import SAMPLE_DOCUMENTS, calibrate
from .compact_map import CompactMaps, CompactProduct, fit_maps, sample_windows
from .matmul import Int8Matrix
from .moment_blocks import BlockWriter, KernelArrays, MomentBlocks, moment_dimension
from .token_products import window_similarities

__all__ = ["MomentsConfig", "MomentsEncoder"]

# Keeps long vectors within MAX_DEPTH of :mod:`muvera.kernels.byte_tile`.
_MAX_DIMENSION = 32768

# Number of tokens per task: enough to hide the cost of starting it, few enough to balance the threads.
_TASK_TOKENS = 2048

# Number of texts and tokens per task with compact maps: each task reads the whole map.
_COMPACT_TEXTS, _COMPACT_TOKENS = 204, 32768


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
        It has r * (r + 1) / 2 floats for r = min(dimension, 128) directions.  Encoding takes about ten times
        as long, still a fraction of an FDE's time.
    compact_dimension : int, optional
        Size after a map that is fitted to documents, see :mod:`muvera.encoders.compact_map`: 256 floats have
        the same recall as the thousands of floats of the full covariance.  Fitting takes seconds.  None: no
        map.  No map is used either if the vector is not longer without one.
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
    compact_dimension: int | None = 256
    seed: int = 42

    def __post_init__(self) -> None:
        require_int("dimension", self.dimension, 1, _MAX_DIMENSION)
        require_int("seed", self.seed, 0)
        if not isinstance(self.covariance, bool):
            raise TypeError(f"covariance must be a bool, got {given(self.covariance)}.")
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

    config: MomentsConfig

    def __init__(
        self,
        config: MomentsConfig,
        *,
        blocks: MomentBlocks | None = None,
        compact: CompactMaps | None = None,
    ) -> None:
        if not isinstance(config, MomentsConfig):
            raise TypeError(f"config must be a MomentsConfig, got {type(config).__name__}.")
        self.config = config
        self.blocks: MomentBlocks | None = None
        self.compact: CompactMaps | None = None
        if blocks is not None:
            self._use_blocks(blocks)
        if compact is not None:
            self._use_maps(compact)

    def _use_blocks(self, blocks: MomentBlocks) -> None:
        blocks.require_shape(self.config.dimension, self.config.covariance)
        self._writer = BlockWriter(blocks)
        self.blocks = blocks

    def _use_maps(self, maps: CompactMaps) -> None:
        if self.config.compact_dimension is None:
            raise ValueError("compact maps were given, but the configuration has no compact_dimension.")
        maps.require_shape(self.config.long_dimension, self.config.compact_dimension)
        self._query_map, self._document_product = Int8Matrix(maps.queries), CompactProduct(maps)
        self.compact = maps

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return self.blocks is None or (self.config.compact_dimension is not None and self.compact is None)

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> MomentsEncoder:
        """Fit the coefficients, the directions and the compact maps.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: a thousand documents for the coefficients, up to 4,096 for the maps (of
            more, a random sample is used, held in memory).  With very few documents the coefficients
            stay near their defaults.
        queries : MultiVectors or arrays, optional
            Queries to fit on.  Default: windows of the documents' own tokens.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        MomentsEncoder
            This encoder.

        Raises
        ------
        ValueError
            If it is fitted already, or the documents have no tokens, numbers that are not finite, or
            another dimension.
        """
        self._require_no_fit()
        config = self.config
        texts = None if queries is None else self._checked(queries, "queries")
        most = SAMPLE_DOCUMENTS if config.compact_dimension is None else MAX_FIT_DOCUMENTS
        sampling = DocumentSample(config.long_dimension, config.seed, most)
        batches = sampling.sample_while_yielding(as_batches(documents))
        mean_token(batches, config.dimension)  # checks the documents
        original = sampling.documents(config.dimension)
        scale = _extreme_scale(original)
        sample = _divided(original, scale)
        texts = None if texts is None else _divided(texts, scale)
        try:
            self._use_blocks(
                calibrate(
                    sample,
                    texts,
                    covariance=config.covariance,
                    sketches=None,
                    balance="length" if config.compact_dimension is None else "range",
                    seed=config.seed,
                    threads=threads,
                )
            )
            if config.compact_dimension is not None:
                maps = self._fitted_maps(sample, texts, config.compact_dimension, threads)
                self._use_maps(maps if scale == 1 else maps.scaled(scale))
            if scale != 1:
                assert self.blocks is not None
                self._use_blocks(self.blocks.scaled(scale, keep_products=config.compact_dimension is None))
        except BaseException:
            self.blocks = self.compact = None  # a failed fit changes nothing
            raise
        return self

    def _fitted_maps(
        self, sample: MultiVectors, queries: MultiVectors | None, size: int, threads: int | None
    ) -> CompactMaps:
        config = self.config
        assert self.blocks is not None
        windows = sample_windows(sample, queries, config.long_dimension, config.seed)
        with stage("learning moments, 1 of 2"):
            similarities = window_similarities(windows, sample, self.blocks.directions, threads)
        with stage("learning moments, 2 of 2"):
            return fit_maps(
                self._long_vectors(windows, "queries", threads),
                self._long_vectors(sample, "documents", threads),
                similarities,
                size,
                config.dimension + 1,
                config.seed,
                threads,
            )

    def _long_vectors(self, texts: MultiVectors, side: Side, threads: int | None) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.config.long_dimension), np.float32)
        arrays = (*as_kernel_arrays(texts), texts.offsets)

        def work(start: int, stop: int) -> None:
            self._write_long(side, arrays, start, stop, out[start:stop])

        run_in_ranges(work, split_by_weight(texts.offsets, _TASK_TOKENS, max(1, len(texts))), threads)
        return out

    # -- encoding -------------------------------------------------------------

    def _write_long(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        write = self._writer.write_documents if side == "documents" else self._writer.write_queries
        write(arrays, start, stop, 0, out)

    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = self._checked(values, side)
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        arrays = (*as_kernel_arrays(texts), texts.offsets)

        def work(start: int, stop: int) -> None:
            rows = out[start:stop]
            if self.compact is None:
                self._write_long(side, arrays, start, stop, rows)
            elif side == "documents":
                self._document_product.write(
                    lambda first, last, block: self._write_long(side, arrays, first, last, block),
                    start, stop, rows,
                )  # fmt: skip
                rows[texts.lengths[start:stop] == 0] = 0
            else:
                block = np.empty((stop - start, self.config.long_dimension), np.float32)
                self._write_long(side, arrays, start, stop, block)
                self._query_map.multiply(block, rows)

        if self.compact is None:
            ranges = split_by_weight(texts.offsets, _TASK_TOKENS, max(1, len(texts)))
        else:
            ranges = split_by_weight(texts.offsets, _COMPACT_TOKENS, _COMPACT_TEXTS)
        run_in_ranges(work, ranges, threads)
        return out

    # -- saving ---------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the blocks and the compact maps by name.

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        """
        self._require_fit()
        groups = {"moments": self.blocks, "compact": self.compact}
        return {
            f"{prefix}_{name}": array
            for prefix, arrays in groups.items()
            if arrays is not None
            for name, array in arrays.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, config: MomentsConfig, read: ReadArray) -> MomentsEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        maps = None
        if config.compact_dimension is not None:
            maps = CompactMaps.from_arrays(read, "compact_")
        return cls(config, blocks=MomentBlocks.from_arrays(read, "moments_"), compact=maps)


def _extreme_scale(documents: MultiVectors) -> float:
    """Return a power of two near the largest number if float32 could not hold its fourth power, otherwise 1."""
    largest = float(np.abs(documents.tokens).max(initial=0))
    if largest == 0 or 2.0**-20 <= largest <= 2.0**20:
        return 1.0
    return 2.0 ** min(max(math.floor(math.log2(largest)), -50), 40)


def _divided(texts: MultiVectors, scale: float) -> MultiVectors:
    if scale == 1:
        return texts
    return MultiVectors.from_flat(texts.tokens.astype(np.float32) / np.float32(scale), texts.lengths)
