"""LearnedEncoder: vectors fitted to exact Chamfer at sampled tokens."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...data.sampling import DocumentSample, as_batches, mean_token
from ...data.validation import validated_out
from ...kernels.final_projections import PRODUCT_DEPTH, add_product, pack_map
from ...kernels.moments import document_moments
from ...numerics.int8_matmul import Int8Matrix, quantize_columns
from ...numerics.matmul import product
from ...utils.parallel import run_in_ranges, split_by_weight
from ..base import BaseEncoder, ReadArray, Side
from ..moments.blocks import MomentBlocks
from ..moments.calibration import Sketches, calibrate
from .config import LearnedConfig
from .landmarks import mixed_documents, sample_tokens, training_sample
from .maps import LearnedMaps, draw_features, fit_maps
from .token_products import Features, Landmarks
from .training import train_features

__all__ = ["LearnedEncoder"]

# A task is about this many document tokens or queries: each reads the maps once.
_TASK_TOKENS, _TASK_QUERIES = 16384, 256

# Values at landmarks that a task holds at most: of short documents there are many in so many tokens.
_TASK_BYTES = 64 << 20

# A smaller sample, in documents for each float of a vector, is made up with mixed documents.
_DOCUMENTS_A_FLOAT = 2


class LearnedEncoder(BaseEncoder):
    """Turn token sets into vectors whose inner product approximates Chamfer, learned from documents.

    The same interface as :class:`muvera.FDEEncoder`.  A vector of some hundred floats finds
    what an FDE of 10,240 finds or more, and encoding documents takes many times as long: see
    :class:`LearnedConfig` for what each knob costs, :mod:`muvera.encoders.learned.maps` for the method.

    Parameters
    ----------
    config : LearnedConfig
    maps : LearnedMaps, optional
        Instead of fitting: those of a saved index.
    blocks : MomentBlocks, optional
        With ``split_mean``, instead of fitting: those of a saved index.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import LearnedConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(40)])
    >>> config = LearnedConfig(dimension=32, vector_dimension=64, num_features=256)
    >>> LearnedEncoder(config).fit(documents).encode_documents(documents).shape
    (40, 64)
    """

    def __init__(
        self, config: LearnedConfig, *, maps: LearnedMaps | None = None, blocks: MomentBlocks | None = None
    ) -> None:
        if not isinstance(config, LearnedConfig):
            raise TypeError(f"config must be a LearnedConfig, got {type(config).__name__}.")
        self.config = config
        self.maps: LearnedMaps | None = None
        self.blocks: MomentBlocks | None = None
        if maps is not None:
            self._take(maps)
        if blocks is not None:
            self._take_blocks(blocks)

    def _take(self, maps: LearnedMaps) -> None:
        maps.require_shape(self.config)
        self._landmarks = Landmarks(maps.landmarks, maps.center)
        self._features = Features(maps.features, maps.center)
        self._documents, self._queries = Int8Matrix(maps.documents), Int8Matrix(maps.queries)
        if self.config.split_mean:
            rounded, units = quantize_columns(maps.documents)  # as documents are multiplied with it
            self._less_means = pack_map(product(-maps.landmarks.T, rounded * units))
        self.maps = maps

    def _take_blocks(self, blocks: MomentBlocks) -> None:
        if not self.config.split_mean:
            raise ValueError("blocks of moments were given, but the configuration has split_mean=False.")
        blocks.require_shape(self.config.dimension, False)
        self.blocks = blocks

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """Whether the maps are still to be learned."""
        return self.maps is None or (self.config.split_mean and self.blocks is None)

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> LearnedEncoder:
        """Learn the maps.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: of more than 4,096 documents a random sample is used, held in
            memory.  Documents of kinds that the sample lacks are found less well.
        queries : MultiVectors or arrays, optional
            Half of the landmarks are their tokens, where there are as many.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        LearnedEncoder
            This encoder.
        """
        if not self.needs_fit:
            raise ValueError(
                "This encoder is fitted, and vectors of two fits do not compare. Make a new encoder."
            )
        config = self.config
        asked = None
        if queries is not None:
            asked = self._checked(queries, "queries")
        sampling = DocumentSample(config.num_landmarks, config.seed)
        for batch in sampling.sample_while_yielding(as_batches(documents)):
            self._checked(batch, "documents")
        sample = sampling.documents(config.dimension)
        if sample.num_tokens == 0:
            raise ValueError("There are no document tokens to learn from. Give fit documents that have some.")
        landmarks = sample_tokens(sample, asked, config.num_landmarks, config.seed)
        center = mean_token([sample], config.dimension)
        features = draw_features(config)
        if config.training_epochs:
            some, tokens = training_sample(sample, asked, config.seed)
            values = Landmarks(tokens, center).values_of(some, threads)
            features = train_features(features, tokens, values, config.training_epochs, config.seed, threads)
        alone = MultiVectors(landmarks, np.arange(len(landmarks) + 1))
        activations = Features(features, center).values_of(alone, threads)
        measured = Landmarks(landmarks, center)
        wanting = max(0, _DOCUMENTS_A_FLOAT * config.vector_dimension - len(sample))
        values, mixed = (
            self._targets(texts, measured, landmarks, center, threads)
            for texts in (sample, mixed_documents(sample, wanting, config.seed))
        )
        self._take(fit_maps(config, landmarks, center, features, activations, values, mixed, threads))
        if config.split_mean:
            self._take_blocks(self._calibrated(sample, asked, threads))
        return self

    def _targets(
        self,
        texts: MultiVectors,
        measured: Landmarks,
        landmarks: NDArray[np.float32],
        center: NDArray[np.float32],
        threads: int | None,
    ) -> NDArray[np.float32]:
        """Return texts' values at the landmarks, with ``split_mean`` those of the tokens less their mean."""
        values = measured.values_of(texts, threads)
        if self.config.split_mean:
            means = _means(*as_kernel_arrays(texts), texts.offsets, 0, len(texts))
            values -= product(means - center, np.ascontiguousarray(landmarks.T), threads)
        return values

    def _calibrated(
        self, sample: MultiVectors, queries: MultiVectors | None, threads: int | None
    ) -> MomentBlocks:
        columns = self.config.sketch_dimension

        def sketches(write: Any, texts: MultiVectors) -> NDArray[np.float32]:
            out = np.empty((len(texts), columns), np.float32)
            write(texts, out, threads)
            return out

        made = Sketches(
            lambda texts: sketches(self._write_document_sketches, texts),
            lambda texts: sketches(self._write_query_sketches, texts),
            1.0,
        )
        return calibrate(
            sample, queries, covariance=False, sketches=made, balance="length", seed=self.config.seed,
            threads=threads,
        )  # fmt: skip

    # -- encoding -------------------------------------------------------------

    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = self._checked(values, side)
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        write = self._write_document_sketches if side == "documents" else self._write_query_sketches
        if self.blocks is None:
            write(texts, out, threads)
            return out
        columns = self.config.sketch_dimension
        sketches = np.empty((len(texts), columns), np.float32)
        write(texts, sketches, threads)
        unit = np.float32(self.blocks.units[0])
        arrays = (*as_kernel_arrays(texts), texts.offsets)
        if side == "documents":
            out[:, :columns] = sketches * (np.float32(self.blocks.coefficients[0]) * unit)
            self.blocks.write_documents(arrays, 0, len(texts), columns, out)
        else:
            out[:, :columns] = sketches / unit
            self.blocks.write_queries(arrays, 0, len(texts), columns, out, self.blocks.packed_metric())
        return out

    def _write_document_sketches(
        self, texts: MultiVectors, out: NDArray[np.float32], threads: int | None
    ) -> None:
        """Write what is learned of documents, all of a vector without ``split_mean``."""
        maps = self._require_maps()
        floats, halves = as_kernel_arrays(texts)

        def work(start: int, stop: int) -> None:
            values = np.empty((stop - start, len(maps.landmarks)), np.float32)
            self._landmarks.write(floats, halves, texts.offsets, start, stop, values)
            rows = out[start:stop]
            self._documents.multiply(values, rows)
            rows -= maps.offset
            if self.config.split_mean:
                means = _means(floats, halves, texts.offsets, start, stop)
                add_product(means - maps.center, self._less_means, PRODUCT_DEPTH, rows)
            rows[texts.lengths[start:stop] == 0] = 0

        most = max(1, _TASK_BYTES // (4 * len(maps.landmarks)))
        run_in_ranges(work, split_by_weight(texts.offsets, _TASK_TOKENS, most), threads)

    def _write_query_sketches(
        self, texts: MultiVectors, out: NDArray[np.float32], threads: int | None
    ) -> None:
        floats, halves = as_kernel_arrays(texts)

        def work(start: int, stop: int) -> None:
            sums = np.empty((stop - start, self.config.num_features), np.float32)
            self._features.write(floats, halves, texts.offsets, start, stop, sums)
            self._queries.multiply(sums, out[start:stop])

        run_in_ranges(work, split_by_weight(texts.offsets, _TASK_TOKENS, _TASK_QUERIES), threads)

    def _require_fit(self) -> None:
        if self.needs_fit:
            raise ValueError("A learned encoder learns from documents: call fit(documents) first.")

    def _require_maps(self) -> LearnedMaps:
        assert self.maps is not None, "maps are learned before anything is encoded"
        return self.maps

    # -- keeping --------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the maps, and with ``split_mean`` the blocks, by name.

        Raises
        ------
        ValueError
            Where the encoder is not fitted.
        """
        if self.needs_fit:
            raise ValueError("An encoder that is not fitted has nothing to save: call fit(documents) first.")
        blocks = {} if self.blocks is None else self.blocks.to_arrays()
        moments = {f"moments_{name}": array for name, array in blocks.items()}
        return {**self._require_maps().to_arrays(), **moments}

    @classmethod
    def from_arrays(cls, config: LearnedConfig, read: ReadArray) -> LearnedEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        maps = LearnedMaps(**{field.name: read(field.name) for field in fields(LearnedMaps)})
        blocks = None
        if config.split_mean:
            blocks = MomentBlocks(
                **{field.name: read(f"moments_{field.name}") for field in fields(MomentBlocks)}
            )
        return cls(config, maps=maps, blocks=blocks)


def _means(
    floats: NDArray[np.float32], halves: NDArray[np.uint16], offsets: NDArray[np.int64], start: int, stop: int
) -> NDArray[np.float32]:
    """Return the mean tokens of texts start..stop, float32 (stop - start, d)."""
    dimension = max(floats.shape[1], halves.shape[1])
    out = np.empty((stop - start, dimension + 1), np.float32)
    document_moments(floats, halves, offsets, start, stop, 0, False, out)
    return np.ascontiguousarray(out[:, :-1])
