"""``muvera pages``: index, search and serve."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera
from builders.pages import DIMENSION, GRID, GreyEncoder, write_pdf

from muvera import PageIndex
from muvera.cli import printing
from muvera.cli.printing import clock
from muvera.pages import Page, indexing, pictures
from muvera.texts.encoders import registry

pytest.importorskip("pypdfium2")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an index of two documents, and load the encoder "grey" by its name."""
    monkeypatch.setattr(registry, "load_page_encoder", lambda name: GreyEncoder())
    (tmp_path / "reports").mkdir()
    write_pdf(tmp_path / "reports" / "2024.pdf", ["annual report", "revenue by region"])
    (tmp_path / "reports" / "bad.pdf").write_bytes(b"%PDF")
    monkeypatch.setattr(printing, "_LONG_JOB", 0.0)
    out = tmp_path / "index"
    code, printed, err = muvera("pages", "index", tmp_path / "reports", out, "--encoder", "grey")
    assert code == 0, err
    assert "2 pages, encoded by grey" in " ".join(printed.split())
    assert re.search(r"^2 pages: this will take about \d+\.\d kB on disk, and about \d+ s\.$", err, re.M), err
    assert err.count("warning") == 1 and "bad.pdf is not a PDF that can be read" in err
    return out


def test_pages_are_found_with_boxes_and_pictures(index: Path, tmp_path: Path) -> None:
    found = answer(
        *("pages", "search", index, "annual", "--encoder", "grey", "--words", "0.5"),
        *("--pictures", tmp_path / "found"),
    )
    first = found["hits"][0]
    assert (first["document"], first["page"]) == ("2024.pdf", 1)
    assert len(first["boxes"][0]) == 5 and Path(first["picture"]).read_bytes().startswith(b"\x89PNG")
    code, printed, _ = muvera("pages", "search", index, "revenue", "-k", 1, "--encoder", "grey")
    assert code == 0 and "2024.pdf, page" in printed


def test_info_of_a_page_index_is_short(index: Path, tmp_path: Path) -> None:
    facts = answer("info", index)
    assert (facts["kind"], facts["pages"], facts["encoder"]) == ("page index", 2, "grey")
    assert facts["root"] == str((tmp_path / "reports").resolve())
    assert facts["patches"]["codec"] == "int8" and facts["patches"]["fitted"] is False
    _, printed, _ = muvera("info", index)
    floats = facts["patches"]["bytes_per_token"]
    assert f"floats, int8 from 50,000 tokens on\n  bytes per token         {floats}\n" in printed
    assert max(map(len, re.findall(r"[\d,]+$", printed, re.M))) < len("1,000,000,000")


@pytest.mark.parametrize("cached", [False, True])
def test_the_size_of_a_model_is_named_before_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    pytest.importorskip("fastembed")
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "cache"))
    model = tmp_path / "cache" / "models--Qdrant--colmodernvbert"
    if cached:  # the layout of huggingface_hub
        (model / "snapshots" / "0").mkdir(parents=True)
        (model / "snapshots" / "0" / "model_v2.onnx").touch()
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text("0")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF")  # no page, so the model is not loaded
    command = ("pages", "index", tmp_path / "bad.pdf", tmp_path / "index", "--encoder", "colmodernvbert")
    code, _, err = muvera(*command)
    assert code == 2 and "bad.pdf" in err
    assert ("colmodernvbert is not on this machine yet. Its first use downloads 1 GB" in err) == (not cached)


def test_documents_are_not_added_to_pages_without_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load_page_encoder", lambda name: GreyEncoder())
    made = PageIndex(DIMENSION, GreyEncoder())
    made.add([Page(np.ones((GRID[0] * GRID[1], DIMENSION), np.float32), "a", 1, GRID)])
    made.save(tmp_path / "index")
    write_pdf(tmp_path / "a.pdf", ["new"])
    code, _, err = muvera("pages", "index", tmp_path / "a.pdf", tmp_path / "index", "--encoder", "grey")
    assert code == 2 and "index of page vectors without documents" in " ".join(err.split())


def test_a_second_call_continues(index: Path, tmp_path: Path) -> None:
    write_pdf(tmp_path / "reports" / "2025.pdf", ["new"])
    facts = answer("pages", "index", tmp_path / "reports", index, "--encoder", "grey")
    assert facts["pages"] == 3 and len(facts["skipped"]) == 1


