"""FDE encoders of every kind, and what plain NumPy says that they compute."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import oracle
from numpy.typing import NDArray

from muvera import (
    Covariance,
    FDEConfig,
    FDEEncoder,
    Landmarks,
    LearnedProjection,
    MeanToken,
    MultiVectors,
    SimHash,
)
from muvera.fde.learned_projection import ProjectionMaps
from muvera.fde.linear_algebra import half_bytes_to_int8
from muvera.fde.simhash import SimHashMatrices, draw_matrices

from .token_collections import ragged

Side = Literal["documents", "queries"]

SIDES: tuple[Side, Side] = ("documents", "queries")

#: Values of a SimHash partition alone: the paper's, small, and without anything that
#: needs a fit.
PLAIN: dict[str, Any] = {
    "partition": "simhash",
    "moments": None,
    "final_projection": None,
    "document_cells": "mean",
    "center": False,
    "projection": "identity",
}

_SIMHASH: dict[str, Any] = {"num_repetitions": 2, "num_simhash_projections": 2}

#: Small configurations of each preset and of combinations of steps, by name.
CONFIGS: dict[str, FDEConfig] = {
    "fde": FDEConfig(20, cells=Landmarks(100), projection=LearnedProjection(16)),
    "fde, all tokens are landmarks": FDEConfig(8, projection=LearnedProjection(24)),
    "fde, 140 columns": FDEConfig(140, cells=Landmarks(70), projection=LearnedProjection(16)),
    "fde, 16 directions": FDEConfig(
        20, cells=Landmarks(70), moments=Covariance(16), projection=LearnedProjection(16)
    ),
    "fde of means": FDEConfig(
        20, cells=Landmarks(64), moments=MeanToken(), projection=LearnedProjection(16)
    ),
    "landmarks and moments": FDEConfig(20, cells=Landmarks(65), projection=None),
    "landmarks": FDEConfig(20, cells=Landmarks(40), moments=None, projection=None),
    "landmarks, sketched": FDEConfig.preset(
        "fde", 17, num_landmarks=90, moments="mean", final_projection="count_sketch",
        final_projection_dimension=16,
    ),
    "more landmarks than tokens": FDEConfig(16, moments=MeanToken(), projection=None),
    "moments": FDEConfig.preset("moments", 20, final_projection_dimension=16),
    "moments, 140 columns": FDEConfig.preset("moments", 140, final_projection_dimension=16),
    "moments, unprojected": FDEConfig.preset("moments", 20, final_projection=None),
    "moments, 140 columns, unprojected": FDEConfig.preset("moments", 140, final_projection=None),
    "mean": FDEConfig.preset("mean", 20),
    "simhash": FDEConfig.preset("simhash", 20, **_SIMHASH),
    "simhash, learned": FDEConfig.preset(
        "fde", 20, partition="simhash", final_projection_dimension=16, **_SIMHASH
    ),
    "simhash, sketched": FDEConfig.preset(
        "simhash", 8, final_projection="count_sketch", final_projection_dimension=20, **_SIMHASH
    ),
    "simhash, covariance": FDEConfig.preset("simhash", 20, moments="covariance", **_SIMHASH),
    "simhash, centered": FDEConfig.preset("simhash", 20, moments=None, **_SIMHASH),
    "paper": FDEConfig.preset("paper", 20, **_SIMHASH),
    "paper, sketched": FDEConfig.preset(
        "paper", 20, final_projection="count_sketch", final_projection_dimension=20, **_SIMHASH
    ),
    "reference": FDEConfig.preset("reference", 8),
}  # fmt: skip


@cache
def fitted(name: str) -> FDEEncoder:
    """Return the encoder of one of :data:`CONFIGS`, fitted to :func:`ragged` texts."""
    return FDEEncoder(CONFIGS[name]).fit(ragged(CONFIGS[name].dimension), threads=2)


def simhash_encoder(documents: MultiVectors | None, **settings: Any) -> FDEEncoder:
    """Return a small encoder with SimHash cells.

    It is fitted to `documents` if there are some.
    """
    values = {"num_repetitions": 5, "num_simhash_projections": 3, **settings}
    encoder = FDEEncoder.preset("simhash", **values)
    return encoder if documents is None else encoder.fit(documents)


def encoded(encoder: FDEEncoder, side: Side, texts: Any, **options: Any) -> NDArray[np.float32]:
    """Return the vectors of `texts` as documents or as queries."""
    encode = encoder.encode_documents if side == "documents" else encoder.encode_queries
    return encode(texts, **options)


def simhash_of(config: FDEConfig) -> SimHash:
    """Return the SimHash cells of a configuration."""
    assert isinstance(config.cells, SimHash)
    return config.cells


def changed(config: FDEConfig, **entries: Any) -> FDEConfig:
    """Return a configuration with changes to single entries of its dictionary."""
    return FDEConfig.from_dict({**config.to_dict(), **entries})


def drawn_matrices(config: FDEConfig) -> SimHashMatrices:
    """Return the random matrices of a configuration with SimHash cells."""
    return draw_matrices(simhash_of(config), config.dimension, config.seed)


def projections_of(config: FDEConfig) -> NDArray[np.float64]:
    """Return the inner projections of a configuration, (R, p, d)."""
    matrices = drawn_matrices(config)
    return np.asarray(matrices.projections[:, :, : config.dimension], np.float64)


def matrices_of(encoder: FDEEncoder) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return hyperplanes (R, k, d) and projections (R, p, d) of an encoder."""
    config, matrices = encoder.config, encoder.arrays["matrices"]
    planes = matrices.hyperplanes[:, : config.dimension].astype(np.float64)
    cells = simhash_of(config)
    planes = planes.reshape(cells.num_repetitions, cells.num_simhash_projections, config.dimension)
    projections = matrices.projections[:, :, : config.dimension].astype(np.float64)
    return planes, projections if projections.size else None


