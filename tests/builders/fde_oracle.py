"""FDE encoders with every option, and the vectors that tests/oracle.py computes for them."""

from typing import Any

import numpy as np
import oracle
import strategies as some
from hypothesis import strategies as st

from muvera import FDEConfig, FDEEncoder, MultiVectors

# Tolerance for float32 sums of at most a hundred terms, relative to the largest entry.
ROUNDING = 3e-6

PROJECTIONS = ["complementary", "rademacher", "count_sketch", "identity"]

# Every option, with and without the other options of the same kernel.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"center": False},
    {"split_mean": False, "hyperplanes": "gaussian", "document_cells": "mean"},
    {"fill_empty_partitions": True, "center": False, "document_cells": "mean", "soft_query_cells": 0.0},
    {"fill_empty_partitions": True, "soft_query_cells": 0.2},
    {"num_simhash_projections": 0},
    {"num_simhash_projections": 1, "num_repetitions": 17, "fill_empty_partitions": True},
    {"num_simhash_projections": 7, "num_repetitions": 3},
    {"split_mean": False, "document_cells": "unit"},
    {"split_mean": False, "document_cells": "length"},
    {"split_mean": True, "document_cells": "unit", "center": False},
]

#: Options of a sketch of whole tokens, without moments.
WHOLE: dict[str, Any] = {"split_mean": False, "document_cells": "unit"}


def fitted(documents: Any, **settings: Any) -> FDEEncoder:
    """Return an encoder, small by default."""
    values = {"num_repetitions": 5, "num_simhash_projections": 3, **settings}
    if documents is None:  # nothing to fit to
        values = {**WHOLE, **values}
    return FDEEncoder(FDEConfig(**values)).fit(documents)


def matrices_of(encoder: FDEEncoder) -> tuple[np.ndarray, np.ndarray | None]:
    """Return hyperplanes (R, k, d) and projections (R, p, d) as float64."""
    config, matrices = encoder.config, encoder.matrices
    planes = matrices.hyperplanes[:, : config.dimension].astype(np.float64)
    planes = planes.reshape(config.num_repetitions, config.num_simhash_projections, config.dimension)
    projections = matrices.projections[:, :, : config.dimension].astype(np.float64)
    return planes, projections if projections.size else None


def clear_of_planes(tokens: np.ndarray, encoder: FDEEncoder) -> np.ndarray:
    """Return the tokens whose cells and nearest hyperplanes are the same in float32 and float64."""
    planes, _ = matrices_of(encoder)
    if not planes.size:
        return tokens
    clear = np.ones(len(tokens), bool)
    for t, token in enumerate(tokens):
        length = max(1.0, float(np.linalg.norm(token)))
        for normals in planes:
            distances = np.sort(oracle.plane_distances(token - encoder.center, normals))
            clear[t] &= distances[0] > 1e-5 * length
            if encoder.config.soft_query_cells:
                clear[t] &= (np.diff(distances)[:1] > 1e-5 * length).all()
    return tokens[clear]


def expected(tokens: np.ndarray, encoder: FDEEncoder, side: str) -> np.ndarray:
    """Return the oracle's FDE."""
    config, blocks = encoder.config, encoder.blocks
    planes, inner = matrices_of(encoder)
    if side == "documents":
        sketch = oracle.document_fde(
            tokens, planes, inner, center=encoder.center, fill=config.fill_empty_partitions,
            cells=config.document_cells, split=config.split_mean,
        )  # fmt: skip
        if blocks is None:
            return sketch
        weight = blocks.coefficients[0] * blocks.units[0] / config.num_repetitions
        moments = oracle.document_moments(tokens, blocks.coefficients, blocks.units, blocks.offset)
        return np.concatenate([weight * sketch, moments])
    sketch = oracle.query_fde(tokens, planes, inner, center=encoder.center, softness=config.soft_query_cells)
    if blocks is None:
        return sketch
    return np.concatenate([sketch / blocks.units[0], oracle.query_moments(tokens, blocks.units)])


def assert_close(actual: np.ndarray, wanted: np.ndarray, rounding: float = ROUNDING) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=rounding * max(1.0, np.abs(wanted).max()))


def texts_for(
    encoder: FDEEncoder, seed: int, lengths: tuple[int, ...] = (9, 1, 40, 0, 2)
) -> list[np.ndarray]:
    """Return ragged texts around the encoder's center, clear of its hyperplanes."""
    rng = np.random.default_rng(seed)
    dimension = encoder.config.dimension
    return [
        clear_of_planes((rng.standard_normal((n, dimension)) + encoder.center).astype(np.float32), encoder)
        for n in lengths
    ]


def sample(dimension: int, seed: int = 0, texts: int = 5, longest: int = 30) -> MultiVectors:
    """Return ragged texts of float32, one of them empty."""
    rng = np.random.default_rng([seed, dimension])
    lengths = rng.integers(1, longest, texts)
    lengths[texts // 2] = 0
    tokens = rng.standard_normal((lengths.sum(), dimension)) + 0.3
    return MultiVectors.from_flat(tokens.astype(np.float32), lengths)


@st.composite
def encoders(draw: st.DrawFn) -> FDEEncoder:
    """Return a fitted encoder of any projection."""
    dimension = draw(some.dimensions)
    final = draw(st.sampled_from([None, "count_sketch"]))
    return fitted(
        sample(dimension),
        dimension=dimension,
        projection=draw(st.sampled_from(PROJECTIONS)),
        num_repetitions=draw(st.integers(1, 7)),
        final_projection=final,
        final_projection_dimension=None if final is None else draw(st.integers(1, 40)),
        **draw(st.sampled_from([{}, WHOLE, {"center": False, "fill_empty_partitions": True, **WHOLE}])),
    )
