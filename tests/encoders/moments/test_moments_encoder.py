"""MeanEncoder: the oracle against the compiled path, and what moments must satisfy."""

from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from builders.realistic_collections import documents_like_real, queries_like_real
from hypothesis import given
from hypothesis import strategies as st

from muvera import MeanConfig, MeanEncoder, MultiVectors, chamfer_matrix, load_encoder
from muvera.encoders.moments.blocks import (
    DEFAULT_COEFFICIENTS,
    TERMS,
    MomentBlocks,
    default_blocks,
    moment_dimension,
)

# float32 sums of some hundred terms, relative to the largest entry.
ROUNDING = 5e-6

DIMENSIONS = [1, 2, 15, 16, 17, 33, 128]


def collection(dimension: int, count: int = 40, seed: int = 0, dtype: Any = np.float32) -> MultiVectors:
    """Ragged texts around a common direction, an empty one among them."""
    rng = np.random.default_rng([seed, dimension])
    lengths = rng.integers(1, 30, count)
    lengths[count // 2] = 0
    tokens = rng.standard_normal((lengths.sum(), dimension)) + 0.5
    return MultiVectors.from_flat((tokens / np.sqrt(dimension)).astype(dtype), lengths)


def plain(dimension: int, covariance: bool = False, **settings: Any) -> MeanEncoder:
    """An encoder with the default coefficients, so that its columns are moments themselves."""
    config = MeanConfig(dimension=dimension, covariance=covariance, **settings)
    return MeanEncoder(config, blocks=default_blocks(dimension, covariance))


def assert_close(actual: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=ROUNDING * max(1.0, np.abs(wanted).max()))


# -- the oracle -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_oracle(dimension: int, covariance: bool, dtype: Any) -> None:
    documents = collection(dimension, dtype=dtype)
    encoder = MeanEncoder(MeanConfig(dimension=dimension, covariance=covariance)).fit(documents)
    blocks = encoder.blocks
    assert blocks is not None
    encoded = encoder.encode_documents(documents)
    asked = encoder.encode_queries(documents)
    assert encoded.shape == asked.shape == (len(documents), moment_dimension(dimension, covariance))
    for tokens, document, query in zip(documents, encoded, asked, strict=True):
        assert_close(
            document,
            oracle.document_moments(tokens, blocks.coefficients, blocks.units, blocks.offset, covariance),
        )
        assert_close(query, oracle.query_moments(tokens, blocks.units, blocks.metric))


# -- the identity ---------------------------------------------------------------


@given(st.data())
def test_chamfer_is_the_mean_and_what_it_leaves(data: st.DataObject) -> None:
    query = data.draw(some.token_arrays(7, least=1, most=6))
    document = data.draw(some.token_arrays(7, least=1, most=6))
    encoder = plain(7)
    product = encoder.encode_queries(query)[0] @ encoder.encode_documents(document)[0]
    mean = document.astype(np.float64).mean(axis=0)
    rest = oracle.chamfer(query, document - mean)
    scale = max(1.0, float(np.abs(query).max() * np.abs(document).max()) * query.size)
    assert product + rest == pytest.approx(oracle.chamfer(query, document), abs=1e-5 * scale)


def test_documents_of_one_token_are_scored_exactly() -> None:
    documents = MultiVectors.from_arrays([text[:1] for text in collection(16) if len(text)])
    queries = collection(16, seed=1)[:5]
    encoder = plain(16, covariance=True)
    products = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    np.testing.assert_allclose(products, chamfer_matrix(queries, documents), atol=1e-5)


def test_the_columns_are_covariance_mean_and_bias() -> None:
    tokens = collection(5)[0]
    vector = plain(5, covariance=True).encode_documents(tokens)[0]
    assert len(vector) == 15 + 5 + 1
    about = np.cov(tokens.T, bias=True) * np.sqrt(2 * np.log(len(tokens)))
    assert_close(vector[:15], 0.5 * oracle.triangle(about))
    assert_close(vector[15:20], tokens.mean(axis=0))
    assert vector[20] == 0  # the bias has no part in the defaults
    query = plain(5, covariance=True).encode_queries(tokens)[0]
    assert_close(query[15:], np.array([*tokens.sum(axis=0), len(tokens)]))


def test_the_covariance_says_how_far_the_best_token_is_beyond_the_mean() -> None:
    """Of normal tokens the maximum exceeds the mean by nearly sqrt(2 log n) standard deviations."""
    rng = np.random.default_rng(0)
    spread = np.array([2.0, 1.0, 0.5, 0.1])
    documents = MultiVectors.from_arrays([rng.standard_normal((400, 4)) * spread for _ in range(50)])
    queries = MultiVectors.from_arrays([row[np.newaxis] for row in np.eye(4)])
    config = MeanConfig(dimension=4, covariance=True)
    fitted = MeanEncoder(config).fit(documents).blocks
    assert fitted is not None
    blocks = MomentBlocks(
        np.array([0, 1, 1, 0, 0, 0, 0.0]), np.ones(4, np.float32), np.zeros(15, np.float32), fitted.metric
    )
    encoder = MeanEncoder(config, blocks=blocks)
    excess = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    # Half of the root's linearization at its own point; sqrt(2 log 400) is 3.46, the mean maximum 2.97.
    found = 2 * excess.mean(axis=1) / spread
    np.testing.assert_allclose(found, np.sqrt(2 * np.log(400)), rtol=0.1)


# -- linearity and invariances --------------------------------------------------


@pytest.mark.parametrize("covariance", [False, True])
def test_queries_add_over_tokens_and_scale(covariance: bool) -> None:
    encoder = MeanEncoder(MeanConfig(dimension=20, covariance=covariance)).fit(collection(20))
    one, other = collection(20, seed=3)[0], collection(20, seed=3)[1]
    vectors = encoder.encode_queries([one, other, np.concatenate([one, other]), 4 * one])
    np.testing.assert_allclose(vectors[0] + vectors[1], vectors[2], atol=1e-4)
    # All but the number of tokens grow in proportion.
    np.testing.assert_allclose(4 * vectors[0][:-1], vectors[3][:-1], rtol=1e-4, atol=1e-4)
    assert vectors[0][-1] == vectors[3][-1]


@given(st.permutations(range(12)))
def test_the_order_of_tokens_does_not_matter(order: list[int]) -> None:
    tokens = np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32)
    encoder = plain(9, covariance=True)
    assert_close(encoder.encode_documents(tokens[order])[0], encoder.encode_documents(tokens)[0])