def landmarks_of(encoder: FDEEncoder, side: Side) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the landmarks of an encoder (n, d), and the center of one side (d,)."""
    landmarks = encoder.arrays["landmarks"]
    center = landmarks.mean if side == "documents" else landmarks.center
    return (landmarks.landmarks * landmarks.scales.astype(np.float64)).T, center.astype(np.float64)


def maps_of(learned: ProjectionMaps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the maps of queries and of documents, both (L, D)."""
    size = len(learned.documents) - len(learned.sums) - len(learned.cells)
    triangles = half_bytes_to_int8(learned.triangles, size)
    scales = (learned.cell_scales, learned.triangle_scales, learned.sum_scales, learned.document_scales)
    maps = (learned.cells, triangles, learned.sums, learned.documents)
    floats = [np.asarray(a * b.astype(np.float64)) for a, b in zip(maps, scales, strict=True)]
    return np.concatenate(floats[:3]), np.asarray(learned.row_units[:, np.newaxis] * floats[3], np.float64)


def clear_of_planes(tokens: np.ndarray, encoder: FDEEncoder) -> np.ndarray:
    """Return the tokens whose cells are the same in float32 and float64.

    Their nearest hyperplanes are the same, too.
    """
    clear = np.ones(len(tokens), bool)
    for t, token in enumerate(tokens):
        least = 1e-5 * max(1.0, float(np.linalg.norm(token)))
        for normals in matrices_of(encoder)[0]:
            distances = np.sort(oracle.plane_distances(token - encoder.center, normals))
            clear[t] &= (distances[:1] > least).all()
            if simhash_of(encoder.config).soft_query_cells:
                clear[t] &= (np.diff(distances)[:1] > least).all()
    return tokens[clear]


