"""Scores of coded texts: those of decoded texts, up to the rounding to bytes, whatever the order and threads."""

import numpy as np
import pytest

from muvera import MultiVectors, chamfer_matrix
from muvera.kernels.byte_tile import ADDITIONS
from muvera.kernels.code_scores import PAIR_ROWS, make_maxima
from muvera.kernels.tile import LANES, ROWS
from muvera.reranking.codecs import CODECS, fit_codec
from muvera.reranking.codecs.base import CodedSlice, CodedVectors, score_coded


def texts(seed: int, lengths: list[int], dimension: int) -> MultiVectors:
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((sum(lengths), dimension)) + 0.5
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return MultiVectors.from_flat(found.astype(np.float32), lengths)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(("dimension", "query_tokens"), [(1, 1), (6, 3), (13, 17), (48, 33), (128, 32)])
def test_scores_are_those_of_decoded_texts(name: str, dimension: int, query_tokens: int) -> None:
    documents = texts(0, [3, 0, 1, 40, 9, 8, 17], dimension)
    query = texts(1, [query_tokens], dimension)
    tokens = query.tokens.astype(np.float32)
    codec = fit_codec(name, texts(2, [400], dimension).tokens.astype(np.float32))
    coded = CodedVectors.of(codec, documents)
    positions = np.array([6, 3, 1, 0, 4])
    places = np.array([4, 0, 2, 1, 3])
    slices: list[CodedSlice] = [(coded, positions, places)]
    expected = chamfer_matrix(query, coded.decoded())[0][positions]
    for threads in (1, 2, 3):
        found = score_coded(tokens, codec, slices, 5, threads=threads)[places]
        assert found[2] == -np.inf
        filled = [0, 1, 3, 4]
        # Both are rounded to 127ths of their largest entry: half a step a product at most, mostly less.
        np.testing.assert_allclose(found[filled], expected[filled], atol=0.02 * query_tokens)
        if threads == 1:
            first = found
        np.testing.assert_array_equal(found, first)
    mean = score_coded(tokens, codec, slices, 5, mean=True)[places]
    np.testing.assert_allclose(mean[filled], found[filled] / query_tokens, rtol=1e-5)


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
    from muvera.kernels.jit import kernel

    @kernel
    def run(codes, columns, biases, factors, best):  # type: ignore[no-untyped-def]
        last = factors.shape[0] - 1
        for row in range(0, factors.shape[0], step):
            raising(codes, start, stride, row, last, depth, columns, 0, biases, factors, best)

    run(codes, columns.reshape(-1), biases, factors, best)
    matrix = columns.transpose(0, 2, 1, 3).reshape(panels * LANES, depth).astype(np.int64)
    sums = (rows.astype(np.int64) @ matrix.T).astype(np.float32)
    expected = ((sums - biases) * factors[:, np.newaxis]).max(axis=0)
    np.testing.assert_array_equal(best, expected)
