"""LearnedEncoder: vectors fitted to exact Chamfer at sampled tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.sampling import MAX_FIT_DOCUMENTS
from ...utils.stages import stage
from ..base import Encoder, EncoderArrays, FitSample, KernelArrays, Side
from ..int8 import TASK_TOKENS, TokenProducts, quantize_columns
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
    maps: LearnedMaps | None = None

    @staticmethod
    def _array_classes(config: LearnedConfig) -> dict[str, type[EncoderArrays]]:
        return {"maps": LearnedMaps}

    # -- fitting --------------------------------------------------------------

    @property
    def _fit_size(self) -> tuple[int, int]:
        return self.config.num_landmarks, MAX_FIT_DOCUMENTS

    def _fit(self, sample: FitSample, threads: int | None) -> None:
        config, (documents, queries, center) = self.config, sample
        tokens = sample_tokens(documents, queries, config.num_landmarks, config.seed)
        landmarks = quantize_columns(tokens.T)
        directions = draw_features(config)
        if config.training_epochs:
            subset, targets = training_sample(documents, queries, config.seed)
            with stage("learning features, 1 of 2"):
                values = TokenProducts(*quantize_columns(targets.T), center).largest(subset, threads)
                epochs = config.training_epochs
                directions = train_features(directions, targets, values, epochs, config.seed, threads)
        with stage("learning features, 2 of 2"):
            features = quantize_columns(directions.T)
            biases = (directions * center).sum(axis=1, dtype=np.float64).astype(np.float32)
            single_tokens = MultiVectors(tokens, np.arange(len(tokens) + 1))
            activations = TokenProducts(*features, center).feature_sums(biases, single_tokens, threads)
            measure = TokenProducts(*landmarks, center)
            missing = max(0, _DOCUMENTS_PER_FLOAT * config.vector_dimension - len(documents))
            mixed = measure.largest(mixed_documents(documents, missing, config.seed), threads)
            values = measure.largest(documents, threads)
            document_map, query_map, offset = fit_maps(config, activations, values, mixed, threads)
        self.maps = LearnedMaps(center, *landmarks, *features, biases, *document_map, *query_map, offset)

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        if side == "queries" or self.maps is None:
            return TASK_TOKENS, _TASK_QUERIES
        return TASK_TOKENS, max(1, _TASK_BYTES // (4 * self.maps.num_landmarks))

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        maps = self.maps
        assert maps is not None
        if side == "documents":
            values = np.empty((stop - start, maps.num_landmarks), np.float32)
            maps.landmark_products.write_largest(arrays, start, stop, values)
            maps.document_product.multiply(values, out)
            out -= maps.offset
        else:
            sums = np.empty((stop - start, self.config.num_features), np.float32)
            maps.feature_products.write_feature_sums(maps.biases, arrays, start, stop, sums)
            maps.query_product.multiply(sums, out)