@pytest.mark.compiled("interpreted tiles are BLAS products")
@pytest.mark.parametrize("settings", [{}, {"covariance": True}, {"covariance": True, "compact_dimension": 9}])
def test_a_text_is_independent_of_its_batch_and_of_threads(settings: dict[str, Any]) -> None:
    documents = collection(20, 60)
    encoder = MeanEncoder(MeanConfig(dimension=20, **settings)).fit(documents)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        together = encode(documents, threads=1)
        np.testing.assert_array_equal(together, encode(documents, threads=2))
        alone = np.concatenate([encode(documents[i : i + 1]) for i in range(len(documents))])
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("settings", [{}, {"covariance": True}, {"covariance": True, "compact_dimension": 9}])
def test_empty_texts_get_the_zero_vector(settings: dict[str, Any]) -> None:
    documents = collection(20)
    encoder = MeanEncoder(MeanConfig(dimension=20, **settings)).fit(documents)
    empty = np.zeros((0, 20), np.float32)
    assert not encoder.encode_documents([empty]).any()
    assert not encoder.encode_queries([empty]).any()


# -- fitting --------------------------------------------------------------------


@pytest.mark.compiled("interpreted tiles are BLAS products")
def test_the_same_bits_on_any_number_of_threads_and_batches() -> None:
    documents, queries = documents_like_real(300), queries_like_real(documents_like_real(300), 20)
    config = MeanConfig(dimension=16, covariance=True)
    first = MeanEncoder(config).fit(documents, queries, threads=1).to_arrays()
    batches = (documents[i : i + 7] for i in range(0, 300, 7))
    for name, array in MeanEncoder(config).fit(batches, queries, threads=3).to_arrays().items():
        np.testing.assert_array_equal(array, first[name], err_msg=name)


