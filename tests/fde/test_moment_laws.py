"""Moments: mean tokens and covariances, their coefficients, and the oracle."""

from functools import cache
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from builders.fdes import SIDES, encoded, expected
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.token_collections import assert_close, ragged
from hypothesis import assume, given
from hypothesis import strategies as st

from muvera import FDEConfig, FDEEncoder, MultiVectors, chamfer_matrix
from muvera.fde.moments import (
    DEFAULT_COEFFICIENTS,
    MomentBlocks,
    _least_squares,
    default_blocks,
    mean_tokens,
    principal_directions,
)
from muvera.fde.steps import MAX_DIRECTIONS

DIMENSION = 9
TRIANGLE = DIMENSION * (DIMENSION + 1) // 2
#: Columns of the covariance, the mean token and the bias.
COVARIANCE, MEAN = slice(0, TRIANGLE), slice(TRIANGLE, TRIANGLE + DIMENSION)

texts = some.token_arrays(DIMENSION, least=1)


def config(dimension: int = DIMENSION, moments: Any = "covariance") -> FDEConfig:
    return FDEConfig.preset("moments", dimension, moments=moments, final_projection=None)


@cache
def plain(moments: Any = "covariance") -> FDEEncoder:
    """Return an encoder with the default coefficients.

    Its columns are moments themselves.
    """
    values = config(moments=moments)
    return FDEEncoder(values, blocks=default_blocks(values))


@cache
def fitted(moments: Any = "covariance") -> FDEEncoder:
    return FDEEncoder(config(moments=moments)).fit(ragged(DIMENSION))


def document(tokens: np.ndarray) -> np.ndarray:
    return np.asarray(plain().encode_documents(tokens)[0], np.float64)


def query(tokens: np.ndarray) -> np.ndarray:
    return np.asarray(plain().encode_queries(tokens)[0], np.float64)


def log_factor(count: int) -> float:
    """Return the factor of covariances: about the largest of `count` normal values."""
    return float(np.sqrt(2 * np.log(count)))


# -- the oracle ------------------------------------------------------------------------


@pytest.mark.parametrize("moments", ["mean", "covariance"])
@pytest.mark.parametrize(
    ("dimension", "dtype"),
    [(1, np.float32), (16, np.float32), (33, np.float16), (128, np.float32), (384, np.float16)],
)
def test_oracle(dimension: int, moments: Any, dtype: Any) -> None:
    documents = ragged(dimension, longest=max(30, dimension), dtype=dtype)  # several steps of a kernel
    encoder = FDEEncoder(config(dimension, moments)).fit(documents)
    assert encoder.config.vector_dimension == encoder.config.moment_dimension
    for side in SIDES:
        vectors = encoded(encoder, side, documents)
        assert vectors.shape == (len(documents), encoder.config.moment_dimension)
        for tokens, vector in zip(documents, vectors, strict=True):
            assert_close(vector, expected(np.asarray(tokens), encoder, side))


@pytest.mark.parametrize("dimension", [33, 128, 150])
def test_the_metric_is_the_mean_covariance(dimension: int) -> None:
    documents = ragged(dimension)
    blocks = FDEEncoder(config(dimension)).fit(documents).arrays["blocks"]
    assert blocks is not None
    directions = blocks.directions if blocks.directions.size else np.eye(dimension)
    assert len(directions) == min(dimension, MAX_DIRECTIONS)
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-3)
    rests = [(text - text.mean(axis=0, dtype=np.float64)) @ directions.T for text in documents if len(text)]
    mean = np.mean([rest.T @ rest / len(rest) for rest in rests], axis=0)
    np.testing.assert_allclose(blocks.metric, mean, atol=1e-3 * mean.max())


def test_directions_are_those_of_tokens_around_their_documents_mean() -> None:
    rng = np.random.default_rng(0)
    spread = 0.9 ** np.arange(200)
    documents = MultiVectors.from_arrays(
        [rng.standard_normal((20, 200)) * spread + rng.standard_normal(200) for _ in range(60)]
    )
    rests = np.concatenate([text - text.mean(axis=0) for text in documents]).astype(np.float64)
    directions = principal_directions(documents, 30, 0)
    captured = np.square(rests @ directions.T.astype(np.float64)).sum()
    best = np.linalg.eigvalsh(rests.T @ rests)[-30:].sum()
    assert 0.999 < captured / best <= 1.0001