def cells_of(tokens: np.ndarray, encoder: FDEEncoder, side: Side) -> np.ndarray:
    """Return the oracle's cells of a text, before weights and projections."""
    config = encoder.config
    if config.cells is None:
        return np.zeros(0)
    if isinstance(config.cells, Landmarks):
        landmarks, center = landmarks_of(encoder, side)
        if side == "documents":
            cells = oracle.document_landmark_cells(tokens, landmarks, center)
        else:
            cells = oracle.query_landmark_cells(tokens, landmarks, center, config.cells.landmark_sharpness)
        learned = isinstance(config.projection, LearnedProjection)
        unused = 0 if learned else config.cells.num_landmarks - len(landmarks)
        return np.pad(cells, (0, unused))
    planes, inner = matrices_of(encoder)
    if side == "queries":
        return oracle.query_fde(
            tokens, planes, inner, center=encoder.center, softness=config.cells.soft_query_cells
        )
    split = config.moments is not None
    cells = oracle.document_fde(
        tokens, planes, inner, center=encoder.center, fill=config.cells.fill_empty_partitions,
        cells=config.cells.document_cells, split=split,
    )  # fmt: skip
    return cells / config.cells.num_repetitions if split else cells


def long_vector(tokens: np.ndarray, encoder: FDEEncoder, side: Side) -> np.ndarray:
    """Return the oracle's vector before a learned projection.

    Cells of queries have no unit there.
    """
    config, arrays = encoder.config, encoder.arrays
    blocks, sketch = arrays.get("blocks"), arrays.get("sketch")
    cells = cells_of(tokens, encoder, side)
    if sketch is not None:
        assert config.projection is not None
        size = config.projection.final_projection_dimension
        cells = oracle.final_count_sketch(cells, sketch.targets, sketch.signs, size)
    if blocks is None:
        return cells
    directions = metric = None
    if isinstance(config.moments, Covariance):
        directions = blocks.directions if blocks.directions.size else np.eye(config.dimension)
        metric = blocks.metric.astype(np.float64)
    unit = float(blocks.units[0])
    if side == "documents":
        moments = oracle.document_moments(
            tokens, blocks.coefficients, blocks.units, blocks.offset, directions
        )
        return np.concatenate([blocks.coefficients[0] * unit * cells, moments])
    divisor = 1 if "learned" in arrays else unit
    return np.concatenate([cells / divisor, oracle.query_moments(tokens, blocks.units, metric, directions)])


def expected(tokens: np.ndarray, encoder: FDEEncoder, side: Side) -> np.ndarray:
    """Return the oracle's vector of a text."""
    vector, learned = long_vector(tokens, encoder, side), encoder.arrays.get("learned")
    if learned is None or not len(tokens):
        return vector if learned is None else np.zeros(encoder.config.vector_dimension)
    queries, documents = maps_of(learned)
    return vector @ queries if side == "queries" else vector @ documents - learned.offset


def narrow_cone(count: int = 600, dimension: int = 32) -> tuple[MultiVectors, MultiVectors]:
    """Return documents whose tokens share a direction, and 30 queries.

    The mean cosine is about .7.

    Each document is about three of 60 topics; a query is the noisy beginning of a
    document.
    """
    rng = np.random.default_rng(7)
    topics = unit_rows(np.random.default_rng(8), 60, dimension)
    lengths = rng.integers(8, 24, count)
    total = int(lengths.sum())
    owner = np.repeat(rng.integers(0, 60, (count, 3)), lengths, axis=0)
    pick = owner[np.arange(total), rng.integers(0, 3, total)]
    tokens = topics[pick] + 0.15 * rng.standard_normal((total, dimension))
    tokens += 1.4 * unit_rows(rng, 1, dimension)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    documents = MultiVectors.from_flat(tokens.astype(np.float32), lengths)
    starts = [np.asarray(documents[i][:8], np.float32) for i in range(30)]
    noisy = [text + 0.02 * rng.standard_normal(text.shape).astype(np.float32) for text in starts]
    return documents, MultiVectors.from_arrays(noisy)


def unit_rows(rng: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    """Return `count` random directions."""
    tokens = rng.standard_normal((count, dimension))
    return np.asarray(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), np.float32)
