"""The server of texts and pages in a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.pages import GRID, GreyEncoder, page_vectors
from builders.text_encoders import HashEncoder

from muvera import PageIndex, TextIndex
from muvera.engines import EngineIndex
from muvera.pages import Page
from muvera.serve import ServerSettings

pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

from fastapi.testclient import TestClient

from muvera.serve.app import make_app

TEXTS = ["a red apple", "a green pear", "the blue whale. It sings."]
VECTORS = page_vectors(3)
TOKEN = {"Authorization": "Bearer secret"}
WRITABLE = ServerSettings(token="secret", writable=True)


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[TextIndex]:
    url = f"lancedb:{tmp_path}#docs"
    with EngineIndex(url, "mean", text_encoder="hash") as made:
        encoded = HashEncoder().encode_documents(TEXTS)
        made.add(encoded.with_ids(["apple", "pear", "whale"]), texts=TEXTS)
    with TextIndex.open(url, HashEncoder()) as opened:
        yield opened


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[PageIndex]:
    with PageIndex.open(f"lancedb:{tmp_path}#pages", GreyEncoder(), root=tmp_path) as opened:
        opened.add([Page(VECTORS[n], "a.pdf", n + 1, grid=GRID, text="red") for n in range(3)])
        yield opened


def ids(answer: Any) -> list[Any]:
    return [hit["id"] for hit in answer.raise_for_status().json()["results"][0]]


def test_texts_are_searched_listed_and_changed(texts: TextIndex) -> None:
    with TestClient(make_app(texts, WRITABLE), headers=TOKEN) as client:
        assert ids(client.get("/search?q=red+apple&k=1")) == ["apple"]
        vectors = [texts.texts.tokens(["pear"])[0].tolist()]
        assert ids(client.post("/search", json={"vectors": vectors, "k": 1})) == ["pear"]
        listed = client.get("/documents?k=1&offset=1").json()
        assert (listed["found"], listed["documents"][0]["id"]) == (3, "pear")
        client.post("/documents", json={"texts": ["tea"], "ids": ["new"]}).raise_for_status()
        client.request("DELETE", "/documents", json={"ids": ["pear"]}).raise_for_status()
        assert client.post("/save").json() == {"documents": 3}
    assert texts.select({}) == ["apple", "new", "whale"]


def test_pages_are_searched_with_maps(pages: PageIndex) -> None:
    with TestClient(make_app(pages)) as client:
        hit = client.get("/search?q=red&k=1").json()["results"][0][0]
        assert hit["page"]["document"] == "a.pdf"
        found = client.post("/search", json={"vectors": [VECTORS[2, :5].tolist()], "k": 1}).json()
        assert len(found["results"][0][0]["page"]["maps"]["query"]) > 0
        assert client.get("/documents?k=2").json()["documents"][1]["id"] == "a.pdf:2"
        assert client.get("/documents/a.pdf:3").json()["metadata"] == {"document": "a.pdf", "number": 3}


@pytest.mark.parametrize("kind", ["texts", "pages"])
def test_no_answer_shows_where_the_database_is(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index: TextIndex | PageIndex = request.getfixturevalue(kind)
    with TestClient(make_app(index)) as client:
        info = client.get("/info").raise_for_status()
        assert info.json()["engine"] == "lancedb" and info.json()["documents"] == 3
        unknown = client.get("/documents/x")
        assert unknown.status_code == 404 and "is not in the index" in unknown.json()["detail"]
        index.close()
        failed = client.get("/search?q=red")
        assert failed.status_code == 502 and "The database of the index failed" in failed.json()["detail"]
        assert not any(str(tmp_path) in answer.text for answer in (info, unknown, failed))
    assert str(tmp_path) in caplog.text


def test_a_request_reads_few_characters(texts: TextIndex) -> None:
    with TestClient(make_app(texts, ServerSettings(max_read_characters=20))) as client:
        assert client.get("/documents?k=1").status_code == 200
        assert "more than 20 characters" in client.get("/documents?k=3").json()["detail"]