# -- documents -------------------------------------------------------------------------


@given(st.data(), texts)
def test_the_order_of_tokens_does_not_matter(data: st.DataObject, tokens: np.ndarray) -> None:
    """Sums in another order; float32."""
    order = data.draw(st.permutations(range(len(tokens))))
    for encoder in (plain(), fitted()):
        for side in SIDES:
            assert_close(encoded(encoder, side, tokens[order]), encoded(encoder, side, tokens), 1e-5)


@given(texts, st.integers(2, 5))
def test_repeated_tokens_change_only_the_logarithm(tokens: np.ndarray, times: int) -> None:
    """The mean stays, the covariance grows by sqrt(log rn / log n); float32."""
    assume(len(tokens) > 1)
    once, repeated = document(tokens), document(np.concatenate([tokens] * times))
    assert_close(repeated[MEAN], once[MEAN], 1e-5)
    factor = log_factor(times * len(tokens)) / log_factor(len(tokens))
    assert_close(repeated[COVARIANCE], factor * once[COVARIANCE], 1e-5)


@given(texts, st.integers(0, 1000))
def test_a_shift_of_all_tokens_changes_only_the_mean(tokens: np.ndarray, seed: int) -> None:
    """Covariances are those of deviations from the document's own mean; float32."""
    shift = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    moved, still = document(tokens + shift), document(tokens)
    assert_close(moved[COVARIANCE], still[COVARIANCE], 1e-5)
    assert_close(moved[MEAN], still[MEAN] + shift, 1e-5)


@given(texts, texts)
def test_the_mean_of_a_joined_document_is_the_weighted_mean(first: np.ndarray, second: np.ndarray) -> None:
    """(n m + n' m') / (n + n'); float32."""
    joined = document(np.concatenate([first, second]))[MEAN]
    total = len(first) * document(first)[MEAN] + len(second) * document(second)[MEAN]
    assert_close(joined, total / (len(first) + len(second)), 1e-5)


@given(texts, st.integers(-9, 9))
def test_moments_scale_with_tokens(tokens: np.ndarray, exponent: int) -> None:
    """The mean by s, the covariance by s squared; exact for powers of two."""
    scale = 2.0**exponent
    scaled, usual = document(tokens * np.float32(scale)), document(tokens)
    np.testing.assert_array_equal(scaled[MEAN], scale * usual[MEAN])
    np.testing.assert_array_equal(scaled[COVARIANCE], scale**2 * usual[COVARIANCE])


@given(texts)
def test_a_document_of_one_token_has_no_covariance(tokens: np.ndarray) -> None:
    """Its only token is its mean; exact."""
    vector = document(tokens[:1])
    assert not vector[COVARIANCE].any()
    np.testing.assert_array_equal(vector[MEAN], tokens[0])


# -- queries ---------------------------------------------------------------------------


@given(texts, texts, st.sampled_from(["mean", "covariance"]))
def test_queries_add_over_tokens(first: np.ndarray, second: np.ndarray, moments: Any) -> None:
    """All blocks are sums over tokens; float32."""
    encoder = fitted(moments)
    total = encoder.encode_queries(first) + encoder.encode_queries(second)
    assert_close(encoder.encode_queries(np.concatenate([first, second])), total, 1e-5)


@given(texts, st.integers(-9, 9))
def test_queries_scale_with_tokens(tokens: np.ndarray, exponent: int) -> None:
    """q q' / sqrt(q' C0 q) and q grow by s; the number of tokens stays.  Float32."""
    scale = np.float32(2.0**exponent)
    scaled, usual = (fitted().encode_queries(t)[0] for t in (tokens * scale, tokens))
    np.testing.assert_allclose(scaled[:-1], scale * usual[:-1], rtol=1e-5)
    assert scaled[-1] == usual[-1]


# -- products --------------------------------------------------------------------------


@given(texts, texts)
def test_the_mean_token_explains_its_part_exactly(asked: np.ndarray, tokens: np.ndarray) -> None:
    """Chamfer(Q, X) = sum_q <q, m> + Chamfer(Q, X - m); float32."""
    encoder = plain("mean")
    found = float((encoder.encode_queries(asked) @ encoder.encode_documents(tokens).T)[0, 0])
    rest = oracle.chamfer(asked, tokens - tokens.mean(axis=0, dtype=np.float64))
    assert found + rest == pytest.approx(oracle.chamfer(asked, tokens), abs=1e-4)


