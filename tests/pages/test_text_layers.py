"""Pages whose text layer is encoded instead of their picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera
from builders.pages import DIMENSION, GRID, GreyEncoder, page_vectors, write_pdf
from builders.text_encoders import SignTable
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import PageIndex, TextIndex
from muvera.index.generations import IndexFolderError
from muvera.pages import Page, indexing, pictures
from muvera.pages.indexing import index_documents
from muvera.texts.encoders import registry
from muvera.texts.encoders.base import TableEncoder
from muvera.texts.encoders.pages import TextLayerEncoder

LAYERS = ["annual report\nabout apples", "", "revenue by region"]


def text_index(texts: list[str]) -> PageIndex:
    index = PageIndex(DIMENSION, SignTable())
    index.add([Page(None, "a.pdf", number, text=text) for number, text in enumerate(texts, 1)])
    return index


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Return a folder with a PDF of which one page has no text, and a picture."""
    folder = tmp_path / "documents"
    folder.mkdir()
    pytest.importorskip("pypdfium2")
    write_pdf(folder / "report.pdf", LAYERS)
    pytest.importorskip("PIL.Image").new("RGB", (40, 60)).save(folder / "scan.png")
    return folder


sentences = st.lists(
    st.lists(st.sampled_from(["red", "blue", "apple", "pear", "tree"]), max_size=12).map(" ".join), min_size=1
)


@given(sentences, st.sampled_from(["red apple", "tree", "no word"]), st.sampled_from([None, 0, 0.5]))
@settings(max_examples=40)
def test_pages_rank_as_texts_do(texts: list[str], query: str, words: float | None) -> None:
    pages = text_index(texts).search(query, 5, words=words)
    hits = TextIndex.build(texts, SignTable()).search(query, 5, words=words)
    assert [(hit.page[1] - 1, hit.score, hit.parts, hit.text) for hit in pages] == [
        (hit.id, hit.score, hit.parts, hit.text) for hit in hits
    ]


@given(sentences, st.sampled_from(["red apple", "tree", " "]), st.sampled_from([None, 0, 0.5]))
@settings(max_examples=40)
def test_given_pages_rank_as_given_texts_do(texts: list[str], query: str, words: float | None) -> None:
    pages = [Page(None, "a.pdf", number, text=text) for number, text in enumerate(texts, 1)]
    ranked = text_index(["of the index"]).rerank(query, pages, 5, words=words)
    hits = TextIndex.build(["of the index"], SignTable()).rerank(query, texts, 5, words=words)
    assert [(hit.page[1] - 1, hit.score, hit.parts, hit.text) for hit in ranked] == [
        (hit.id, hit.score, hit.parts, hit.text) for hit in hits
    ]
    for hit in ranked:
        similarity = sum(match.similarity for match in hit.matches())
        assert words != 0 or similarity == pytest.approx(hit.parts["maxsim"], abs=1e-4)


def test_a_folder_is_searched_by_its_text_layers(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "_drawn", lambda *given: drawn.append(given))
    index = index_documents(documents, tmp_path / "index", SignTable())
    assert drawn == [] and index.ids == [f"report.pdf:{n}" for n in (1, 2, 3)] + ["scan.png:1"]
    assert (index.info()["without_text"], index.info()["patches"]["codec"]) == (2, "table")
    hits = PageIndex.load(tmp_path / "index", SignTable()).search("revenue of a region", 9)
    assert [hit.id for hit in hits] == ["report.pdf:3", "report.pdf:1"]
    assert hits[0].source.facts.size == (400, 600)


