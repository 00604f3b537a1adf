"""Landmark cells: maxima of documents, soft weights of queries, centered rows."""

from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from builders.fdes import (
    CONFIGS,
    SIDES,
    encoded,
    expected,
    fitted,
    landmarks_of,
    unit_rows,
)
from builders.realistic_collections import documents_like_real
from builders.token_collections import assert_close, ragged
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder, Landmarks, MultiVectors
from muvera.fde.landmark_kernels import NEAREST, landmark_queries, largest_products
from muvera.fde.landmarks import LandmarkArrays, cluster_means, learn_landmarks
from muvera.fde.tasks import Tokens

ENCODER = fitted("landmarks")
LANDMARKS: LandmarkArrays = ENCODER.arrays["landmarks"]
DIMENSION, COUNT = ENCODER.config.dimension, LANDMARKS.count
DIRECTIONS, CENTER = landmarks_of(ENCODER, "queries")
MEAN = landmarks_of(ENCODER, "documents")[1]
SEED = ENCODER.config.seed

#: Texts of up to 12 tokens, some of them equal.
texts = some.token_arrays(DIMENSION, least=1)

sharpness = st.floats(0.1, 50)


def tokens_of(*arrays: np.ndarray) -> Tokens:
    """Return texts as kernels take them."""
    floats = np.ascontiguousarray(np.concatenate(arrays), np.float32)
    offsets = np.cumsum([0, *(len(array) for array in arrays)])
    return Tokens(floats, np.empty((0, floats.shape[1]), np.uint16), offsets)


def maxima_of(*documents: np.ndarray) -> NDArray[np.float64]:
    """Return the largest products of documents before they are centered, (n, M)."""
    out = np.empty((len(documents), LANDMARKS.count), np.float32)
    largest_products(tokens_of(*documents), 0, len(documents), LANDMARKS.document_columns, out)
    return out.astype(np.float64)


def weights_of(query: np.ndarray, beta: float = 12.0, landmarks: LandmarkArrays = LANDMARKS) -> Any:
    """Return the weights of a query's cells before they are centered, float64 (M,)."""
    out = np.empty((1, landmarks.count), np.float32)
    landmark_queries(tokens_of(query), 0, 1, landmarks.directions, beta, out)
    return out[0].astype(np.float64)


def rounding(*documents: np.ndarray) -> float:
    """Return a bound on a maximum's error: half a unit per entry of its token."""
    unit = max(float(np.abs(tokens - MEAN).max()) for tokens in documents) / 127
    return float(0.51 * unit * np.abs(DIRECTIONS).sum(axis=1).max()) + 1e-5


def landmarks_at(directions: np.ndarray) -> LandmarkArrays:
    """Return landmarks at given directions, with the center 0."""
    zero = np.zeros(directions.shape[1], np.float32)
    scales = np.abs(directions).max(axis=1).astype(np.float32) / 127
    numbers = np.rint(directions / scales[:, np.newaxis]).astype(np.int8)
    return LandmarkArrays(zero, zero, np.ascontiguousarray(numbers.T), scales)


# -- documents -------------------------------------------------------------------------


@given(texts)
def test_a_documents_cells_are_its_largest_products(document: np.ndarray) -> None:
    """max_x <x, l_j> up to a constant per cell.

    Each entry is off by half of a 127th at most.
    """
    largest = ((document.astype(np.float64) - MEAN) @ DIRECTIONS.T).max(axis=0)
    assert np.abs(maxima_of(document)[0] - largest).max() <= rounding(document)
    cells = ENCODER.encode_documents(document)[0]
    assert np.abs(cells - (largest - largest.mean())).max() <= 2 * rounding(document)


@given(texts, texts)
def test_a_joined_documents_maxima_are_the_larger_ones(first: np.ndarray, second: np.ndarray) -> None:
    """So maxima are monotone in the tokens; both sides are rounded."""
    one, other, joined = maxima_of(first, second, np.concatenate([first, second]))
    assert np.abs(joined - np.maximum(one, other)).max() <= 2 * rounding(first, second)