@given(texts, texts)
def test_documents_of_one_token_are_scored_exactly(asked: np.ndarray, tokens: np.ndarray) -> None:
    """Nothing is left beside the mean token; float32."""
    found = float(query(asked) @ document(tokens[:1]))
    assert found == pytest.approx(oracle.chamfer(asked, tokens[:1]), abs=1e-4)


@given(texts, texts)
def test_the_product_of_triangles_is_that_of_matrices(asked: np.ndarray, tokens: np.ndarray) -> None:
    """0.5 sqrt(2 log n) sum_q q' C q / (2 |q|), with C0 = I; float32."""
    rest = tokens - tokens.mean(axis=0, dtype=np.float64)
    covariance = rest.T @ rest / len(tokens)
    wanted = sum(float(q @ covariance @ q) / (2 * np.linalg.norm(q)) for q in asked.astype(np.float64))
    found = float(query(asked)[COVARIANCE] @ document(tokens)[COVARIANCE])
    assert found == pytest.approx(0.5 * log_factor(len(tokens)) * wanted, rel=1e-4, abs=1e-5)
    assert found >= -1e-5


def test_the_covariance_estimates_how_far_the_best_token_is_from_the_mean() -> None:
    """Of normal tokens, nearly sqrt(2 log n) standard deviations.

    For n = 400, 2.97 of 3.46.
    """
    rng = np.random.default_rng(0)
    spread = np.array([2.0, 1.0, 0.5, 0.1])
    documents = MultiVectors.from_arrays([rng.standard_normal((400, 4)) * spread for _ in range(50)])
    queries = MultiVectors.from_arrays([row[np.newaxis] for row in np.eye(4)])
    metric = FDEEncoder(config(4)).fit(documents).arrays["blocks"]
    assert metric is not None
    blocks = MomentBlocks(
        np.array([0, 1, 0, 0, 0, 0, 0.0]), np.ones(4, np.float32), np.zeros(15, np.float32), metric.metric,
        np.empty((0, 0), np.float32),
    )  # fmt: skip
    encoder = FDEEncoder(config(4), blocks=blocks)
    # Half of the root's linearization at its own point.
    excess = 2 * (encoder.encode_queries(queries) @ encoder.encode_documents(documents).T).mean(axis=1)
    np.testing.assert_allclose(excess / spread, log_factor(400), rtol=0.1)


# -- coefficients and units ------------------------------------------------------------


@given(texts, st.lists(texts, min_size=2, max_size=2), st.sampled_from(["mean", "covariance"]))
def test_units_do_not_change_products(asked: np.ndarray, documents: list[np.ndarray], moments: Any) -> None:
    """Documents' blocks are multiplied by them, queries' blocks divided; float32."""
    encoder = fitted(moments)
    blocks = encoder.arrays["blocks"]
    other = np.array([3, 0.5, 2, 7], np.float32)
    arrays = {name: getattr(blocks, name) for name in ("coefficients", "offset", "metric", "directions")}
    changed = FDEEncoder(encoder.config, blocks=MomentBlocks(units=other, **arrays))
    first, second = (
        each.encode_documents(documents).astype(np.float64) @ each.encode_queries(asked)[0]
        for each in (encoder, changed)
    )
    np.testing.assert_allclose(second, first, atol=1e-4 * max(1.0, float(np.abs(first).max())))


@given(st.integers(2, 40), st.integers(0, 100))
def test_the_sampled_documents_vectors_have_mean_zero(count: int, seed: int) -> None:
    """Graphs need vectors that share no direction.

    `offset` is the mean of the sample.
    """
    documents = ragged(DIMENSION, count + 1, seed=seed)
    documents = documents[np.flatnonzero(documents.lengths)]
    vectors = FDEEncoder(config()).fit(documents).encode_documents(documents).astype(np.float64)
    assert np.abs(vectors.mean(axis=0)).max() < 1e-4 * np.abs(vectors).max() + 1e-6


@given(st.integers(1, 20), st.integers(0, 100))
def test_mean_tokens(count: int, seed: int) -> None:
    """sum / n of each text, and zero without tokens; float32."""
    documents = ragged(DIMENSION, count, seed=seed)
    wanted = [np.mean(text, axis=0) if len(text) else np.zeros(DIMENSION) for text in documents]
    assert_close(mean_tokens(documents), np.stack(wanted))


