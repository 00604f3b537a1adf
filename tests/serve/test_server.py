"""The server: answers, limits, rights, errors as problem+json, start and stop."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import ANY, Mock
from urllib.request import Request, urlopen

import numpy as np
import pytest
from builders.paths import ROOT
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.data.multivectors import MultiVectors
from muvera.serve import ServerSettings, listen, protocol, serve

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

import uvicorn
from builders.servers import running
from fastapi.testclient import TestClient
from pydantic import ValidationError

from muvera.serve.app import make_app
from muvera.serve.bodies import Documents, Explain, Rerank, Search
from muvera.serve.connections import CONNECTION, send_in_parts, split
from muvera.serve.metrics import Metrics

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
    limits: dict[str, Any] = {"max_k": 50, "max_queries": 3, "max_hits": 99, "max_search_bytes": 20_000}
    with TestClient(make_app(texts(), ServerSettings(**limits, max_text_characters=100))) as made:
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
    assert search(query="red apple", k=2, recall=0.9) == search(query="red apple", k=2)
    assert [hits[0]["id"] for hits in search(queries=["pear", "whale"], k=1)] == ["a/pear", "whale"]
    assert [hit["id"] for hit in search(query="red", where={"kind": "animal"})[0]] == ["whale"]
    assert [hit["id"] for hit in search(query="red apple", group_by="kind")[0]] == ["apple", "whale"]
    weighted = search(query="sings", words=0.9)[0][0]
    assert weighted["id"] == "whale" and weighted["score"] == sum(weighted["parts"].values())
    sentence = search(query="sings", unit="sentence", alpha=0)[0][0]
    assert (sentence["text"], sentence["span"]) == ("It sings.", [16, 25])


def test_search_by_an_address(client: TestClient) -> None:
    def search(**parameters: Any) -> Any:
        return client.get("/search", params=parameters).raise_for_status().json()["results"]

    [every] = client.post("/search", json={"query": "red apple"}).json()["results"]
    assert search(q="red apple") == [every] and every[0]["id"] == "apple"
    assert search(q="red apple", k=1) == [every[:1]]
    assert search(q="red apple", k=1, offset=1) == [every[1:2]]
    assert search(q="red apple", offset=40) == [[]]


def test_documents_are_listed_in_parts(client: TestClient) -> None:
    every = [
        {"id": name, "text": text, "metadata": metadata}
        for name, text, metadata in zip(("apple", "a/pear", "whale"), TEXTS, METADATA, strict=True)
    ]
    assert client.get("/documents").json() == {"found": 3, "documents": every}
    assert client.get("/documents?k=1&offset=1").json() == {"found": 3, "documents": every[1:2]}
    assert client.get("/documents?offset=3").json() == {"found": 3, "documents": []}


@pytest.mark.parametrize(
    ("address", "detail"),
    [
        ("/search", "q: Field required."),
        ("/search?q=a&k=0", "k: "),
        ("/search?q=a&k=40&offset=11", "k + offset may be at most 50 in one request, got 51."),
        ("/search?q=a&limit=3", "There is no field 'limit'. The fields are q, k, offset."),
        (f"/search?q={101 * 'a'}", "100 in one request, got 101"),
        ("/documents?k=51", "k may be at most 50 in one request, got 51."),
        ("/documents?offset=-1", "offset: "),
    ],
)
def test_wrong_addresses_are_problems(client: TestClient, address: str, detail: str) -> None:
    assert detail in problem(client.get(address), 422)


def test_search_by_vectors(client: TestClient) -> None:
    query = HashEncoder().encode_queries(["green pear"])[0].tolist()
    answer = client.post("/search", json={"vectors": [query], "k": 1}).json()
    assert answer["results"][0][0]["id"] == "a/pear" and answer["seconds"] >= 0
    for wrong in ([[[1.0, 2.0]]], [query, [[1.0] * len(query[0]), [1.0]]]):
        assert "vectors" in problem(client.post("/search", json={"vectors": wrong}), 422)
    for needs_texts in ({"where": {"kind": "fruit"}}, {"group_by": "kind"}):
        body = {"vectors": [query], **needs_texts}
        assert next(iter(needs_texts)) in problem(client.post("/search", json=body), 422)
    group = {"query": "pear", "group": "part"}
    assert "group needs vectors" in problem(client.post("/search", json=group), 422)
    assert "maps need a page index" in problem(client.post("/search", json={"query": "a", "maps": True}), 422)
    problem(client.get("/picture?id=apple"), 404)
    with TestClient(make_app(vectors())) as without_texts:
        plain = {"vectors": [[[1, 0, 0, 0]]], "k": 5, "recall": 0.9}
        answer = without_texts.post("/search", json=plain).json()
        assert {hit["id"] for hit in answer["results"][0]} == {0, 1}
        problem(without_texts.post("/search", json={"query": "x"}), 422)
        problem(without_texts.post("/explain", json={"query": "x", "ids": [0]}), 422)
        for address in ("/documents/0", "/documents", "/search?q=x"):
            problem(without_texts.get(address), 422)


def test_parts_of_documents_are_shown() -> None:
    documents = MultiVectors.from_arrays([*np.eye(4)[:, None], np.ones((2, 4))], ids=[5, 5, 8, 8, 9])
    body: dict[str, Any] = {"vectors": [[[0, 1, 0, 0.1]]], "k": 3}
    with TestClient(make_app(MuveraIndex.build(documents))) as made:
        (hits,) = made.post("/search", json=body).raise_for_status().json()["results"]
        assert [(hit["id"], hit["part"]) for hit in hits] == [(9, 0), (5, 1), (8, 1)]
        (hits,) = made.post("/search", json={**body, "k": 4, "group": "part"}).json()["results"]
        assert [(hit["id"], hit["part"]) for hit in hits] == [(9, 0), (5, 1), (8, 1), (5, 0)]
        assert "document" in problem(made.post("/search", json={**body, "group": "page"}), 422)
    with TestClient(make_app(vectors())) as without_parts:
        hits = without_parts.post("/search", json={**body, "group": "part"}).json()["results"][0]
        assert len(hits) == 2 and "part" not in hits[0]


def test_texts_are_reranked(client: TestClient) -> None:
    documents = ["the blue whale", {"text": "a green pear", "title": "ignored"}, " ", "a red apple"]
    body = {"model": "any", "query": "red pear", "documents": documents}
    expected = texts().rerank("red pear", ["the blue whale", "a green pear", " ", "a red apple"])
    answer = client.post("/v1/rerank", json=body).json()
    results = [{"index": hit.id, "relevance_score": pytest.approx(hit.score)} for hit in expected]
    assert answer == {"model": "hash", "results": results, "usage": {"total_tokens": 2 + 3 + 3 + 3}}
    answer = client.post("/v1/rerank", json={**body, "top_n": 1, "return_documents": True}).json()
    assert answer["results"] == [{**results[0], "document": {"text": expected[0].text}}]
    for empty in ({**body, "query": " "}, {**body, "documents": []}):
        assert client.post("/v1/rerank", json=empty).json()["results"] == []


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"query": ["a"]}, "query: "),
        ({"query": "a" * 101}, "100 in one request, got 101"),
        ({"documents": ["a" * 101]}, "100 in one request, got 101"),
        ({"documents": [{"text": "a" * 101}]}, "100 in one request, got 101"),
        ({"documents": ["a"] * 1001}, "The number of documents may be at most 1,000"),
        ({"documents": [{"title": "a"}]}, "documents.0"),
        ({"documents": "a"}, "documents: "),
        ({"top_n": 0}, "top_n: "),
        ({"topn": 1}, "'topn'"),
    ],
)
def test_wrong_rerankings_are_problems(client: TestClient, change: dict[str, Any], detail: str) -> None:
    body = {"query": "red", "documents": ["a red apple"], **change}
    assert detail in problem(client.post("/v1/rerank", json=body), 422)


def test_reranking_by_a_real_server_and_without_texts() -> None:
    content = json.dumps({"query": "red", "documents": ["a pear", "a red apple"]}).encode()
    with running(texts(), ServerSettings()) as port:
        request = Request(f"http://127.0.0.1:{port}/v1/rerank", content, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as response:
            assert [result["index"] for result in json.load(response)["results"]] == [1, 0]
    with TestClient(make_app(vectors())) as without_texts:
        response = without_texts.post("/v1/rerank", json=json.loads(content))
        assert "no texts" in problem(response, 422)


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
    assert info["name"] is None


def samples(client: TestClient) -> dict[str, float]:
    """The samples of /metrics by name and labels."""
    answer = client.get("/metrics").raise_for_status()
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_requests_errors_and_documents() -> None:
    settings = ServerSettings(writable=True, token="secret", timeout=600)  # the first search compiles kernels
    with TestClient(make_app(texts(), settings)) as client:
        for body in ({"query": "red"}, {"query": "pear"}, {}):
            client.post("/search", json=body)
        client.get("/documents/apple")
        client.get("/documents/pear")  # 404
        client.request("BREW", "/secret/7")
        client.delete("/documents", headers=TOKEN, params={})  # 422
        metrics = samples(client)
        later = samples(client)
    totals = {name: value for name, value in metrics.items() if name.startswith("muvera_http_requests_total")}
    assert totals == {
        'muvera_http_requests_total{method="DELETE",path="/documents",status="422"}': 1,
        'muvera_http_requests_total{method="GET",path="/documents/{identity:path}",status="200"}': 1,
        'muvera_http_requests_total{method="GET",path="/documents/{identity:path}",status="404"}': 1,
        'muvera_http_requests_total{method="POST",path="/search",status="200"}': 2,
        'muvera_http_requests_total{method="POST",path="/search",status="422"}': 1,
        'muvera_http_requests_total{method="other",path="other",status="404"}': 1,
    }
    assert metrics["muvera_documents"] == 3 and metrics["muvera_searches_running"] == 0
    assert later['muvera_http_requests_total{method="GET",path="/metrics",status="200"}'] == 1


def test_durations_are_a_cumulative_histogram() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.005, 0.3, 60.0):
        metrics.count("GET", "/x", 200, seconds)
    lines = bytes(metrics.answer(0).body).decode().splitlines()
    name = "muvera_http_request_duration_seconds"
    assert f"# TYPE {name} histogram" in lines
    counts = [int(line.split()[1]) for line in lines if line.startswith(f"{name}_bucket")]
    assert counts == [2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4]
    assert f'{name}_bucket{{path="/x",le="0.005"}} 2' in lines
    assert f'{name}_bucket{{path="/x",le="+Inf"}} 4' in lines
    assert f'{name}_sum{{path="/x"}} 60.306000' in lines and f'{name}_count{{path="/x"}} 4' in lines


def test_integer_ids_have_one_spelling() -> None:
    with TestClient(make_app(texts(ids=[4, -5, 6]), WRITABLE)) as client:
        for right in (4, -5):
            assert client.get(f"/documents/{right}").json()["id"] == right
        for wrong, status in (("04", 404), ("4.0", 404), ("\u0664", 404), (10**19, 422)):
            problem(client.get(f"/documents/{wrong}"), status)
        for ids in ([True], [4.0], ["4", 2**70]):
            problem(client.request("DELETE", "/documents", json={"ids": ids}, headers=TOKEN), 422)
        assert client.get("/info").json()["documents"] == 3


def test_wrong_requests_are_problems(client: TestClient) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "query"),
        ({"query": "a", "k": 51}, "50 in one request, got 51"),
        ({"queries": ["a"] * 2, "k": 50}, "99 in one request, got 100"),
        ({"query": "a" * 101}, "100 in one request, got 101"),
        ({"q": "a"}, "'q'"),
        ({"query": "a", "where": {"x": {"$near": 1}}}, "'$near'"),
        ({"query": "a", "group_by": "brand"}, "group_by names the field 'brand'"),
        ({"queries": [[[1, 2]]]}, "vectors"),
        ({"query": "a", "recall": 0.9, "candidates": 10}, "not both"),
    ]
    for body, part in wrong:
        assert part in problem(client.post("/search", json=body), 422)
    content, headers = b'{"query": "a", "words": NaN}', {"Content-Type": "application/json"}
    assert "finite" in problem(client.post("/search", content=content, headers=headers), 422)


@pytest.mark.parametrize(
    ("method", "address", "body", "status", "detail"),
    [
        ("POST", "/documents", {"texts": ["x"], "ids": ["whale"]}, 422,
         "id 'whale' is in the index already. Replace it with PUT /documents."),
        ("PATCH", "/documents", {"ids": ["cat"], "metadata": [{}]}, 404, "id 'cat' is not in the index."),
        ("POST", "/search", {"query": "red", "k": 3, "candidates": 2, "recall": 0.9}, 422,
         "Give recall=0.9 or candidates=3, not both."),
    ],
    ids=["update", "check_id", "arguments"],
)  # fmt: skip
def test_errors_name_requests(
    writer: TestClient, method: str, address: str, body: dict[str, Any], status: int, detail: str
) -> None:
    """They do not advise to call methods of Python."""
    assert problem(writer.request(method, address, json=body, headers=TOKEN), status) == detail


def test_bodies_are_limited(client: TestClient, writer: TestClient) -> None:
    large = b'{"query": "' + b"a" * 30_000 + b'"}'
    problem(client.post("/search", content=large), 413)
    chunks = (large[i : i + 1000] for i in range(0, len(large), 1000))  # of a size that is not declared
    problem(client.post("/search", content=chunks), 413)
    problem(client.post("/search", content=b"{}", headers={"Content-Length": "many"}), 413)
    typed = {"Content-Type": "application/json"}
    many = '{"queries": [' + "[]," * 299_999 + "1]}"
    assert "300,000 values" in problem(writer.post("/search", content=many, headers=typed), 413)
    body = {"texts": ["x" * 1000] * 1500, "ids": ["a"] * 1500}  # only the token allows so many bytes
    problem(writer.post("/documents", json=body), 413)
    detail = problem(writer.post("/documents", json=body, headers=TOKEN), 422)
    assert "1,000 in one request, got 1,500" in detail
    for content, headers, part in (
        (b'{"query": "a"}', {}, "Content-Type"),
        (b'{"query": a}', typed, "character 10"),
        (b"[]", typed, "object"),
        (b"", typed, "object"),
        (b"[" * 9000, {}, ""),
    ):
        assert part in problem(client.post("/search", content=content, headers=headers), 422)


@pytest.mark.parametrize(
    "body",
    [{"vectors": [[]] * 136_000}, {"query": "x", "where": {f"{i:040}": 1 for i in range(70_000)}}],
    ids=["410 KB of lists", "3 MB of keys"],
)
def test_bodies_that_are_slow_to_parse_are_refused(writer: TestClient, body: dict[str, Any]) -> None:
    detail = problem(writer.post("/search", json=body, headers=TOKEN), 413)
    assert "a list or object counts as 10 and a string as 4" in detail


def test_quotation_marks_in_texts_do_not_count(writer: TestClient) -> None:
    body = {"texts": ['"a" ' * 100_000], "ids": ["quotes"]}
    answer = writer.post("/documents", json=body, headers=TOKEN)
    assert answer.status_code == 201, answer.text


def test_writing_needs_rights_and_the_token(client: TestClient, writer: TestClient) -> None:
    for method, address in (("POST", "/save"), ("PUT", "/documents"), ("DELETE", "/documents/apple")):
        for content in (b'{"texts": ["x"]}', b"{"):  # the body is not read
            problem(client.request(method, address, content=content, headers=TOKEN), 403)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        response = writer.post("/documents", json={"texts": ["x"]}, headers=headers)
        problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert writer.get("/info").json()["documents"] == 3
    with pytest.raises(ValueError, match="token"):
        ServerSettings(writable=True)


Send = Callable[..., Any]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    texts().save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def send(saved: Path) -> Iterator[Send]:
    """Send a request with the token to the server of an opened folder."""
    with TextIndex.open(saved, HashEncoder()) as index, TestClient(make_app(index, WRITABLE)) as client:

        def sends(method: str, path: str = "/documents", headers: Any = TOKEN, **body: Any) -> Any:
            return client.request(method, path, json=body, headers=headers)

        yield sends


def journals(folder: Path) -> int:
    return len(list(folder.glob("journal-*")))


def test_changes_are_durable(send: Send, saved: Path) -> None:
    made = send("POST", texts=["a zebra"], ids=["z"])
    assert (made.status_code, made.json()) == (201, {"ids": ["z"]})
    assert send("POST", "/search", query="zebra", k=1).json()["results"][0][0]["id"] == "z"
    assert send("PUT", texts=["an okapi"], ids=["z"]).status_code == 200
    stored = TextIndex.load(saved, HashEncoder())
    assert stored.get(["z"])[0].text == "an okapi"
    assert send("DELETE", ids=["z"]).status_code == 200
    problem(send("GET", "/documents/z"), 404)
    problem(send("DELETE", ids=["z"]), 404)
    assert "z" not in TextIndex.load(saved, HashEncoder())


def test_changes_of_metadata_are_durable(send: Send, saved: Path) -> None:
    assert send("PATCH", ids=["whale"], metadata=[{"sea": "all"}]).status_code == 200
    changed = send("PATCH", ids=["whale"], metadata=[{"kind": "mammal", "none": None}])
    assert changed.json() == {"ids": ["whale"]}
    stored = TextIndex.load(saved, HashEncoder())
    assert stored.select({"kind": "mammal"}) == ["whale"]
    assert stored.get(["whale"])[0].metadata == {"kind": "mammal", "sea": "all"}


def test_refused_changes_say_why(send: Send) -> None:
    assert "PUT" in problem(send("POST", texts=["x"], ids=["apple"]), 422)
    problem(send("PUT", texts=["x"]), 422)
    problem(send("PATCH", ids=["no"], metadata=[{}]), 404)
    problem(send("DELETE", ids="whale"), 422)


def test_a_save_empties_the_journal(send: Send, saved: Path) -> None:
    send("POST", texts=["a zebra"], ids=["z"])
    assert journals(saved) == 1
    problem(send("POST", "/save", headers=None), 401)
    assert journals(saved) == 1
    assert send("POST", "/save").json() == {"documents": 4} and journals(saved) == 0


@pytest.mark.parametrize("path", ["/documents", "/save"])
def test_a_moved_folder_is_no_fault_of_the_request(saved: Path, path: str) -> None:
    index = TextIndex.open(saved, HashEncoder())
    with TestClient(make_app(index, WRITABLE)) as client:
        index.add(["a zebra"], ids=["z"])
        moved = saved.rename(saved.with_name("moved"))
        detail = problem(client.post(path, json={"texts": ["x"], "ids": ["y"]}, headers=TOKEN), 500)
        assert "moved or replaced" in detail and str(saved) not in detail
        moved.rename(saved)
        assert client.post("/save", headers=TOKEN).status_code == 200
    index.close()


def test_a_list_of_documents_does_not_read_all_ids(
    writer: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.put("/documents", json={"texts": ["an okapi"], "ids": ["apple"]}, headers=TOKEN)
    monkeypatch.setattr(TextIndex, "select", Mock(side_effect=AssertionError))
    found = writer.get("/documents", params={"k": 2, "offset": 1}).json()
    assert (found["found"], [one["id"] for one in found["documents"]]) == (3, ["whale", "apple"])


def test_an_index_in_memory_cannot_be_saved(writer: TestClient) -> None:
    assert "path" in problem(writer.post("/save", headers=TOKEN), 422)


def test_a_full_disk_is_reported_without_its_path(
    writer: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextIndex, "add", Mock(side_effect=OSError("a path of the server")))
    detail = problem(writer.post("/documents", json={"texts": ["x"]}, headers=TOKEN), 507)
    assert "disk" in detail and "path" not in detail


def test_slow_work_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    index = texts()
    running = threading.Semaphore(0)
    end = threading.Event()

    def search(*_: Any, **__: Any) -> None:
        running.release()
        end.wait(10)

    monkeypatch.setattr(type(index), "search", search)
    with TestClient(make_app(index, ServerSettings(timeout=0.05, threads=1))) as client:
        for _ in range(2):
            problem(client.post("/search", json={"query": "x"}), 504)
        assert samples(client)["muvera_searches_running"] == 1  # it runs on after its 504
        end.set()
    assert running.acquire(blocking=False) and not running.acquire(blocking=False)  # the second never began


def test_a_change_that_times_out_says_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    index, begun = texts(), threading.Event()
    add = TextIndex.add

    def slow(self: TextIndex, *given: Any, **named: Any) -> Any:
        begun.set()
        time.sleep(0.4)
        return add(self, *given, **named)

    monkeypatch.setattr(TextIndex, "add", slow)
    settings = ServerSettings(writable=True, token="secret", timeout=0.1, threads=1)
    with TestClient(make_app(index, settings)) as client:

        def send(name: str) -> Any:
            return client.post("/documents", json={"texts": ["x"], "ids": [name]}, headers=TOKEN)

        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(send, "slow")
            assert begun.wait(10)
            assert "Nothing was changed" in problem(send("late"), 503)
        assert (first.result().status_code, first.result().json()) == (201, {"ids": ["slow"]})
    assert "slow" in index and "late" not in index


def test_a_wrong_list_stops_at_its_first_error() -> None:
    many = [None] * 1000
    bodies: list[tuple[Any, dict[str, Any]]] = [
        (Search, {"queries": many, "vectors": [[["x"] * 1000] * 1000]}),
        (Search, {"query": "x", **{str(i): "x" for i in range(1000)}}),
        (Explain, {"query": "x", "ids": [1.5] * 1000}),
        (Documents, {"texts": many, "ids": many, "metadata": many}),
        (Rerank, {"query": "x", "documents": many}),
    ]
    for model, body in bodies:
        with pytest.raises(ValidationError) as caught:
            model.model_validate(body)
        assert caught.value.error_count() <= 4


def test_a_request_reads_few_characters() -> None:
    index = TextIndex.build([f"word {'- ' * 500}"] * 4, HashEncoder())
    settings = ServerSettings(max_read_characters=4000, max_queries=5)
    with TestClient(make_app(index, settings)) as client:
        assert len(client.post("/search", json={"query": "word", "k": 3}).json()["results"][0]) == 3
        bodies: list[dict[str, object]] = [{"query": "word"}, {"queries": ["word"] * 5, "k": 1}]
        for body in bodies:
            assert "4,000 characters" in problem(client.post("/search", json=body), 422)
        for query, ids in (("word", [0] * 6), ("word" * 20_000, [0] * 5)):
            problem(client.post("/explain", json={"query": query, "ids": ids}), 422)


def test_reading_can_require_a_token() -> None:
    settings = ServerSettings(read_token="read", writable=True, token="secret")
    search = {"query": "a"}
    posts = {"/search": search, "/explain": {**search, "ids": ["apple"]}, "/documents": {"texts": ["x"]}}
    posts["/v1/rerank"] = {**search, "documents": ["x"]}
    reads = [("POST", "/search"), ("POST", "/explain"), ("GET", "/documents/apple"), ("GET", "/info")]
    reads += [("POST", "/v1/rerank")]
    reads += [("GET", "/search?q=a"), ("GET", "/documents")]
    with TestClient(make_app(texts(), settings)) as client:

        def send(method: str, path: str, token: str) -> Any:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return client.request(method, path, json=posts.get(path), headers=headers)

        for request in reads:
            problem(send(*request, ""), 401)
            problem(send(*request, "wrong"), 401)
            for token in ("read", "secret"):
                send(*request, token).raise_for_status()
        problem(send("POST", "/documents", "read"), 401)
        for path in ("/health", "/metrics", "/"):
            client.get(path).raise_for_status()


def test_documented_errors_are_those_that_occur() -> None:
    document = make_app(texts(), WRITABLE).openapi()
    assert document["components"]["securitySchemes"] == {"HTTPBearer": ANY}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            errors = {status for status in described["responses"] if status >= "400"}
            writes = path in ("/documents", "/save") and method != "get"
            assert ("401" in errors) == ("security" in described) == writes
            assert ("422" in errors) == (path not in ("/health", "/info", "/metrics"))
            for status in errors:
                assert list(described["responses"][status]["content"]) == ["application/problem+json"]


def test_every_route_is_on_the_reference_page() -> None:
    page = (ROOT / "docs" / "reference" / "integrations.md").read_text(encoding="utf-8")
    table = page.partition("## HTTP")[2].partition("## Examples")[0]
    for path, methods in make_app(texts(), WRITABLE).openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path.replace(':path', '')}`" in table


HEAD = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def test_slow_connections_end() -> None:
    with running(texts(), ServerSettings(body_timeout=0.2)) as port:
        for sent, answer in ((b"", b""), (b"POST /sea", b""), (HEAD, b"408"), (HEAD + b'{"que', b"408"),
                             (HEALTH, b"200"), (HEALTH + b"GET /hea", b"200")):  # fmt: skip
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(sent)
                begun, received = time.monotonic(), b""
                with suppress(ConnectionResetError):
                    while piece := connection.recv(4096):  # until the server closes the connection
                        received += piece
                assert received.partition(b"\r\n")[0].split(b" ")[1:2] == ([answer] if answer else [])
                assert time.monotonic() - begun < 5


class Connection:
    """A connection of uvicorn's protocol, whose client reads at some pace."""

    def __init__(self, kind: Any, loop: Any) -> None:
        config = uvicorn.Config(lambda *_: None, log_level="critical")
        config.load()
        self.unsent = 0
        self.protocol = kind(config, uvicorn.server.ServerState(), {}, loop)
        self.transport = Mock(**{"get_write_buffer_size.side_effect": lambda: self.unsent})
        self.transport.get_extra_info.return_value = None
        self.protocol.connection_made(self.transport)

    def answer(self, size: int, sent: int = 0) -> None:
        """Begin an answer of so many bytes, some of which are sent at once."""
        self.protocol.transport.write(bytes(sent))
        self.protocol.begin([bytes(size - sent)])

    @property
    def is_cut_off(self) -> bool:
        return bool(self.transport.abort.called)