@given(st.data(), texts, st.integers(1, 3))
def test_order_and_repetition_of_a_documents_tokens_do_not_matter(
    data: st.DataObject, document: np.ndarray, times: int
) -> None:
    """Maxima of the same set; exact."""
    order = data.draw(st.permutations(range(len(document))))
    other = np.concatenate([document[order]] * times)
    np.testing.assert_array_equal(ENCODER.encode_documents(other), ENCODER.encode_documents(document))


@given(texts, st.integers(-18, 18))
def test_documents_cells_scale_with_tokens(document: np.ndarray, exponent: int) -> None:
    """Tokens need no unit length, exactly.

    Short tokens are not rounded with the unit of long ones.
    """
    scale, sample = np.float32(2.0**exponent), ragged(DIMENSION, 8)
    usual = learn_landmarks(sample, 10, SEED)
    scaled = learn_landmarks(MultiVectors.from_flat(sample.tokens * scale, sample.lengths), 10, SEED)
    config = FDEConfig(DIMENSION, cells=Landmarks(10), moments=None, projection=None)
    wanted = FDEEncoder(config, landmarks=usual).encode_documents(document)
    found = FDEEncoder(config, landmarks=scaled).encode_documents(document * scale)
    np.testing.assert_array_equal(found, wanted * scale)


# -- queries ---------------------------------------------------------------------------


@given(texts, sharpness)
def test_the_weights_of_tokens_stay_below_their_lengths(query: np.ndarray, beta: float) -> None:
    """sum_j w_j(q) < |q|: the rest belongs to no landmark; float32."""
    weights = weights_of(query, beta)
    assert weights.sum() <= np.linalg.norm(query, axis=1).sum() * (1 + 1e-5)
    assert weights.min() >= 0


@pytest.mark.parametrize("beta", [4.0, 8.0, 20.0])
def test_a_token_at_the_cosine_of_no_landmark_is_shared_equally(beta: float) -> None:
    """One landmark at the cosine 0.7 and the place of none share the power.

    Each has |q| / 2.
    """
    landmark = landmarks_at(np.array([[1.0, 0.0]]))
    token = np.array([[0.7, np.sqrt(1 - 0.7**2)]], np.float32)
    # The token is rounded to 127ths, which moves its cosine by up to .004.
    assert weights_of(token, beta, landmark)[0] == pytest.approx(0.5, abs=0.25 * beta * 0.004)


@given(texts, sharpness)
def test_a_token_is_divided_among_its_nearest_landmarks(query: np.ndarray, beta: float) -> None:
    """16 cells.

    They are the nearest around the center, up to the rounding of a token.
    """
    token = query[:1]
    weights = weights_of(token, beta)
    chosen = np.flatnonzero(weights)
    assert len(chosen) <= NEAREST == 16
    direction = token[0] / np.linalg.norm(token[0].astype(np.float64)) - CENTER
    around = DIRECTIONS - CENTER
    cosines = around @ direction / np.linalg.norm(around, axis=1) / np.linalg.norm(direction)
    slack = 0.05
    assert cosines[chosen].min() >= np.sort(cosines)[-16] - slack
    # Weights grow with cosines.
    order = chosen[np.argsort(weights[chosen])]
    assert (np.diff(cosines[order]) >= -slack).all()


@given(st.integers(0, COUNT - 1), st.floats(0.01, 100), sharpness)
def test_a_token_at_a_landmark_has_its_largest_weight_there(number: int, length: float, beta: float) -> None:
    """Its cosine is 1.

    The cosines of other landmarks are less by more than the rounding.
    """
    assert weights_of(DIRECTIONS[number : number + 1] * length, beta).argmax() == number


@given(texts, texts)
def test_queries_cells_add_over_tokens(first: np.ndarray, second: np.ndarray) -> None:
    """Sums of weights, minus sums of means; float32."""
    total = ENCODER.encode_queries(first) + ENCODER.encode_queries(second)
    assert_close(ENCODER.encode_queries(np.concatenate([first, second])), total, 1e-5)


