"""Kernels of the scan of 4-bit codes against NumPy, and every instruction set against plain code."""

from typing import Any

import numpy as np
import pytest

from muvera.kernels import scan
from muvera.kernels.jit import SHUFFLES, kernel

STEPS, ROWS = 3, scan.STEP // 2


def sums_of(codes: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Return the sums of all rows with one query's tables."""
    blocks = codes.reshape(-1, STEPS * ROWS, scan.BLOCK)
    entries = tables.reshape(STEPS * ROWS, 2, scan.CENTROIDS).astype(int)
    rows = np.arange(STEPS * ROWS)[:, np.newaxis]
    sums: np.ndarray = np.concatenate(
        [(entries[rows, 0, block & 15] + entries[rows, 1, block >> 4]).sum(axis=0) for block in blocks]
    )
    return sums


def inputs(seed: int, blocks: int, queries: int, most: int = 63) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, blocks * STEPS * ROWS * scan.BLOCK, dtype=np.uint8)
    return codes, rng.integers(0, most + 1, (queries, STEPS * scan.STEP * scan.CENTROIDS), dtype=np.uint8)


@pytest.mark.parametrize("queries", [1, scan.TOGETHER])
@pytest.mark.parametrize("name", SHUFFLES)
def test_block_sums_are_the_same_on_every_processor(name: str, queries: int) -> None:
    codes, tables = inputs(0, 3, queries + 1)
    emitted = scan.make_sums(name, queries)

    @kernel
    def call(codes: Any, start: Any, tables: Any, bounds: Any, out: Any, hits: Any) -> None:
        emitted(codes, start, STEPS, tables, 1, bounds, out, hits)

    expected = np.array([sums_of(codes, table) for table in tables[1:]]).reshape(queries, 3, -1)
    for block in range(3):
        out, hits = np.empty(queries * scan.BLOCK, np.uint16), np.empty(queries, np.uint64)
        bounds = np.append(0, expected[:, block, 7]).astype(np.uint16)
        call(codes, block * STEPS * ROWS * scan.BLOCK, tables.reshape(-1), bounds, out, hits)
        np.testing.assert_array_equal(out.reshape(queries, -1), expected[:, block])
        for q in range(queries):
            bits = [i for i in range(scan.BLOCK) if int(hits[q]) >> i & 1]
            assert bits == np.flatnonzero(expected[q, block] >= bounds[q + 1]).tolist()


def scanned(codes: np.ndarray, tables: np.ndarray, words: np.ndarray, calls: Any, wanted: int) -> Any:
    """Return the sums and rows of the best after consecutive calls, each with blocks `start` to `stop`."""
    shape = (len(tables), wanted + scan.BLOCK)
    sums, rows = np.empty(shape, np.uint16), np.empty(shape, np.int64)
    bounds, found = np.zeros(len(tables), np.uint16), np.zeros(len(tables), np.int64)
    flat = tables.reshape(-1)
    for start, stop in calls:
        scan.scan_codes(codes, STEPS, flat, words, start, stop, 1000, wanted, bounds, sums, rows, found)
    for q, n in enumerate(found):
        if n > wanted:
            scan.keep_best(sums[q], rows[q], n, wanted, np.empty(256, np.int64))
    return [(sums[q, : min(n, wanted)], rows[q, : min(n, wanted)]) for q, n in enumerate(found)]


@pytest.mark.parametrize("most", [1, 63])  # entries of 0 and 1 tie often
@pytest.mark.parametrize(("calls", "wanted"), [([(0, 8)], 7), ([(1, 3), (3, 8)], 100), ([(0, 1)], 20)])
@pytest.mark.parametrize("visible", ["all", "two thirds", "one block"])
def test_scan_keeps_the_best_and_the_earlier_of_equal_rows(
    most: int, calls: Any, wanted: int, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, tables = inputs(1, 8, 6, most)
    mask = np.arange(512) % 3 > 0 if visible == "two thirds" else np.ones(512, bool)
    if visible == "one block":
        mask[64:] = False
    words = np.packbits(mask, bitorder="little").view(np.uint64)
    for q, (sums, rows) in enumerate(scanned(codes, tables, words, calls, wanted)):
        every = sums_of(codes, tables[q])
        shown = np.arange(calls[0][0] * 64, calls[-1][1] * 64)
        shown = shown[mask[shown]]
        expected = np.sort(shown[np.argsort(-every[shown], kind="stable")[:wanted]])
        np.testing.assert_array_equal(rows, expected + 1000)
        np.testing.assert_array_equal(sums, every[expected])


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
    # Lloyd's iterations never raise the error above that of the first 16 rows as centroids.
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
