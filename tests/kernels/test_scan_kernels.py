"""Kernels of the scan of 4-bit codes against NumPy."""

from typing import Any

import numba
import numpy as np
import pytest

from muvera.kernels import scan
from muvera.kernels.jit import SHUFFLES

STEPS, ROWS = 3, 3 * scan.STEP // 2


def coded(queries: int, most: int = 63) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return eight blocks of codes, tables, and the sums of all rows.

    Entries of tables are up to `most`; sums are (queries, 512).
    """
    rng, number = np.random.default_rng(0), np.arange(ROWS)[:, np.newaxis]
    codes = rng.integers(0, 256, (8, ROWS, scan.BLOCK), dtype=np.uint8)
    tables = rng.integers(0, most + 1, (queries, ROWS, 2, scan.CENTROIDS), dtype=np.uint8)
    entries = [
        tables[:, number, 0, block & 15].astype(int) + tables[:, number, 1, block >> 4] for block in codes
    ]
    return codes.reshape(-1), tables, np.concatenate([own.sum(axis=1) for own in entries], axis=1)


@pytest.mark.parametrize("queries", [1, scan.TOGETHER])
@pytest.mark.parametrize("shuffles", SHUFFLES)
def test_block_sums_are_the_same_on_every_processor(shuffles: str, queries: int) -> None:
    codes, tables, sums = coded(queries + 1)
    add = scan.make_sums(shuffles, queries)
    call = numba.njit(lambda *arguments: add(*arguments))
    for block in range(3):
        expected = sums[1:, block * scan.BLOCK : (block + 1) * scan.BLOCK]
        out, hits = np.empty((queries, scan.BLOCK), np.uint16), np.empty(queries, np.uint64)
        bounds = np.append(0, expected[:, 7]).astype(np.uint16)
        start = block * ROWS * scan.BLOCK
        call(codes, start, STEPS, tables.reshape(-1), 1, bounds, out.reshape(-1), hits)
        np.testing.assert_array_equal(out, expected)
        bits = np.unpackbits(hits.view(np.uint8), bitorder="little").reshape(queries, -1)
        np.testing.assert_array_equal(bits, expected >= bounds[1:, np.newaxis])


@pytest.mark.parametrize("most", [1, 63])  # entries of 0 and 1 tie often
@pytest.mark.parametrize(("calls", "wanted"), [([(0, 8)], 7), ([(1, 3), (3, 8)], 100), ([(0, 1)], 20)])
@pytest.mark.parametrize("visible", ["all", "two thirds", "one block"])
def test_scan_keeps_the_best_and_the_earlier_of_equal_rows(
    most: int, calls: Any, wanted: int, visible: str
) -> None:
    codes, tables, every = coded(6, most)
    mask = np.arange(512) % 3 > 0 if visible == "two thirds" else np.ones(512, bool)
    if visible == "one block":
        mask[64:] = False
    words = np.packbits(mask, bitorder="little").view(np.uint64)
    sums, rows = np.empty((6, wanted + scan.BLOCK), np.uint16), np.empty((6, wanted + scan.BLOCK), np.int64)
    bounds, found, flat = np.zeros(6, np.uint16), np.zeros(6, np.int64), tables.reshape(-1)
    for start, stop in calls:
        scan.scan_codes(codes, STEPS, flat, words, start, stop, 1000, wanted, bounds, sums, rows, found)
    shown = np.arange(calls[0][0] * 64, calls[-1][1] * 64)
    shown = shown[mask[shown]]
    for q, count in enumerate(found):
        if count > wanted:
            scan.keep_best(sums[q], rows[q], count, wanted)
        kept = min(count, wanted)
        expected = np.sort(shown[np.argsort(-every[q, shown], kind="stable")[:wanted]])
        np.testing.assert_array_equal(rows[q, :kept], expected + 1000)
        np.testing.assert_array_equal(sums[q, :kept], every[q, expected])


def tables_of(query: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    tables = np.empty(len(centroids) * 16, np.uint8)
    scan.make_tables(query, centroids, np.empty((len(centroids), 16), np.float32), tables)
    return tables.reshape(-1, 16)


def test_codes_name_the_nearest_centroid_and_tables_hold_products() -> None:
    rng = np.random.default_rng(2)
    pairs = 2 * scan.STEP
    vectors = rng.normal(size=(70, 2 * pairs)).astype(np.float32)
    centroids = np.empty((pairs, 2, scan.CENTROIDS), np.float32)
    scan.fit_centroids(vectors, np.arange(16), 5, centroids)
    split = vectors.reshape(70, pairs, 2)
    distances = np.square(split[:, :, :, np.newaxis] - centroids).sum(axis=2)
    codes = np.zeros((2, pairs // 2, scan.BLOCK), np.uint8)
    scan.encode_rows(vectors, centroids, 10, 2, codes.reshape(-1))
    stored = codes.transpose(0, 2, 1).reshape(128, pairs // 2)[10:80]
    nibbles = np.stack([stored & 15, stored >> 4], axis=2).reshape(70, pairs)
    np.testing.assert_array_equal(nibbles, distances.argmin(axis=2))
    # Lloyd's iterations never raise the error above that of the first 16 rows as
    # centroids.
    first = np.square(split[:, :, :, np.newaxis] - split[:16].transpose(1, 2, 0)).sum(axis=2).min(axis=2)
    assert distances.min(axis=2).sum() < first.sum()

    query = rng.normal(size=2 * pairs).astype(np.float32)
    tables = tables_of(query, centroids)
    products = np.einsum("pc,pcj->pj", query.reshape(pairs, 2), centroids)
    above = products - products.min(axis=1, keepdims=True)
    widest = above.max(axis=1).reshape(-1, scan.STEP).sum(axis=1).max()
    np.testing.assert_allclose(tables, above * (253 / widest), atol=0.51)


def test_sums_of_a_step_and_of_all_steps_fit() -> None:
    pairs = 300 * scan.STEP
    centroids = np.ones((pairs, 2, scan.CENTROIDS), np.float32)
    centroids[:, :, 1] = 0
    most = tables_of(np.ones(2 * pairs, np.float32), centroids).max(axis=1).astype(int)
    assert most.sum() <= scan.MAX_SUM and most.reshape(-1, scan.STEP).sum(axis=1).max() <= 255
    assert most.sum() > 0.9 * scan.MAX_SUM
