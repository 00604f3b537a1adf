"""The server: answers, limits, rights, errors as problem+json, and what it never does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.data.multivectors import MultiVectors
from muvera.serve.settings import ServerSettings

fastapi = pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

from fastapi.testclient import TestClient  # noqa: E402

from muvera.serve.app import make_app  # noqa: E402

TEXTS = ["a red apple", "a green pear", "the blue whale. It sings."]
METADATA = [{"kind": "fruit"}, {"kind": "fruit"}, {"kind": "animal"}]
TOKEN = {"Authorization": "Bearer secret"}


def texts() -> TextIndex:
    return TextIndex.build(TEXTS, HashEncoder(), ids=["apple", "pear", "whale"], metadata=METADATA)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(
        make_app(texts(), ServerSettings(max_k=50, max_queries=3, max_body_bytes=20_000))
    ) as made:
        yield made


@pytest.fixture
def writer() -> Iterator[TestClient]:
    with TestClient(make_app(texts(), ServerSettings(writable=True, token="secret"))) as made:
        yield made


def problem(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == response.status_code
    return response.status_code, content["detail"]


def test_searching(client: TestClient) -> None:
    answer = client.post("/search", json={"query": "red apple", "k": 2}).json()
    assert answer["results"][0][0]["id"] == "apple"
    assert answer["results"][0][0]["text"] == TEXTS[0]
    assert answer["seconds"] >= 0
    both = client.post("/search", json={"queries": ["pear", "whale"], "k": 1}).json()["results"]
    assert [hits[0]["id"] for hits in both] == ["pear", "whale"]
    where = client.post("/search", json={"query": "red", "where": {"kind": "animal"}}).json()["results"]
    assert [hit["id"] for hit in where[0]] == ["whale"]
    part = client.post("/search", json={"query": "sings", "unit": "sentence", "alpha": 0}).json()["results"][
        0
    ][0]
    assert (part["text"], part["span"]) == ("It sings.", [16, 25])


def test_searching_by_vectors(client: TestClient) -> None:
    vectors = HashEncoder().encode_queries(["green pear"])
    answer = client.post("/search", json={"vectors": [vectors[0].tolist()], "k": 1}).json()
    assert answer["results"][0][0]["id"] == "pear"
    status, detail = problem(client.post("/search", json={"vectors": [[[1.0, 2.0]]]}))
    assert status == 422
    dimension = vectors[0].shape[1]
    assert detail == f"vectors[0] has 2 columns, but needs dimension={dimension}."
    ragged = [vectors[0].tolist(), [[1.0] * dimension, [1.0]]]
    status, detail = problem(client.post("/search", json={"vectors": ragged}))
    assert status == 422
    assert "vectors[1] is not a rectangular" in detail


def test_explanations_documents_info_and_health(client: TestClient) -> None:
    found = client.post("/explain", json={"query": "red", "ids": ["apple"]}).json()["explanations"][0]
    assert found["matches"][0]["document"] == [2, 5]
    whale = {"id": "whale", "text": TEXTS[2], "metadata": METADATA[2]}
    assert client.get("/documents/whale").json() == whale
    assert problem(client.get("/documents/x")) == (404, "id 'x' is not in the index.")
    assert client.get("/health").json() == {"status": "ok"}
    info = client.get("/info").json()
    assert (info["documents"], info["text_encoder"], info["writable"]) == (3, "hash", False)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/search", "/explain", "/documents/{identity}", "/health", "/info"} <= paths.keys()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Give one of query, queries and vectors"),
        ({"query": "a", "queries": ["b"]}, "Give one of query"),
        ({"query": "a", "k": 51}, "k may be 50 in one request, got 51"),
        ({"queries": ["a"] * 4}, "The number of queries may be 3 in one request, got 4"),
        ({"query": "a", "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"q": "a"}, "There is no field 'q'. The fields are query, queries, vectors, k, "),
        ({"query": "a", "where": {"x": {"$near": 1}}}, "There is no operator '$near'"),
        ({"query": 3}, "query: Input should be a valid string."),
        ({"query": [[1, 2]]}, "query: Input should be a valid string. Give token vectors as vectors"),
        ({"queries": [[[1, 2]]]}, "queries.0: Input should be a valid string. Give token vectors as vectors"),
    ],
)
def test_wrong_requests_are_problems(client: TestClient, body: dict[str, Any], message: str) -> None:
    status, detail = problem(client.post("/search", json=body))
    assert status == 422
    assert message in detail


def test_bodies_are_bounded_declared_or_not(client: TestClient) -> None:
    large = b'{"query": "' + b"a" * 30_000 + b'"}'
    assert problem(client.post("/search", content=large))[0] == 413

    def parts() -> Iterator[bytes]:
        yield from (large[i : i + 1000] for i in range(0, len(large), 1000))

    assert problem(client.post("/search", content=parts()))[0] == 413
    assert problem(client.post("/search", content=b"[" * 9000))[0] == 422


def test_a_reader_cannot_write(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        status, detail = problem(client.request(method, "/documents", json={"texts": ["x"]}, headers=TOKEN))
        assert status == 403
        assert "Start it with --writable" in detail


def test_bodies_that_are_not_json_objects(client: TestClient) -> None:
    typed = {"Content-Type": "application/json"}
    for content, headers, message in (
        (b'{"query": "a"}', {}, "The body must be JSON. Say so with the header Content-Type"),
        (b'{"query": a}', typed, "The body is not JSON: Expecting value, at character 10."),
        (b"[]", typed, "The body must be a JSON object"),
        (b"", typed, "The body must be a JSON object"),
    ):
        status, detail = problem(client.post("/search", content=content, headers=headers))
        assert status == 422
        assert message in detail


def test_writing_needs_the_token(writer: TestClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        response = writer.post("/documents", json={"texts": ["x"]}, headers=headers)
        assert problem(response)[0] == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert len(writer.post("/search", json={"query": "x"}).json()["results"][0]) == 3
    with pytest.raises(ValueError, match="A writable server needs a token"):
        ServerSettings(writable=True)


def test_writing(writer: TestClient) -> None:
    made = writer.post("/documents", json={"texts": ["a zebra"], "ids": ["z"]}, headers=TOKEN)
    assert (made.status_code, made.json()) == (201, {"ids": ["z"]})
    assert writer.post("/search", json={"query": "zebra", "k": 1}).json()["results"][0][0]["id"] == "z"
    writer.put("/documents", json={"texts": ["an okapi"], "ids": ["z"]}, headers=TOKEN).raise_for_status()
    assert writer.get("/documents/z").json()["text"] == "an okapi"
    deleted = writer.request("DELETE", "/documents", json={"ids": ["z"]}, headers=TOKEN)
    assert deleted.status_code == 200
    assert problem(writer.get("/documents/z"))[0] == 404
    again = writer.request("DELETE", "/documents", json={"ids": ["z"]}, headers=TOKEN)
    assert problem(again)[0] == 404
    duplicate = writer.post("/documents", json={"texts": ["x"], "ids": ["apple"]}, headers=TOKEN)
    assert problem(duplicate)[1] == "id 'apple' is in the index already. Replace it with PUT /documents."
    assert "ids say which" in problem(writer.put("/documents", json={"texts": ["x"]}, headers=TOKEN))[1]


def test_a_graceful_stop_saves_what_was_changed(tmp_path: Path) -> None:
    index = texts()
    saved: list[int] = []
    settings = ServerSettings(writable=True, token="secret")
    with TestClient(make_app(index, settings, save=lambda: saved.append(len(index)))) as client:
        client.post("/search", json={"query": "x"})
    assert saved == []
    with TestClient(make_app(index, settings, save=lambda: saved.append(len(index)))) as client:
        client.post("/documents", json={"texts": ["x"]}, headers=TOKEN)
        client.post("/documents", json={"texts": ["y"], "ids": ["y"]}, headers=TOKEN)
    assert saved == [4]


def test_vectors_without_texts() -> None:
    vectors = MuveraIndex.build(MultiVectors.from_arrays([np.eye(3, 4), np.ones((2, 4))]))
    with TestClient(make_app(vectors)) as client:
        answer = client.post("/search", json={"vectors": [[[1, 0, 0, 0]]], "k": 5}).json()
        assert {hit["id"] for hit in answer["results"][0]} == {0, 1}
        assert "no texts" in problem(client.post("/search", json={"query": "x"}))[1]
        assert "no texts" in problem(client.post("/explain", json={"query": "x", "ids": [0]}))[1]


def test_slow_work_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    index = texts()
    monkeypatch.setattr(type(index), "search", lambda *_, **__: time.sleep(0.5))
    with TestClient(make_app(index, ServerSettings(timeout=0.05))) as client:
        assert problem(client.post("/search", json={"query": "x"}))[0] == 504


def test_the_page_is_strict_and_hosts_are_checked() -> None:
    with TestClient(make_app(texts(), hosts=["testserver"])) as client:
        page = client.get("/")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        for part in ("page.js", "page.css", "icon.svg"):
            assert client.get(f"/{part}").status_code == 200
        assert "http" not in client.get("/page.css").text
        assert "innerHTML" not in client.get("/page.js").text
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