def test_a_second_call_reads_only_new_documents(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_documents(documents, tmp_path / "index", SignTable())
    write_pdf(documents / "new.pdf", ["new words"])
    read: list[str] = []

    def seen(path: Path, number: int) -> Any:
        read.append(path.name)
        return pictures.read_text(path, number)

    monkeypatch.setattr(indexing, "read_text", seen)
    index = index_documents(documents, tmp_path / "index", SignTable())
    assert read == ["new.pdf"] and len(index) == 5


def test_a_hit_has_a_picture_but_no_map(documents: Path, tmp_path: Path) -> None:
    index = index_documents(documents, tmp_path / "index", SignTable())
    hit = index.search("annual report", 1)[0]
    hit.save(tmp_path / "hit.png", width=100)
    assert pictures.read_picture(str(tmp_path / "hit.png"), 1, None, 100).size == (100, 150)
    assert sum(match.similarity for match in hit.matches()) == pytest.approx(hit.parts["maxsim"], abs=1e-5)
    with pytest.raises(ValueError, match=r"grid of page 1 of report\.pdf is not known"):
        hit.heatmap()


def test_changes_of_an_open_index_are_durable(tmp_path: Path) -> None:
    text_index(LAYERS).save(tmp_path / "index")
    index = PageIndex.open(tmp_path / "index", SignTable())
    index.update([Page(None, "a.pdf", 1, text="green pears")])
    index.update(ids=["a.pdf:3"], metadata=[{"year": 2024}])
    index.delete(["a.pdf:2"])
    loaded = PageIndex.load(tmp_path / "index", SignTable())  # the folder has only a journal of them
    assert loaded.search("green pears", 1)[0].text == "green pears" and loaded.ids == index.ids
    assert loaded.search("revenue", 1, where={"year": 2024})[0].metadata == {"year": 2024}
    index.rebuild()
    assert index.info()["without_text"] == 0
    index.close()


def test_vectors_and_text_are_not_mixed() -> None:
    with pytest.raises(ValueError, match=r"page 1 of b\.pdf has vectors\. Omit them\."):
        text_index(LAYERS).add([Page(page_vectors(1)[0], "b.pdf")])
    with pytest.raises(ValueError, match=r"page 1 of b\.pdf has no vectors, which this index needs"):
        PageIndex(DIMENSION).add([Page(None, "b.pdf", text="words")])
    with pytest.raises(ValueError, match="columns, got dimension=8"):
        PageIndex(8, SignTable())
    for wrong in ({"grid": GRID}, {"special": 2}):
        with pytest.raises(ValueError, match=r"page 1 of b\.pdf has a grid or special vectors, but no"):
            Page(None, "b.pdf", **wrong)
    with pytest.raises(ValueError, match="reads the text layer of a page, not its picture"):
        TextLayerEncoder(SignTable()).encode_page(None)  # type: ignore[arg-type]


def test_a_page_without_text_is_not_explained() -> None:
    index = text_index(LAYERS)
    assert index.explain("apples", "a.pdf:1").parts["maxsim"] > 0
    with pytest.raises(ValueError, match=r"Page 2 of a\.pdf has no text to explain"):
        index.explain("apples", "a.pdf:2")


class OtherTable(SignTable):
    """Has the name of SignTable and another table."""

    def __init__(self) -> None:
        TableEncoder.__init__(self, np.eye(256, DIMENSION, dtype=np.float32))


def test_an_index_needs_the_encoder_that_made_it(tmp_path: Path) -> None:
    text_index(LAYERS).save(tmp_path / "index")
    unread = PageIndex.load(tmp_path / "index")  # "signs" is not built in
    assert unread.get(["a.pdf:1"])[0].text == LAYERS[0] and unread.select({"number": 2}) == ["a.pdf:2"]
    for query in ("apples", page_vectors(1)[0, :2]):
        with pytest.raises(ValueError, match="'signs', which made its vectors, is not loaded"):
            unread.search(query)
    with pytest.raises(ValueError, match="was built with the encoder 'signs', got 'grey'"):
        PageIndex.load(tmp_path / "index", GreyEncoder())
    with pytest.raises((ValueError, IndexFolderError), match="table"):
        PageIndex.load(tmp_path / "index", OtherTable())


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the encoder "signs" by its name."""
    monkeypatch.setattr(registry, "load_page_encoder", lambda name: TextLayerEncoder(SignTable()))


@pytest.mark.usefixtures("named")
def test_the_command_counts_pages_without_text(documents: Path, tmp_path: Path) -> None:
    command = ("pages", "index", documents, tmp_path / "index", "--encoder", "signs")
    code, out, err = muvera(*command)
    assert code == 0, err
    assert "4 pages, encoded by signs" in " ".join(out.split())
    assert "2 pages have no text layer, so no search finds them" in " ".join(out.split())
    assert answer(*command)["without_text"] == 2
    search = ("pages", "search", tmp_path / "index", "annual report", "--encoder", "signs")
    found = answer(*search, "--group-by", "document", "--pictures", tmp_path / "found")["hits"]
    assert [hit["document"] for hit in found] == ["report.pdf"] and Path(found[0]["picture"]).is_file()


@pytest.mark.usefixtures("named")
def test_a_folder_of_scans_is_refused(documents: Path, tmp_path: Path) -> None:
    command = ("pages", "index", documents / "scan.png", tmp_path / "index", "--encoder", "signs")
    error = fails(*command)
    assert "has a text layer, which the encoder 'signs' reads. Give --encoder colmodernvbert" in error
    assert not (tmp_path / "index").exists()
    assert "Omit --factor." in fails(*command, "--factor", 2)


def test_the_default_encoder_needs_no_model(documents: Path, tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    pytest.importorskip("safetensors")
    facts = answer("pages", "index", documents, tmp_path / "index")
    assert (facts["encoder"], facts["pages"], facts["without_text"]) == ("static", 4, 2)
    shutil.move(tmp_path / "index", tmp_path / "moved")
    [hit] = PageIndex.load(tmp_path / "moved").search("earnings by area", 1)
    assert hit.id == "report.pdf:3" and hit.words == ["earnings", "by", "area"]


def test_a_page_without_tokens_is_not_stored_in_a_database(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    pytest.importorskip("pypdfium2")
    (tmp_path / "reports").mkdir()
    write_pdf(tmp_path / "reports" / "a.pdf", ["annual report", "???"])
    skipped: list[str] = []
    with PageIndex.open(f"lancedb:{tmp_path}/lance#pages", SignTable(), root=tmp_path / "reports") as index:
        index_documents(tmp_path / "reports", index, skipped=skipped.append)
        assert index.ids == ["a.pdf:1"]
    assert len(skipped) == 1 and skipped[0].startswith("1 page without a text layer")
