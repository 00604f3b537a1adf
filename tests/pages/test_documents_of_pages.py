"""PDFs and pictures: reading, indexing a folder, maps on pictures, and encoders."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders.pages import GRID, GreyEncoder, write_pdf

from muvera import PageIndex
from muvera.pages.indexing import Progress, index_documents
from muvera.texts.encoders.http import HTTPEncoder
from muvera.texts.encoders.pages import FastembedPageEncoder
from muvera.texts.encoders.registry import load_page_encoder

pytest.importorskip("pypdfium2")
image = pytest.importorskip("PIL.Image")

from muvera.pages.pictures import count_pages, read_page, read_picture  # noqa: E402


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Return a folder with good and bad documents."""
    folder = tmp_path / "documents"
    (folder / "sub").mkdir(parents=True)
    write_pdf(folder / "report.pdf", ["first page\nabout apples", "", "third page"])
    image.new("RGB", (40, 60), "white").save(folder / "sub" / "white.png")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "cut.jpg").write_bytes(_jpeg()[:700])
    (folder / "notes.txt").write_text("no page")
    return folder


def _jpeg() -> bytes:
    file = BytesIO()
    noise = (255 * np.random.default_rng(0).random((60, 40, 3))).astype(np.uint8)
    image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def test_a_page_of_a_pdf_has_text_lines_and_size(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["first line\nsecond line", ""])
    page = read_page(path, 1)
    assert page.text == "first line\nsecond line"
    assert page.size == pytest.approx((400, 600))
    (x0, y0, x1, y1), second = page.lines
    assert x0 == pytest.approx(0.1, abs=0.01) and 0.06 < y0 < y1 < 0.12 and x1 < 0.5
    assert second[1] - y0 == pytest.approx(40 / 600, abs=0.01)
    assert read_page(path, 2)[1:] == ("", [], (400, 600))


def test_lines_of_a_rotated_page_are_where_its_text_is(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["turned line"])
    path.write_bytes(path.read_bytes().replace(b"/MediaBox", b"/Rotate 90 /MediaBox"))
    page = read_page(path, 1)
    [(x0, y0, x1, y1)] = page.lines
    dark = np.asarray(page.picture.convert("L")) < 128
    height, width = dark.shape
    assert page.size == pytest.approx((600, 400)) and width > height
    assert dark[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)].mean() > 0.1


def test_pictures_of_pages_have_the_wanted_width(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["text"])
    picture = read_picture("a.pdf", 1, tmp_path, 100)
    assert picture.size == (100, 150)
    assert picture.getpixel((90, 140)) == (0, 0, 0) and picture.getpixel((5, 5)) == (255, 255, 255)
    long = write_pdf(tmp_path / "long.pdf", ["text"], (10, 14_000))
    assert max(read_picture(str(long), 1, None, 1000).size) <= 8192
    with pytest.raises(ValueError, match="has no page 2"):
        read_picture(str(path), 2, None, 100)


def test_a_folder_is_indexed_and_each_bad_file_gets_one_sentence(documents: Path, tmp_path: Path) -> None:
    sentences: list[str] = []
    states: list[Progress] = []
    out = tmp_path / "index"
    index = index_documents(documents, out, GreyEncoder(), progress=states.append, skipped=sentences.append)
    assert index.ids == ["report.pdf:1", "report.pdf:2", "report.pdf:3", "sub/white.png:1"]
    assert len(sentences) == 3
    for name in ("broken.pdf", "broken.png", "cut.jpg"):
        assert sum(name in sentence and "\n" not in sentence for sentence in sentences) == 1
    assert (states[-1].done, states[-1].total, states[-1].seconds_left) == (4, 4, 0)
    assert len(PageIndex.load(out)) == 4


def test_a_name_that_is_not_utf8_loses_no_other_document(documents: Path, tmp_path: Path) -> None:
    try:
        (documents / os.fsdecode(b"caf\xe9.png")).write_bytes((documents / "sub" / "white.png").read_bytes())
    except OSError:
        pytest.skip("this file system requires UTF-8")
    sentences: list[str] = []
    index = index_documents(documents, tmp_path / "index", GreyEncoder(), skipped=sentences.append)
    assert len(index) == 4
    assert sum("is not UTF-8" in sentence and "Rename the file" in sentence for sentence in sentences) == 1
    assert "".join(sentences).encode()


