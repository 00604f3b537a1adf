"""FDEEncoder: plain Python against the compiled path."""

from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from builders.fde_oracle import (
    OPTIONS,
    PROJECTIONS,
    ROUNDING,
    SHAPES,
    WHOLE,
    assert_close,
    clear_of_planes,
    expected,
    fitted,
    matrices_of,
    sample,
    texts_for,
)
from hypothesis import given
from hypothesis import strategies as st

import muvera.encoders.fde.encoder as encoder_module
import muvera.encoders.fde.final_projection as final_module
from muvera import FDEConfig, MultiVectors
from muvera.encoders.fde.draws import own


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "default")
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize(("dimension", "block"), SHAPES)
def test_oracle(dimension: int, block: int, projection: str, options: dict[str, Any]) -> None:
    width = None if projection == "identity" else block
    encoder = fitted(
        sample(dimension), dimension=dimension, projection=projection, projection_dimension=width, **options
    )
    texts = texts_for(encoder, dimension)
    documents = encoder.encode_documents(MultiVectors.from_arrays(texts, dimension=dimension))
    queries = encoder.encode_queries(MultiVectors.from_arrays(texts, dimension=dimension))
    assert documents.shape == queries.shape == (len(texts), encoder.config.vector_dimension)
    assert documents.dtype == queries.dtype == np.float32
    for tokens, document, query in zip(texts, documents, queries, strict=True):
        assert_close(document, expected(tokens, encoder, "documents"))
        assert_close(query, expected(tokens, encoder, "queries"))


@given(st.data(), some.dimensions, st.sampled_from(PROJECTIONS), st.sampled_from(OPTIONS))
def test_oracle_on_any_shape(
    data: st.DataObject, dimension: int, projection: str, options: dict[str, Any]
) -> None:
    block = dimension if projection == "identity" else data.draw(st.integers(1, dimension))
    repetitions = data.draw(st.integers(1, 9))
    settings = {"num_repetitions": repetitions, "projection": projection, "projection_dimension": block}
    encoder = fitted(sample(dimension), dimension=dimension, **{**settings, **options})
    tokens = clear_of_planes(data.draw(some.token_arrays(dimension, most=20)), encoder)
    assert_close(encoder.encode_documents(tokens)[0], expected(tokens, encoder, "documents"))
    assert_close(encoder.encode_queries(tokens)[0], expected(tokens, encoder, "queries"))


@pytest.mark.compiled("65,536 cells are visited one by one")
@pytest.mark.parametrize("fill", [False, True])
def test_the_most_cells(fill: bool) -> None:
    encoder = fitted(
        sample(20), dimension=20, num_repetitions=1, num_simhash_projections=16, projection_dimension=1,
        fill_empty_partitions=fill, split_mean=False, document_cells="mean",
    )  # fmt: skip
    tokens = texts_for(encoder, 1, (25,))[0]
    planes, inner = matrices_of(encoder)
    assert inner is not None
    codes = oracle.token_codes(tokens - encoder.center, planes[0])
    document = encoder.encode_documents(tokens)[0]
    assert document.shape == (65536,)
    values = (tokens - encoder.center).astype(np.float64) @ inner[0][0]
    for code in {*codes.tolist(), 0, 1, 40000, 65535}:
        if code in codes:
            wanted = values[codes == code].mean()
        else:
            wanted = values[np.argmin([oracle.hamming(code, other) for other in codes])] if fill else 0.0
        assert document[code] == pytest.approx(wanted, abs=1e-5)
    if not fill:
        assert set(np.flatnonzero(document)) <= set(codes.tolist())
    query = encoder.encode_queries(tokens)[0]
    assert_close(query, expected(tokens, encoder, "queries"))