def connections(count: int, **settings: Any) -> tuple[list[Connection], Mock]:
    """Return connections of one server, and its event loop."""
    loop = Mock()
    kind = protocol(ServerSettings(**settings))
    return [Connection(kind, loop) for _ in range(count)], loop


def passing(loop: Mock, seconds: float) -> None:
    """Call the functions that the loop would call in so many seconds."""
    calls = [call.args for call in loop.call_later.call_args_list]
    loop.call_later.reset_mock()
    for delay, function, *arguments in calls:
        if delay <= seconds:
            function(*arguments)


def test_a_crowd_is_cut_off_one_by_one() -> None:
    """Also while the system has not yet told that a connection is lost."""
    made, loop = connections(25, max_connections=10)
    assert [each.is_cut_off for each in made] == [True] * 5 + [False] * 20
    time.sleep(0.3)
    passing(loop, 1)
    assert [each.is_cut_off for each in made] == [True] * 15 + [False] * 10


def test_a_connection_with_a_running_request_is_kept() -> None:
    made, loop = connections(1, max_connections=1)
    made[0].protocol.cycle = Mock(response_complete=False, more_body=False)
    made += [Connection(type(made[0].protocol), loop) for _ in range(2)]
    assert [each.is_cut_off for each in made] == [False, True, False]


