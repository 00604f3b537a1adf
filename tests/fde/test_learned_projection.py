"""The learned projection: windows, the fit, rounding, and whole encoders."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.fdes import CONFIGS, SIDES, Side, changed, encoded, expected, fitted, long_vector, maps_of
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.token_collections import ragged
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera import FDEEncoder, LearnedProjection, MultiVectors, chamfer_matrix
from muvera.fde import learned_projection
from muvera.fde.encoder import fitted_without_queries_from
from muvera.fde.learned_projection import (
    Maps,
    ProjectionMaps,
    fit_maps,
    sample_windows,
    window_similarities,
)
from muvera.fde.linear_algebra import half_bytes_to_int8

LEARNED = [name for name, config in CONFIGS.items() if isinstance(config.projection, LearnedProjection)]

some_seeds = st.integers(0, 1000)


def unprojected(encoder: FDEEncoder) -> FDEEncoder:
    """Return the encoder of the long vectors that the maps of an encoder read."""
    values: dict[str, Any] = {"final_projection": None, "final_projection_dimension": None}
    if "landmarks" in encoder.arrays:
        values["num_landmarks"] = encoder.arrays["landmarks"].count
    config = changed(encoder.config, **values)
    return FDEEncoder(config, **{name: each for name, each in encoder.arrays.items() if name != "learned"})


def random_sample(
    seed: int, windows: int = 60, documents: int = 40, long: int = 30
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return long vectors W and X with a falling spectrum.

    Their similarities have another form.
    """
    rng = np.random.default_rng(seed)
    spread = 0.9 ** np.arange(long)
    w, x = ((rng.standard_normal((n, long)) * spread) for n in (windows, documents))
    form = np.eye(long) + 0.3 * rng.standard_normal((long, long))
    return w.astype(np.float32), x.astype(np.float32), (x @ form @ w.T).astype(np.float32)


def products(sample: tuple[NDArray[np.float32], ...], size: int) -> NDArray[np.float64]:
    """Return the products of mapped documents and windows, (m, n)."""
    w, x, s = sample
    maps = fit_maps(w, x.copy(), s.copy(), size, 1, seed=0)
    mapped = (x - maps.mean) @ maps.documents.astype(np.float64)
    return np.asarray(mapped @ (w @ maps.queries).T)


# -- windows ---------------------------------------------------------------------------


def numbered(lengths: list[int], first: float = 0) -> MultiVectors:
    """Return texts whose tokens are (number of the text, position)."""
    rows = [[first + text, place] for text, length in enumerate(lengths) for place in range(length)]
    return MultiVectors.from_flat(np.array(rows, np.float32).reshape(-1, 2), lengths)


text_lengths = st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any)


@given(text_lengths, some_seeds)
def test_windows_are_runs_of_tokens_within_a_text(lengths: list[int], seed: int) -> None:
    """Four tokens, or fewer up to the end of their text, exactly.

    No two windows start at one token.
    """
    documents = numbered(lengths)
    windows = sample_windows(documents, documents[:0], 100, seed)
    assert len(windows) == min(3 * len(lengths), sum(lengths))
    starts = [tuple(window[0]) for window in windows]
    assert len(set(starts)) == len(starts)
    for window in windows:
        (text, start), count = window[0].astype(int).tolist(), len(window)
        assert count == min(4, lengths[text] - start)
        np.testing.assert_array_equal(window[:, 0], text)
        np.testing.assert_array_equal(window[:, 1], start + np.arange(count))


