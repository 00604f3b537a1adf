"""MomentsEncoder: the oracle against the compiled path, compact maps, calibration, recall, exact bits, bad input."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.token_collections import assert_close, ragged
from numpy.typing import NDArray

import muvera.encoders.moments as moments_module
from muvera import (
    FDEConfig,
    FDEEncoder,
    MomentsConfig,
    MomentsEncoder,
    MultiVectors,
    MuveraIndex,
    chamfer_matrix,
)
from muvera.fde.linear_algebra import half_bytes_to_int8
from muvera.encoders.moment_blocks import (
    DEFAULT_COEFFICIENTS,
    MAX_DIRECTIONS,
    default_blocks,
    moment_dimension,
    principal_directions,
)
from muvera.fde.UNKNOWN import CompactMaps, fit_maps, sample_windows


def fitted(documents: MultiVectors, size: int | None = None, covariance: bool = True) -> Any:
    """Return an encoder that is fitted to `documents`, without a map by default."""
    config = MomentsConfig(dimension=documents.dimension, covariance=covariance, compact_dimension=size)
    return MomentsEncoder(config).fit(documents)


def floats(maps: CompactMaps) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the maps of queries and of documents."""
    triangles = half_bytes_to_int8(maps.triangles, len(maps.documents) - len(maps.sums))
    queries = np.concatenate([triangles * maps.triangle_scales, maps.sums * maps.sum_scales])
    return queries, maps.documents * maps.document_scales


# -- the oracle -----------------------------------------------------------------


@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize(
    ("dimension", "dtype"), [(1, np.float32), (33, np.float16), (128, np.float32), (384, np.float16)]
)
def test_oracle(dimension: int, covariance: bool, dtype: Any) -> None:
    documents = ragged(dimension, longest=max(30, dimension), dtype=dtype)  # several steps of a kernel
    encoder = fitted(documents, covariance=covariance)
    blocks = encoder.blocks
    directions = metric = None
    if covariance:
        metric = blocks.metric
        directions = blocks.directions if blocks.directions.size else np.eye(dimension)
        assert len(directions) == min(dimension, MAX_DIRECTIONS)
        np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-3)
        rests = [
            (text - text.mean(axis=0, dtype=np.float64)) @ directions.T for text in documents if len(text)
        ]
        mean = np.mean([rest.T @ rest / len(rest) for rest in rests], axis=0)
        np.testing.assert_allclose(metric, mean, atol=1e-3 * mean.max())
    vectors, queries = encoder.encode_documents(documents), encoder.encode_queries(documents)
    assert vectors.shape == queries.shape == (len(documents), moment_dimension(dimension, covariance))
    for tokens, vector, query in zip(documents, vectors, queries, strict=True):
        wanted = oracle.document_moments(tokens, blocks.coefficients, blocks.units, blocks.offset, directions)
        assert_close(vector, wanted)
        assert_close(query, oracle.query_moments(tokens, blocks.units, metric, directions))


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


# -- calibration ----------------------------------------------------------------


def test_few_documents_leave_the_coefficients_near_the_defaults() -> None:
    documents = documents_like_real(300)
    distances = []
    for count in (1, 3, 300):
        blocks = fitted(documents[:count], covariance=False).blocks
        distances.append(float(np.abs(blocks.coefficients - DEFAULT_COEFFICIENTS).max()))
    assert 0 == distances[0] < distances[1] < distances[2]


def test_calibrated_scores_separate_the_best_documents() -> None:
    documents = documents_like_real(400)
    queries = queries_like_real(documents, 40)
    exact = chamfer_matrix(queries, documents)

    def unexplained(encoder: MomentsEncoder) -> float:
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
        best = np.argsort(-exact)[:, :50]
        wanted, given = (np.take_along_axis(values, best, axis=1) for values in (exact, scores))
        return float(np.mean(np.var(given - wanted, axis=1) / np.var(wanted, axis=1)))

    mean = fitted(documents, covariance=False)
    default = MomentsEncoder(mean.config, blocks=default_blocks(mean.config))
    assert unexplained(fitted(documents)) < unexplained(mean) < unexplained(default)


def test_a_term_that_is_the_same_for_all_documents_gets_no_weight() -> None:
    """Documents of two tokens, all equally long, with means equally long up to rounding."""
    rng = np.random.default_rng(0)
    bases = rng.standard_normal((160, 20))
    bases *= 3 / np.linalg.norm(bases, axis=1, keepdims=True)
    pairs = [np.stack([base, np.zeros(20)]).astype(np.float32) for base in bases]
    documents = MultiVectors.from_arrays(pairs)
    others = MultiVectors.from_arrays(np.random.default_rng(1).standard_normal((80, 3, 20)) * 0.3)
    fde: Any = FDEEncoder(FDEConfig(dimension=20, projection_dimension=8)).fit(documents)
    for encoder in (fitted(documents, covariance=False), fde):
        assert np.abs(encoder.blocks.coefficients).max() < 3
        vectors = encoder.encode_documents([*documents, *others])
        queries = encoder.encode_queries([text[:1] for text in documents])
        assert ((queries @ vectors.T).argmax(axis=1) == np.arange(160)).all()
    equal = fitted(MultiVectors.from_arrays([np.eye(4)] * 30), covariance=False)
    np.testing.assert_allclose(equal.blocks.coefficients, DEFAULT_COEFFICIENTS, atol=1e-6)


# -- compact maps ---------------------------------------------------------------