@given(texts, st.integers(-18, 18))
def test_queries_cells_scale_with_tokens(query: np.ndarray, exponent: int) -> None:
    """w_j(s q) = s w_j(q): cells depend on directions alone.  Exact."""
    scale = np.float32(2.0**exponent)
    wanted = ENCODER.encode_queries(query) * scale
    np.testing.assert_array_equal(ENCODER.encode_queries(query * scale), wanted)


@given(st.data(), texts)
def test_the_order_of_a_querys_tokens_does_not_matter(data: st.DataObject, query: np.ndarray) -> None:
    """Sums in another order; float32."""
    order = data.draw(st.permutations(range(len(query))))
    assert_close(ENCODER.encode_queries(query[order]), ENCODER.encode_queries(query), 1e-5)


@given(texts, st.floats(0.1, 20), st.floats(1.1, 3))
def test_sharper_cells_concentrate_weights(query: np.ndarray, beta: float, factor: float) -> None:
    """The largest share of the weights grows with beta; that of beta = 0 is 1 / 16."""
    token = query[:1] / np.linalg.norm(query[0])
    weights = [weights_of(token, b) for b in (beta, factor * beta)]
    soft, sharp = (own.max() / own.sum() for own in weights)
    assert 1 / 16 - 1e-5 <= soft <= sharp + 1e-6


@given(texts)
def test_weights_of_sharpness_0_are_equal(query: np.ndarray) -> None:
    """16 cells and the place of no landmark have the power exp(0) each."""
    weights = weights_of(query[:1], 0.0)
    length = float(np.linalg.norm(query[0]))
    np.testing.assert_allclose(weights[weights > 0], length / 17, rtol=1e-5)
    assert np.count_nonzero(weights) == 16


@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=5), texts, texts)
def test_sharp_cells_score_queries_at_landmarks_exactly(
    numbers: list[int], first: np.ndarray, second: np.ndarray
) -> None:
    """beta = 1000: two documents differ as their Chamfer similarities do.

    This holds before rows are centered.

    A token in the direction of a landmark stands for it, whatever its length.
    """
    landmarks, documents = DIRECTIONS[numbers], [first, second]
    query = landmarks / np.linalg.norm(landmarks, axis=1, keepdims=True)
    products = maxima_of(*documents) @ weights_of(query, 1000.0)
    exact = [oracle.chamfer(landmarks, document) for document in documents]
    # Landmarks have a cosine below .99 with each other: the others' weights are below
    # 1e-4.
    slack = len(numbers) * (2 * rounding(*documents) + 1e-3)
    assert products[0] - products[1] == pytest.approx(exact[0] - exact[1], abs=slack)


# -- both sides ------------------------------------------------------------------------


@given(texts, st.sampled_from(SIDES))
def test_rows_are_centered(text: np.ndarray, side: Any) -> None:
    """The mean of a text's cells is zero; float32 sums of 40 entries."""
    cells = encoded(ENCODER, side, text)[0].astype(np.float64)
    assert abs(cells.sum()) <= 1e-5 * np.abs(cells).sum() + 1e-6


@given(texts, st.lists(texts, min_size=3, max_size=3), st.floats(-100, 100))
def test_a_constant_in_all_cells_of_a_document_changes_no_product(
    query: np.ndarray, documents: list[np.ndarray], constant: float
) -> None:
    """So a document that is like everything does not rank first; float32."""
    cells = ENCODER.encode_queries(query)[0].astype(np.float64)
    vectors = ENCODER.encode_documents(documents).astype(np.float64)
    moved = vectors + np.array([[0.0], [constant], [-constant]])
    slack = 1e-6 * abs(constant) * np.abs(cells).sum() + 1e-9
    np.testing.assert_allclose(moved @ cells, vectors @ cells, atol=slack)


# -- learning --------------------------------------------------------------------------


def with_zeros(documents: MultiVectors, zeros: int) -> MultiVectors:
    """Return the documents and one of zeros."""
    tokens = np.concatenate([documents.tokens, np.zeros((zeros, documents.dimension), np.float32)])
    return MultiVectors.from_flat(tokens, [*documents.lengths, zeros])


