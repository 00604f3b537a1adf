"""USearchSearch: threads, precision, and its mapped file."""

import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.graph_vectors import like_fdes

pytest.importorskip("usearch", reason="usearch is optional")

from muvera.mips import SavedState, USearchSearch, USearchSettings

PRECISIONS = ["bfloat16", "int8", "float32"]


def filled(vectors: np.ndarray, **settings: Any) -> USearchSearch:
    values = {"ef_construction": 100, "ef": 100, **settings}
    search = USearchSearch(vectors.shape[1], USearchSettings(**values))
    search.add(np.arange(len(vectors)), vectors, threads=1)
    return search


def load(path: Path, search: USearchSearch, **changes: Any) -> USearchSearch:
    return USearchSearch.load(path.parent, 16, SavedState(replace(search.settings, **changes)))


def test_threads_that_search_at_once() -> None:
    """usearch's own searches share their working memory and would answer wrongly."""
    vectors, queries = like_fdes(30, 1500), like_fdes(31, 150)
    search = filled(vectors)
    expected = search.search(queries, 10, threads=1)[0]
    with ThreadPoolExecutor(4) as pool:
        for labels, _ in pool.map(lambda _: search.search(queries, 10, threads=1), range(12)):
            np.testing.assert_array_equal(labels, expected)


def test_bytes_per_float_in_the_file(tmp_path: Path) -> None:
    sizes = {}
    for precision in PRECISIONS:
        filled(like_fdes(0, 200, 512), precision=precision).save(tmp_path)
        sizes[precision] = (tmp_path / USearchSearch.file).stat().st_size
    links = sizes["float32"] - 200 * 528 * 4
    assert sizes["bfloat16"] - links == 200 * 528 * 2 and sizes["int8"] - links == 200 * 528


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mapped_files(precision: Any, tmp_path: Path) -> None:
    search = filled(like_fdes(23, 300, 16), precision=precision)
    search.remove(np.array([5, 150]))
    search.save(tmp_path)
    path = tmp_path / USearchSearch.file
    loaded = load(path, search)
    assert loaded.mapped
    loaded.remove(np.array([7]))
    assert not loaded.mapped and len(loaded) == 297
    with pytest.raises(ValueError, match="another number type"):
        load(path, search, precision="int8" if precision != "int8" else "bfloat16")
    # usearch would follow damaged links out of its memory.
    whole = path.read_bytes()
    rows, width = struct.unpack_from("<2I", whole)
    graph = 8 + rows * width + 64
    nodes = graph + 40 + 2 * rows
    for place, value in [(nodes + 10, 40), (nodes + 14, 10**6), (graph + 32, 10**6), (graph + 24, 9)]:
        damaged = bytearray(whole)
        struct.pack_into("<I", damaged, place, value)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"target does not exist|entry point"):
            load(path, search)