def test_compact_vectors_are_long_vectors_times_the_map() -> None:
    documents = ragged(20, 60)
    documents = documents[np.flatnonzero(documents.lengths)]
    encoder = fitted(documents, 24)
    long = MomentsEncoder(MomentsConfig(dimension=20, compact_dimension=None), blocks=encoder.blocks)
    maps = encoder.compact
    for encode, matrix, start in zip(
        ("encode_queries", "encode_documents"), floats(maps), (0, maps.offset), strict=True
    ):
        vectors = getattr(long, encode)(documents).astype(np.float64)
        # Long vectors are rounded to 16 bits.
        steps = abs(vectors).max(axis=1, keepdims=True) / 32767 * 0.51
        bound = steps * abs(matrix).sum(axis=0) + 1e-5 * abs(vectors @ matrix).max()
        assert (abs(getattr(encoder, encode)(documents) - (vectors @ matrix - start)) <= bound).all()


def test_common_rounding_errors_of_queries_are_corrected() -> None:
    """Triangles that are about proportional to the number of tokens, as on a narrow cone."""
    rng = np.random.default_rng(0)
    lengths = rng.uniform(1, 9, (200, 1))
    windows = (lengths * (rng.normal(size=300) + 0.02 * rng.normal(size=(200, 300)))).astype(np.float32)
    windows = np.concatenate([windows, lengths], axis=1, dtype=np.float32)
    queries, documents = rng.normal(size=(2, 301, 20)).astype(np.float32)
    maps = CompactMaps.rounded(windows, (queries, documents, np.zeros(301, np.float32)), 1)
    rounded, wanted = floats(maps)[0], windows @ queries
    assert np.linalg.norm(windows @ rounded - wanted) < 0.02 * np.linalg.norm(wanted)
    rounded[-1] = queries[-1]
    assert np.linalg.norm(windows @ rounded - wanted) > 0.05 * np.linalg.norm(wanted)


def test_windows_come_from_long_and_short_texts_alike() -> None:
    arrays = [np.full((length, 2), i, np.float32) for i, length in enumerate([2000, *[100] * 9])]
    texts = MultiVectors.from_arrays(arrays)
    counts = np.zeros(10)
    for seed in range(20):
        windows = sample_windows(texts, texts[:0], 512, seed)
        counts += np.bincount(windows.tokens[windows.offsets[:-1], 0].astype(int), minlength=10)
    # 600 windows of 10 documents, about 60 each.
    assert counts.sum() == 600 and 40 < counts[0] < 80


def test_maps_of_full_rank_find_a_bilinear_target() -> None:
    rng = np.random.default_rng(0)
    windows, documents = (rng.normal(size=(n, 12)).astype(np.float32) for n in (40, 30))
    target = 3 * windows @ documents.T
    wanted = target - target.mean(axis=1, keepdims=True)
    query_map, document_map, mean = fit_maps(windows, documents.copy(), target.T.copy(), 12, 1, seed=0)
    scores = (windows @ query_map) @ ((documents - mean) @ document_map).T
    np.testing.assert_allclose(scores, wanted, atol=1e-3 * abs(wanted).max())


def test_maps_keep_means_that_do_not_vary_in_the_sample() -> None:
    """Documents of another kind vary in columns of the mean token that hardly vary in the sample."""
    rng = np.random.default_rng(0)
    long, means, quiet = 60, 15, 7
    spread = np.r_[np.ones(long - means), np.full(means - quiet, 2), np.full(quiet, 0.05)]
    windows = rng.normal(size=(300, long)).astype(np.float32)
    documents = (rng.normal(size=(200, long)) * spread).astype(np.float32)
    others = np.zeros((100, long))
    others[:, -quiet:] = rng.normal(size=(100, quiet))

    def errors(mean_columns: int) -> Iterator[float]:
        query_map, document_map, _ = fit_maps(
            windows, documents.copy(), documents @ windows.T, 30, mean_columns, seed=0
        )
        for texts in (documents - documents.mean(axis=0), others):
            difference = windows @ query_map @ (texts @ document_map).T - windows @ texts.T
            yield float(np.sqrt(np.mean(difference**2)))

    (known, other), (known_with, other_with) = errors(1), errors(means)
    assert other_with < 0.5 * other and known_with < 1.3 * known


def test_maps_are_fitted_to_the_queries() -> None:
    config = MomentsConfig(dimension=20, compact_dimension=24)
    fitted_to_queries: Any = MomentsEncoder(config).fit(ragged(20, 80), ragged(20, 10, seed=1))
    assert not np.array_equal(fitted_to_queries.compact.sums, fitted(ragged(20, 80), 24).compact.sums)


def test_an_encoder_can_be_fitted_after_a_fit_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MomentsEncoder(MomentsConfig(dimension=20, compact_dimension=24))
    with monkeypatch.context() as broken, pytest.raises(TypeError):
        broken.setattr(moments_module, "fit_maps", None)
        encoder.fit(ragged(20, 60))
    assert encoder.needs_fit and not encoder.fit(ragged(20, 60)).needs_fit


def test_an_index_fits_maps_to_enough_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)
    documents = ragged(20, 60, seed=4)
    config = MomentsConfig(dimension=20, compact_dimension=24)
    index = MuveraIndex(config, exact_tokens=0)
    index.add(documents[:10])
    assert index.info().search == "all tokens" and "20" in index.info().warnings[0]
    index.add(documents[10:25])
    assert index.encoder is not None and index.info().warnings == ()
    index.add(MultiVectors(documents.tokens, documents.offsets, ids=np.arange(100, 160)))
    assert "rebuild()" in index.info().warnings[0]
    index.save(tmp_path / "index")
    loaded: Any = MuveraIndex.load(tmp_path / "index")
    assert loaded.info().warnings == index.info().warnings
    loaded.rebuild()
    assert loaded.info().warnings == ()
    new, old = (each.encode_documents(documents) for each in (loaded.encoder, index.encoder))
    assert not np.array_equal(new, old)