def test_a_pdf_that_says_it_has_many_pages_costs_little(tmp_path: Path) -> None:
    content = write_pdf(tmp_path / "a.pdf", ["text"]).read_bytes()
    for count, total in ((20_000, 1), (1_000_000, 0)):
        (tmp_path / "a.pdf").write_bytes(content.replace(b"/Count 1 ", b"/Count %d " % count))
        sentences: list[str] = []
        states: list[Progress] = []
        calls: dict[str, Any] = {"progress": states.append, "skipped": sentences.append}
        if total:
            index = index_documents(tmp_path, tmp_path / "index", GreyEncoder(), **calls)
            assert index.ids == ["a.pdf:1"] and len(sentences) == 21
            assert "The pages of" in sentences[-1] and "after page 21 are skipped" in sentences[-1]
        else:
            index_documents(tmp_path, tmp_path / "index", GreyEncoder(), **calls)
            assert len(sentences) == 1 and "1,000,000 pages, but at most 100,000" in sentences[0]


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("size", [(13_000, 13_000), (170_000_000, 1)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:  # its header is all that may be read
        header = b"IHDR" + struct.pack(">2I5B", *size, 1, 0, 0, 0, 0)
        file.write(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header)
        file.write(struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 0) + b"IDAT")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"large\.png has .* pixels, but at most 80,000,000"):
        read_picture(str(path), 1, None, 400)


def test_a_large_jpeg_is_decoded_at_a_smaller_size(tmp_path: Path) -> None:
    image.new("RGB", (8_000, 10_800), "white").save(tmp_path / "large.jpg")
    assert read_picture("large.jpg", 1, tmp_path, 400).size == (400, 540)


