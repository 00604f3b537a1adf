"""A compact FDE and a learned vector side by side in one vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, LearnedConfig, MultiVectors, chamfer_matrix
from muvera.data.sampling import pseudo_queries
from muvera.encoders.base import Encoder
from muvera.encoders.registry import make_encoder

from .base import Material
from .first_stage import FirstStage

__all__ = ["TwoParts"]

# Windows of documents by which the parts are weighted, and their tokens.
_WINDOWS, _TOKENS = 200, 32


class TwoParts(FirstStage):
    """Whether two kinds of vectors find more side by side than one alone of the same size.

    The parts are weighted by least squares onto exact Chamfer of windows of the documents that they were
    learned from.

    Parameters
    ----------
    compact, learned : int
        Floats of the two parts; 0 leaves one out.
    fit_on : float, optional
        Share of the documents that both are fitted on; default: all.
    num_landmarks, num_features : int, optional
        Of the learned part.

    Raises
    ------
    ValueError
        Where both parts are empty, or one has fewer than 0 floats.
    """

    name: ClassVar[str] = "two_parts"

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return no names: all arguments stand in the signature."""
        return ()

    def __init__(
        self,
        *,
        compact: int = 0,
        learned: int = 0,
        fit_on: float | None = None,
        num_landmarks: int | None = None,
        num_features: int | None = None,
    ) -> None:
        super().__init__(fit_on=fit_on)
        if compact + learned < 1 or min(compact, learned) < 0:
            raise ValueError(
                f"compact={compact} and learned={learned} must give at least one float together."
            )
        self._sizes = (compact, learned)
        costs = {"num_landmarks": num_landmarks, "num_features": num_features}
        self._costs: dict[str, Any] = {name: value for name, value in costs.items() if value is not None}

    def fitted_encoder(self, material: Material, documents: MultiVectors) -> Encoder:
        """Return both encoders as one, fitted and weighted."""
        compact, learned = self._sizes
        dimension, seed, threads = documents.dimension, material.seed, material.threads
        parts: list[Encoder] = []
        if compact:
            parts.append(make_encoder(FDEConfig(dimension=dimension, compact_dimension=compact, seed=seed)))
        if learned:
            config = LearnedConfig(dimension=dimension, vector_dimension=learned, seed=seed, **self._costs)
            parts.append(make_encoder(config))
        for part in parts:
            part.fit(documents, threads=threads)
        stream = np.random.default_rng(seed)
        windows, _ = pseudo_queries(documents, min(_WINDOWS, len(documents)), _TOKENS, stream)
        exact = _without_means(chamfer_matrix(windows, documents, threads=threads))
        found = [
            _without_means(
                part.encode_queries(windows, threads=threads)
                @ part.encode_documents(documents, threads=threads).T
            )
            for part in parts
        ]
        weights = np.linalg.lstsq(np.stack([one.ravel() for one in found], axis=1), exact.ravel(), rcond=None)
        return cast(Encoder, _SideBySide(parts, np.asarray(weights[0], np.float32)))


@dataclasses.dataclass(frozen=True)
class _Size:
    """As much of a configuration as a search of candidates reads."""

    vector_dimension: int
    needs_fit_sample: bool = True


class _SideBySide:
    """As much of an encoder as a search of candidates calls."""

    needs_fit = False

    def __init__(self, parts: list[Encoder], weights: NDArray[np.float32]) -> None:
        self._parts, self._weights = parts, weights
        self.config = _Size(sum(part.config.vector_dimension for part in parts))

    def encode_documents(self, documents: MultiVectors, *, threads: int | None) -> NDArray[np.float32]:
        return np.hstack([part.encode_documents(documents, threads=threads) for part in self._parts])

    def encode_queries(self, queries: MultiVectors, *, threads: int | None) -> NDArray[np.float32]:
        sides = [part.encode_queries(queries, threads=threads) for part in self._parts]
        return np.hstack([weight * side for weight, side in zip(self._weights, sides, strict=True)])


def _without_means(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract each query's mean, which changes no ranking."""
    centered: NDArray[np.float32] = scores - scores.mean(axis=1, keepdims=True)
    return centered