def test_a_new_connection_has_time_to_send_its_request() -> None:
    made, loop = connections(15, max_connections=10)
    time.sleep(0.3)
    made += [Connection(type(made[0].protocol), loop) for _ in range(5)]
    passing(loop, 1)
    assert sum(each.is_cut_off for each in made[:15]) == 10
    assert not any(each.is_cut_off for each in made[15:])


def test_the_slowest_readers_are_cut_off_if_too_much_is_unsent() -> None:
    made, _ = connections(10)
    for each in made:
        each.answer(8 << 20)
        time.sleep(0.002)
        each.protocol.transport.write(bytes(1000))  # is sent
    made[0].protocol.transport.write(bytes(10**6))
    cut = [each.is_cut_off for each in made]
    assert cut == [True, True, *[False] * 8]
    made[2].protocol.transport.write(bytes(10**6))
    made[-1].answer(16 << 20)
    assert [each.is_cut_off for each in made] == [True, True, False, True, *[False] * 6]


def test_long_answers_are_sent_in_parts_and_freed_if_cut_off() -> None:
    async def sent(cut_after: int) -> tuple[list[bytes], list[bytes]]:
        messages = list[bytes]()

        async def send(message: Any) -> None:
            messages.append(message["body"])
            assert message["more_body"] == (len(messages) < 4)
            if len(messages) == cut_after:
                rest.clear()

        rest = parts = split(bytes(200_000))
        connection = Mock()
        await send_in_parts(parts, {"state": {CONNECTION: connection}}, send)
        return messages, parts

    messages, parts = asyncio.run(sent(9))
    assert (list(map(len, messages)), parts) == ([1 << 16] * 3 + [200_000 - (3 << 16)], [])
    messages, parts = asyncio.run(sent(2))
    assert (len(messages), parts) == (2, [])


