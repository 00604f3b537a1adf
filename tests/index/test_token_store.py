"""TokenStore: texts by row through merging and staging.

Mapped files are not read or held in memory.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

import muvera.index.token_store as module
from muvera import MultiVectors
from muvera.index import page_cache
from muvera.index.page_cache import PageCache
from muvera.index.token_store import Segment, TokenStore, write_tokens
from muvera.utils import arrays
from muvera.utils.arrays import ask_for, forget, load_npy, resident_share

DIM = 6


def float_store() -> TokenStore[MultiVectors]:
    return TokenStore(MultiVectors.from_flat, "tokens")


def texts(seed: int, lengths: Any, dtype: Any = np.float32) -> MultiVectors:
    tokens = np.random.default_rng(seed).standard_normal((int(np.sum(lengths)), DIM))
    return MultiVectors.from_flat(tokens.astype(dtype), np.asarray(lengths, np.int64))


def assert_same(rows: Any, expected: Any) -> None:
    assert len(rows) == len(expected)
    for a, b in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=5), some.dtypes), min_size=1, max_size=9
    ),
    st.sampled_from([None, 1, 300, 10**9]),
    st.data(),
)
def test_a_store_is_a_list_of_texts(
    tmp_path_factory: pytest.TempPathFactory, batches: Any, staging_bytes: int | None, data: st.DataObject
) -> None:
    store, staging = float_store(), None if staging_bytes is None else tmp_path_factory.mktemp("staging")
    expected: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STAGING_BYTES", staging_bytes or 1)
        for i, (lengths, dtype) in enumerate(batches):
            store.append(texts(i, lengths, dtype), staging)
            expected.extend(texts(i, lengths, dtype))
        if staging is not None and data.draw(st.booleans()):
            store.flush(staging)
            assert all(segment.path is not None for segment in store.segments)
        elif staging is None:
            patch.setattr(module, "_JOINED_BYTES", data.draw(st.sampled_from([0, 1 << 20])))
            before = len(store.segments)
            store.flush(None)
            assert len(store.segments) == (min(before, 1) if module._JOINED_BYTES else before)
    assert len(store) == len(expected)
    firsts = [segment.first for segment in store.segments]
    assert firsts == sorted(set(firsts)) and firsts[0] == 0
    picked = sorted(data.draw(st.sets(st.integers(0, len(expected) - 1), min_size=1)))
    assert_same(store.rows(np.array(picked)), [expected[i] for i in picked])
    assert_same([text for _, batch in store.batches(np.arange(len(store))) for text in batch], expected)
    shuffled = np.array(data.draw(st.permutations(picked)))
    grouped = store.grouped(shuffled)
    assert sorted(grouped) == picked and len(store.runs(grouped)) <= len(store.segments)
    for rows in (shuffled, grouped):
        found = [batch[int(i)] for batch, at in store.runs(rows) for i in at]
        assert_same(found, [expected[i] for i in rows])


def test_segments_stay_few_and_large_maps_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = float_store()
    for i in range(300):
        store.append(texts(i, [2]))
    assert len(store.segments) < 10 and len(store) == 300
    monkeypatch.setattr(module, "_BATCH", 3)
    batches = store.batches(np.array([0, 1, 4, 5, 6, 9]))
    assert [rows.tolist() for rows, _ in batches] == [[0, 1, 4], [5, 6, 9]]
    assert list(store.batches(np.empty(0, np.int64))) == []
    monkeypatch.setattr(module, "_MERGED_BYTES", 1000)
    texts(0, [50, 60]).save(tmp_path / "big")
    store = float_store()
    for batch in (texts(1, [2]), MultiVectors.load(tmp_path / "big"), texts(2, [2])):
        store.append(batch)
    kinds = [isinstance(segment.vectors.tokens, np.memmap) for segment in store.segments]
    assert kinds == [False, True, False]


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="advice exists on Linux only")


@pytest.fixture
def on_disk(tmp_path: Path) -> TokenStore[MultiVectors]:
    """Two files of documents of 400 KB, and one document in memory."""
    store, rng = float_store(), np.random.default_rng(0)
    for first in (0, 5):
        path = tmp_path / f"{first}.npy"
        batch = MultiVectors.from_flat(rng.standard_normal((4000, 128)).astype(np.float32), [800] * 5)
        write_tokens(path, [batch])
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        store.segments.append(Segment(first, MultiVectors.from_flat(load_npy(path), batch.lengths), path))
    store.append(MultiVectors.from_flat(np.ones((3, 128), np.float32), [3]))
    return store


def in_memory(tokens: Any) -> float | None:
    """Return the share of a file's pages that are in memory."""
    return resident_share(tokens, np.linspace(0, tokens.nbytes - 1, 64).astype(np.int64))