def test_words_find_pages_and_maps_show_them(documents: Path, tmp_path: Path) -> None:
    index = index_documents(documents, tmp_path / "index", GreyEncoder())
    hits = index.search("a white page about apples", 4, words=0.5)
    assert hits[0].id == "report.pdf:1" and hits[0].words == ["a", "white", "page", "about", "apples"]
    black = index.search("a", 4, words=0)[0]  # a short word is dark
    assert (black.heatmap() > 0.5).nonzero()[0].min() == 3  # the lower half
    black.save(tmp_path / "hit.png", word=0, width=200)
    plain = black.picture(200)
    with image.open(tmp_path / "hit.png") as saved:
        changed = np.abs(np.asarray(saved, int) - np.asarray(plain, int)).sum(axis=2) > 30
    height, width = changed.shape
    assert changed[3 * height // 4 :, 3 * width // 4 :].mean() > 0.9
    assert changed[: height // 4, : width // 4].mean() < 0.1


def test_an_interrupted_folder_continues_where_it_stopped(documents: Path, tmp_path: Path) -> None:
    first = GreyEncoder()

    def interrupt(state: Progress) -> None:
        if state.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_documents(documents, tmp_path / "index", first, progress=interrupt)
    assert len(PageIndex.load(tmp_path / "index")) == first.encoded == 2
    second = GreyEncoder()
    assert len(index_documents(documents, tmp_path / "index", second)) == 4
    assert second.encoded == 2
    write_pdf(tmp_path / "outside.pdf", ["text"])
    with pytest.raises(ValueError, match="is an index of the documents in"):
        index_documents(tmp_path / "outside.pdf", tmp_path / "index", second)


def test_documents_of_a_folder_below_keep_their_names(documents: Path, tmp_path: Path) -> None:
    ids = index_documents(documents, tmp_path / "index", GreyEncoder()).ids
    for place in (documents / "sub", documents / "sub" / "white.png"):
        for update in (False, True):
            assert index_documents(place, tmp_path / "index", GreyEncoder(), update=update).ids == ids


def test_updated_documents_replace_their_pages_and_keep_metadata(documents: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    index = index_documents(documents, out, GreyEncoder())
    index.update(ids=["report.pdf:1", "sub/white.png:1"], metadata=[{"year": 2024}, {"year": 2025}])
    index.save()
    write_pdf(documents / "report.pdf", ["a new first page"])
    sentences: list[str] = []
    index = index_documents(documents, out, GreyEncoder(), update=True, skipped=sentences.append)
    assert PageIndex.load(out).ids == index.ids == ["report.pdf:1", "sub/white.png:1"]
    assert [page.metadata["year"] for page in index] == [2024, 2025]
    assert index.get(["report.pdf:1"])[0].text.strip() == "a new first page"
    assert len(sentences) == 3  # the bad files


def test_an_updated_document_that_cannot_be_read_keeps_its_pages(documents: Path, tmp_path: Path) -> None:
    ids = index_documents(documents, tmp_path / "index", GreyEncoder()).ids
    (documents / "report.pdf").write_bytes(b"cut")
    assert index_documents(documents, tmp_path / "index", GreyEncoder(), update=True).ids == ids


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no PDFs and no pictures"):
        index_documents(tmp_path, tmp_path / "out", GreyEncoder())
    (tmp_path / "bad.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match="No page of"):
        index_documents(tmp_path, tmp_path / "out", GreyEncoder())
    assert not (tmp_path / "out").exists()


def test_a_missing_document_leaves_maps_but_no_picture(documents: Path, tmp_path: Path) -> None:
    index = index_documents(documents, tmp_path / "index", GreyEncoder())
    (documents / "report.pdf").unlink()
    hit = index.search("a", 1, words=0)[0]
    assert hit.heatmap().shape == GRID
    with pytest.raises(FileNotFoundError, match=r"report\.pdf is missing"):
        hit.save(tmp_path / "hit.png")


def test_an_index_of_another_encoder_is_refused(documents: Path, tmp_path: Path) -> None:
    index_documents(documents, tmp_path / "index", GreyEncoder())
    other = GreyEncoder()
    other.name = "other"
    with pytest.raises(ValueError, match="built with the encoder 'grey'"):
        PageIndex.load(tmp_path / "index", other)
    with pytest.raises(ValueError, match=r"no encoder for words: 'grey'.*encoder='grey'"):
        PageIndex.load(tmp_path / "index").search("words")


def test_a_missing_library_of_the_encoder_is_named(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = GreyEncoder()
    built_in.name = "colpali"
    index_documents(documents, tmp_path / "index", built_in)
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(ValueError, match=r"no encoder for words.*fastembed"):
        PageIndex.load(tmp_path / "index").search("words")


def test_pictures_of_one_file_are_its_pages(tmp_path: Path) -> None:
    frames = [image.new("L", (20, 30), level) for level in (0, 255)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    assert count_pages(tmp_path / "scan.tif") == 2
    assert [read_picture("scan.tif", n, tmp_path, 20).getpixel((0, 0)) for n in (1, 2)] == [
        (0, 0, 0),
        (255, 255, 255),
    ]


# -- encoders -------------------------------------------------------------------


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield a server's URL, its requests, and a list whose first item it answers."""
    requests: list[Any] = []
    rows: list[Any] = []

    class Served(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [rows[0]]}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/pooling", requests, rows
    server.shutdown()
    server.server_close()


def test_http_encoder_sends_a_picture_and_reads_the_grid(endpoint: Any) -> None:
    url, requests, rows = endpoint
    encoder = load_page_encoder(f"{url}#colpali")
    assert isinstance(encoder, HTTPEncoder) and encoder.name == "http:colpali"
    rows.append({"data": [[1.0, 0.0]] * 7, "grid": [3, 2], "special": 1})
    page = encoder.encode_page(image.new("RGB", (4, 4)))
    assert (page.vectors.shape, page.grid, page.special) == ((7, 2), (3, 2), 1)
    [part] = requests[0]["messages"][0]["content"]
    assert part["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    rows[0] = {"data": [[1.0, 0.0]] * 1030}
    assert encoder.encode_page(image.new("RGB", (4, 4))).grid == (32, 32)


class FakeTiles:
    """ColModernVBERT's processor, tokenizer and model, at fastembed's boundary."""

    QUERY_PREFIX, tokenizer = "", SimpleNamespace(token_to_id=lambda token: 7)

    def processor(self, pictures: list[Any], metadata: dict[str, Any]) -> None:
        metadata["image_grid"] = [(1, 2)]

    def _build_input_ids_for_image(self, rows: int, columns: int) -> Any:
        tile = [1] + [7] * 64
        return np.array([0, *tile * (rows * columns + 1), 2])

    def tokenize(self, texts: list[str]) -> list[Any]:
        return [SimpleNamespace(offsets=[(0, 0), (0, 3), (4, 7), (7, 12)])]


class FakeModel:
    """fastembed's class; a vector is its position."""

    model = FakeTiles()
    list_supported_models: Any = staticmethod(list)

    def __init__(self, name: str) -> None:
        if name == "unknown":
            raise ValueError("not supported")

    def embed_image(self, pictures: list[Any]) -> Iterator[Any]:
        yield np.arange(1 + 65 * 3 + 1, dtype=np.float32)[:, None]

    def embed_text(self, texts: list[str]) -> Iterator[Any]:
        yield np.ones((4, 1), np.float32)


def test_tiles_of_colmodernvbert_are_put_in_reading_order(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = SimpleNamespace(define_cache_dir=lambda: "")
    fake = SimpleNamespace(LateInteractionMultimodalEmbedding=FakeModel)
    for name, module in (("fastembed", fake), ("fastembed.common.utils", utils), ("huggingface_hub", fake)):
        monkeypatch.setitem(sys.modules, name, module)
    encoder = load_page_encoder("colmodernvbert")
    vectors, grid, _ = encoder.encode_page(image.new("RGB", (8, 4)))
    assert grid == (8, 16)
    patches = vectors[:128, 0].reshape(grid)
    assert patches[0].tolist() == [*range(2, 10), *range(67, 75)]  # a row of each tile
    assert sorted(vectors[:, 0]) == list(range(197))
    assert encoder.query_spans("red car") == [(0, 0), (0, 3), (4, 7), (7, 7)]
    with pytest.raises(ValueError, match="cannot load 'unknown'"):
        FastembedPageEncoder("unknown").encode_queries(["a"])


def test_an_unknown_page_encoder_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="colmodernvbert"):
        load_page_encoder("resnet")
