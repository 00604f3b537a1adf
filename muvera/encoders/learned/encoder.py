"""LearnedEncoder: vectors fitted to exact Chamfer at sampled tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...data.sampling import DocumentSample, as_batches, mean_token
from ...data.validation import validated_out
from ...utils.parallel import run_in_ranges, split_by_weight
from ...utils.stages import stage
from ..base import Encoder, ReadArray, Side
from ..matmul import Int8Matrix
from ..token_products import TASK_TOKENS, TokenProducts
from .config import LearnedConfig
from .maps import LearnedMaps, draw_features, fit_maps, mixed_documents, sample_tokens, training_sample
from .training import train_features

__all__ = ["LearnedEncoder"]

# Number of queries per task: each task reads the maps once.
_TASK_QUERIES = 256

# Maximum size of the values at landmarks per task, because a task's tokens may be many short documents.
_TASK_BYTES = 64 << 20

# Smaller samples, in documents per float of a vector, are extended by mixed documents.
_DOCUMENTS_PER_FLOAT = 2


class LearnedEncoder(Encoder):
    """Turn token sets into vectors whose inner product approximates Chamfer, learned from documents.

    A vector of a few hundred floats has the recall of an FDE of 10,240 floats or more, but encoding documents
    takes many times as long.  See :class:`LearnedConfig` for the costs and
    :mod:`muvera.encoders.learned.maps` for the method.

    Parameters
    ----------
    config : LearnedConfig
    maps : LearnedMaps, optional
        Those of a saved encoder, instead of fitting.

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

    config: LearnedConfig

    def __init__(self, config: LearnedConfig, *, maps: LearnedMaps | None = None) -> None:
        if not isinstance(config, LearnedConfig):
            raise TypeError(f"config must be a LearnedConfig, got {type(config).__name__}.")
        self.config = config
        self.maps: LearnedMaps | None = None
        if maps is not None:
            self._use_maps(maps)

    def _use_maps(self, maps: LearnedMaps) -> None:
        maps.require_shape(self.config)
        self._landmarks = TokenProducts(maps.landmarks, maps.center)
        self._features = TokenProducts(maps.features, maps.center)
        self._documents, self._queries = Int8Matrix(maps.documents), Int8Matrix(maps.queries)
        self.maps = maps

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return self.maps is None

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> LearnedEncoder:
        """Fit the maps.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: of more than 4,096 documents a random sample is used, held in
            memory.  Recall is lower for kinds of documents that are not in the sample.
        queries : MultiVectors or arrays, optional
            Half of the landmarks are their tokens, if there are enough.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        LearnedEncoder
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
        sampling = DocumentSample(config.num_landmarks, config.seed)
        for batch in sampling.sample_while_yielding(as_batches(documents)):
            self._checked(batch, "documents")
        sample = sampling.documents(config.dimension)
        center = mean_token([sample], config.dimension)
        landmarks = sample_tokens(sample, texts, config.num_landmarks, config.seed)
        features = draw_features(config)
        if config.training_epochs:
            subset, tokens = training_sample(sample, texts, config.seed)
            with stage("learning features, 1 of 2"):
                values = TokenProducts(tokens, center).largest(subset, threads)
                epochs = config.training_epochs
                features = train_features(features, tokens, values, epochs, config.seed, threads)
        with stage("learning features, 2 of 2"):
            single_tokens = MultiVectors(landmarks, np.arange(len(landmarks) + 1))
            activations = TokenProducts(features, center).feature_sums(single_tokens, threads)
            measure = TokenProducts(landmarks, center)
            missing = max(0, _DOCUMENTS_PER_FLOAT * config.vector_dimension - len(sample))
            mixed = mixed_documents(sample, missing, config.seed)
            values = measure.largest(sample, threads)
            mixed_values = measure.largest(mixed, threads)
            self._use_maps(
                fit_maps(config, landmarks, center, features, activations, values, mixed_values, threads)
            )
        return self

    # -- encoding -------------------------------------------------------------

    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        maps = self.maps
        assert maps is not None
        texts = self._checked(values, side)
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        arrays = (*as_kernel_arrays(texts), texts.offsets)

        def encode_documents(start: int, stop: int) -> None:
            values = np.empty((stop - start, len(maps.landmarks)), np.float32)
            self._landmarks.write_largest(arrays, start, stop, values)
            rows = out[start:stop]
            self._documents.multiply(values, rows)
            rows -= maps.offset
            rows[texts.lengths[start:stop] == 0] = 0

        def encode_queries(start: int, stop: int) -> None:
            sums = np.empty((stop - start, self.config.num_features), np.float32)
            self._features.write_feature_sums(arrays, start, stop, sums)
            self._queries.multiply(sums, out[start:stop])

        if side == "documents":
            most = max(1, _TASK_BYTES // (4 * len(maps.landmarks)))
            run_in_ranges(encode_documents, split_by_weight(texts.offsets, TASK_TOKENS, most), threads)
        else:
            ranges = split_by_weight(texts.offsets, TASK_TOKENS, _TASK_QUERIES)
            run_in_ranges(encode_queries, ranges, threads)
        return out

    # -- saving ---------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the maps by name.

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        """
        self._require_fit()
        assert self.maps is not None
        return self.maps.to_arrays()

    @classmethod
    def from_arrays(cls, config: LearnedConfig, read: ReadArray) -> LearnedEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        return cls(config, maps=LearnedMaps.from_arrays(read))
