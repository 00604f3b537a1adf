"""LearnedEncoder: vectors fitted to exact Chamfer at sampled tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.sampling import MAX_FIT_DOCUMENTS
from ...utils.stages import stage
from ..base import Encoder, EncoderArrays, FitSample, KernelArrays, ReadArray, Side
from ..matmul import Int8Matrix, quantize_columns
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

    A vector of a few hundred floats has the recall of an FDE of 10,240 floats or more.  But encoding documents
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

    config_class = LearnedConfig
    config: LearnedConfig

    def __init__(self, config: LearnedConfig, *, maps: LearnedMaps | None = None) -> None:
        super().__init__(config)
        self.maps: LearnedMaps | None = None
        if maps is not None:
            self._use_maps(maps)

    def _use_maps(self, maps: LearnedMaps) -> None:
        maps.require_shape(self.config)
        self._landmarks = TokenProducts(maps.landmarks, maps.center)
        self._features = TokenProducts(maps.features, maps.center)
        self._documents = Int8Matrix(*quantize_columns(maps.documents))
        self._queries = Int8Matrix(*quantize_columns(maps.queries))
        self.maps = maps

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return self.maps is None

    @property
    def _fit_size(self) -> tuple[int, int]:
        return self.config.num_landmarks, MAX_FIT_DOCUMENTS

    def _fit(self, sample: FitSample, threads: int | None) -> None:
        config, (documents, queries, center) = self.config, sample
        landmarks = sample_tokens(documents, queries, config.num_landmarks, config.seed)
        features = draw_features(config)
        if config.training_epochs:
            subset, tokens = training_sample(documents, queries, config.seed)
            with stage("learning features, 1 of 2"):
                values = TokenProducts(tokens, center).largest(subset, threads)
                epochs = config.training_epochs
                features = train_features(features, tokens, values, epochs, config.seed, threads)
        with stage("learning features, 2 of 2"):
            single_tokens = MultiVectors(landmarks, np.arange(len(landmarks) + 1))
            activations = TokenProducts(features, center).feature_sums(single_tokens, threads)
            measure = TokenProducts(landmarks, center)
            missing = max(0, _DOCUMENTS_PER_FLOAT * config.vector_dimension - len(documents))
            mixed = measure.largest(mixed_documents(documents, missing, config.seed), threads)
            values = measure.largest(documents, threads)
            self._use_maps(fit_maps(config, landmarks, center, features, activations, values, mixed, threads))

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        if side == "queries" or self.maps is None:
            return TASK_TOKENS, _TASK_QUERIES
        return TASK_TOKENS, max(1, _TASK_BYTES // (4 * len(self.maps.landmarks)))

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        assert self.maps is not None
        if side == "documents":
            values = np.empty((stop - start, len(self.maps.landmarks)), np.float32)
            self._landmarks.write_largest(arrays, start, stop, values)
            self._documents.multiply(values, out)
            out -= self.maps.offset
        else:
            sums = np.empty((stop - start, self.config.num_features), np.float32)
            self._features.write_feature_sums(arrays, start, stop, sums)
            self._queries.multiply(sums, out)

    # -- saving ---------------------------------------------------------------

    def _stored(self) -> dict[str, EncoderArrays | None]:
        return {"": self.maps}

    @classmethod
    def from_arrays(cls, config: LearnedConfig, read: ReadArray) -> LearnedEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        return cls(config, maps=LearnedMaps.from_arrays(read))
