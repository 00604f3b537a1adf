"""Advice about mapped files: what is asked for, and that nothing else changes."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from muvera import MultiVectors
from muvera.index import token_store
from muvera.index.token_store import Segment, TokenStore, mapped, write_tokens
from muvera.utils import page_cache
from muvera.utils.page_cache import ask_for, forget, resident_share

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="advice is for Linux alone")


@pytest.fixture
def store(tmp_path: Path) -> TokenStore[MultiVectors]:
    """Two files of documents of 400 KB, and one document in memory."""
    found: TokenStore[MultiVectors] = TokenStore(MultiVectors.from_flat, "tokens")
    rng = np.random.default_rng(0)
    for first in (0, 5):
        path = tmp_path / f"{first}.npy"
        texts = MultiVectors.from_flat(rng.standard_normal((4000, 128)).astype(np.float32), [800] * 4 + [800])
        write_tokens(path, [texts])
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        found.segments.append(Segment(first, mapped(path, texts.lengths, MultiVectors.from_flat), path))
    found.append(MultiVectors.from_flat(np.ones((3, 128), np.float32), [3]))
    return found


def dropped(store: TokenStore[MultiVectors]) -> bool:
    """Drop the files' pages, and tell whether the system did."""
    shares = []
    for part in store.segments:
        if part.path is not None:
            forget(part.vectors.tokens)
            with part.path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            shares.append(resident_share(part.vectors.tokens))
    return shares == [0, 0]


@linux
def test_ranges_of_rows_are_asked_for(store: TokenStore[MultiVectors]) -> None:
    expected = [text.copy() for text in store.rows(np.arange(11))]
    if not dropped(store):
        pytest.skip("this file system keeps its pages")
    assert store.read_ahead(np.empty(0, np.int64)) == 0
    assert store.read_ahead(np.array([9, 0, 3, 10])) == 3  # the last is in memory
    assert store.read_ahead(np.array([1, 2])) == 1  # neighbors are one range
    for found, text in zip(store.rows(np.arange(11)), expected, strict=True):
        np.testing.assert_array_equal(found, text)


@linux
def test_nothing_is_asked_for_what_is_in_memory(store: TokenStore[MultiVectors]) -> None:
    for part in store.segments:
        assert np.isfinite(part.vectors.tokens).all()
    assert store.read_ahead(np.array([0, 9])) == 0
    assert resident_share(store.segments[0].vectors.tokens) == 1
    assert resident_share(store.segments[0].vectors.tokens, 5) == 1


def test_what_no_file_holds_is_kept() -> None:
    tokens = np.ones((4000, 128), np.float32)
    forget(tokens[5:])
    assert (tokens == 1).all()


def resident_pages(path: Path) -> int:
    """Bytes of a mapped file that this process holds, as Linux counts them."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@linux
def test_what_was_read_is_given_up_once_it_is_much(
    store: TokenStore[MultiVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is 400 KB."""
    paths = [part.path for part in store.segments if part.path is not None]
    expected = [text.copy() for text in store.rows(np.arange(11))]
    assert all(resident_pages(path) == path.stat().st_size // 4096 * 4096 + 4096 for path in paths)
    monkeypatch.setattr(token_store, "_HELD_BYTES", 2_000_000)
    monkeypatch.setattr(token_store, "_AROUND", 100_000)
    store.let_go(np.array([9, 0, 10, 3]))  # two of one file, one of the other, one in memory
    assert all(resident_pages(path) for path in paths)
    store.let_go(np.array([5, 6]))
    assert [resident_pages(path) for path in paths] == [0, 0]
    for found, text in zip(store.rows(np.arange(11)), expected, strict=True):
        np.testing.assert_array_equal(found, text)
    store.let_go(np.array([5, 6]))  # it counts from the beginning
    assert all(resident_pages(path) for path in paths)


def test_other_systems_do_nothing(store: TokenStore[MultiVectors], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "_LIBC", None)
    tokens = store.segments[0].vectors.tokens
    assert ask_for(tokens.ctypes.data, np.zeros(1, np.int64), np.ones(1, np.int64)) == 0
    assert resident_share(tokens) is None
    forget(tokens)
    assert store.read_ahead(np.array([0, 9])) == 0
