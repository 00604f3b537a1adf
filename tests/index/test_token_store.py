"""TokenStore: texts by row through merging and spooling, with memory and memory maps left alone."""

import errno
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

import muvera.index.token_store as module
from muvera import MultiVectors
from muvera.index.token_store import TokenStore, mapped, write_tokens

DIM = 6


def float_store(*arguments: Any) -> TokenStore[MultiVectors]:
    return TokenStore(MultiVectors.from_flat, "tokens", *arguments)


def texts(seed: int, lengths: Any, dtype: Any = np.float32) -> MultiVectors:
    tokens = np.random.default_rng(seed).standard_normal((int(np.sum(lengths)), DIM))
    return MultiVectors.from_flat(tokens.astype(dtype), np.asarray(lengths, np.int64))


def assert_same(found: Any, expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=5), some.dtypes), min_size=1, max_size=9),
    st.sampled_from([None, 1, 300, 10**9]),
    st.data(),
)
def test_a_store_is_a_list_of_texts(
    tmp_path_factory: pytest.TempPathFactory, batches: Any, staging_bytes: int | None, data: st.DataObject
) -> None:
    staging = None if staging_bytes is None else tmp_path_factory.mktemp("spool")
    store = float_store(staging, staging_bytes or 1)
    expected: list[np.ndarray] = []
    for i, (lengths, dtype) in enumerate(batches):
        batch = texts(i, lengths, dtype)
        store.append(batch)
        expected.extend(batch)
    if data.draw(st.booleans()):
        store.flush()
        assert staging is None or all(part.path is not None for part in store.segments)
    assert len(store) == len(expected)
    if not expected:
        return
    firsts = [part.first for part in store.segments]
    assert firsts == sorted(set(firsts)) and firsts[0] == 0
    picked = sorted(data.draw(st.sets(st.integers(0, len(expected) - 1), min_size=1)))
    assert_same(store.rows(np.array(picked)), [expected[i] for i in picked])
    everything = [text for _, part in store.batches(np.arange(len(store))) for text in part]
    assert_same(everything, expected)
    shuffled = np.array(data.draw(st.permutations(picked)))
    for ordered in (False, True):
        places = []
        for part, positions, at in store.slices(shuffled, ordered):
            assert_same(part[positions[np.argsort(positions)]], [expected[i] for i in np.sort(shuffled[at])])
            places.append(at)
        assert (np.concatenate(places) if ordered else np.sort(np.concatenate(places))).tolist() == list(
            range(len(picked))
        )
        assert ordered or len(places) <= len(store.segments)


def test_batches_are_cut_and_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    store = float_store()
    store.append(texts(0, [1] * 10))
    batches = store.batches(np.array([0, 1, 4, 5, 6, 9]))
    assert [rows.tolist() for rows, _ in batches] == [[0, 1, 4], [5, 6, 9]]
    assert list(store.batches(np.empty(0, np.int64))) == []


def test_adding_one_by_one_keeps_few_segments() -> None:
    store = float_store()
    for i in range(300):
        store.append(texts(i, [2]))
    assert len(store.segments) < 10 and len(store) == 300


def test_a_large_memory_map_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MERGED_BYTES", 1000)
    texts(0, [50, 60]).save(tmp_path / "big")
    big = MultiVectors.load(tmp_path / "big")
    store = float_store()
    store.append(texts(1, [2]))
    store.append(big)
    store.append(texts(2, [2]))
    assert [isinstance(part.vectors.tokens, np.memmap) for part in store.segments] == [False, True, False]


def test_nothing_is_added_by_nothing() -> None:
    store = float_store()
    store.append(texts(0, []))
    assert store.segments == [] and len(store) == 0