def test_an_answer_of_megabytes_is_complete(writer: TestClient) -> None:
    text = "a long text " * 50_000
    writer.put("/documents", json={"texts": [text], "ids": ["long"]}, headers=TOKEN)
    answer = writer.get("/documents/long")
    assert (answer.status_code, answer.json()["text"]) == (200, text)
    assert int(answer.headers["content-length"]) == len(answer.content) > 1 << 19


@pytest.mark.parametrize(("rate", "is_cut_off"), [(0, True), (1000, True), (100_000, False)])
def test_a_trickling_reader_is_cut_off(rate: int, is_cut_off: bool) -> None:
    made, loop = connections(1, body_timeout=20)
    made[0].protocol.cycle = Mock(response_complete=False)
    made[0].answer(10 << 20)
    for _ in range(2):
        passing(loop, 20)
        made[0].answer((10 << 20) - 20 * rate, 20 * rate)
    assert made[0].is_cut_off == is_cut_off


def test_idle_connections_make_room() -> None:
    with running(texts(), ServerSettings(max_connections=5, body_timeout=60)) as port, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (["::1", "a.example"], "a.example", 200),
        (["::1", "a.example"], "A.example:80", 200),
        (["::1", "a.example"], "[::1]:8080", 200),
        (["::1", "a.example"], "b.example", 400),
        (["::1", "a.example"], "", 400),
        (["*"], "b.example", 200),
    ],
)
def test_hosts_are_checked(allowed: list[str], host: str, status: int) -> None:
    with TestClient(make_app(texts(), hosts=allowed)) as client:
        assert client.get("/health", headers={"Host": host}).status_code == status


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    with TestClient(make_app(texts(), hosts=["testserver"])) as made:
        yield made


