"""Saving a few new documents: the graph's file stays, what it lacks lies beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muvera.mips.saved_graph as module
from muvera import MultiVectors, MuveraIndex
from muvera.index.manifest import IndexFolderError, read_manifest

FILES = {"hnsw": "vectors.hnsw", "usearch": "vectors.usearch"}


def texts(first: int, count: int) -> MultiVectors:
    rng = np.random.default_rng(first)
    arrays = [rng.normal(size=(4, 16)).astype(np.float32) for _ in range(count)]
    return MultiVectors.from_arrays(arrays, ids=range(first, first + count))


@pytest.fixture(params=FILES)
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("hnswlib" if request.param == "hnsw" else "usearch")
    return str(request.param)


def built(backend: Any, folder: Path) -> MuveraIndex:
    return MuveraIndex.build(texts(0, 60), "mean", backend=backend, exact_tokens=0, path=folder, threads=1)


def graph_file(folder: Path) -> list[str]:
    return [name for name in read_manifest(folder)["files"] if name.endswith((".hnsw", ".usearch"))]


def assert_same(a: MuveraIndex, b: MuveraIndex) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    queries = [texts(7, 1)[0], texts(100, 1)[0]]
    for one, other in zip(a.search(queries, 5), b.search(queries, 5), strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_graph_stays_and_what_it_lacks_is_written(backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = built(backend, folder)
    first = f"generation-000001/{FILES[backend]}"
    assert graph_file(folder) == [first]
    for step in range(3):  # added, replaced and deleted documents; the index in use and a loaded one
        index.add(texts(100 + 10 * step, 5), threads=1)
        index.update(texts(10 * step, 2), threads=1)
        index.delete([100 + 10 * step, 30 + step])
        index.save(folder)
        assert graph_file(folder) == [first]
        loaded = MuveraIndex.load(folder, verify_files=True)
        assert_same(index, loaded)
        index = loaded
    number = read_manifest(folder)["generation"]
    assert np.load(folder / f"generation-{number:06d}" / module.ADDED).shape == (18, 17)
    index.save(tmp_path / "other")  # another folder gets all of it
    assert graph_file(tmp_path / "other") == [first]
    assert not list((tmp_path / "other").rglob(module.ADDED))
    assert_same(index, MuveraIndex.load(tmp_path / "other"))
    index.rebuild(threads=1)
    index.save(folder)
    assert graph_file(folder) == [f"generation-{number + 1:06d}/{FILES[backend]}"]


def test_many_new_vectors_are_worth_a_new_graph(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FEW", 8)
    folder = tmp_path / "index"
    index = built(backend, folder)
    index.add(texts(100, 8), threads=1)
    index.save(folder)
    assert graph_file(folder)[0].startswith("generation-000001/")
    index.add(texts(200, 1), threads=1)
    index.save(folder)
    assert graph_file(folder)[0].startswith("generation-000003/")
    assert_same(index, MuveraIndex.load(folder))


def test_damaged_additions_are_named(backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = built(backend, folder)
    index.add(texts(100, 3), threads=1)
    index.save(folder)
    added = next(folder.rglob(module.ADDED))
    np.save(added, np.zeros((3, 17), np.float64))
    with pytest.raises(IndexFolderError, match=rf"{module.ADDED} has \d+ bytes instead of \d+"):
        MuveraIndex.load(folder)
    with pytest.raises(ValueError, match=r"float64 \(3, 17\) for int64 \(3,\) labels.*dimension=17"):
        module.read_added(added.parent, 17)
