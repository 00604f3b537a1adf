"""SimHash cells: plain NumPy against the compiled path."""

from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from builders.fdes import (
    PLAIN,
    SIDES,
    clear_of_planes,
    encoded,
    expected,
    matrices_of,
    simhash_encoder,
)
from builders.token_collections import assert_close, ragged
from hypothesis import given
from hypothesis import strategies as st

from muvera import FDEEncoder, MultiVectors

WHOLE: dict[str, Any] = {"moments": None, "final_projection": None}

# Every option, with and without the other options of the same kernel.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"center": False},
    {**WHOLE, "document_cells": "mean"},
    {"fill_empty_partitions": True, "center": False, "document_cells": "mean", "soft_query_cells": 0.0},
    {"fill_empty_partitions": True, "soft_query_cells": 0.2},
    {"num_simhash_projections": 0},
    {"num_simhash_projections": 1, "num_repetitions": 17, "fill_empty_partitions": True},
    {"num_simhash_projections": 7, "num_repetitions": 3},
    {**WHOLE, "document_cells": "unit"},
    {**WHOLE, "document_cells": "length"},
    {"document_cells": "unit", "center": False},
    {"moments": "covariance", "fill_empty_partitions": True},
]

SHAPES = [
    (1, 1, "complementary"),
    (17, 3, "rademacher"),
    (33, None, "identity"),
    (48, 5, "count_sketch"),
    (130, 24, "complementary"),
]


def texts_for(encoder: FDEEncoder, seed: int) -> list[np.ndarray]:
    """Return texts around the center, without tokens near a hyperplane.

    The cells and nearest planes of their tokens are those of float64.
    """
    rng, dimension = np.random.default_rng(seed), encoder.config.dimension
    texts = []
    for length in (9, 1, 40, 0, 2):
        tokens = (rng.standard_normal((length, dimension)) + encoder.center).astype(np.float32)
        texts.append(clear_of_planes(tokens, encoder))
    return texts


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "default")
@pytest.mark.parametrize(("dimension", "block", "projection"), SHAPES)
def test_oracle(dimension: int, block: int | None, projection: str, options: dict[str, Any]) -> None:
    common = {"dimension": dimension, "projection": projection, "projection_dimension": block}
    encoder = simhash_encoder(ragged(dimension, 5), **common, **options)
    arrays = texts_for(encoder, dimension)
    texts = MultiVectors.from_arrays(arrays, dimension=dimension)
    for side in SIDES:
        fdes = encoded(encoder, side, texts)
        assert fdes.shape == (len(texts), encoder.config.vector_dimension) and fdes.dtype == np.float32
        assert encoded(encoder, side, texts[:0]).shape == (0, encoder.config.vector_dimension)
        for tokens, fde in zip(arrays, fdes, strict=True):
            assert_close(fde, expected(tokens, encoder, side))


@given(st.data(), some.dimensions, st.sampled_from(OPTIONS), st.sampled_from(["rademacher", "complementary"]))
def test_oracle_on_any_shape(
    data: st.DataObject, dimension: int, options: dict[str, Any], projection: str
) -> None:
    block, repetitions = data.draw(st.integers(1, dimension)), data.draw(st.integers(1, 9))
    values = {"num_repetitions": repetitions, "projection": projection, "projection_dimension": block}
    encoder = simhash_encoder(ragged(dimension, 5), dimension=dimension, **{**values, **options})
    tokens = clear_of_planes(data.draw(some.token_arrays(dimension, most=20)), encoder)
    for side in SIDES:
        assert_close(encoded(encoder, side, tokens)[0], expected(tokens, encoder, side), 1e-5)


def test_65536_cells() -> None:
    changes = {"projection": "complementary", "projection_dimension": 1, "fill_empty_partitions": True}
    encoder = simhash_encoder(
        None, dimension=20, num_repetitions=1, num_simhash_projections=16, **{**PLAIN, **changes}
    )
    tokens = texts_for(encoder, 1)[0]
    planes, inner = matrices_of(encoder)
    assert inner is not None
    codes = oracle.token_codes(tokens, planes[0])
    differing = sum(((np.arange(2**16)[:, np.newaxis] ^ codes) >> bit) & 1 for bit in range(16))
    wanted = (tokens @ inner[0][0])[np.argmin(differing, axis=1)]  # no two tokens are in one cell
    assert_close(encoder.encode_documents(tokens)[0], wanted)
    assert_close(encoder.encode_queries(tokens)[0], expected(tokens, encoder, "queries"))


@pytest.mark.parametrize("final", [1, 50])
@pytest.mark.parametrize("moments", [None, "mean"])
def test_final_count_sketches(final: int, moments: Any) -> None:
    common = {"dimension": 5, "num_repetitions": 15, "moments": moments}
    documents = ragged(5, 5)
    changes = {"final_projection": "count_sketch", "final_projection_dimension": final}
    encoder = simhash_encoder(documents, **common, **changes)
    for side in SIDES:
        for tokens, fde in zip(documents, encoded(encoder, side, documents), strict=True):
            assert_close(fde, expected(tokens, encoder, side), 5e-5)  # sums of 600 terms


def test_tokens_on_hyperplanes_have_bit_zero() -> None:
    encoder = simhash_encoder(None, dimension=16, **PLAIN)
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    alone = encoder.encode_documents(token).reshape(5, 8, 16)
    with_zero = encoder.encode_documents(np.concatenate([token, 0 * token])).reshape(5, 8, 16)
    in_zero = alone[:, 0].any(axis=1)
    np.testing.assert_array_equal(with_zero[~in_zero], alone[~in_zero])
    np.testing.assert_array_equal(with_zero[in_zero], alone[in_zero] / 2)


@pytest.mark.parametrize("softness", [0.0, 0.05])
def test_a_querys_token_at_the_center_has_no_bits(softness: float) -> None:
    """All its products are zero.

    With soft cells, half of it is across the first hyperplane.
    """
    values = {**PLAIN, "center": True, "soft_query_cells": softness}
    encoder = simhash_encoder(ragged(16, 5), dimension=16, **values)
    cells = encoder.encode_queries(encoder.center[np.newaxis]).reshape(5, 8, 16)
    share = 0.5 if softness else 1.0
    np.testing.assert_array_equal(cells[:, 0], np.tile(share * encoder.center, (5, 1)))
    np.testing.assert_array_equal(cells[:, 1], np.tile((1 - share) * encoder.center, (5, 1)))


@pytest.mark.parametrize("cells", ["unit", "length"])
def test_tokens_that_cancel_leave_a_cell_empty(cells: str) -> None:
    """Their sum has only the direction of rounding errors."""
    values = {**PLAIN, "document_cells": cells}
    encoder = simhash_encoder(None, dimension=16, num_simhash_projections=0, **values)
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    assert not encoder.encode_documents(np.concatenate([token, -token])).any()
