"""Token codecs: the stored format, the loss, and codes.

Codes depend only on the token and the codec.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer_matrix
from muvera.kernels.byte_tile import ADDITIONS
from muvera.kernels.jit import kernel
from muvera.kernels.tile import LANES, ROWS
from muvera.kernels.token_codes import PAIR_ROWS, make_maxima
from muvera.reranking.codec_files import read_codec, write_codec
from muvera.reranking.codecs import (
    CODECS,
    TokenCodec,
    fit_plaid_codec,
    plaid_centroids,
)
from muvera.reranking.coded_vectors import CodedVectors, rank_decoded, score_coded

#: Largest mean of 1 - cosine between a random unit token of 128 coordinates and its
#: decoded code: a little above the Gaussian rate-distortion of a scalar quantizer
#: (.363, .118, .0095 of the variance).
LOSS = {"int8": 1e-4, "4bit": 0.008, "2bit": 0.07, "1bit": 0.21}


def tokens(seed: int, count: int, dimension: int) -> np.ndarray:
    """Unit tokens around some topics."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((20, dimension))[rng.integers(0, 20, count)]
    rows = rows + rng.standard_normal((count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


each_codec = pytest.mark.parametrize("name", CODECS)


@pytest.fixture(params=CODECS, scope="module")
def codec(request: pytest.FixtureRequest) -> TokenCodec:
    """A fitted codec of 24 coordinates."""
    return CODECS[request.param](tokens(0, 3000, 24), threads=1)


@each_codec
def test_bytes_and_loss_of_128_coordinates(name: str) -> None:
    sample = np.random.default_rng(5).standard_normal((6000, 128)).astype(np.float32)
    codec, rest = CODECS[name](sample[:5000]), sample[5000:]
    codes = codec.encode(rest)
    width = {"int8": 130, "4bit": 67, "2bit": 35, "1bit": 19}[name]
    assert codes.shape == (1000, width) and codec.bytes_per_token == width
    decoded, norms = codec.decode(codes), np.linalg.norm(rest, axis=1)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), norms, rtol=5e-3 if name == "int8" else 6e-4)
    cosines = (decoded * rest).sum(1) / norms / np.linalg.norm(decoded, axis=1)
    assert 1 - cosines.mean() < LOSS[name]


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 70), st.floats(0.01, 100))
@settings(max_examples=10)
def test_int8_codes_of_decoded_tokens_are_the_same(
    seed: int, count: int, dimension: int, scale: float
) -> None:
    rows = tokens(seed, count, dimension) * np.float32(scale)
    rows[::3] *= np.float32(1e-6)  # closer to each other than a typical token's steps
    codec = CODECS["int8"](rows)
    codes = codec.encode(rows)
    np.testing.assert_array_equal(codec.encode(codec.decode(codes)), codes)


def test_codes_depend_on_the_token_alone_and_fits_not_on_threads(codec: TokenCodec) -> None:
    rows = tokens(1, 9000, 24)
    codes = codec.encode(rows, threads=1)
    np.testing.assert_array_equal(codec.encode(rows, threads=2), codes)
    np.testing.assert_array_equal(codec.encode(rows[8500:8507], threads=1), codes[8500:8507])
    np.testing.assert_array_equal(codec.decode(codes, 2)[8190:8200], codec.decode(codes[8190:8200], 1))
    again = CODECS[codec.name](tokens(0, 3000, 24), threads=2).arrays
    for key, array in codec.arrays.items():
        np.testing.assert_array_equal(array, again[key])


@pytest.mark.parametrize(
    ("dimension", "count"), [(1, 1), (1, 2), (2, 300), (3, 1), (13, 2), (48, 1), (48, 300)]
)
@each_codec
def test_any_dimension_and_few_tokens(name: str, dimension: int, count: int) -> None:
    rows = tokens(0, count, dimension)
    codec = CODECS[name](rows)
    decoded = codec.decode(codec.encode(rows))
    assert decoded.shape == rows.shape and np.isfinite(decoded).all()
    if count == 1:
        np.testing.assert_allclose(decoded, rows, atol=5e-3)


