"""The server: answers, limits, rights, errors as problem+json, start and stop."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.data.multivectors import MultiVectors
from muvera.serve import ServerSettings
from muvera.serve.run import listen, serve

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

from fastapi.testclient import TestClient

from muvera.serve.app import make_app

TEXTS = ["a red apple", "a green pear", "the blue whale. It sings."]
METADATA = [{"kind": "fruit"}, {"kind": "fruit"}, {"kind": "animal"}]
TOKEN = {"Authorization": "Bearer secret"}
WRITABLE = ServerSettings(writable=True, token="secret")


def texts(ids: Any = ("apple", "a/pear", "whale")) -> TextIndex:
    return TextIndex.build(TEXTS, HashEncoder(), ids=ids, metadata=METADATA)


def vectors() -> MuveraIndex:
    return MuveraIndex.build(MultiVectors.from_arrays([np.eye(3, 4), np.ones((2, 4))]))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    settings = ServerSettings(max_k=50, max_queries=3, max_body_bytes=20_000, max_text_characters=100)
    with TestClient(make_app(texts(), settings)) as made:
        yield made


@pytest.fixture
def writer() -> Iterator[TestClient]:
    with TestClient(make_app(texts(), WRITABLE)) as made:
        yield made


def problem(response: Any, status: int) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == response.status_code == status
    return str(content["detail"])


def test_search_by_texts(client: TestClient) -> None:
    def search(**body: Any) -> Any:
        return client.post("/search", json=body).raise_for_status().json()["results"]

    assert search(query="red apple", k=2)[0][0]["id"] == "apple"
    assert [hits[0]["id"] for hits in search(queries=["pear", "whale"], k=1)] == ["a/pear", "whale"]
    assert [hit["id"] for hit in search(query="red", where={"kind": "animal"})[0]] == ["whale"]
    weighted = search(query="sings", words=5, weights={"maxsim": 0, "words": 1})
    assert weighted[0][0]["id"] == "whale"
    sentence = search(query="sings", unit="sentence", alpha=0)[0][0]
    assert (sentence["text"], sentence["span"]) == ("It sings.", [16, 25])


def test_search_by_vectors(client: TestClient) -> None:
    query = HashEncoder().encode_queries(["green pear"])[0].tolist()
    answer = client.post("/search", json={"vectors": [query], "k": 1}).json()
    assert answer["results"][0][0]["id"] == "a/pear" and answer["seconds"] >= 0
    for wrong in ([[[1.0, 2.0]]], [query, [[1.0] * len(query[0]), [1.0]]]):
        assert "vectors" in problem(client.post("/search", json={"vectors": wrong}), 422)
    body = {"vectors": [query], "where": {"kind": "fruit"}}
    assert "where" in problem(client.post("/search", json=body), 422)
    with TestClient(make_app(vectors())) as without_texts:
        answer = without_texts.post("/search", json={"vectors": [[[1, 0, 0, 0]]], "k": 5}).json()
        assert {hit["id"] for hit in answer["results"][0]} == {0, 1}
        problem(without_texts.post("/search", json={"query": "x"}), 422)
        problem(without_texts.post("/explain", json={"query": "x", "ids": [0]}), 422)
        problem(without_texts.get("/documents/0"), 422)


def test_explanations_documents_info_and_health(client: TestClient) -> None:
    found = client.post("/explain", json={"query": "red", "ids": ["apple"]}).json()["explanations"][0]
    assert found["matches"][0]["document"] == [2, 5]
    for name, i in (("whale", 2), ("a/pear", 1)):
        expected = {"id": name, "text": TEXTS[i], "metadata": METADATA[i]}
        assert client.get(f"/documents/{name}").json() == expected
    assert "'x'" in problem(client.get("/documents/x"), 404)
    assert client.get("/health").json() == {"status": "ok"}
    info = client.get("/info").json()
    assert (info["documents"], info["text_encoder"], info["writable"]) == (3, "hash", False)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/search", "/explain", "/documents/{identity}", "/health", "/info"} <= paths.keys()


def test_integer_ids_have_one_spelling() -> None:
    with TestClient(make_app(texts(ids=[4, -5, 6]), WRITABLE)) as client:
        assert client.get("/documents/4").json()["id"] == 4
        assert client.get("/documents/-5").json()["id"] == -5
        for wrong in ("04", "4.0", "-04", "\u0664", "\u00b2"):
            problem(client.get(f"/documents/{wrong}"), 404)
        problem(client.get(f"/documents/{10**19}"), 422)
        ids: list[list[Any]] = [[True], [4.0], ["4", 2**70]]
        for body in ({"ids": each} for each in ids):
            problem(client.request("DELETE", "/documents", json=body, headers=TOKEN), 422)
        assert client.get("/info").json()["documents"] == 3


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "query"),
        ({"query": "a", "queries": ["b"]}, "query"),
        ({"query": "a", "k": 51}, "50 in one request, got 51"),
        ({"queries": ["a"] * 4}, "3 in one request, got 4"),
        ({"query": "a" * 101}, "100 in one request, got 101"),
        ({"query": "a", "k": 0}, "k"),
        ({"q": "a"}, "'q'"),
        ({"query": "a", "where": {"x": {"$near": 1}}}, "'$near'"),
        ({"query": "a", "where": {"$or": [{"x": {"$in": [0] * 6000}}] * 2}}, "10000"),
        ({"query": 3}, "query"),
        ({"queries": [[[1, 2]]]}, "vectors"),
        ({"query": "a", "unit": "sentence", "weights": {"maxsim": 1}}, "weights"),
    ],
)
def test_wrong_requests_are_problems(body: dict[str, Any], part: str) -> None:
    settings = ServerSettings(max_k=50, max_queries=3, max_text_characters=100)
    with TestClient(make_app(texts(), settings)) as client:
        assert part in problem(client.post("/search", json=body), 422)


def test_bodies_are_limited_declared_or_not(client: TestClient) -> None:
    large = b'{"query": "' + b"a" * 30_000 + b'"}'
    problem(client.post("/search", content=large), 413)
    chunks = (large[i : i + 1000] for i in range(0, len(large), 1000))
    problem(client.post("/search", content=chunks), 413)
    typed = {"Content-Type": "application/json"}
    for content, headers, part in (
        (b'{"query": "a"}', {}, "Content-Type"),
        (b'{"query": a}', typed, "character 10"),
        (b"[]", typed, "object"),
        (b"", typed, "object"),
        (b"[" * 9000, {}, ""),
    ):
        assert part in problem(client.post("/search", content=content, headers=headers), 422)


def test_writing_needs_rights_and_the_token(client: TestClient, writer: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        problem(client.request(method, "/documents", json={"texts": ["x"]}, headers=TOKEN), 403)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        response = writer.post("/documents", json={"texts": ["x"]}, headers=headers)
        problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert writer.get("/info").json()["documents"] == 3
    with pytest.raises(ValueError, match="token"):
        ServerSettings(writable=True)


def test_writing(writer: TestClient) -> None:
    def send(method: str, body: dict[str, Any]) -> Any:
        return writer.request(method, "/documents", json=body, headers=TOKEN)

    made = send("POST", {"texts": ["a zebra"], "ids": ["z"]})
    assert (made.status_code, made.json()) == (201, {"ids": ["z"]})
    assert writer.post("/search", json={"query": "zebra", "k": 1}).json()["results"][0][0]["id"] == "z"
    send("PUT", {"texts": ["an okapi"], "ids": ["z"]}).raise_for_status()
    assert writer.get("/documents/z").json()["text"] == "an okapi"
    assert send("DELETE", {"ids": ["z"]}).status_code == 200
    problem(writer.get("/documents/z"), 404)
    problem(send("DELETE", {"ids": ["z"]}), 404)
    assert "PUT" in problem(send("POST", {"texts": ["x"], "ids": ["apple"]}), 422)
    problem(send("PUT", {"texts": ["x"]}), 422)
    problem(send("DELETE", {"ids": "whale"}), 422)
    assert writer.get("/info").json()["documents"] == 3


def test_a_graceful_stop_saves_changes() -> None:
    index = texts()
    saved: list[int] = []
    for changes in (0, 2):
        with TestClient(make_app(index, WRITABLE, save=lambda: saved.append(len(index)))) as client:
            for i in range(changes):
                client.post("/documents", json={"texts": ["x"], "ids": [f"{i}"]}, headers=TOKEN)
    assert saved == [5]


def test_slow_work_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    index = texts()
    monkeypatch.setattr(type(index), "search", lambda *_, **__: time.sleep(0.3))
    with TestClient(make_app(index, ServerSettings(timeout=0.05))) as client:
        problem(client.post("/search", json={"query": "x"}), 504)


def test_the_page_is_strict_and_hosts_are_checked() -> None:
    with TestClient(make_app(texts(), hosts=["testserver"])) as client:
        page = client.get("/")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        for file in ("page.js", "page.css", "icon.svg"):
            assert client.get(f"/{file}").status_code == 200
        assert "http" not in client.get("/page.css").text
        assert "innerHTML" not in client.get("/page.js").text
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_the_port_is_taken_before_the_announcement() -> None:
    announced: list[int] = []
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=str(port)):
            serve(vectors(), port=port, announce=lambda: announced.append(port))
    assert announced == []
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(OSError, match=host):
            listen(host, 0)


def test_requests_after_the_announcement_are_answered_and_an_interrupt_stops() -> None:
    with listen("localhost", 0) as free:
        port = free.getsockname()[1]
        assert free.family == socket.AF_INET
    answers: list[int] = []

    def ask() -> None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
                answers.append(answer.status)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=ask)
    serve(vectors(), port=port, announce=asking.start)
    asking.join()
    assert answers == [200]
