"""Kernels of the scan of 4-bit codes against NumPy, and every instruction set against plain code."""

from typing import Any

import numpy as np
import pytest

from muvera.kernels import scan
from muvera.kernels.jit import INTERPRETED, kernel
from muvera.kernels.token_codes import SHUFFLES

GROUPS = 5


def sums_of(codes: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Return the sums of all rows with one query's tables."""
    blocks = codes.reshape(-1, GROUPS, scan.BLOCK)
    entries = tables.reshape(GROUPS, 2, scan.CENTROIDS).astype(int)
    groups = np.arange(GROUPS)[:, np.newaxis]
    sums: np.ndarray = np.concatenate(
        [(entries[groups, 0, block & 15] + entries[groups, 1, block >> 4]).sum(axis=0) for block in blocks]
    )
    return sums


def inputs(seed: int, blocks: int, queries: int, most: int = 255) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, blocks * GROUPS * scan.BLOCK, dtype=np.uint8)
    return codes, rng.integers(0, most + 1, (queries, GROUPS * 32), dtype=np.uint8)


@pytest.mark.parametrize("name", ["plain", *SHUFFLES])
def test_block_sums_are_the_same_on_every_processor(name: str) -> None:
    codes, tables = inputs(0, 3, 1)
    emitted = scan._emit_sums(SHUFFLES[name]) if name != "plain" and not INTERPRETED else scan._plain_sums

    @kernel
    def call(codes: Any, start: Any, tables: Any, bound: Any, out: Any) -> Any:
        return emitted(codes, start, GROUPS, tables, bound, out)

    for block in range(3):
        out = np.empty(scan.BLOCK, np.uint16)
        expected = sums_of(codes, tables[0])[block * 64 :][:64]
        bound = np.uint16(expected[7])
        hits = call(codes, block * GROUPS * scan.BLOCK, tables[0], bound, out)
        np.testing.assert_array_equal(out, expected)
        assert [i for i in range(64) if int(hits) >> i & 1] == np.flatnonzero(expected >= bound).tolist()


def test_sums_reach_65535() -> None:
    groups, codes = 128, np.zeros(128 * scan.BLOCK, np.uint8)
    tables, out = np.full(groups * 32, 255, np.uint8), np.empty(scan.BLOCK, np.uint16)
    rows, found = np.empty((1, 70), np.int64), np.empty(1, np.int64)
    sums = np.empty((1, 70), np.uint16)
    scan.scan_codes(
        codes, groups, tables[np.newaxis], out[:0].astype(np.uint8), 0, 4, 64, 4, sums, rows, found
    )
    assert sums[0, :4].tolist() == [65_280] * 4 and rows[0, :4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("most", [1, 255])  # entries of 0 and 1 tie often
@pytest.mark.parametrize(
    ("start", "stop", "wanted", "tile"), [(0, 500, 7, 64), (64, 511, 100, 128), (0, 9, 20, 64)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_scan_keeps_the_best_and_the_earlier_of_equal_rows(
    most: int, start: int, stop: int, wanted: int, tile: int, masked: bool
) -> None:
    codes, tables = inputs(1, 8, 3, most)
    mask = (np.arange(512) % 3 > 0).astype(np.uint8) if masked else np.empty(0, np.uint8)
    sums, rows = np.empty((3, wanted + 64), np.uint16), np.empty((3, wanted + 64), np.int64)
    found = np.empty(3, np.int64)
    scan.scan_codes(codes, GROUPS, tables, mask, start, stop, tile, wanted, sums, rows, found)
    for q in range(3):
        every = sums_of(codes, tables[q])
        visible = np.arange(start, stop)
        if masked:
            visible = visible[mask[visible] > 0]
        expected = np.sort(visible[np.argsort(-every[visible], kind="stable")[:wanted]])
        np.testing.assert_array_equal(rows[q, : found[q]], expected)
        np.testing.assert_array_equal(sums[q, : found[q]], every[expected])


def test_codes_name_the_nearest_centroid_and_tables_hold_products() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(70, 6)).astype(np.float32)
    centroids = np.empty((3, 2, scan.CENTROIDS), np.float32)
    scan.fit_centroids(vectors, np.arange(16), 5, centroids)
    pairs = vectors.reshape(70, 3, 2)
    distances = np.square(pairs[:, :, :, np.newaxis] - centroids).sum(axis=2)
    codes = np.zeros((2, 2, scan.BLOCK), np.uint8)
    scan.encode_rows(vectors, centroids, 10, 2, codes.reshape(-1))
    stored = codes.transpose(0, 2, 1).reshape(128, 2)[10:80]
    nibbles = np.stack([stored & 15, stored >> 4], axis=2).reshape(70, 4)[:, :3]
    np.testing.assert_array_equal(nibbles, distances.argmin(axis=2))
    # Lloyd's iterations never raise the error above that of the first 16 rows as centroids.
    first = (
        np.square(pairs[:, :, :, np.newaxis] - pairs[:16].transpose(1, 2, 0)).sum(axis=2).min(axis=2).sum()
    )
    assert distances.min(axis=2).sum() < first

    query = rng.normal(size=6).astype(np.float32)
    tables = np.empty(2 * 32, np.uint8)
    scan.make_tables(query, centroids, 255, np.empty((3, 16), np.float32), tables)
    products = np.einsum("pc,pcj->pj", query.reshape(3, 2), centroids)
    above = products - products.min(axis=1, keepdims=True)
    np.testing.assert_allclose(tables[:48].reshape(3, 16), above * (255 / above.max()), atol=0.51)
    assert tables.max() == 255 and not tables[48:].any()