def test_few_documents_leave_the_coefficients_near_the_defaults() -> None:
    documents = documents_like_real(300)
    distances = []
    for count in (1, 3, 300):
        blocks = MeanEncoder(MeanConfig(dimension=16)).fit(documents[:count]).blocks
        assert blocks is not None
        distances.append(float(np.abs(blocks.coefficients - DEFAULT_COEFFICIENTS).max()))
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]


def test_calibration_separates_the_best_better_than_the_mean_alone() -> None:
    documents = documents_like_real(600)
    queries = queries_like_real(documents, 60)
    exact = chamfer_matrix(queries, documents)

    def residual(encoder: MeanEncoder) -> float:
        found = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
        total = 0.0
        for wanted, scores in zip(exact, found, strict=True):
            best = np.argsort(-wanted)[:50]
            error = scores[best] - wanted[best]
            total += float(np.var(error) / np.var(wanted[best]))
        return total / len(queries)

    mean = residual(plain(16))
    calibrated = residual(MeanEncoder(MeanConfig(dimension=16)).fit(documents))
    second = residual(MeanEncoder(MeanConfig(dimension=16, covariance=True)).fit(documents))
    assert second < calibrated < mean


def test_saved_and_loaded(tmp_path: Path) -> None:
    documents = documents_like_real(100)
    for name, settings in (("mean", {}), ("second", {"covariance": True, "compact_dimension": 12})):
        encoder = MeanEncoder(MeanConfig(dimension=16, **settings)).fit(documents)  # type: ignore[arg-type]
        encoder.save(tmp_path / name)
        loaded = load_encoder(tmp_path / name)
        assert loaded.config == encoder.config
        np.testing.assert_array_equal(loaded.encode_documents(documents), encoder.encode_documents(documents))
        np.testing.assert_array_equal(loaded.encode_queries(documents), encoder.encode_queries(documents))


# -- errors ---------------------------------------------------------------------


def test_errors() -> None:
    encoder = MeanEncoder(MeanConfig(dimension=16))
    documents = collection(16)
    with pytest.raises(ValueError, match=r"^A mean encoder learns its coefficients .* call fit"):
        encoder.encode_documents(documents)
    with pytest.raises(ValueError, match="at least one token, and these have none"):
        encoder.fit([np.zeros((0, 16), np.float32)])
    encoder.fit(documents)
    with pytest.raises(ValueError, match="fitted, and vectors of two fits do not compare"):
        encoder.fit(documents)
    with pytest.raises(TypeError, match=r"^config must be a MeanConfig, got dict"):
        MeanEncoder({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"moments' offset has shape \(17,\), .* asks for \(153,\)"):
        MeanEncoder(MeanConfig(dimension=16, covariance=True), blocks=_without_covariance())


def _without_covariance() -> MomentBlocks:
    good = default_blocks(16, True)
    return MomentBlocks(good.coefficients, good.units, default_blocks(16, False).offset, good.metric)


def test_terms_and_defaults_belong_together() -> None:
    assert len(TERMS) == len(DEFAULT_COEFFICIENTS) == 7


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dimension": 0}, ValueError, "^dimension must be at least 1, got 0"),
        ({"dimension": 4, "covariance": 1}, TypeError, "^covariance must be a bool, got int 1"),
        ({"dimension": 4, "compact_dimension": 6}, ValueError, "^compact_dimension must be .* 5, got 6"),
        ({"dimension": 4, "seed": -1}, ValueError, "^seed must be at least 0, got -1"),
        (
            {"dimension": 400, "covariance": True, "compact_dimension": 64},
            ValueError,
            "at most 65536 floats, got 80601",
        ),
    ],
)
def test_configuration_errors(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MeanConfig(**settings)


def test_configuration_round_trip() -> None:
    config = MeanConfig(dimension=16, covariance=True, compact_dimension=64, seed=3)
    assert MeanConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["encoder"] == "mean"
    assert (config.vector_dimension, config.long_dimension, config.needs_fit_sample) == (64, 153, True)
    assert not MeanConfig(dimension=16).needs_fit_sample