@pytest.mark.parametrize("final", [1, 15, 16, 50])
@pytest.mark.parametrize("projection", ["complementary", "identity"])
def test_final_projections(projection: str, final: int) -> None:
    """p = 5 and R * 2**k * p = 600: the dense map's depth is cut at no multiple of anything."""
    dimension = 5
    common = {"dimension": dimension, "projection": projection, "num_repetitions": 15, **WHOLE}
    documents = sample(dimension)
    long = fitted(documents, **common)
    for kind in ("rademacher", "count_sketch"):
        encoder = fitted(documents, **common, final_projection=kind, final_projection_dimension=final)
        for side in ("encode_documents", "encode_queries"):
            short = getattr(encoder, side)(documents)
            assert short.shape == (len(documents), final)
            for fde, got in zip(getattr(long, side)(documents), short, strict=True):
                if kind == "rademacher":
                    wanted = oracle.final_rademacher(fde, dense_signs(encoder.config))
                else:
                    matrices = encoder.matrices
                    wanted = oracle.final_count_sketch(
                        fde, matrices.final_targets, matrices.final_signs, final
                    )
                # Sums of 600 terms: sixteen times a block's.
                assert_close(got, wanted, 16 * ROUNDING)


def dense_signs(config: FDEConfig) -> np.ndarray:
    """The dense final map as +-1 (R * 2**k * p, D)."""
    rows = config.num_cells * config.block_width
    parts = []
    for r in range(config.num_repetitions):
        bits = own.final_signs(config.seed, r, rows, config.vector_dimension)
        plus = (bits[:, :, np.newaxis] >> np.arange(16)) & 1
        parts.append(plus.transpose(1, 0, 2).reshape(rows, -1)[:, : config.vector_dimension] * 2.0 - 1)
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", ["rademacher", "count_sketch"])
def test_final_projections_in_blocks_and_with_signs_drawn_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = sample(12, texts=9)
    settings = {"dimension": 12, "final_projection": kind, "final_projection_dimension": 33}
    whole = fitted(documents, **settings)
    monkeypatch.setattr(encoder_module, "_BLOCK_BYTES", 2 * 4 * whole.config.sketch_dimension)
    monkeypatch.setattr(final_module, "_KEPT_SIGN_BYTES", 0)
    parts = fitted(documents, **settings)
    for side in ("encode_documents", "encode_queries"):
        np.testing.assert_array_equal(getattr(whole, side)(documents), getattr(parts, side)(documents))


def test_ties_go_to_the_first_of_equally_near_tokens() -> None:
    """A filled FDE depends on the order of the tokens, by the rule that the oracle states."""
    settings = {"dimension": 8, "projection": "identity", "center": False, "fill_empty_partitions": True}
    encoder = fitted(None, **settings, document_cells="mean")
    tokens = texts_for(encoder, 3, (6,))[0]
    there, back = (encoder.encode_documents(t)[0] for t in (tokens, tokens[::-1]))
    assert not np.array_equal(there, back)
    assert_close(there, expected(tokens, encoder, "documents"))
    assert_close(back, expected(tokens[::-1], encoder, "documents"))


def test_a_token_on_a_hyperplane_has_bit_zero() -> None:
    encoder = fitted(None, dimension=16, center=False, projection="identity", soft_query_cells=0.0)
    zero = np.zeros((1, 16), np.float32)
    both = np.concatenate([zero, zero])
    assert not encoder.encode_documents(zero).any()
    # One zero token in code 0 halves the mean there, and only there.
    unscaled = fitted(None, dimension=16, center=False, projection="identity", document_cells="mean")
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    alone = unscaled.encode_documents(token).reshape(5, 8, 16)
    with_zero = unscaled.encode_documents(np.concatenate([token, zero])).reshape(5, 8, 16)
    in_zero = alone[:, 0].any(axis=1)
    np.testing.assert_array_equal(with_zero[~in_zero], alone[~in_zero])
    np.testing.assert_array_equal(with_zero[in_zero], alone[in_zero] / 2)
    assert not encoder.encode_queries(both).any()


def test_tokens_that_cancel_leave_a_unit_cell_empty() -> None:
    encoder = fitted(None, dimension=16, num_simhash_projections=0, center=False)
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    assert not encoder.encode_documents(np.concatenate([token, -token])).any()
