"""PageIndex.open: durable changes, kills, and the verbs that texts have, too."""

import asyncio
import copy
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.pages import DIMENSION, GRID, GreyEncoder, page_vectors, unit

from muvera import PageIndex, chamfer
from muvera.index.generations import IndexFolderError
from muvera.pages import Page

VECTORS = page_vectors(12)


def page(number: int, seed: int = 0, **more: Any) -> Page:
    vectors = VECTORS if seed == 0 else page_vectors(12, seed=seed)
    return Page(vectors[number], "a.pdf", number + 1, grid=GRID, text=f"word{number}", **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    index = PageIndex(DIMENSION)
    index.add([page(number, metadata={"year": 2020 + number}) for number in range(4)])
    index.save(tmp_path / "index")
    return tmp_path / "index"


def content(index: PageIndex) -> list[Any]:
    return [(found, index.vectors(found.id).tolist()) for found in index.get(index.ids)]


def test_changes_are_durable_without_a_save(folder: Path, tmp_path: Path) -> None:
    with PageIndex.open(folder) as index:
        index.add([page(5)])
        index.update([page(1, seed=7), page(6)])
        index.update(ids=["a.pdf:3"], metadata=[{"year": None, "seen": True}])
        index.delete(["a.pdf:1"])
        expected = content(index)
        killed = shutil.copytree(folder, tmp_path / "killed")
        assert content(PageIndex.load(folder)) == expected
        with pytest.raises(IndexFolderError, match="Another process or an open"):
            PageIndex.open(folder)
    assert content(PageIndex.load(folder)) == expected == content(PageIndex.load(killed))
    with PageIndex.open(killed) as again:
        again.delete(["a.pdf:6"])
        assert content(PageIndex.load(killed)) == content(again)
    assert [path.name for path in killed.iterdir() if path.name.startswith("journal")] == []


def test_an_updated_page_has_new_vectors_and_keeps_no_old_ones(folder: Path) -> None:
    index = PageIndex.load(folder)
    changed = page_vectors(12, seed=7)[1]
    index.update([page(1, seed=7)])
    assert len(index) == 4 and np.array_equal(index.vectors("a.pdf:2"), changed)
    hit = index.search(changed[:3], 1)[0]
    assert hit.id == "a.pdf:2" and hit.score == pytest.approx(chamfer(changed[:3], changed), abs=1e-5)
    index.rebuild()
    assert len(index._pages.vectors.contents.tokens) == 4
    assert index.search(changed[:3], 1)[0].score == pytest.approx(hit.score, abs=0.01)  # of codes


def test_metadata_changes_by_field_and_cannot_rename_a_page(folder: Path) -> None:
    index = PageIndex.load(folder)
    index.update(ids=["a.pdf:1"], metadata=[{"year": None, "seen": True}])
    [stored] = index.get(["a.pdf:1"])
    assert stored.metadata == {"document": "a.pdf", "number": 1, "seen": True} and stored.text == "word0"
    assert index.select({"seen": True}) == ["a.pdf:1"] and index.select({"year": {"$gte": 2022}}) == [
        "a.pdf:3",
        "a.pdf:4",
    ]
    refused: list[dict[str, Any]] = [{"document": "b.pdf"}, {"_page": []}]
    for changes in refused:
        with pytest.raises(ValueError, match="may not have the field"):
            index.update(ids=["a.pdf:1"], metadata=[changes])
    with pytest.raises(ValueError, match="needs pages, or ids and metadata"):
        index.update()


def test_searches_are_restricted_to_ids(folder: Path) -> None:
    index = PageIndex.load(folder)
    query = VECTORS[0, :3]
    assert {hit.id for hit in index.search(query, ids=["a.pdf:2", "a.pdf:3", "b.pdf:1"])} == {
        "a.pdf:2",
        "a.pdf:3",
    }
    found = index.search(query, ids=["a.pdf:2", "a.pdf:3"], where={"year": 2022})
    assert [hit.id for hit in found] == ["a.pdf:3"]
    assert index.get(["x"], missing="ignore") == []


def test_a_match_has_the_word_the_place_and_the_similarity() -> None:
    index = PageIndex(DIMENSION, GreyEncoder())
    index.add([page(0), page(1)])
    query = unit(VECTORS[1, [4 * 2 + 3, 24]])  # the second is of no place
    hit = index.explain(query, "a.pdf:2")
    assert [match.place for match in hit.matches()] == [(2, 3), None]
    assert sum(match.similarity for match in hit.matches()) == pytest.approx(hit.score) == pytest.approx(2.0)
    words = index.explain("two words", "a.pdf:1").matches()
    assert [match.word for match in words] == ["two", "words"]
    with pytest.raises(KeyError):
        index.explain(query, "b.pdf:1")
    with pytest.raises(TypeError, match="one query"):
        index.explain([query], "a.pdf:1")  # type: ignore[arg-type]


def test_a_recall_is_calibrated_for_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.pages.page_index._EXACT_TOKENS", 0)
    vectors = page_vectors(150, special=0)
    index = PageIndex.from_arrays(vectors, grids=GRID)
    queries = [unit(vectors[number, :6] + 0.1) for number in range(80)]
    index.calibrate(queries)
    found = index.search(queries, 3, recall=0.9)
    assert np.mean([hits[0].id == str(n) or hits[0].id == n for n, hits in enumerate(found)]) > 0.9
    with pytest.raises(ValueError, match="64"):
        index.calibrate(queries[:3])


def test_an_index_is_iterated_awaited_and_not_copied(folder: Path) -> None:
    index = PageIndex.load(folder)
    assert list(index) == index.get(index.ids) and list(index)[1].metadata["number"] == 2
    query = VECTORS[1, :3]
    assert asyncio.run(index.asearch(query, 2, where={"number": 2})) == index.search(
        query, 2, where={"number": 2}
    )
    assert [len(hits) for hits in asyncio.run(index.asearch([query, query], 1))] == [1, 1]
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy(index)


def _write(folder: Path, pipe: int, start: int) -> None:
    """Change pages until the process is killed; write a byte after each change."""
    with PageIndex.open(folder, save_changes=20, save_seconds=0.2) as index:
        for number in range(start, 250):
            index.add([Page(page_vectors(1, seed=number)[0], "new.pdf", number + 1, grid=GRID)])
            os.write(pipe, bytes([number]))
            if number % 3 == 2:
                index.delete([f"new.pdf:{number}"])
                os.write(pipe, bytes([255]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("kills", [int(os.environ.get("MUVERA_ATTACK", 6))])
def test_killed_writers_lose_no_acknowledged_page(folder: Path, kills: int) -> None:
    """Each page is there with its own vectors, and no deleted page is back."""
    stream = np.random.default_rng(0)
    copied = folder.with_name("copy")
    for _ in range(kills):
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(folder, copied)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write(copied, write, 0)
            finally:
                os._exit(1)
        os.close(write)
        acknowledged = [*os.read(read, 1)]
        time.sleep(stream.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read, "rb") as pipe:
            acknowledged += pipe.read()
        numbers = [number for number in acknowledged if number != 255]
        gone = [number - 1 for number in numbers if number % 3 == 2][: acknowledged.count(255)]
        loaded = PageIndex.load(copied)
        found = set(loaded.ids)
        maybe = {f"new.pdf:{number + 1}" for number in numbers if number % 3 == 1} - {
            f"new.pdf:{number + 1}" for number in gone
        }
        kept = {f"new.pdf:{number + 1}" for number in numbers if number not in gone}
        assert kept - maybe <= found and not {f"new.pdf:{number + 1}" for number in gone} & found
        for id in sorted(found, key=str):
            if str(id).startswith("new"):
                own = page_vectors(1, seed=int(str(id).partition(":")[2]) - 1)[0]
                assert np.array_equal(loaded.vectors(id), own)