@each_codec
def test_constant_zero_and_long_tokens(name: str) -> None:
    same = np.tile(np.array([0.6, 0.8, 0], np.float32), (50, 1))
    codec = CODECS[name](same)
    np.testing.assert_allclose(codec.decode(codec.encode(same)), same, atol=5e-3)
    zeros = np.zeros((5, 3), np.float32)
    np.testing.assert_allclose(codec.decode(codec.encode(zeros)), zeros, atol=1e-2)
    codec = CODECS[name](zeros)
    np.testing.assert_array_equal(codec.decode(codec.encode(zeros)), zeros)
    rows = tokens(4, 2000, 16) * np.float32(1000)
    rows[::7] *= np.float32(0.01)
    codec = CODECS[name](rows)
    norms = np.linalg.norm(codec.decode(codec.encode(rows)), axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=0.1 if name == "int8" else 2e-3)


def decoded_by_hand(arrays: dict[str, np.ndarray], code: np.ndarray) -> np.ndarray:
    """Decode a residual code with a one-byte centroid.

    docs/index-format.md describes it.
    """
    bits = int(np.log2(len(arrays["levels"])))
    factor = np.frombuffer(code[1:3].tobytes(), "<f2")[0].astype(np.float64)
    flat = np.unpackbits(code[3:])
    total = []
    for j, scale in enumerate(arrays["scales"]):
        bucket = sum(int(flat[j * bits + i]) << i for i in range(bits))
        total.append(arrays["centroids"][code[0], j] + scale * arrays["levels"][bucket])
    rotated: np.ndarray = np.array(total) @ arrays["rotation"].T.astype(np.float64)
    return np.asarray(factor * arrays["unit"][0] * rotated)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_format_is_the_documented_one(bits: int) -> None:
    dimension = 5 if bits == 1 else 24
    codec = CODECS[f"{bits}bit"](tokens(0, 3000, dimension))
    codes = codec.encode(tokens(1, 20, dimension))
    expected = np.array([decoded_by_hand(codec.arrays, code) for code in codes])
    np.testing.assert_allclose(codec.decode(codes), expected, atol=1e-5)
    codes[3, 0] = 255  # a damaged number beyond the centroids
    assert np.isfinite(CODECS[f"{bits}bit"](tokens(0, 20, dimension)).decode(codes)).all()


def test_files_are_read_again_and_damaged_ones_refused(codec: TokenCodec, tmp_path: Path) -> None:
    kind = write_codec(codec, tmp_path)
    read = read_codec(tmp_path, kind, 24)
    rows = tokens(1, 100, 24)
    np.testing.assert_array_equal(read.encode(rows), codec.encode(rows))
    assert read.name == codec.name
    with pytest.raises(ValueError, match=r"25"):
        read_codec(tmp_path, kind, 25)
    for path in sorted(tmp_path.iterdir()):
        before = np.load(path)
        positive = path.name in ("codec_scales.npy", "codec_unit.npy")
        damages = [before[..., :-1], np.full_like(before, np.nan), before.astype(np.float64), 0 * before]
        for damaged in damages[: 4 if positive else 3]:
            if path.name != "codec_unit.npy" or damaged.dtype != np.float64:
                np.save(path, damaged)
                with pytest.raises(ValueError, match="codec"):
                    read_codec(tmp_path, kind, 24)
        np.save(path, before)
    with pytest.raises(ValueError, match=r"'zip'.*int8, residual"):
        read_codec(tmp_path, "zip", 24)
    with pytest.raises(ValueError, match=r"8 columns.*dimension=24"):
        codec.encode(tokens(0, 3, 8))
    wrong: list[Any] = [np.zeros((3, 5), np.uint8), np.zeros((3, codec.bytes_per_token), np.int16)]
    for codes in wrong:
        with pytest.raises(ValueError, match=f"{codec.bytes_per_token} columns"):
            CodedVectors.from_lengths(codec, codes, [3])