def dropped(store: TokenStore[MultiVectors]) -> list[float | None]:
    """Drop the pages of all files, and return the shares that stayed in memory."""
    shares = []
    for segment in store.segments:
        if segment.path is not None:
            forget(segment.vectors.tokens)
            with segment.path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            shares.append(in_memory(segment.vectors.tokens))
    return shares


@linux
def test_read_ahead(on_disk: TokenStore[MultiVectors]) -> None:
    expected = [text.copy() for text in on_disk.rows(np.arange(11))]
    assert on_disk.read_ahead(np.array([0, 9])) == 0  # all of it is in memory
    assert in_memory(on_disk.segments[0].vectors.tokens) == 1
    on_disk.pages = PageCache()  # check again if the files are in memory
    if dropped(on_disk) != [0, 0]:
        pytest.skip("this file system keeps its pages")
    assert on_disk.read_ahead(np.empty(0, np.int64)) == 0
    assert on_disk.read_ahead(np.array([9, 0, 3, 10])) == 3  # the last is in memory
    assert on_disk.read_ahead(np.array([1, 2])) == 1  # neighbors are one range
    assert_same(on_disk.rows(np.arange(11)), expected)


@linux
def test_rows_in_memory_are_not_prefetched_if_others_are_missing(on_disk: TokenStore[MultiVectors]) -> None:
    if dropped(on_disk) != [0, 0]:
        pytest.skip("this file system keeps its pages")
    on_disk.rows(np.array([4, 0]))  # of the first file
    assert [in_memory(segment.vectors.tokens) for segment in on_disk.segments[:2]] == [1, 0]
    assert on_disk.read_ahead(np.array([4, 0])) == 0
    on_disk.pages = PageCache()
    assert on_disk.read_ahead(np.array([4, 9])) == 2


def test_let_go(on_disk: TokenStore[MultiVectors], monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[Any] = []
    monkeypatch.setattr(page_cache, "forget", released.append)
    monkeypatch.setattr(page_cache, "_HELD_BYTES", 2_000_000)
    monkeypatch.setattr(page_cache, "_MAPPED", 1 << 16)
    counts = []
    # 410 KB each: two of one file, one of the other, one in memory; too many; counted
    # from zero again.
    for rows in ([9, 0, 10, 3], [5, 6], [5, 6]):
        on_disk.let_go(np.array(rows))
        counts.append(len(released))
    assert counts == [0, 2, 2]
    tokens = np.ones((4000, 128), np.float32)  # not mapped
    forget(tokens[5:])
    assert (tokens == 1).all()


@pytest.mark.parametrize(("step", "held"), [(128, 16), (1, 1)])  # a fault maps 128 tokens
def test_a_short_row_holds_what_its_page_fault_maps(
    step: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Any] = []
    monkeypatch.setattr(page_cache, "forget", released.append)
    monkeypatch.setattr(page_cache, "_MAPPED", 1 << 16)
    file = page_cache.MappedTokens(0, np.arange(4001), np.zeros((4000, 128), np.float32))
    rows = np.arange(16) * step
    for limit, releases in ((held + 1, 0), (held, 1)):
        monkeypatch.setattr(page_cache, "_HELD_BYTES", limit * 65536)
        PageCache().let_go([file], rows)
        assert len(released) == releases


def test_files_that_fit_into_memory_are_not_released(
    on_disk: TokenStore[MultiVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Any] = []
    monkeypatch.setattr(page_cache, "forget", released.append)
    monkeypatch.setattr(page_cache, "_HELD_BYTES", 4_096_000)  # the bytes of both files
    for _ in range(20):
        on_disk.let_go(np.arange(10))
    assert released == []


def test_other_systems(on_disk: TokenStore[MultiVectors], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_LIBC", None)
    tokens = on_disk.segments[0].vectors.tokens
    assert ask_for(tokens.ctypes.data, np.zeros(1, np.int64), np.ones(1, np.int64)) == 0
    assert in_memory(tokens) is None
    forget(tokens)
    assert on_disk.read_ahead(np.array([0, 9])) == 0
