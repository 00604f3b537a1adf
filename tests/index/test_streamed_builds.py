"""Building beside the target: no trace of what was interrupted, in bounded memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.kept_indexes import DOCUMENTS, MORE, WAYS
from builders.realistic_collections import CONFIG

from muvera import FDEConfig, MultiVectors, MuveraIndex
from muvera.index.token_store import TokenStore


def some_batches(fault: BaseException | None = None) -> Iterator[MultiVectors]:
    for start in range(0, 200, 50):
        if fault is not None and start == 150:
            raise fault
        yield DOCUMENTS[start : start + 50]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("a bad line"), MemoryError()])
def test_a_build_that_is_interrupted_leaves_no_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1000))  # spool early

    def watched() -> Iterator[MultiVectors]:
        for batch in some_batches(fault):
            yield batch
            seen.append([p.name for p in folder.parent.rglob("tokens-*")])

    with pytest.raises(type(fault)):
        MuveraIndex.build(watched(), CONFIG, path=folder)
    assert seen[-1] == ["tokens-000000000000.npy"] and list(folder.parent.iterdir()) == []


def test_a_build_with_a_duplicate_id_leaves_no_trace(folder: Path) -> None:
    with pytest.raises(ValueError, match="id 0 is in the index already"):
        MuveraIndex.build(iter([DOCUMENTS[:50], DOCUMENTS[:50]]), CONFIG, path=folder)
    assert list(folder.parent.iterdir()) == []


def test_an_index_that_was_built_on_the_disk_can_grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that tokens were spooled to is gone by then."""
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1000))
    index = MuveraIndex.build(some_batches(), CONFIG, path=folder, **WAYS["hnsw"])
    assert [
        part.path is not None and part.path.parent.parent for part in index._contents.store.levels[0].segments
    ] == [folder]
    index.add(MORE)
    index.save(folder)
    assert len(MuveraIndex.load(folder)) == 220


@pytest.mark.slow
@pytest.mark.compiled("so many tokens take minutes")
def test_memory_is_bounded_while_building_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """31 MB of tokens pass through in batches of 0.6 MB, 1 MB of them waiting in memory.

    Those may stand twice while joined, and a batch is held by its maker too: 4 MB.  The rest, below 1.3 MB,
    is in proportion to documents, not to tokens: FDEs of 97 floats and their 140 bytes, both with room to
    grow, ids and offsets.
    The documents that stand for queries at the end, 2 MB, come when the batches are gone.
    """
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1 << 20))
    config = FDEConfig(dimension=64, num_repetitions=2, num_simhash_projections=1, projection_dimension=8)
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((2400, 64)).astype(np.float32)

    def batches(count: int) -> Iterator[MultiVectors]:
        for _ in range(count):
            yield MultiVectors.from_flat(pool.copy(), [120] * 20)

    settings: dict[str, Any] = {"exact_tokens": 0, "backend": "exact", "threads": 1}
    # The same once before: what is compiled takes memory, too.
    MuveraIndex.build(batches(50), config, path=folder.with_name("compiles"), **settings).search(
        pool[:5], k=1
    )
    tracemalloc.start()
    try:
        index = MuveraIndex.build(batches(50), config, path=folder, **settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (
        sum(part.vectors.tokens.nbytes for part in index._contents.store.levels[0].segments)
        == 50 * 2400 * 64 * 4
    )
    assert len(index._contents.store.levels[0].segments) == 1
    assert peak < (4 << 20) + 1000 * 1300
    assert index.search(pool[:5], k=1)[0].scores[0] > 0


@pytest.mark.compiled("so many tokens take minutes")
def test_a_large_document_map_is_not_read_into_memory(tmp_path: Path) -> None:
    """20 MB of mapped tokens are searched exactly; only their ids and lengths are in memory."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tokens.npy", rng.standard_normal((80_000, 64)).astype(np.float32))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")

    def build_and_search(path: Path) -> None:
        index = MuveraIndex.build(MultiVectors.from_flat(mapped, [80] * 1000), exact_tokens=10**6, path=path)
        index.search(mapped[:3], k=1)
        loaded = MuveraIndex.load(path)
        assert loaded.search(mapped[:3], k=1)[0].ids.tolist() == [0]

    build_and_search(tmp_path / "compiles")  # which takes memory, too
    tracemalloc.start()
    try:
        build_and_search(tmp_path / "index")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20
