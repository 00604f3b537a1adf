"""PageIndex: ranking, changes, folders, and maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import write_byaldi
from builders.pages import DIMENSION, GRID, GreyEncoder, page_vectors, unit
from builders.text_encoders import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, PageIndex, TextIndex, chamfer
from muvera.index.generations import IndexFolderError
from muvera.pages import Page
from muvera.pages.folder import is_page_index

PATCHES = GRID[0] * GRID[1]
GOLDEN = Path(__file__).parent.parent / "golden" / "pages"


def small_index(count: int = 5) -> PageIndex:
    names = [("report.pdf", number) for number in range(1, count + 1)]
    return PageIndex.from_arrays(page_vectors(count), grids=GRID, pages=names)


def test_scores_are_chamfer_similarities_of_all_vectors() -> None:
    vectors = page_vectors(7)
    query = unit(vectors[3, [2, 9, 25]] + 0.05)
    hits = small_index(7).search(query, 7)
    assert hits[0].page == ("report.pdf", 4)
    for hit in hits:
        assert hit.score == pytest.approx(chamfer(query, vectors[hit.page[1] - 1]), abs=1e-5)


def test_an_explanation_has_the_score_of_the_search() -> None:
    index = small_index(7)
    for vectors in page_vectors(7):
        query = unit(vectors + 0.05)
        hits = index.search(query, 7)
        assert [index.explain(query, hit.id).score for hit in hits] == [hit.score for hit in hits]


def test_special_vectors_are_not_pooled() -> None:
    vectors = page_vectors(1)[0]
    page = Page(vectors, "a.pdf", grid=GRID)
    pooled = page.pooled(3)
    assert len(pooled) == PATCHES // 3 + 2
    assert np.array_equal(pooled[-2:], vectors[-2:])


def test_special_vectors_before_the_patches_move_behind_them() -> None:
    vectors = page_vectors(1)[0]
    page = Page(vectors, "a.pdf", grid=GRID, special=(1, 1))
    assert np.array_equal(page.vectors, np.concatenate([vectors[1:-1], vectors[:1], vectors[-1:]]))
    assert page.special == 2


def test_a_grid_that_does_not_fit_the_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match="26 vectors, a grid of 6 x 4 and special=1"):
        Page(page_vectors(1)[0], "a.pdf", grid=GRID, special=1)
    with pytest.raises(ValueError, match="26 vectors, a grid of 6 x 5"):
        Page(page_vectors(1)[0], "a.pdf", grid=(6, 5))


def test_a_grid_or_a_name_that_is_no_pair_is_refused() -> None:
    with pytest.raises(TypeError, match=r"The grid of page 1 of a\.pdf must be \(rows, columns\), got 6"):
        Page(page_vectors(1)[0], "a.pdf", grid=6)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pages must have a pair \(document, number\)"):
        PageIndex.from_arrays(page_vectors(2), pages=["a.pdf", "b.pdf"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"size": (1,)}, r"The size of page 1 of a\.pdf must be \(width, height\)"),
        ({"size": (600, float("nan"))}, "The size of"),
        ({"size": (600, 0)}, "The size of"),
        ({"lines": [(0, 0, 1, 1), (1, 2)]}, r"A text line of page 1 of a\.pdf must be four edges"),
        ({"lines": [(0, 0, 1, "1")]}, "A text line of"),
        ({"special": (-1, 3)}, "special must be at least 0, got -1"),
        ({"special": (1, 1, 0)}, r"must be \(before, after\)"),
        ({"text": "\ud800"}, "The text of .* has a lone surrogate"),
    ],
)
def test_facts_that_could_not_be_read_again_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Page(page_vectors(1)[0], "a.pdf", grid=GRID, **facts)


def test_a_map_is_high_where_the_query_came_from() -> None:
    vectors = page_vectors(3)
    hit = small_index(3).search(vectors[1, 4 * 2 + 3][None], 1)[0]
    heat = hit.heatmap()
    assert heat.shape == GRID
    assert np.unravel_index(heat.argmax(), GRID) == (2, 3)
    assert heat.mean() == pytest.approx(0, abs=1e-5)  # of one token
    x0, y0, x1, y1, score = hit.boxes(1)[0]
    assert x0 <= 3 / 4 and x1 == 1.0 and y0 <= 2 / 6 and y1 >= 3 / 6 and score == pytest.approx(heat.max())


def test_boxes_are_snapped_to_text_lines_and_given_in_points() -> None:
    vectors = page_vectors(1)
    line = (0.1, 0.36, 0.95, 0.48)
    index = PageIndex(DIMENSION)
    index.add([Page(vectors[0], "a.pdf", grid=GRID, lines=[line, (0.1, 0.9, 0.9, 0.95)], size=(600, 800))])
    hit = index.search(vectors[0, 4 * 2 + 3][None], 1)[0]
    x0, y0, x1, y1, _ = hit.boxes(1)[0]
    assert (y0, y1) == (0.36, 0.48) and x1 == 0.95
    assert hit.boxes(1, points=True)[0][:4] == pytest.approx((600 * x0, 800 * y0, 600 * x1, 800 * y1))


def test_a_page_without_a_grid_has_no_map_but_is_found() -> None:
    vectors = page_vectors(3)
    hit = PageIndex.from_arrays(vectors).search(vectors[2, :3], 1)[0]
    assert hit.page == ("2", 1)
    with pytest.raises(ValueError, match="grid of page 1 of 2 is not known"):
        hit.heatmap()


def test_a_map_of_a_word_needs_a_query_of_words() -> None:
    hit = small_index(1).search(page_vectors(1)[0, :3], 1)[0]
    with pytest.raises(IndexError, match="word=0 needs a text query"):
        hit.heatmap(0)


def test_shared_words_change_the_order_only_with_text() -> None:
    vectors = page_vectors(4)
    query = unit(vectors[0, :3] + vectors[1, :3])
    index = PageIndex.from_arrays(vectors, texts=["", "", "unusual words", ""], grids=GRID)
    assert "words" not in index.search(query, 4)[0].parts
    by_words = index.search(query, 4, text="unusual", words=0.9)
    assert by_words[0].page == ("2", 1) and by_words[0].text == "unusual words"
    assert by_words[0].parts["words"] > 0


def some_pages() -> list[Page]:
    texts = ["", "apple tree", "apple", "pear"]
    return [
        Page(vectors, "a.pdf", number, GRID, text=text, metadata={"year": number})
        for number, (vectors, text) in enumerate(zip(page_vectors(4), texts, strict=True), 1)
    ]


@pytest.mark.parametrize("words", [None, 0, 0.7])
def test_given_pages_rank_as_in_a_search(words: float | None) -> None:
    """The index that ranks them has other pages."""
    pages = some_pages()
    searched = PageIndex(DIMENSION, GreyEncoder())
    searched.add(pages)
    other = PageIndex(DIMENSION, GreyEncoder())
    for query in ("an apple", page_vectors(4)[2, :3]):
        found = searched.search(query, 4, words=words)
        ranked = other.rerank(query, pages, words=words)
        assert [(hit.id, hit.page, hit.metadata, hit.text) for hit in ranked] == [
            (hit.id, hit.page, hit.metadata, hit.text) for hit in found
        ]
        assert [hit.parts for hit in ranked] == [pytest.approx(hit.parts, abs=1e-5) for hit in found]
        assert np.allclose(ranked[0].heatmap(), found[0].heatmap(), atol=1e-5)
        best = other.rerank(query, iter(pages), 2, words=words)
        assert [(hit.id, hit.score) for hit in best] == [(hit.id, hit.score) for hit in ranked[:2]]
    assert other.rerank("apple", []) == []


@pytest.mark.parametrize(
    ("query", "pages", "options", "message"),
    [
        (["a", "b"], some_pages(), {}, "rerank needs one query"),
        ("a", ["text"], {}, "pages must be muvera.pages.Page, got str 'text'"),
        ("a", [Page(None, "a.pdf", text="a")], {}, "page 1 of a.pdf has no vectors"),
        ("a", [Page(np.eye(2), "a.pdf")], {}, "2 columns"),
        ("a", some_pages(), {"k": 0}, "k must be at least 1"),
        ("a", some_pages(), {"words": 1}, "words must be a weight from 0 to below 1"),
    ],
)
def test_pages_that_cannot_be_reranked(query: Any, pages: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        PageIndex(DIMENSION, GreyEncoder()).rerank(query, pages, **options)


def test_metadata_filters_documents_and_numbers() -> None:
    index = PageIndex.from_arrays(
        page_vectors(3),
        pages=[("a", 1), ("b", 1), ("b", 2)],
        metadata=[{"year": 1}, {"year": 2}, {"year": 2}],
    )
    query = page_vectors(1)[0, :2]
    assert {hit.id for hit in index.search(query, where={"document": "b"})} == {"b:1", "b:2"}
    found = index.search(query, where={"year": 2, "number": {"$gte": 2}})
    assert [(hit.id, hit.metadata) for hit in found] == [("b:2", {"year": 2})]


@given(st.data())
@settings(max_examples=30)
def test_documents_are_found_by_their_best_pages(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=24))
    pages = [(name, number) for number, name in enumerate(names, 1)]
    k, words = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 0.4]))
    texts = data.draw(st.lists(st.sampled_from(["red", "blue"]), min_size=len(names), max_size=len(names)))
    index = PageIndex.from_arrays(page_vectors(len(names)), pages=pages, texts=texts)
    query = page_vectors(1, seed=1)[0, :3]
    hits = index.search(query, 100, text="red", words=words)
    best = {hit.page[0]: hit for hit in reversed(hits)}
    wanted = sorted(best.values(), key=hits.index)[:k]
    assert index.search(query, k, text="red", words=words, group_by="document") == wanted


def test_a_field_that_no_page_has_is_named() -> None:
    index, query = small_index(3), page_vectors(1)[0, :2]
    assert len(index.search(query, group_by="number")) == 3
    assert len(index.search(query, 1, group_by="document", rescore=2)) == 1
    for field in ("_page", "brand"):
        with pytest.raises(ValueError, match=r"Fields of the metadata: document, number\.$"):
            index.search(query, group_by=field)


def test_an_id_in_use_adds_nothing() -> None:
    index = small_index(3)
    with pytest.raises(ValueError, match=r"report\.pdf:2"):
        index.add([Page(page_vectors(1)[0], "new.pdf"), Page(page_vectors(1)[0], "report.pdf", 2)])
    assert len(index) == 3


def test_changes_survive_save_and_load(tmp_path: Path) -> None:
    index = small_index(5)
    index.save(tmp_path / "index")
    index.delete(["report.pdf:2"])
    new = page_vectors(1, seed=9)[0]
    index.add([Page(new, "new.pdf", 3, grid=GRID)])
    index.save()
    loaded = PageIndex.load(tmp_path / "index")
    assert loaded.ids == [f"report.pdf:{n}" for n in (1, 3, 4, 5)] + ["new.pdf:3"]
    assert np.allclose(loaded.vectors("new.pdf:3"), new, atol=0.02)
    assert loaded.search(new[3:5], 1)[0].page == ("new.pdf", 3)
    loaded.rebuild()
    assert len(loaded._pages.vectors.contents.tokens) == 5  # those of the deleted page are gone


@settings(max_examples=15)
@given(st.lists(st.integers(0, 9), max_size=12))
def test_pages_and_patches_stay_together(changes: list[int]) -> None:
    """A number adds its page, or deletes it if it is there."""
    vectors = page_vectors(10)
    index = PageIndex(DIMENSION)
    present: list[int] = []
    for number in changes:
        if number in present:
            index.delete([f"d:{number + 1}"])
            present.remove(number)
        else:
            index.add([Page(vectors[number], "d", number + 1, grid=GRID)])
            present.append(number)
    assert index.ids == [f"d:{number + 1}" for number in present]
    for number in present:
        assert np.allclose(index.vectors(f"d:{number + 1}"), vectors[number], atol=0.02)


def test_a_hit_keeps_its_map_after_its_page_is_deleted(tmp_path: Path) -> None:
    index = small_index(3)
    index.save(tmp_path / "index")
    hit = index.search(page_vectors(3)[1, 4:6], 1)[0]
    before = hit.heatmap()
    index.delete([hit.id])
    index.save()
    assert np.array_equal(hit.heatmap(), before)
    assert index.search(page_vectors(3)[1, 4:6], 1)[0].id != hit.id


def test_searches_during_changes_find_whole_pages(tmp_path: Path) -> None:
    """A page that a search finds has patches, while another thread changes pages."""
    vectors = page_vectors(8)
    index = small_index(3)
    index.save(tmp_path / "index")
    failures: list[BaseException] = []

    def change() -> None:
        try:
            for number in range(4, 8):
                index.add([Page(vectors[number % 8], "new.pdf", number, grid=GRID)])
                index.delete([f"new.pdf:{number}"])
                index.save()
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=change)
    thread.start()
    while thread.is_alive():
        for hit in index.search(vectors[5, :3], 10):
            assert hit.heatmap().shape == GRID
    thread.join()
    assert failures == [] and len(index) == 3


def test_damaged_facts_of_a_page_are_named(tmp_path: Path) -> None:
    index = small_index(2)
    index.save(tmp_path / "index")
    stored = index._pages.get(["report.pdf:2"])
    wrong: list[Any] = [[[2, 6, 4], [1]], [[2, 6], []], [], [["2", 6, 4], []], [[2, 6, 4], [], [1, 2]]]
    for facts in wrong:
        index._pages.put_metadata(stored, [{**stored[0].metadata, "_page": facts}])
        index.save()
        with pytest.raises(IndexFolderError, match=r"page 'report\.pdf:2' has damaged facts"):
            PageIndex.load(tmp_path / "index")


def test_facts_that_do_not_fit_the_stored_vectors_are_named(tmp_path: Path) -> None:
    index = small_index(2)
    stored = index._pages.get(["report.pdf:2"])
    index._pages.put_metadata(stored, [{**stored[0].metadata, "_page": [[2, 6, 5], []]}])
    index.save(tmp_path / "index")
    with pytest.raises(IndexFolderError, match="26 vectors, a grid of 6 x 5 and 2 other vectors"):
        PageIndex.load(tmp_path / "index")


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(FileExistsError):
        small_index().save(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="not a muvera index"):
        small_index().save(tmp_path / "mine", overwrite=True)
    small_index(2).save(tmp_path / "new")
    with pytest.raises(IndexFolderError, match="not loaded from there"):
        small_index(4).save(tmp_path / "new")
    small_index(4).save(tmp_path / "new", overwrite=True)
    assert len(PageIndex.load(tmp_path / "new")) == 4


def test_folders_of_other_kinds_are_named_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no page index"):
        PageIndex.load(tmp_path)
    TextIndex.build(["a text"], HashEncoder(), path=tmp_path / "texts")
    with pytest.raises(FileNotFoundError, match="contains no page index"):
        PageIndex.load(tmp_path / "texts")
    small_index(3).save(tmp_path / "index")
    assert is_page_index(tmp_path / "index") and not is_page_index(tmp_path / "texts")
    with pytest.raises(ValueError, match=r"is an index of pages. Use PageIndex\.load"):
        TextIndex.load(tmp_path / "index", HashEncoder())


@pytest.mark.parametrize("name", ["floats", "codes"])
def test_folders_of_a_former_version_are_read_and_saved_in_this_one(name: str, tmp_path: Path) -> None:
    """The pages of "codes" have other rows than their patches."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    copied = shutil.copytree(GOLDEN / name, tmp_path / name)
    assert is_page_index(copied)
    query = page_vectors(9)[4, 4:8]
    for way in (PageIndex.load, PageIndex.load, PageIndex.open):
        with way(copied) as index:
            hits = index.search(query, 4)
            assert index.ids == expected["all"] and [hit.id for hit in hits] == expected["ids"]
            assert [hit.score for hit in hits] == expected["scores"]
            assert hits[0].heatmap().ravel().tolist() == expected["heat"]
            assert (index.root, index.served_root) == (Path("/documents"), None)
            index.save()
    assert not (copied / "pages.json").exists() and len(list(tmp_path.iterdir())) == 1