def test_a_failed_append_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = float_store()
    first = texts(0, [3, 4])
    store.append(first)
    before = store.segments

    def full(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(np, "concatenate", full)
    with pytest.raises(MemoryError):
        store.append(texts(1, [9]))
    monkeypatch.undo()
    assert store.segments is before and len(store) == 2
    assert_same(store.rows(np.arange(2)), list(first))


def test_the_old_list_of_segments_outlives_changes() -> None:
    """A search reads from the list that it began with."""
    store = float_store()
    store.append(texts(0, [3]))
    before = store.segments
    store.append(texts(1, [3]))
    assert len(before) == 1 and len(before[0].vectors) == 1 and len(store) == 2


# -- the spool ----------------------------------------------------------------


def test_tokens_of_one_dtype_go_to_one_file(tmp_path: Path) -> None:
    store = float_store(tmp_path, 500)
    expected: list[np.ndarray] = []
    for i in range(40):
        batch = texts(i, [3, 0, 5])
        store.append(batch)
        expected.extend(batch)
        in_memory = sum(part.vectors.tokens.nbytes for part in store.segments if part.path is None)
        assert in_memory < 500
    store.flush()
    assert len(store.segments) == 1 and len(list(tmp_path.iterdir())) == 1
    assert isinstance(store.segments[0].vectors.tokens, np.memmap)
    assert_same(store.rows(np.arange(120)), expected)
    whole = np.load(next(tmp_path.iterdir()))
    np.testing.assert_array_equal(whole, np.concatenate(expected))
    store.append(texts(50, [100], np.float16))
    store.append(texts(51, [100]))
    assert [part.vectors.tokens.dtype.itemsize for part in store.segments] == [4, 2, 4]


def test_a_failed_append_to_the_spool_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = float_store(tmp_path, 1)
    first, second, third = texts(0, [3, 4]), texts(1, [5]), texts(2, [2])
    store.append(first)
    write = module._write_rows

    def breaks_off(stream: Any, tokens: Any, dtype: Any) -> None:
        write(stream, tokens[:3], dtype)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_rows", breaks_off)
    with pytest.raises(OSError, match="No space left"):
        store.append(second)
    monkeypatch.undo()
    assert len(store) == 2
    assert_same(store.rows(np.arange(2)), list(first))
    store.append(third)
    assert_same(store.rows(np.arange(3)), [*first, *third])


def test_memory_stays_bounded_by_the_spool(tmp_path: Path) -> None:
    """24 MB pass through; one batch is 100 kB, 1 MB waits, and both may exist twice while joined."""
    store = float_store(tmp_path, 1 << 20)
    lengths = np.full(400, 10)
    tokens = np.zeros((4000, DIM), np.float32)
    tracemalloc.start()
    try:
        for _ in range(250):
            store.append(MultiVectors.from_flat(tokens.copy(), lengths))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    offsets = 250 * 400 * 8
    assert store.segments[0].vectors.tokens.nbytes > 20 << 20
    assert peak < (4 << 20) + 4 * offsets


@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float16, np.float32), (np.float16,) * 2])
def test_written_tokens_are_an_npy_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtypes: Any) -> None:
    monkeypatch.setattr(module, "_ROWS", 4)
    parts = [texts(0, [3, 0, 6], dtypes[0]), texts(1, [0, 5], dtypes[1])]
    write_tokens(tmp_path / "tokens.npy", parts)
    lengths = np.concatenate([part.lengths for part in parts])
    assert_same(
        mapped(tmp_path / "tokens.npy", lengths, MultiVectors.from_flat),
        [text for part in parts for text in part],
    )
    np.save(tmp_path / "numpy.npy", np.load(tmp_path / "tokens.npy"))
    assert (tmp_path / "numpy.npy").read_bytes() == (tmp_path / "tokens.npy").read_bytes()


def test_texts_without_tokens_are_a_file_too(tmp_path: Path) -> None:
    store = float_store(tmp_path, 1)
    store.append(texts(0, [0, 0]))
    store.flush()
    store.append(texts(1, [0, 3]))
    assert store.rows(np.arange(4)).lengths.tolist() == [0, 0, 0, 3]