def test_a_deleted_document_is_encoded_again(index: Path, tmp_path: Path) -> None:
    write_pdf(tmp_path / "reports" / "2025.pdf", ["new", "newer"])
    answer("pages", "index", tmp_path / "reports", index, "--encoder", "grey")
    facts = answer("pages", "delete", index, "2024.pdf", "2025.pdf:2", "2024.pdf:1")
    assert (facts["deleted"], facts["pages"]) == (3, 1)
    assert PageIndex.load(index).ids == ["2025.pdf:1"]
    write_pdf(tmp_path / "reports" / "2024.pdf", ["annual report"])  # a page is gone
    facts = answer("pages", "index", tmp_path / "reports", index, "--encoder", "grey")
    assert facts["pages"] == 3 and PageIndex.load(index).pages_of("2024.pdf") == ["2024.pdf:1"]


def test_a_changed_document_is_updated(index: Path, tmp_path: Path) -> None:
    changed = write_pdf(tmp_path / "reports" / "2024.pdf", ["quarterly report"])  # a page is gone
    facts = answer("pages", "update", index, changed, "--encoder", "grey")
    assert (facts["pages"], facts["skipped"]) == (1, [])
    assert answer("pages", "get", index, "2024.pdf")["documents"][0]["text"].strip() == "quarterly report"


def test_an_unknown_document_deletes_nothing(index: Path) -> None:
    code, _, err = muvera("pages", "delete", index, "2024.pdf", "2023.pdf")
    assert code == 2 and "'2023.pdf' is not in the index" in " ".join(err.split())
    assert len(PageIndex.load(index)) == 2


def test_pages_are_listed_and_read_by_id_or_document(index: Path) -> None:
    listed = answer("pages", "list", index, "--where", '{"number": {"$gte": 2}}')
    assert (listed["found"], [page["id"] for page in listed["documents"]]) == (1, ["2024.pdf:2"])
    assert "1 to 1 of 2 pages" in muvera("pages", "list", index, "-k", 1)[2]
    assert "names the field 'year'" in muvera("pages", "list", index, "--where", '{"year": 1}')[2]
    for name, texts in (
        ("2024.pdf", ["annual report", "revenue by region"]),
        ("2024.pdf:1", ["annual report"]),
    ):
        documents = answer("pages", "get", index, name)["documents"]
        assert [document["text"].strip() for document in documents] == texts
    assert documents[0]["metadata"]["document"] == "2024.pdf"


def test_documents_are_found_by_their_best_pages(index: Path) -> None:
    search = ("pages", "search", index, "annual", "--encoder", "grey", "--group-by")
    assert [hit["document"] for hit in answer(*search, "document")["hits"]] == ["2024.pdf"]
    code, _, err = muvera(*search, "brand")
    assert code == 2 and "--group-by names the field 'brand'" in err and "document, number" in err


def test_pages_are_deleted_by_a_condition(index: Path) -> None:
    assert answer("pages", "delete", index, "--where", '{"number": 2}')["deleted"] == 1
    assert PageIndex.load(index).ids == ["2024.pdf:1"]


def test_documents_are_added_with_the_encoder_of_the_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write_pdf(tmp_path / "reports" / "2025.pdf", ["new"])
    assert answer("pages", "add", index, new, "--encoder", "grey")["pages"] == 3
    code, _, err = muvera("pages", "add", tmp_path / "none", new)
    assert code == 2 and "contains no page index" in " ".join(err.split())
    code, _, err = muvera("pages", "add", index, new)  # "grey" is not built in
    assert code == 2 and "'grey', which made its vectors, is not loaded" in " ".join(err.split())


@pytest.fixture
def url(index: Path, tmp_path: Path) -> str:
    """The URL of a database with the pages of `index`."""
    pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    url = f"lancedb:{tmp_path}/lance#pages"
    report = answer("load", index, "--to", url)
    assert (report["added"], report["description"]["pages"]) == (2, str((tmp_path / "reports").resolve()))
    return url