def test_few_documents_leave_the_coefficients_near_the_defaults() -> None:
    documents = documents_like_real(300)
    distances = []
    for count in (1, 3, 300):
        blocks = FDEEncoder.preset("mean", 16).fit(documents[:count]).arrays["blocks"]
        assert blocks is not None
        distances.append(float(np.abs(blocks.coefficients - DEFAULT_COEFFICIENTS).max()))
    assert 0 == distances[0] < distances[1] < distances[2]


def test_fitted_coefficients_separate_the_best_documents() -> None:
    """The share of Chamfer's variance that products do not explain.

    It is taken among the best 50.
    """
    documents = documents_like_real(400)
    queries = queries_like_real(documents, 40)
    exact = chamfer_matrix(queries, documents)

    def unexplained(encoder: FDEEncoder) -> float:
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
        best = np.argsort(-exact)[:, :50]
        wanted, found = (np.take_along_axis(values, best, axis=1) for values in (exact, scores))
        return float(np.mean(np.var(found - wanted, axis=1) / np.var(wanted, axis=1)))

    mean = FDEEncoder.preset("mean", 16).fit(documents)
    default = FDEEncoder(mean.config, blocks=default_blocks(mean.config))
    covariance = FDEEncoder(config(16)).fit(documents)
    assert unexplained(covariance) < unexplained(mean) < unexplained(default)


@pytest.mark.parametrize("preset", ["mean", "simhash"])
def test_a_term_that_is_the_same_for_all_documents_gets_no_weight(preset: str) -> None:
    """Documents of two tokens, all equally long.

    Their means are equally long up to rounding.
    """
    rng = np.random.default_rng(0)
    bases = rng.standard_normal((160, 20))
    bases *= 3 / np.linalg.norm(bases, axis=1, keepdims=True)
    pairs = [np.stack([base, np.zeros(20)]).astype(np.float32) for base in bases]
    documents = MultiVectors.from_arrays(pairs)
    others = MultiVectors.from_arrays(np.random.default_rng(1).standard_normal((80, 3, 20)) * 0.3)
    encoder = FDEEncoder.preset(preset, 20).fit(documents)
    assert np.abs(encoder.arrays["blocks"].coefficients).max() < 3
    vectors = encoder.encode_documents([*documents, *others])
    queries = encoder.encode_queries([text[:1] for text in documents])
    assert ((queries @ vectors.T).argmax(axis=1) == np.arange(160)).all()


def test_equal_documents_leave_the_default_coefficients() -> None:
    blocks = FDEEncoder.preset("mean", 4).fit(MultiVectors.from_arrays([np.eye(4)] * 30)).arrays["blocks"]
    assert blocks is not None
    np.testing.assert_allclose(blocks.coefficients, DEFAULT_COEFFICIENTS, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_documents_give_finite_vectors(seed: int) -> None:
    """After the mean is subtracted, only rounding errors are left of a block.

    Their inverse does not fit into float32.
    """
    rng = np.random.default_rng(seed)
    one = rng.standard_normal((4, 16)).astype(np.float32)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    documents = MultiVectors.from_flat(np.tile(one, (300, 1)), np.full(300, 4))
    encoder = FDEEncoder.preset("fde", 16).fit(documents)
    assert np.isfinite(encoder.encode_documents(documents[:3])).all()


@given(st.integers(0, 1000), st.floats(-50, 50))
def test_a_window_is_not_fitted_to_the_document_that_it_was_cut_from(seed: int, changed: float) -> None:
    """The document contains the window; its similarity says nothing about queries."""
    rng = np.random.default_rng(seed)
    similarities = rng.standard_normal((6, 40)).astype(np.float32)
    terms: list[Any] = [similarities + rng.standard_normal((6, 40)) for _ in DEFAULT_COEFFICIENTS]
    sources = np.concatenate([[-1, -1], rng.permutation(40)[:4]])
    expected = _least_squares(terms, similarities, sources)
    similarities[np.arange(2, 6), sources[2:]] = changed
    for term in terms:
        term[np.arange(2, 6), sources[2:]] = -changed
    np.testing.assert_array_equal(_least_squares(terms, similarities, sources), expected)