@given(st.integers(1, 60), st.integers(0, 40), st.integers(0, 1000))
def test_landmarks_are_at_most_the_tokens_that_are_not_zero(count: int, zeros: int, seed: int) -> None:
    """min(M, such tokens) of them, around the mean direction; none is longer than 1."""
    documents = ragged(7, 4, longest=12)
    landmarks = learn_landmarks(with_zeros(documents, zeros), count, seed)
    assert landmarks.count == min(count, documents.num_tokens)
    directions = documents.tokens / np.linalg.norm(documents.tokens, axis=1, keepdims=True)
    np.testing.assert_allclose(landmarks.center, directions.mean(axis=0), atol=1e-6)
    lengths = np.linalg.norm(landmarks.landmarks * landmarks.scales, axis=0)
    assert lengths.max() <= 1 + 0.51 * np.sqrt(7) / 127
    assert lengths.min() > 0


@given(st.integers(0, 40), st.integers(0, 1000))
def test_few_tokens_are_the_landmarks(zeros: int, seed: int) -> None:
    """If M is as large as the sample, each token's direction is a landmark.

    Half a unit is the rounding to bytes.
    """
    documents = ragged(7, 4, longest=12)
    landmarks = learn_landmarks(with_zeros(documents, zeros), 60, seed)
    directions = documents.tokens / np.linalg.norm(documents.tokens, axis=1, keepdims=True)
    found = (landmarks.landmarks * landmarks.scales).T
    distances = np.abs(found[:, np.newaxis] - directions).max(axis=2)
    assert distances.min(axis=1).max() <= landmarks.scales.max() * 0.51
    assert sorted(distances.argmin(axis=1)) == list(range(len(directions)))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 1000))
