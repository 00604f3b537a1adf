"""Pages in every engine, with the methods of PageIndex."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from builders.pages import DIMENSION, GRID, GreyEncoder, page_vectors, unit
from builders.text_encoders import HashEncoder, SignTable

from muvera import PageIndex, TextIndex, chamfer
from muvera.engines import EngineError, EngineIndex
from muvera.engines.engine_index import encoder_of_pages
from muvera.pages import Page

# The client's local mode warns once that it searches without a graph.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

# Half precision represents these vectors, so scores are exact in every engine.
VECTORS = page_vectors(12).astype(np.float16).astype(np.float32)
WORDS = ["apple", "revenue by region", "staff"]
LINES = [(0.1, 0.2, 0.9, 0.25)]


def page(number: int, **more: Any) -> Page:
    """Return one of 12 pages: three of each of four documents."""
    document, place = f"{'abcd'[number // 3]}.pdf", 1 + number % 3
    text = f"{WORDS[number % 3]} {document[0]}"
    facts = {"grid": GRID, "text": text, "lines": LINES, "size": (400.0, 600.0), **more}
    return Page(VECTORS[number], document, place, **facts)


def pages() -> list[Page]:
    return [page(number, metadata={"year": 2020 + number}) for number in range(12)]


def opened(collections: Any, name: str, **options: Any) -> PageIndex:
    """Open an empty collection, which the first pages create."""
    engine = collections(name)
    if not engine.keeps_tokens:
        pytest.skip("it stores no tokens")
    return PageIndex.open(engine, GreyEncoder(), **options)


@pytest.fixture(scope="module")
def filled(collections: Any) -> PageIndex:
    """All pages; tests must not change them."""
    index = opened(collections, "pages")
    assert index.add(pages()) == [f"{document}.pdf:{n}" for document in "abcd" for n in (1, 2, 3)]
    return index


@pytest.fixture
def changing(collections: Any, request: pytest.FixtureRequest) -> PageIndex:
    index = opened(collections, request.node.originalname)
    index.add(pages())
    return index


def ids(hits: Any) -> list[Any]:
    return [hit.id for hit in hits]


def test_scores_are_chamfer_similarities_of_all_vectors(filled: PageIndex) -> None:
    query = unit(VECTORS[4, [2, 9, 25]] + 0.05)
    hits = filled.search(query, 12)
    assert len(hits) == 12 and hits[0].page == ("b.pdf", 2)
    for hit in hits:
        number = "abcd".index(hit.page[0][0]) * 3 + hit.page[1] - 1
        assert hit.score == pytest.approx(chamfer(query, VECTORS[number]), abs=5e-3)


def test_hits_have_the_facts_and_maps_of_pages_in_a_folder(filled: PageIndex) -> None:
    local = PageIndex(DIMENSION, GreyEncoder())
    local.add(pages())
    query = VECTORS[7, [5, 9]]
    there, here = filled.search(query, 1)[0], local.search(query, 1)[0]
    assert (there.id, there.page, there.text, there.metadata) == (
        "c.pdf:2", ("c.pdf", 2), "revenue by region c", {"year": 2027}
    )  # fmt: skip
    assert there.source.facts == here.source.facts
    np.testing.assert_allclose(there.heatmap(), here.heatmap(), atol=1e-6)
    assert there.boxes(points=True)[0][:4] == here.boxes(points=True)[0][:4]
    assert [match.place for match in there.matches()] == [(1, 1), (2, 1)]


def test_an_explanation_has_the_score_of_the_search(filled: PageIndex) -> None:
    query = VECTORS[7, :4]
    for hit in filled.search(query, 3):
        assert filled.explain(query, hit.id).score == pytest.approx(hit.score, abs=5e-3)
    assert np.array_equal(filled.vectors("c.pdf:2"), VECTORS[7])
    for read in (filled.vectors, filled.page, lambda id: filled.explain(query, id)):
        with pytest.raises(KeyError, match=r"e\.pdf:1"):
            read("e.pdf:1")


def test_conditions_ids_and_groups_select_pages(filled: PageIndex) -> None:
    query = VECTORS[7, :4]
    where = {"document": {"$in": ["a.pdf", "c.pdf"]}, "number": {"$gte": 2}}
    assert sorted(ids(filled.search(query, 12, where=where))) == ["a.pdf:2", "a.pdf:3", "c.pdf:2", "c.pdf:3"]
    assert ids(filled.search(query, 12, where={"year": 2025}, ids=["b.pdf:3", "x"])) == ["b.pdf:3"]
    whole = filled.search(query, 12)
    best = [hit for i, hit in enumerate(whole) if hit.page[0] not in [one.page[0] for one in whole[:i]]]
    assert filled.search(query, 12, group_by="document") == best and len(best) == 4
    assert ids(filled.search([query, VECTORS[1, :4]], 1)[1]) == ["a.pdf:2"]


def test_shared_words_reorder_pages(filled: PageIndex) -> None:
    mean = unit(VECTORS.mean(axis=(0, 1))[None])
    hit = filled.search(mean, 1, text="staff d", words=0.9)[0]
    assert hit.id == "d.pdf:3" and set(hit.parts) == {"maxsim", "words"}
    assert filled.search("two words", 1, words=0)[0].words == ["two", "words"]


def test_pages_are_read_by_their_ids(filled: PageIndex) -> None:
    assert len(filled) == 12 and "a.pdf:1" in filled and "x" not in filled and filled.dimension == DIMENSION
    assert repr(filled) == f"PageIndex({filled._pages}, encoder='grey')" and "#pages" in repr(filled)
    [found] = filled.get(["b.pdf:1", "x"], missing="ignore")
    assert found.metadata == {"document": "b.pdf", "number": 1, "year": 2023} and found.text == "apple b"
    assert filled.page("b.pdf:1") == ("b.pdf", 1)


def test_pages_are_listed_in_the_order_of_numbers(changing: PageIndex) -> None:
    changing.add([page(0, id="a.pdf:12"), page(1, id="a.pdf:02")])
    assert changing.ids[:5] == ["a.pdf:1", "a.pdf:02", "a.pdf:2", "a.pdf:3", "a.pdf:12"]
    assert changing.pages_of("b.pdf") == ["b.pdf:1", "b.pdf:2", "b.pdf:3"] and not changing.pages_of("x")
    assert changing.select({"year": {"$gte": 2030}}) == ["d.pdf:2", "d.pdf:3"]
    assert [one.id for one in changing] == changing.ids and len(changing.ids) == 14


def test_changes_are_by_page(changing: PageIndex) -> None:
    other = page_vectors(1, seed=9)[0].astype(np.float16).astype(np.float32)
    changing.update([Page(other, "a.pdf", 1, grid=GRID), Page(other, "e.pdf", 1)])
    changing.update(ids=["a.pdf:2"], metadata=[{"year": None, "seen": True}])
    changing.delete(["d.pdf:1", "d.pdf:2"])
    assert len(changing) == 11 and sorted(ids(changing.search(other[:3], 2))) == ["a.pdf:1", "e.pdf:1"]
    assert changing.get(["a.pdf:2"])[0].metadata == {"document": "a.pdf", "number": 2, "seen": True}
    assert np.array_equal(changing.vectors("a.pdf:2"), VECTORS[1])
    assert changing.explain(VECTORS[1, :2], "a.pdf:2").heatmap().shape == GRID


def test_refused_changes_change_nothing(changing: PageIndex) -> None:
    calls: Any = (
        lambda: changing.add([page(3)]),
        lambda: changing.add([Page(VECTORS[0], "x.pdf", id=3)]),
        lambda: changing.add([Page(VECTORS[0][:, :8], "x.pdf")]),
        lambda: changing.add([Page(None, "x.pdf", text="no vectors")]),
        lambda: changing.delete(["a.pdf:1", "x"]),
        lambda: changing.update(ids=["x"], metadata=[{}]),
        lambda: changing.update(ids=["a.pdf:1"], metadata=[{"document": "b.pdf"}]),
    )
    for call in calls:
        with pytest.raises((KeyError, ValueError, TypeError)):
            call()
    assert len(changing) == 12


def test_methods_of_folders_are_refused(filled: PageIndex) -> None:
    for call, message in (
        (lambda: filled.save("x"), "has no folder"),
        (filled.info, "index, info and rebuild are not available"),
        (filled.rebuild, "index, info and rebuild are not available"),
        (lambda: filled.search(VECTORS[0], rescore=20), r"Give candidates= instead of rescore\."),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    filled.save()


def test_the_default_is_a_share_or_calibrated(changing: PageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index = changing.texts.index  # type: ignore[attr-defined]
    numbers = []
    for pages_in_it in (12, 2000, 8000):
        with monkeypatch.context() as patch:
            patch.setattr(index.engine, "_count", lambda count=pages_in_it: count)
            numbers.append(index.num_candidates(10))
    assert numbers == [200, 500, 1000] and index.num_candidates(300) == 300
    stored = replace(index.engine.stored, candidates_by_recall=[(0.9, 500), (0.95, 700)])
    index.engine.change_description(stored)
    index.engine.describe()
    assert (index.num_candidates(10), index.num_candidates(10, candidates=50)) == (700, 50)
    asked = Mock(side_effect=index.engine.search)
    monkeypatch.setattr(index.engine, "search", asked)
    changing.search(VECTORS[0, :4], 2)
    assert asked.call_args_list[0].args[0].limit == 700


def test_a_recall_after_a_calibration(changing: PageIndex) -> None:
    changing.calibrate([unit(VECTORS[n % 12, :6] + 0.01 * n) for n in range(66)])
    assert ids(changing.search(VECTORS[5, :6], 1, recall=0.9)) == ["b.pdf:3"]


def test_another_process_opens_the_collection(collections: Any, tmp_path: Path) -> None:
    index = opened(collections, "again", root=tmp_path)
    assert (len(index), index.search(VECTORS[0]), index.get(["x"], missing="ignore")) == (0, [], [])
    assert index.ids == []
    index.add(pages())
    again = PageIndex.open(collections("again"), GreyEncoder())
    assert (again.root, again.served_root, again.encoder_name) == (tmp_path, None, "grey")
    assert PageIndex.open(collections("again"), GreyEncoder(), root=tmp_path / "a").root == tmp_path / "a"
    without = PageIndex.open(collections("again"))  # "grey" is not loaded by its name
    assert ids(without.search(VECTORS[2, :5], 1)) == ["a.pdf:3"]
    with pytest.raises(ValueError, match=r"no encoder for words: 'grey'"):
        without.search("apple")
    with pytest.raises(ValueError, match="'grey'"):
        PageIndex.open(collections("again"), SignTable())


def test_text_layers_are_encoded(collections: Any) -> None:
    engine = collections("layers")
    if not engine.keeps_tokens:
        pytest.skip("it stores no tokens")
    index = PageIndex.open(engine, SignTable())
    layers = ["annual report about apples", "revenue by region", "staff"]
    index.add([Page(None, "a.pdf", n, text=text) for n, text in enumerate(layers, 1)])
    hit = index.search("revenue of a region", 1)[0]
    assert hit.id == "a.pdf:2" and hit.score == pytest.approx(sum(hit.parts.values()))
    assert sum(match.similarity for match in hit.matches()) == pytest.approx(hit.parts["maxsim"], abs=5e-3)
    with pytest.raises(ValueError, match=r"encodes the text of pages, but page 1 of b\.pdf has vectors"):
        index.add([Page(VECTORS[0], "b.pdf")])
    with pytest.raises(ValueError, match="is blank, and a database cannot find blank texts"):
        index.add([Page(None, "b.pdf", text=" ")])
    assert len(index) == 3


def test_texts_and_pages_are_told_apart(collections: Any) -> None:
    engine = collections("kinds")
    if not engine.keeps_tokens:
        with pytest.raises(EngineError, match=r"stores no tokens, so it cannot rank pages\. Use another"):
            PageIndex.open(engine, GreyEncoder())
        return
    with pytest.raises(EngineError, match=r"does not exist.*encoder"):
        PageIndex.open(engine)
    PageIndex.open(engine, GreyEncoder()).add([page(0)])
    with pytest.raises(EngineError, match=r"has pages, not texts\. Open it with PageIndex\.open"):
        TextIndex.open(collections("kinds"), HashEncoder())
    with pytest.raises(EngineError, match=r"has pages, not texts\. Use another collection"):
        EngineIndex(collections("kinds"), text_encoder="grey")
    EngineIndex(collections("vectors"), "mean").add([VECTORS[0]])
    with pytest.raises(EngineError, match=r"has no pages\. Load a page index"):
        PageIndex.open(collections("vectors"), GreyEncoder())


def test_vectors_that_an_engine_does_not_accept_get_fewer_repetitions(filled: PageIndex) -> None:
    engine = filled._pages.index.engine  # type: ignore[union-attr]
    config = encoder_of_pages(128, engine)
    assert config.vector_dimension <= engine.max_dimension
    assert (config.to_dict()["num_repetitions"] == 40) == (engine.max_dimension > 5249)