def test_a_former_folder_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    copied = shutil.copytree(GOLDEN / "floats", tmp_path / "index")
    (copied / "pages.json").write_text(json.dumps({"version": 99, "factor": 3, "root": None}))
    with pytest.raises(IndexFolderError, match="version 99"):
        PageIndex.load(copied)
    (copied / "pages.json").write_text("{")
    with pytest.raises(IndexFolderError, match="damaged"):
        PageIndex.load(copied)


def test_from_byaldi_keeps_ids_and_names(tmp_path: Path) -> None:
    vectors = page_vectors(4, special=0)
    folder = write_byaldi(tmp_path / "index", list(vectors))
    index = PageIndex.from_byaldi(folder, grids=GRID)
    assert index.ids == ["0:1", "0:2", "0:3", "1:1"]
    hit = index.search(vectors[3, :4], 1)[0]
    assert (hit.id, hit.page, hit.heatmap().shape) == ("1:1", ("1", 1), GRID)


def test_from_parquet_reads_pages(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    vectors = page_vectors(3)
    documents = MultiVectors.from_arrays(list(vectors))
    table = pyarrow.table({"id": ["x", "y", "z"], "tokens": documents.to_arrow()})
    parquet.write_table(table, tmp_path / "pages.parquet")
    index = PageIndex.from_parquet(tmp_path / "pages.parquet", grids=GRID)
    assert index.search(vectors[1, :3], 1)[0].id == "y"