def test_a_database_is_served_and_described(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    described = answer("info", url)
    assert (described["kind"], described["documents"]) == ("collection of pages", 2)
    assert described["description"]["text_encoder"] == "grey"
    served: list[Any] = []
    monkeypatch.setattr("muvera.serve.serve", lambda index, *_, name, **__: served.append((len(index), name)))
    err = muvera("serve", url, "--encoder", "grey")[2]
    assert served == [(2, "pages")] and f"muvera serve {url} --root {tmp_path / 'reports'}" in err


def test_a_database_has_the_commands_of_a_folder(index: Path, url: str, tmp_path: Path) -> None:
    here, there = (
        [
            (hit["id"], hit["boxes"][0][:4])  # half precision can move a weaker box
            for hit in answer("pages", "search", each, "annual", "--encoder", "grey")["hits"]
        ]
        for each in (index, url)
    )
    assert here == there
    new = write_pdf(tmp_path / "reports" / "2025.pdf", ["new"])
    for pages in (3, 3):  # the second call encodes nothing
        assert answer("pages", "add", url, new, "--encoder", "grey")["pages"] == pages
    assert answer("pages", "get", url, "2025.pdf:1")["documents"][0]["text"] == "new"
    listed = answer("pages", "list", url, "--where", '{"number": 1}')
    assert [one["id"] for one in listed["documents"]] == ["2024.pdf:1", "2025.pdf:1"]
    assert answer("pages", "delete", url, "--where", '{"document": "2025.pdf"}')["pages"] == 2
    assert answer("pages", "delete", url, "2024.pdf")["deleted"] == 2
    for command, message in (
        (("pages", "delete", url, "2024.pdf"), "'2024.pdf' is not in"),
        (("texts", "search", url, "annual"), "is a page index, but this command needs texts"),
        (("load", index, "--to", url, "--no-tokens"), "could not rank pages"),
        (("pages", "add", url, new, "--encoder", "grey", "--root", index), "its new path as root"),
    ):
        assert message in " ".join(fails(*command).split())


def test_text_layers_are_loaded_into_a_database(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    pytest.importorskip("wordllama")
    (tmp_path / "reports").mkdir()
    write_pdf(tmp_path / "reports" / "2024.pdf", ["annual report", "", "revenue by region"])
    answer("pages", "index", tmp_path / "reports", tmp_path / "index")
    url = f"lancedb:{tmp_path}/lance#pages"
    assert answer("load", tmp_path / "index", "--to", url)["without_tokens"] == 1
    assert answer("pages", "search", url, "earnings of regions", "-k", 1)["hits"][0]["page"] == 3
    facts = answer("pages", "add", url, tmp_path / "reports")
    assert facts["pages"] == 2 and facts["skipped"] == [
        "1 page without a text layer cannot be found, so the database has no record."
    ]
    changed = write_pdf(tmp_path / "reports" / "2024.pdf", ["", "earnings of the north"])
    assert answer("pages", "update", url, changed)["pages"] == 1
    assert answer("pages", "list", url)["documents"][0]["id"] == "2024.pdf:2"


def test_a_command_for_texts_refuses_pages(index: Path) -> None:
    code, _, err = muvera("texts", "search", index, "annual", "--encoder", "grey")
    assert code == 2 and "is a page index, but this command needs texts" in " ".join(err.split())


def test_a_search_ranks_as_many_pages_as_wanted(index: Path) -> None:
    found = answer("pages", "search", index, "annual", "--encoder", "grey", "-k", 2, "--candidates", 1)
    assert len(found["hits"]) == 2


def test_wrong_arguments_are_named(index: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("search", index, " "), "The query is blank"),
        (("search", index, "a"), "no encoder for words"),
        (("search", tmp_path, "a"), "contains no page index"),
        (("index", tmp_path / "missing", tmp_path / "new"), "does not exist"),
    ):
        code, _, err = muvera("pages", *arguments)
        assert code == 2 and words in " ".join(err.split()), err


def test_an_interrupt_keeps_pages(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pdf(tmp_path / "reports" / "2025.pdf", ["new", "newer"])
    read = pictures.read_page

    def interrupted(path: Path, number: int) -> object:
        if number == 2 and path.name == "2025.pdf":
            raise KeyboardInterrupt
        return read(path, number)

    monkeypatch.setattr(indexing, "read_page", interrupted)
    code, _, err = muvera("pages", "index", tmp_path / "reports", index, "--encoder", "grey")
    assert code == 130 and "keeps the encoded pages" in err
    monkeypatch.undo()
    assert len(PageIndex.load(index)) == 3


def test_durations_are_short() -> None:
    assert [clock(seconds) for seconds in (40, 300, 7500)] == ["40 s", "5 min", "2 h 5 min"]


def test_info_describes_a_page_index(index: Path) -> None:
    facts = answer("info", index)
    assert (facts["kind"], facts["pages"], facts["encoder"]) == ("page index", 2, "grey")
    code, printed, _ = muvera("info", index)
    assert code == 0 and "floats, int8 from 50,000 tokens on" in printed