@given(text_lengths, text_lengths, some_seeds)
def test_at_most_half_of_the_windows_are_from_queries(
    lengths: list[int], of_queries: list[int], seed: int
) -> None:
    """Rounded up; documents fill what queries leave.  Exact."""
    documents, queries = numbered(lengths), numbered(of_queries, 1000)
    windows = sample_windows(documents, queries, 100, seed)
    asked = sum(window[0, 0] >= 1000 for window in windows)
    room = 3 * len(lengths)
    assert asked == min(-(-room // 2), sum(of_queries))
    assert len(windows) - asked == min(room - asked, sum(lengths))


@given(some_seeds)
def test_longer_vectors_have_fewer_windows(seed: int) -> None:
    """Their long vectors have at most 256 MiB, and there is at least one."""
    documents = numbered([5] * 40)
    counts = [len(sample_windows(documents, documents[:0], long, seed)) for long in (1, 2**20, 2**27)]
    assert counts == [120, 64, 1]


def test_windows_come_from_long_and_short_texts_alike() -> None:
    arrays = [np.full((length, 2), i, np.float32) for i, length in enumerate([2000, *[100] * 9])]
    texts = MultiVectors.from_arrays(arrays)
    counts = np.zeros(10)
    for seed in range(20):
        windows = sample_windows(texts, texts[:0], 512, seed)
        counts += np.bincount(windows.tokens[windows.offsets[:-1], 0].astype(int), minlength=10)
    # 600 windows of 10 documents, about 60 each.
    assert counts.sum() == 600 and 40 < counts[0] < 80


@given(st.data(), st.integers(1, 40))
def test_similarities_are_those_of_chamfer(data: st.DataObject, dimension: int) -> None:
    """Deviations and windows are rounded to 127ths: half a unit of each entry."""
    lists = st.lists(some.token_arrays(dimension, least=1, most=6), min_size=1, max_size=4)
    documents, windows = (MultiVectors.from_arrays(data.draw(lists)) for _ in range(2))
    found = window_similarities(windows, documents)
    exact = chamfer_matrix(windows, documents).T
    largest, widest = (float(np.abs(texts.tokens).max()) for texts in (documents, windows))
    bound = dimension * 4 * largest * widest / 127 * windows.lengths.max() + 1e-4
    assert np.abs(found - exact).max() <= bound
    # Errors of entries mostly cancel.
    assert np.abs(found - exact).mean() <= 0.5 * bound / np.sqrt(dimension)


@pytest.mark.parametrize("name", ["fde", "fde, 16 directions", "simhash, learned"])
def test_windows_are_fitted_as_queries_are_encoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit's products of long vectors are those of the encoder without its maps.

    They do not depend on the unit of the cells, which gives cells and moments of
    documents the same variance.  A document's mean product does not matter.
    """
    seen: dict[str, Any] = {}

    def sample(documents: MultiVectors, *rest: Any) -> MultiVectors:
        seen["texts"], seen["cut"] = documents, sample_windows(documents, *rest)
        windows: MultiVectors = seen["cut"]
        return windows

    def fit(windows: NDArray[np.float32], documents: NDArray[np.float32], *rest: Any) -> Maps:
        seen["windows"], seen["documents"] = windows.copy(), documents.copy()
        return fit_maps(windows, documents, *rest)

    monkeypatch.setattr(learned_projection, "sample_windows", sample)
    monkeypatch.setattr(learned_projection, "fit_maps", fit)
    encoder = FDEEncoder(CONFIGS[name]).fit(ragged(CONFIGS[name].dimension), threads=1)
    plain = unprojected(encoder)
    found = seen["windows"] @ seen["documents"].T
    whole = encoded(plain, "queries", seen["cut"]) @ encoded(plain, "documents", seen["texts"]).T
    centered = [one - one.mean(axis=1, keepdims=True) for one in (found, whole)]
    np.testing.assert_allclose(centered[0], centered[1], atol=2e-3 * np.abs(centered[1]).max())
    cells = len(encoder.arrays["learned"].cells)
    variances = seen["documents"].var(axis=0, dtype=np.float64)
    assert variances[:cells].sum() == pytest.approx(variances[cells:].sum(), rel=1e-3)


# -- the fit ---------------------------------------------------------------------------


@given(some_seeds, st.floats(0.1, 10))
def test_maps_of_full_rank_find_a_bilinear_target(seed: int, factor: float) -> None:
    """S = factor X W' is the multiple of the identity itself; float32."""
    w, x, _ = random_sample(seed, 40, 30, 12)
    target = np.float32(factor) * x @ w.T
    wanted = target - target.mean(axis=0)
    np.testing.assert_allclose(products((w, x, target), 12), wanted, atol=1e-3 * np.abs(wanted).max())


#: Larger than in a fit, so that each of them counts.
LARGER = {"_WINDOW_RIDGE": 0.3, "_DOCUMENT_RIDGE": 0.5, "_SPREAD": 1.0, "_MEAN_SPREAD": 1.0}


def dense_form(sample: tuple[NDArray[np.float32], ...], size: int, means: int) -> NDArray[np.float64]:
    """Return the maps' products, (L, L), by the formulas with dense float64 arrays."""
    w, x, s = (part.astype(np.float64) for part in sample)
    x, s = x - x.mean(axis=0), s - s.mean(axis=0)
    plain = x @ w.T
    scale = np.vdot(plain, s) / np.vdot(plain, plain)
    inner, outer = w @ w.T, x @ x.T
    for matrix, ridge in ((inner, LARGER["_WINDOW_RIDGE"]), (outer, LARGER["_DOCUMENT_RIDGE"])):
        matrix += ridge * np.diag(matrix).mean() * np.eye(len(matrix))
    rest = np.linalg.solve(outer, s - scale * plain) @ np.linalg.inv(inner)
    form = scale * np.eye(w.shape[1]) + x.T @ rest @ w
    moment = x.T @ x / len(x) + LARGER["_SPREAD"] * np.square(x).mean() * np.eye(w.shape[1])
    last = np.arange(w.shape[1] - means, w.shape[1])
    moment[last, last] += LARGER["_MEAN_SPREAD"] * np.square(x[:, last]).mean()
    leading = np.linalg.eigh(w @ form.T @ moment @ form @ w.T)[1][:, -size:]
    factor = form @ w.T @ leading
    return np.asarray(factor @ np.linalg.solve(factor.T @ moment @ factor, factor.T @ moment @ form))


@given(some_seeds, st.integers(2, 8), st.integers(1, 5))
def test_maps_are_those_of_the_formulas(seed: int, size: int, means: int) -> None:
    """The module's docstring has the formulas; float32."""
    sample = random_sample(seed)
    for long in sample[:2]:
        long[:, -means:] *= 10
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LARGER.items():
            patch.setattr(learned_projection, name, value)
        maps = fit_maps(sample[0], sample[1].copy(), sample[2].copy(), size, means, seed=0)
    found, wanted = maps.documents.astype(np.float64) @ maps.queries.T, dense_form(sample, size, means)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


@given(some_seeds)
def test_the_correction_explains_what_the_identity_does_not(seed: int) -> None:
    """The form of full rank is nearer to S than the best multiple of X W'."""
    w, x, s = random_sample(seed)
    centered = s - s.mean(axis=0)
    plain = (x - x.mean(axis=0)) @ w.T
    scale = np.vdot(plain, centered) / np.vdot(plain, plain)
    assert np.linalg.norm(products((w, x, s), 30) - centered) < 0.6 * np.linalg.norm(scale * plain - centered)


@given(some_seeds, st.integers(2, 20))
def test_maps_are_better_than_random_columns(seed: int, size: int) -> None:
    """The best form of rank D, against one after a random projection.

    The projection has D columns.
    """
    sample = random_sample(seed)
    x, whole = sample[1], products(sample, 30)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((30, size)))[0]
    columns = (x - x.mean(axis=0)) @ basis
    reduced = columns @ np.linalg.lstsq(columns, whole, rcond=None)[0]
    assert np.linalg.norm(products(sample, size) - whole) < np.linalg.norm(reduced - whole)


@given(some_seeds)
def test_maps_are_nearly_the_best_of_their_rank(seed: int) -> None:
    """The SVD of the products bounds any form of rank D from below.

    SVD is the singular value decomposition.
    """
    sample = random_sample(seed)
    whole = products(sample, 30)
    values = np.linalg.svd(whole, compute_uv=False)
    for size in (4, 8):
        best = float(np.sqrt(np.square(values[size:]).sum()))
        # The spread of documents outside the sample costs less than a fifth here.
        assert best * 0.999 <= np.linalg.norm(products(sample, size) - whole) <= 1.2 * best


@given(some_seeds)
def test_more_columns_approximate_better(seed: int) -> None:
    """Reduced-rank forms are nested."""
    sample = random_sample(seed)
    whole = products(sample, 30)
    errors = [float(np.linalg.norm(products(sample, size) - whole)) for size in (1, 3, 6, 12, 24)]
    assert errors == sorted(errors, reverse=True)


@given(some_seeds, st.integers(1, 9))
def test_columns_that_the_sample_cannot_fill_are_zero(seed: int, count: int) -> None:
    """A form of n windows has rank n; exact."""
    w, x, s = random_sample(seed, windows=count, documents=5)
    maps = fit_maps(w, x.copy(), s.copy(), 12, 1, seed=0)
    assert maps.queries.shape == maps.documents.shape == (30, 12)
    assert not maps.queries[:, count:].any() and not maps.documents[:, count:].any()
    assert maps.queries[:, 0].any() and maps.documents[:, 0].any()


@given(some_seeds)
def test_mapped_documents_have_principal_axes_and_mean_zero(seed: int) -> None:
    """Columns are ordered by spread, and `mean` is the mean long document; float32."""
    w, x, s = random_sample(seed)
    maps = fit_maps(w, x.copy(), s.copy(), 8, 1, seed=0)
    np.testing.assert_allclose(maps.mean, x.mean(axis=0), atol=1e-5)
    mapped = (x - x.mean(axis=0)) @ maps.documents
    covariance = mapped.T @ mapped / len(x)
    spreads = np.diag(covariance)
    # The added spread of other documents turns the axes a little.
    assert (np.diff(spreads) <= 0.1 * spreads[0]).all()
    assert np.abs(covariance - np.diag(spreads)).max() < 0.15 * spreads[0]


@given(some_seeds, st.floats(0.01, 100))
def test_the_fit_scales_with_similarities(seed: int, factor: float) -> None:
    """Twice the similarities have twice the products; float32."""
    w, x, s = random_sample(seed)
    wanted = factor * products((w, x, s), 10)
    np.testing.assert_allclose(
        products((w, x, np.float32(factor) * s), 10), wanted, atol=2e-3 * np.abs(wanted).max()
    )


@given(some_seeds)
def test_a_constant_per_window_does_not_change_the_fit(seed: int) -> None:
    """Only differences between documents rank them; float32."""
    w, x, s = random_sample(seed)
    constants = 5 * np.random.default_rng(seed).standard_normal(len(w)).astype(np.float32)
    wanted = products((w, x, s), 10)
    np.testing.assert_allclose(products((w, x, s + constants), 10), wanted, atol=2e-3 * np.abs(wanted).max())


def test_maps_keep_means_that_do_not_vary_in_the_sample() -> None:
    """Documents of another kind vary in other columns of the mean token.

    These columns hardly vary in the sample.
    """
    rng = np.random.default_rng(0)
    long, means, quiet = 60, 15, 7
    spread = np.r_[np.ones(long - means), np.full(means - quiet, 2), np.full(quiet, 0.05)]
    windows = rng.normal(size=(300, long)).astype(np.float32)
    documents = (rng.normal(size=(200, long)) * spread).astype(np.float32)
    others = np.zeros((100, long))
    others[:, -quiet:] = rng.normal(size=(100, quiet))

    def errors(mean_columns: int) -> Iterator[float]:
        maps = fit_maps(windows, documents.copy(), documents @ windows.T, 30, mean_columns, seed=0)
        for texts in (documents - documents.mean(axis=0), others):
            difference = windows @ maps.queries @ (texts @ maps.documents).T - windows @ texts.T
            yield float(np.sqrt(np.mean(difference**2)))

    (known, other), (known_with, other_with) = errors(1), errors(means)
    assert other_with < 0.5 * other and known_with < 1.3 * known


# -- rounding --------------------------------------------------------------------------


def half_units(matrix: NDArray[Any], levels: float) -> NDArray[np.float64]:
    """Return half a unit of each column, if its largest entry has `levels` units."""
    peaks: NDArray[np.float64] = np.abs(matrix.astype(np.float64)).max(axis=0, initial=0)
    return peaks / levels / 2 * 1.001 + 1e-12


@given(some_seeds, st.integers(0, 9), st.integers(1, 8), st.integers(1, 12))
def test_rounding_errors_of_maps_are_bounded(seed: int, cells: int, means: int, size: int) -> None:
    """Half a unit per entry: 127 units in bytes.

    Clipping lowers the squares of half bytes.
    """
    rng = np.random.default_rng(seed)
    long = cells + 13 + means
    queries, documents = rng.standard_normal((2, long, size)).astype(np.float32)
    maps = Maps(queries, documents, rng.standard_normal(long).astype(np.float32))
    # Windows without anything: there is no error to correct.
    learned = ProjectionMaps.rounded(np.zeros((5, long), np.float32), maps, cells, means, 2.0)
    rounded_queries, rounded_documents = maps_of(learned)
    first, last = slice(0, cells), slice(cells + 13, None)
    assert (np.abs(2 * rounded_queries[first] - queries[first]) <= half_units(queries[first], 127)).all()
    assert (np.abs(rounded_queries[last] - queries[last]) <= half_units(queries[last], 127)).all()
    halves = slice(cells, cells + 13)
    error = np.square(rounded_queries[halves] - queries[halves]).sum(axis=0)
    assert (error <= 13 * np.square(half_units(queries[halves], 7.5))).all()
    rows = documents / learned.row_units[:, np.newaxis]
    bound = half_units(rows, 127) * learned.row_units[:, np.newaxis]
    assert (np.abs(rounded_documents - documents) <= bound + 1e-6).all()
    np.testing.assert_allclose(learned.offset, maps.mean @ rounded_documents, atol=1e-4)


@given(some_seeds)
def test_short_rows_of_a_map_lose_no_more_than_long_ones(seed: int) -> None:
    """`row_units`: rows from 1e-4 to 1e4 have their own units, to 2 %."""
    rng = np.random.default_rng(seed)
    queries, documents = rng.standard_normal((2, 30, 12)).astype(np.float32)
    documents *= 10 ** rng.uniform(-4, 4, (30, 1)).astype(np.float32)
    maps = Maps(queries, documents, np.zeros(30, np.float32))
    learned = ProjectionMaps.rounded(np.zeros((5, 30), np.float32), maps, 9, 8, 1.0)
    errors = np.linalg.norm(maps_of(learned)[1] - documents, axis=1)
    assert (errors < 0.02 * np.linalg.norm(documents, axis=1)).all()


def test_common_rounding_errors_of_queries_are_corrected() -> None:
    """Triangles that are about proportional to the number of tokens.

    They are so on a narrow cone.
    """
    rng = np.random.default_rng(0)
    lengths = rng.uniform(1, 9, (200, 1))
    windows = (lengths * (rng.normal(size=300) + 0.02 * rng.normal(size=(200, 300)))).astype(np.float32)
    windows = np.concatenate([windows, lengths], axis=1, dtype=np.float32)
    queries, documents = rng.normal(size=(2, 301, 20)).astype(np.float32)
    learned = ProjectionMaps.rounded(windows, Maps(queries, documents, np.zeros(301, np.float32)), 0, 1, 1)
    rounded, wanted = maps_of(learned)[0], windows @ queries
    assert half_bytes_to_int8(learned.triangles, 300).shape == (300, 20)
    assert np.linalg.norm(windows @ rounded - wanted) < 0.02 * np.linalg.norm(wanted)
    rounded[-1] = queries[-1]
    assert np.linalg.norm(windows @ rounded - wanted) > 0.05 * np.linalg.norm(wanted)


# -- encoders --------------------------------------------------------------------------


def rounding_of(encoder: FDEEncoder, side: Side, long: np.ndarray) -> NDArray[np.float64]:
    """Return a bound on the error of vectors: long vectors are rounded to 16 bits."""
    learned = encoder.arrays["learned"]
    matrix = maps_of(learned)[SIDES.index("queries") if side == "documents" else 0]
    units = learned.row_units if side == "documents" else np.ones(len(matrix))
    steps = np.abs(long * units).max(axis=1, keepdims=True) / 32767 * 0.51
    bound = steps * np.abs(matrix / units[:, np.newaxis]).sum(axis=0)
    return np.asarray(bound + 1e-5 * np.abs(long @ matrix).max())


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("side", SIDES)
def test_vectors_are_long_vectors_times_the_map(name: str, side: Side) -> None:
    encoder, documents = fitted(name), ragged(CONFIGS[name].dimension)
    documents = documents[np.flatnonzero(documents.lengths)]
    long = encoded(unprojected(encoder), side, documents).astype(np.float64)
    learned, blocks = encoder.arrays["learned"], encoder.arrays["blocks"]
    queries, mapped = maps_of(learned)
    cells = len(learned.cells)
    if side == "queries":
        long[:, :cells] *= float(blocks.units[0])  # which the map contains
        wanted, bound = long @ queries, rounding_of(encoder, side, long)
    else:
        wanted, bound = long @ mapped - learned.offset, rounding_of(encoder, side, long)
    assert (np.abs(encoded(encoder, side, documents) - wanted) <= bound).all()


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("side", SIDES)
def test_oracle(name: str, side: Side) -> None:
    """Plain NumPy from tokens on.

    A landmark encoder may round a token to either of two bytes.
    """
    encoder, documents = fitted(name), ragged(CONFIGS[name].dimension)
    vectors = encoded(encoder, side, documents)
    wanted = np.stack([expected(np.asarray(text), encoder, side) for text in documents])
    long = np.stack([long_vector(np.asarray(text), encoder, side) for text in documents])
    within = (np.abs(vectors - wanted) <= rounding_of(encoder, side, long)).all(axis=1)
    assert within.mean() >= (0.9 if "landmarks" in encoder.arrays else 1)
    assert np.abs(vectors - wanted).max() < 0.03 * np.abs(wanted).max()


@given(st.data(), st.sampled_from(LEARNED))
def test_queries_add_over_tokens(data: st.DataObject, name: str) -> None:
    """Maps are linear; each of the three long vectors is rounded to 16 bits."""
    encoder, dimension = fitted(name), CONFIGS[name].dimension
    first, second = (data.draw(some.token_arrays(dimension, least=1)) for _ in range(2))
    texts = [first, second, np.concatenate([first, second])]
    one, other, both = encoder.encode_queries(texts).astype(np.float64)
    cells, unit = len(encoder.arrays["learned"].cells), float(encoder.arrays["blocks"].units[0])
    long = encoded(unprojected(encoder), "queries", texts).astype(np.float64)
    long[:, :cells] *= unit
    bound = rounding_of(encoder, "queries", long).sum(axis=0)
    assert (np.abs(both - (one + other)) <= bound).all()


@pytest.mark.parametrize("name", LEARNED)
def test_vectors_of_the_sample_have_mean_zero(name: str) -> None:
    """Graphs work better if vectors share no direction."""
    documents = ragged(CONFIGS[name].dimension)
    vectors = fitted(name).encode_documents(documents[np.flatnonzero(documents.lengths)])
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.01 * lengths.mean()


def shifted(texts: MultiVectors, shift: float) -> MultiVectors:
    """Return the texts that have tokens, moved by `shift` in each column."""
    filled = texts[np.flatnonzero(texts.lengths)]
    return MultiVectors.from_flat(filled.tokens + np.float32(shift), filled.lengths)


@pytest.mark.parametrize("name", LEARNED)
def test_documents_that_give_no_windows_are_part_of_the_fit(name: str) -> None:
    """Vectors of both groups together have mean zero."""
    dimension = CONFIGS[name].dimension
    documents, others = (shifted(ragged(dimension, 40, seed), seed) for seed in (0, 1))
    encoder = fitted_without_queries_from(CONFIGS[name], [documents], others, 1)
    vectors = np.concatenate([encoder.encode_documents(texts) for texts in (documents, others)])
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.01 * np.linalg.norm(vectors, axis=1).mean()


def test_seeds_draw_different_windows_and_queries_count_for_coefficients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, documents = CONFIGS["moments"], ragged(CONFIGS["moments"].dimension)
    queries = shifted(ragged(config.dimension, 10, seed=1), 1)
    drawn: list[Any] = []

    def sample(*arguments: Any) -> MultiVectors:
        drawn.append(sample_windows(*arguments))
        windows: MultiVectors = drawn[-1]
        return windows

    monkeypatch.setattr(learned_projection, "sample_windows", sample)
    encoders = [FDEEncoder(replace(config, seed=seed)).fit(documents) for seed in (1, 2)]
    assert not np.array_equal(drawn[0].tokens[:40], drawn[1].tokens[:40])
    asked = FDEEncoder(replace(config, seed=1)).fit(documents, queries)
    own, other = (each.arrays["blocks"].to_arrays() for each in (encoders[0], asked))
    assert any(not np.array_equal(own[name], other[name]) for name in own)


@pytest.mark.parametrize("name", ["fde", "fde of means", "simhash, learned"])
def test_cells_and_moments_of_the_sample_spread_equally(name: str) -> None:
    """Ridges and the map treat all columns alike, up to float32.

    Neither of the two may be tiny.
    """
    encoder, documents = fitted(name), ragged(CONFIGS[name].dimension)
    documents = documents[np.flatnonzero(documents.lengths)]
    long = unprojected(encoder).encode_documents(documents).astype(np.float64)
    variances, cells = long.var(axis=0), len(encoder.arrays["learned"].cells)
    assert variances[:cells].sum() == pytest.approx(variances[cells:].sum(), rel=1e-3)


@pytest.mark.parametrize("name", ["fde", "moments", "simhash, learned"])
def test_a_sample_of_one_document_leaves_columns_zero(name: str) -> None:
    """Three windows give three columns at most."""
    encoder = FDEEncoder(CONFIGS[name]).fit(ragged(20)[:1])
    for side in SIDES:
        vectors = encoded(encoder, side, ragged(20))
        assert np.count_nonzero(vectors.any(axis=0)) <= 3


@settings(max_examples=5)
@given(st.integers(0, 20), st.sampled_from([("fde", 300), ("moments", 300)]))
def test_products_approximate_chamfer_better_than_the_mean_token(seed: int, preset: tuple[str, int]) -> None:
    """64 floats on their own sample: Chamfer's variance that products leave.

    The variance is taken per query.
    """
    name, count = preset
    documents = documents_like_real(count, seed)
    documents = documents[np.flatnonzero(documents.lengths)]
    queries = queries_like_real(documents, 30, seed)
    exact = chamfer_matrix(queries, documents)

    def unexplained(encoder: FDEEncoder) -> float:
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
        return float(np.mean([1 - np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(scores, exact, strict=True)]))

    learned = FDEEncoder.preset(name, 16, final_projection_dimension=64).fit(documents)
    assert unexplained(learned) < 0.8 * unexplained(FDEEncoder.preset("mean", 16).fit(documents))


@pytest.mark.parametrize("name", ["fde", "moments", "simhash, learned"])
def test_maps_are_fitted_to_the_queries(name: str) -> None:
    documents, queries = ragged(20, 80), ragged(20, 10, seed=1)
    first, second = (
        FDEEncoder(CONFIGS[name]).fit(documents, asked).arrays["learned"] for asked in (None, queries)
    )
    assert first is not None and second is not None
    assert not np.array_equal(first.sums, second.sums)