def test_the_page_has_a_strict_policy(page: TestClient) -> None:
    headers = page.get("/").headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_files_of_the_page_load_nothing_and_insert_no_markup(page: TestClient) -> None:
    for file in ("page.js", "page.css", "icon.svg"):
        assert page.get(f"/{file}").status_code == 200
    assert "http" not in page.get("/page.css").text
    assert "innerHTML" not in page.get("/page.js").text


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_requests_after_the_announcement_are_answered_and_a_signal_stops(name: str) -> None:
    with listen("localhost", 0) as free:
        port = free.getsockname()[1]
        assert free.family == socket.AF_INET
    answers: list[int] = []

    def ask() -> None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
                answers.append(answer.status)
        finally:
            os.kill(os.getpid(), getattr(signal, name))

    asking = threading.Thread(target=ask)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    serve(vectors(), ServerSettings(), port=port, announce=asking.start)
    signal.signal(signal.SIGHUP, before)
    asking.join()
    assert answers == [200]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_answers_do_not_wait_for_acknowledgements(host: str) -> None:
    """Nagle's algorithm is off on accepted sockets: it delays each answer by 40 ms."""
    with listen(host, 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_serve_runs_in_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", ran := Mock())
    with ThreadPoolExecutor(1) as threads:
        threads.submit(serve, vectors(), ServerSettings(), port=0).result()
    ran.assert_called_once()
