"""LearnedConfig and LearnedEncoder: vectors fitted to exact Chamfer at sampled tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...data.batches import MAX_FIT_DOCUMENTS
from ...data.multivectors import MultiVectors
from ...kernels.byte_product import multiply_by_bytes
from ...kernels.byte_tile import MAX_DEPTH
from ...utils.checks import require_int
from ...utils.parallel import stage
from ..base import Encoder, EncoderArrays, EncoderConfig, FitSample, KernelArrays, Side
from ..int8 import TASK_TOKENS, TokenProducts, quantize_columns
from .maps import LearnedMaps, draw_features, fit_maps, mixed_documents, sample_tokens, training_sample
from .training import train_features

# Number of queries per task: each task reads the maps once.
_TASK_QUERIES = 256

# Maximum size of the values at landmarks per task, because a task's tokens may be many short documents.
_TASK_BYTES = 64 << 20

# Smaller samples, in documents per float of a vector, are extended by mixed documents.
_DOCUMENTS_PER_FLOAT = 2


@dataclass(frozen=True, kw_only=True)
class LearnedConfig(EncoderConfig):
    """Configuration of a learned vector, see :mod:`muvera.encoders.learned.maps`.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    vector_dimension : int
        Floats of a vector.  More raise recall; memory and search time grow in proportion.
    num_landmarks : int
        Tokens at which documents are measured.  More raise recall; encoding documents takes time in
        proportion: ``2 * num_landmarks * dimension`` operations per document token.
    num_features : int
        Features of a token, at least `vector_dimension` and at most 65,536.  More raise recall.  The time to
        encode queries grows in proportion, that of documents does not, and fitting time grows with the cube.
    training_epochs : int
        Number of passes over about ten thousand sampled tokens to train the features.  0 keeps them random,
        which lowers recall and saves most of the fitting time.  Trained features have at least the recall of
        twice as many random ones.
    seed : int
        Seed of all random draws.

    Notes
    -----
    An index stores up to ``(num_landmarks + num_features) * (vector_dimension + dimension)`` bytes of maps.

    Examples
    --------
    >>> LearnedConfig(dimension=128).vector_dimension
    1024
    """

    kind: ClassVar[str] = "learned"

    dimension: int
    vector_dimension: int = 1024
    num_landmarks: int = 8192
    num_features: int = 2048
    training_epochs: int = 8
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("dimension", "vector_dimension", "num_landmarks", "num_features"):
            object.__setattr__(self, name, require_int(name, getattr(self, name), 1))
        for name in ("training_epochs", "seed"):
            object.__setattr__(self, name, require_int(name, getattr(self, name), 0))
        if self.num_features > MAX_DEPTH:
            raise ValueError(f"num_features must be at most {MAX_DEPTH}, got {self.num_features}.")
        if self.vector_dimension > self.num_features:
            raise ValueError(
                f"vector_dimension must be at most num_features={self.num_features}, got "
                f"{self.vector_dimension}. Raise num_features, too."
            )

    @property
    def needs_fit_sample(self) -> bool:
        """True: the maps are fitted to documents."""
        return True


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
        directions = draw_features(config.num_features, config.dimension, config.seed)
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
            document_map, query_map, offset = fit_maps(
                activations, values, mixed, config.vector_dimension, config.seed, threads
            )
        self.maps = LearnedMaps(center, *landmarks, *features, biases, *document_map, *query_map, offset)

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        if side == "queries" or self.maps is None:
            return TASK_TOKENS, _TASK_QUERIES
        return TASK_TOKENS, max(1, _TASK_BYTES // (4 * self.maps.num_landmarks))

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        assert self.maps is not None
        landmarks, features, document_map, query_map = self.maps.packed
        if side == "documents":
            values = np.empty((stop - start, self.maps.num_landmarks), np.float32)
            landmarks.write_largest(arrays, start, stop, values)
            multiply_by_bytes(values, *document_map, out)
            out -= self.maps.offset
        else:
            sums = np.empty((stop - start, self.config.num_features), np.float32)
            features.write_feature_sums(self.maps.biases, arrays, start, stop, sums)
            multiply_by_bytes(sums, *query_map, out)