def test_a_cluster_is_the_mean_of_the_directions_that_prefer_it(tokens: int, count: int, seed: int) -> None:
    """By the largest product, the first of ties; a landmark without directions stays.

    Entries are small integers, so products and their ties are exact.
    """
    rng = np.random.default_rng(seed)
    directions = rng.integers(-3, 4, (tokens, 3)).astype(np.float32)
    landmarks = rng.integers(-3, 4, (count, 3)).astype(np.float32)
    own: list[list[Any]] = [[] for _ in landmarks]
    for direction in directions:
        own[int(np.argmax([direction @ landmark for landmark in landmarks]))].append(direction)
    wanted = [np.mean(some, axis=0) if some else landmarks[j] for j, some in enumerate(own)]
    np.testing.assert_allclose(cluster_means(directions, landmarks, None), wanted, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_learned_landmarks_are_nearer_to_tokens_than_sampled_ones(seed: int) -> None:
    """Mean largest product of the sample's tokens around their mean: k-means raises it.

    Sampled tokens are landmarks whose cluster means are not taken.  Over 20 seeds the
    gain is .11 at least.
    """
    documents = documents_like_real(200)
    landmarks = learn_landmarks(documents, 50, seed)
    directions = documents.tokens / np.linalg.norm(documents.tokens, axis=1, keepdims=True)
    sampled = np.random.default_rng(seed).choice(directions, 50, replace=False)

    def nearest(points: NDArray[np.float64]) -> float:
        around = points - landmarks.center
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        return float(((directions - landmarks.center) @ around.T).max(axis=1).mean())

    assert nearest((landmarks.landmarks * landmarks.scales).T.astype(np.float64)) > nearest(sampled) + 0.05


@pytest.mark.parametrize("threads", [1, 3])
def test_landmarks_do_not_depend_on_threads(threads: int) -> None:
    documents = documents_like_real(200)
    usual, other = (learn_landmarks(documents, 300, SEED, each) for each in (None, threads))
    np.testing.assert_array_equal(other.landmarks, usual.landmarks)
    np.testing.assert_array_equal(other.scales, usual.scales)


def test_seeds_draw_other_landmarks() -> None:
    first, second = (learn_landmarks(ragged(20), 30, seed).landmarks for seed in (0, 1))
    assert not np.array_equal(first, second)


# -- the oracle ------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 8, 17, 48, 140])
@pytest.mark.parametrize("count", [1, 5, 16, 17, 64, 150])
def test_oracle(dimension: int, count: int) -> None:
    """A token may be rounded to either of two bytes.

    Of equal cosines, either may be taken.
    """
    config = FDEConfig(dimension, cells=Landmarks(count), moments=None, projection=None)
    documents = ragged(dimension, 30)
    encoder = FDEEncoder(config).fit(documents)
    for side in SIDES:
        close = []
        for text, cells in zip(documents, encoded(encoder, side, documents), strict=True):
            wanted = expected(np.asarray(text), encoder, side)
            errors = np.abs(cells - wanted)
            close.append(errors.max() < 1e-4 * max(1.0, float(np.abs(wanted).max())))
            assert errors.sum() <= 0.05 * (np.abs(wanted).sum() + 1e-3) or dimension == 1
        assert np.mean(close) > 0.9


@pytest.mark.parametrize(
    "name", ["landmarks and moments", "landmarks, sketched", "more landmarks than tokens"]
)
def test_oracle_of_cells_beside_moments(name: str) -> None:
    encoder, documents = fitted(name), ragged(CONFIGS[name].dimension)
    for side in SIDES:
        vectors = encoded(encoder, side, documents)
        wanted = np.stack([expected(np.asarray(text), encoder, side) for text in documents])
        close = np.abs(vectors - wanted).max(axis=1) < 1e-4 * np.abs(wanted).max()
        assert close.mean() > 0.9 and np.abs(vectors - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("length", [1, 3, 4, 5, 13])
def test_tokens_in_tiles(length: int) -> None:
    """Kernels take several tokens and many landmarks at a time."""
    rng = np.random.default_rng(length)
    landmarks = landmarks_at(unit_rows(rng, 150, 9))
    query = rng.standard_normal((length, 9)).astype(np.float32)
    directions = (landmarks.landmarks * landmarks.scales).T
    wanted = oracle.landmark_weights(query, directions, np.zeros(9), 12.0).sum(axis=0)
    assert_close(weights_of(query, 12.0, landmarks), wanted, 1e-3)


def test_of_equal_landmarks_the_first_ones_are_taken() -> None:
    """20 landmarks in one place, of which 16 have weights."""
    landmarks = landmarks_at(np.tile(unit_rows(np.random.default_rng(0), 1, 9), (20, 1)))
    weights = weights_of(np.ones((1, 9), np.float32), 12.0, landmarks)
    np.testing.assert_array_equal(np.flatnonzero(weights), np.arange(16))
    np.testing.assert_allclose(weights[:16], weights[0], rtol=1e-5)


@pytest.mark.parametrize("place", [0, 7, 20])
def test_a_nearer_landmark_takes_the_place_of_the_last_of_equal_ones(place: int) -> None:
    """20 landmarks in one place, and one at the token."""
    directions = np.insert(np.tile(np.eye(1, 9) + 0.1, (20, 1)), place, np.ones(9), axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = weights_of(np.ones((1, 9), np.float32), 1.0, landmarks_at(directions))
    wanted = {place, *[j for j in range(21) if j != place][:15]}
    assert set(np.flatnonzero(weights).tolist()) == wanted and weights.argmax() == place


# -- quality ---------------------------------------------------------------------------


def test_more_landmarks_approximate_chamfer_better() -> None:
    """The share of the variance of Chamfer that a query's products do not explain."""
    documents = documents_like_real(300)
    documents = documents[np.flatnonzero(documents.lengths)]
    queries = [np.asarray(documents[i])[:2] for i in range(0, 200, 5)]
    exact = np.array([[oracle.chamfer(q, text) for text in documents] for q in queries[:20]])
    left = []
    for count in (8, 64, 512):
        encoder = FDEEncoder.preset("fde", 16, num_landmarks=count, moments=None, final_projection=None).fit(
            documents
        )
        scores = encoder.encode_queries(queries[:20]) @ encoder.encode_documents(documents).T
        left.append(np.mean([1 - np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(scores, exact, strict=True)]))
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.25