# -- PLAID's codec ------------------------------------------------------------


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_weights_are_the_midpoints_or_means_of_buckets(nbits: int) -> None:
    rows, count = tokens(0, 3000, 32), 2**nbits
    midpoints = fit_plaid_codec(rows, nbits, 16).arrays
    means = fit_plaid_codec(rows, nbits, 16, bucket_means=True, threads=1).arrays
    centroids = midpoints["centroids"]
    np.testing.assert_array_equal(centroids, means["centroids"])
    assert centroids.shape == (16, 32)
    np.testing.assert_array_equal(centroids, centroids.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=2e-3)
    rest = np.sort(rows - centroids[(rows @ centroids.T).argmax(axis=1)], axis=None)
    quantiles = np.quantile(rest, (np.arange(count) + 0.5) / count)
    np.testing.assert_allclose(midpoints["levels"], quantiles, atol=1e-5)
    expected = [bucket.mean() for bucket in np.array_split(rest, count)]
    np.testing.assert_allclose(means["levels"], expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_fewer_tokens_than_centroids_of_plaid(count: int) -> None:
    same = np.tile(np.full(8, 0.5, np.float32), (count, 1))
    codec = fit_plaid_codec(same, 2, 16)
    np.testing.assert_allclose(codec.decode(codec.encode(same)), same, rtol=1e-3)


@pytest.mark.parametrize(
    ("count", "centroids"), [(0, 16), (1, 16), (100, 128), (56_658, 2048), (10**6, 8192)]
)
def test_numbers_of_centroids_of_plaid(count: int, centroids: int) -> None:
    assert plaid_centroids(count) == centroids


# -- scores -------------------------------------------------------------------


@each_codec
@pytest.mark.parametrize(("dimension", "query_tokens"), [(1, 1), (13, 17), (128, 32)])
def test_scores_are_those_of_decoded_texts(name: str, dimension: int, query_tokens: int) -> None:
    documents = MultiVectors.from_flat(tokens(0, 78, dimension), [3, 0, 1, 40, 9, 8, 17])
    query = tokens(1, query_tokens, dimension)
    codec = CODECS[name](tokens(2, 400, dimension))
    coded = CodedVectors.of(codec, documents)
    positions = np.array([6, 3, 1, 0, 4])
    runs = [(coded, positions[:3]), (coded, positions[3:])]
    expected = chamfer_matrix(query, coded.decoded())[0][positions]
    scores = [score_coded(query, codec, runs, threads=threads) for threads in (1, 2, 3)]
    # Query and codes are rounded to 127ths of their largest entry: at most half a step
    # per product.
    np.testing.assert_allclose(scores[0], expected, atol=0.02 * query_tokens)
    assert scores[0][2] == -np.inf
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


@each_codec
def test_the_best_by_codes_are_scored_by_decoded_tokens(name: str) -> None:
    documents = MultiVectors.from_flat(tokens(0, 1000, 20), [5, 0, 80, 40, 9, *[18] * 48, 2])
    query, positions = tokens(1, 19, 20), np.arange(54)[::-1].copy()
    codec = CODECS[name](np.asarray(documents.tokens, np.float32))
    coded = CodedVectors.of(codec, documents)
    expected = chamfer_matrix(query, coded.decoded())[0]
    scores = rank_decoded(query, codec, [(coded, positions[:20]), (coded, positions[20:])], 3, None)
    if name == "int8":  # other codecs rotate the query instead of all tokens
        np.testing.assert_array_equal(scores, expected[positions])
    np.testing.assert_allclose(scores, expected[positions], rtol=1e-5)
    order = np.argsort(-expected)[:53]
    few = rank_decoded(query, codec, [(coded, order)], 3, expected[order])
    filled = few > -np.inf
    assert 8 <= filled.sum() < 40 and filled[: filled.sum()].all()  # estimates without errors soon end it
    np.testing.assert_allclose(few[filled], expected[order][filled], rtol=1e-5)


@pytest.mark.parametrize("addition", ADDITIONS)
@pytest.mark.parametrize("panels", [1, 2])
def test_all_ways_to_add_give_the_same_bits(addition: str, panels: int) -> None:
    rng = np.random.default_rng(0)
    depth, count = 20, ROWS + 3
    start, stride = 3, depth + 2
    codes = rng.integers(0, 256, start + count * stride).astype(np.uint8)
    rows = codes[start:].reshape(count, stride)[:, :depth]
    step = ROWS if panels == 1 else PAIR_ROWS
    columns = rng.integers(-127, 128, (panels, depth // 4, LANES, 4)).astype(np.int8)
    biases = rng.standard_normal(panels * LANES).astype(np.float32) * 100
    factors = rng.random(count).astype(np.float32)
    best = np.full(panels * LANES, -np.inf, np.float32)
    raising = make_maxima(addition)[panels - 1]

    @kernel
    def run(codes, columns, biases, factors, best):  # type: ignore[no-untyped-def]
        last = factors.shape[0] - 1
        for row in range(0, factors.shape[0], step):
            raising(codes, start, stride, row, last, depth, columns, 0, biases, factors, best)

    run(codes, columns.reshape(-1), biases, factors, best)
    matrix = columns.transpose(0, 2, 1, 3).reshape(panels * LANES, depth).astype(np.int64)
    sums = (rows.astype(np.int64) @ matrix.T).astype(np.float32)
    np.testing.assert_array_equal(best, ((sums - biases) * factors[:, np.newaxis]).max(axis=0))
