"""The server of a page index: answers, limits, and its page in a real browser."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.browsers import CHROMIUM, launched
from builders.pages import GRID, GreyEncoder, page_vectors, write_pdf
from builders.text_encoders import SignTable

from muvera import PageIndex
from muvera.pages import Page
from muvera.pages.hit import PageHit
from muvera.pages.indexing import index_documents
from muvera.serve import ServerSettings

for module in ("fastapi", "uvicorn", "pypdfium2", "PIL"):
    pytest.importorskip(module)

from builders.servers import running  # noqa: E402


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PageIndex:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "documents").mkdir()
    write_pdf(folder / "documents" / "report.pdf", ["first page\nabout apples", "", "third page"])
    write_pdf(folder / "documents" / "<b>bold.pdf", ["another document"])
    return index_documents(folder / "documents", folder / "index", GreyEncoder())


@pytest.fixture(scope="module")
def address(index: PageIndex) -> Iterator[str]:
    with running(index, name="reports") as port:
        yield f"http://127.0.0.1:{port}"


def ask(url: str, body: Any = None, method: str | None = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", **headers}, method=method
    )
    try:
        with urllib.request.urlopen(request) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content.startswith(b"{") else content
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["detail"]


def test_a_search_returns_a_map_for_each_word(address: str, index: PageIndex) -> None:
    status, answer = ask(f"{address}/search", {"query": "a whitewhite page", "k": 2, "words": 0})
    first = answer["results"][0][0]
    maps = first["page"]["maps"]
    assert status == 200 and [word["word"] for word in maps["words"]] == ["a", "whitewhite", "page"]
    hit = index.search("a whitewhite page", 2, words=0)[0]
    assert (first["id"], first["text"], first["page"]["number"]) == (hit.id, hit.text, hit.page[1])
    assert maps["grid"] == list(GRID)
    dark, light = (
        np.frombuffer(base64.b64decode(maps["words"][i]["map"]), np.uint8).reshape(GRID) for i in (0, 1)
    )
    assert dark[-1, -1] > 100 and dark[0, -1] == 0 and light[-1, -1] == 0 and light[0, -1] > 0
    assert maps["boxes"] == [pytest.approx(box) for box in hit.boxes()]


def test_vectors_are_searched_without_maps(address: str) -> None:
    vectors = GreyEncoder().encode_queries(["a b"])[0].tolist()
    status, answer = ask(f"{address}/search", {"vectors": [vectors], "maps": False})
    assert status == 200 and len(answer["results"][0]) == 4
    assert answer["results"][0][0]["page"]["maps"] is None
    status, answer = ask(f"{address}/search", {"vectors": [vectors]})
    assert status == 200 and answer["results"][0][0]["page"]["maps"]["words"] == []


def test_several_queries_are_answered_as_one_by_one(address: str) -> None:
    queries = ["a page", "whitewhite"]
    together = ask(f"{address}/search", {"queries": queries, "maps": False})[1]["results"]
    single = [ask(f"{address}/search?q={query.replace(' ', '+')}")[1]["results"] for query in queries]
    assert together == [hits for [hits] in single] and together[0] != together[1]
    assert ask(f"{address}/search", {"queries": []})[1]["results"] == []


def test_info_names_no_folder_of_the_server(address: str, index: PageIndex) -> None:
    info = ask(f"{address}/info")[1]
    assert (info["name"], info["kind"], info["documents"]) == ("reports", "pages", len(index))
    assert (info["text_encoder"], info["writable"]) == ("grey", False)
    assert str(index.root) not in json.dumps(info)


def test_metrics_count_the_pages(address: str, index: PageIndex) -> None:
    status, metrics = ask(f"{address}/metrics")
    assert status == 200 and f"\nmuvera_documents {len(index)}\n".encode() in metrics


def test_pictures_are_jpeg_of_two_widths(address: str) -> None:
    for width in (400, 1200):
        status, content = ask(f"{address}/picture?id=report.pdf:1&width={width}")
        assert status == 200 and content.startswith(b"\xff\xd8")
    assert ask(f"{address}/picture?id=report.pdf:1&width=9999")[0] == 422
    for unknown in ("nothing:1", "1", "9" * 19, "9" * 4000):
        status, detail = ask(f"{address}/picture?id={unknown}")
        assert status == 404 and "is not in the index" in detail


def test_pages_found_by_their_text_have_pictures_but_no_maps(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    write_pdf(tmp_path / "documents" / "report.pdf", ["red apples", "", "red pears"])
    index = index_documents(tmp_path / "documents", tmp_path / "index", SignTable())
    with running(index) as port:
        address = f"http://127.0.0.1:{port}"
        body = {"query": "red pears", "group_by": "document"}
        [[hit]] = ask(f"{address}/search", body)[1]["results"]
        assert (hit["id"], hit["text"], hit["page"]["maps"]) == ("report.pdf:3", "red pears", None)
        assert set(hit["parts"]) == {"maxsim", "words", "mean"}
        assert ask(f"{address}/picture?id={hit['id']}")[1].startswith(b"\xff\xd8")
        assert ask(f"{address}/info")[1]["without_text"] == 1


def test_only_documents_in_the_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    secret = write_pdf(tmp_path / "secret.pdf", ["secret"])
    vectors = page_vectors(3)
    index = PageIndex(vectors.shape[2], root=tmp_path / "documents")
    names = [str(secret), "../secret.pdf", "missing.pdf"]
    index.add(Page(own, name, grid=GRID) for own, name in zip(vectors, names, strict=True))
    with running(index) as port:
        for name in names:
            status, detail = ask(f"http://127.0.0.1:{port}/picture?id={name}:1")
            assert status == 404 and str(tmp_path / "documents") not in detail
        status, detail = ask(f"http://127.0.0.1:{port}/search", {"query": "words"})
        assert status == 422 and "no encoder" in detail


def test_an_index_does_not_choose_the_folder_of_the_pictures(tmp_path: Path) -> None:
    secret = write_pdf(tmp_path / "secret.pdf", ["secret"])
    made = PageIndex(page_vectors(1).shape[2], root="/")
    made.add([Page(page_vectors(1)[0], str(secret.relative_to("/")), grid=GRID)])
    made.save(tmp_path / "index")
    for root, expected in ((None, 404), (tmp_path / "index", 404), ("/", 200)):
        with running(PageIndex.load(tmp_path / "index", root=root)) as port:
            id = urllib.parse.quote(str(made.ids[0]))
            status, detail = ask(f"http://127.0.0.1:{port}/picture?id={id}")
            assert status == expected and (root is not None or "--root" in detail)


def test_a_search_reads_each_page_once_for_its_maps(
    address: str, index: PageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    token_maps = PageHit.token_maps

    def counted(hit: PageHit) -> Any:
        made.append(hit.id)
        return token_maps(hit)

    monkeypatch.setattr(PageHit, "token_maps", counted)
    status, answer = ask(f"{address}/search", {"query": " ".join("abcdefgh"), "k": 3})
    assert status == 200 and len(answer["results"][0][0]["page"]["maps"]["words"]) == 8
    assert sorted(made) == sorted(hit["id"] for hit in answer["results"][0])


def test_limits_and_wrong_bodies_are_answered(address: str) -> None:
    for body, words in (
        ({"query": "a", "k": 5000}, "k may be at most 1,000"),
        ({"query": "a", "k": 51}, 'Give "maps": false.'),
        ({"query": "a \ud800"}, "The query has a lone surrogate"),
        ({"query": " "}, "blank"),
        ({"queries": ["a", "b"], "k": 26}, "k may be at most 50 with maps, for all queries"),
        ({}, "Give one of query, queries and vectors"),
        ({"query": "a", "unit": "sentence"}, "A page index has no unit. Omit it."),
        ({"query": "a", "group": "part"}, "A page index has no group. Omit it."),
        ({"query": "a", "other": 1}, "no field"),
        ({"vectors": [[[1.0, 2.0]]]}, "dimension"),
    ):
        status, detail = ask(f"{address}/search", body)
        assert status == 422 and words in detail, body


def test_what_needs_texts_is_refused(address: str, index: PageIndex) -> None:
    status, detail = ask(f"{address}/explain", {"query": "a", "ids": ["a"]})
    assert status == 422 and "This index has pages, not texts" in detail
    assert ask(f"{address}/documents", {"texts": ["a"]})[0] == 403


def test_pages_are_listed_and_read(address: str, index: PageIndex) -> None:
    listed = ask(f"{address}/documents?k=2&offset=1")[1]
    assert (listed["found"], [page["id"] for page in listed["documents"]]) == (4, index.ids[1:3])
    status, page = ask(f"{address}/documents/report.pdf:1")
    assert status == 200 and page["metadata"] == {"document": "report.pdf", "number": 1}
    assert page["text"].split() == ["first", "page", "about", "apples"]


def test_changed_pages_are_on_disk(index: PageIndex, tmp_path: Path) -> None:
    token = {"Authorization": f"Bearer {'x' * 20}"}
    index.save(tmp_path / "index")
    with PageIndex.open(tmp_path / "index", GreyEncoder(), root=index.root) as opened:
        with running(opened, ServerSettings("x" * 20, writable=True)) as port:
            url = f"http://127.0.0.1:{port}"
            change = {"ids": ["report.pdf:1"], "metadata": [{"year": 2026}]}
            assert ask(f"{url}/documents", change, "PATCH", **token)[0] == 200
            assert ask(f"{url}/picture?id=report.pdf:2")[0] == 200
            assert ask(f"{url}/documents", {"ids": ["report.pdf:2"]}, "DELETE", **token)[0] == 200
            assert ask(f"{url}/picture?id=report.pdf:2")[0] == 404
            status, detail = ask(f"{url}/documents", {"texts": ["a"]}, "POST", **token)
            assert status == 422 and "pages, not texts" in detail
        stored = PageIndex.load(tmp_path / "index")  # before the close, from the journal
        assert len(stored) == 3 and stored.get(["report.pdf:1"])[0].metadata["year"] == 2026


def test_a_picture_of_a_deleted_page_is_not_kept(index: PageIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    changed = PageIndex.load(tmp_path / "index", root=index.root)
    with running(changed) as port:
        url = f"http://127.0.0.1:{port}/picture?id=report.pdf:1"
        assert ask(url)[0] == 200
        changed.delete(["report.pdf:1"])
        assert ask(url)[0] == 404


def test_a_read_token_is_required_for_pictures(index: PageIndex) -> None:
    with running(index, ServerSettings(read_token="x" * 20)) as port:
        url = f"http://127.0.0.1:{port}/picture?id=report.pdf:1"
        assert ask(url)[0] == 401
        assert ask(url, Authorization=f"Bearer {'x' * 20}")[0] == 200


# -- the page -------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        opened = launched(started)
        yield opened
        opened.close()


# Shares of reddish pixels in the upper and the lower half of a canvas.
SHADES = """canvas => {
  const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const halves = [0, 0];
  for (let i = 0; i < width * height; i += 1)
    if (data[4 * i] > data[4 * i + 2] + 40) halves[Math.floor(2 * i / width / height)] += 1;
  return halves.map(count => 2 * count / width / height);
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_shows_thumbnails_and_a_map_for_each_word(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address}/?q=a+whitewhite+page")
    for i in range(4):
        page.locator(".pages canvas.w400").nth(i).wait_for()
    assert page.title() == "reports" and page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".asked button").all_inner_texts() == ["a", "whitewhite", "page"]
    assert "<b>bold.pdf" in page.locator(".pages .name").all_inner_texts()
    page.locator(".asked button").first.click()
    upper, lower = page.locator(".pages canvas").first.evaluate(SHADES)
    assert lower > 0.2 and upper < 0.05
    page.locator(".pages .page").first.click()
    page.locator("#canvas.w1200").wait_for()
    assert "page" in page.locator("#title").inner_text() and page.locator("#large").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    assert faults == []
    page.close()
