"""EncodeDocuments has the bits of one process.

Shards are merged by exact score, and a dead one is named.
"""

import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real

from muvera import FDEEncoder, MultiVectors, MuveraIndex, top_k
from muvera.distributed import EncodeDocuments, HTTPShard, ShardedIndex, ShardError

DOCUMENTS = documents_like_real(300, ids=np.arange(300))
QUERIES = queries_like_real(DOCUMENTS, 8)
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)


def vectors_of(table: Any) -> Any:
    return table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def test_encoded_tables_have_the_bits_of_one_process(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    ENCODER.save(tmp_path / "encoder")
    documents = documents_like_real(60, dtype=np.float16)
    expected, whole = ENCODER.encode_documents(documents), pa.table({"tokens": documents.to_arrow()})
    for encode in (
        EncodeDocuments(tmp_path / "encoder"),
        pickle.loads(pickle.dumps(EncodeDocuments(ENCODER))),
    ):
        np.testing.assert_array_equal(vectors_of(encode(whole)), expected)
        parts = pa.concat_tables([encode(whole.slice(start, 7)) for start in range(0, 60, 7)])
        np.testing.assert_array_equal(vectors_of(parts), expected)
        assert parts["vector"].type == pa.list_(pa.float32(), CONFIG.vector_dimension)
    assert encode(whole.slice(0, 0)).num_rows == 0
    narrow = MultiVectors.from_arrays([np.ones((2, 5), np.float32)]).to_arrow()
    for table, part in (
        (pa.table({"id": [1]}), "tokens"),
        (encode(whole), "vector"),
        (pa.table({"tokens": narrow}), f"5.*{DIM}|{DIM}.*5"),
    ):
        with pytest.raises(ValueError, match=part):
            encode(table)
    with pytest.raises(ValueError, match="fit"):
        EncodeDocuments(FDEEncoder(CONFIG))
    with pytest.raises(FileNotFoundError):
        EncodeDocuments(tmp_path)


@pytest.fixture(scope="module")
def parts() -> list[MuveraIndex]:
    return [
        MuveraIndex.build(DOCUMENTS[start : start + 100], ENCODER, exact_tokens=0)
        for start in range(0, 300, 100)
    ]


def assert_best(rankings: Any, ids: Any = None) -> None:
    documents = DOCUMENTS if ids is None else DOCUMENTS[ids]
    for found, exact in zip(rankings, top_k(QUERIES, documents, 7), strict=True):
        assert found.ids.tolist() == exact.ids.tolist()
        np.testing.assert_array_equal(found.scores, exact.scores)


def test_the_best_of_shards_are_the_best_of_all(parts: list[MuveraIndex]) -> None:
    index = ShardedIndex({f"part {i}": one for i, one in enumerate(parts)})
    answer = index.search(QUERIES, 7)
    assert answer.failed == {}
    assert_best(answer.rankings)
    every = int((DOCUMENTS.lengths > 0).sum())
    assert {len(one) for one in index.search(QUERIES, 400, candidates=1).rankings} == {every}


class Dead:
    """A shard that does not answer."""

    def search(self, *_: Any, **__: Any) -> Any:
        raise ShardError("http://127.0.0.1:9 does not answer.")


def test_a_dead_shard_is_not_hidden(parts: list[MuveraIndex]) -> None:
    index = ShardedIndex({"a": parts[0], "b": Dead(), "c": parts[2]})
    with pytest.raises(ShardError, match=r"1 of 3 .*'b'.*http://127"):
        index.search(QUERIES, 7)
    answer = index.search(QUERIES, 7, on_failure="report")
    assert answer.failed == {"b": "http://127.0.0.1:9 does not answer."}
    assert_best(answer.rankings, np.r_[0:100, 200:300])
    with pytest.raises(ShardError, match="1 of 1 shards"):
        ShardedIndex({"b": Dead()}).search(QUERIES, on_failure="report")
    with pytest.raises(ValueError, match=f"{DIM}"):
        index.search([np.ones((2, 5), np.float32)])
    with pytest.raises(ValueError, match="k must be"):
        index.search(QUERIES, 0)
    with pytest.raises(ValueError, match="no shards"):
        ShardedIndex({})


def test_shards_over_http(parts: list[MuveraIndex], server: str) -> None:
    index = ShardedIndex({"a": parts[0], "b": HTTPShard(server), "c": parts[2]})
    assert_best(index.search(QUERIES, 7).rankings)
    gone = ShardedIndex({"a": parts[0], "b": HTTPShard("http://127.0.0.1:9", timeout=2)})
    with pytest.raises(ShardError, match=r"'b'.*http://127\.0\.0\.1:9"):
        gone.search(QUERIES)
    with pytest.raises(ShardError, match=r"Error 4.*k"):
        HTTPShard(server).search(QUERIES, 0, candidates=1)


@pytest.fixture
def server(parts: list[MuveraIndex]) -> Iterator[str]:
    """URL of a server of the second part."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    from muvera.serve import ServerSettings
    from muvera.serve.app import make_app

    config = uvicorn.Config(make_app(parts[1], ServerSettings()), port=0, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(10)


#: Answers of a server that is not an index, to two queries.
NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "not http": b"",
    "not json": b"<html>",
    "not utf-8": b'{"results": "\xff"}',
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "no results": b"{}",
    "results null": b'{"results": null}',
    "one ranking": b'{"results": [[]]}',
    "three rankings": b'{"results": [[], [], []]}',
    "numbers": b'{"results": [1, 2]}',
    "hits of numbers": b'{"results": [[1], []]}',
    "no score": b'{"results": [[{"id": 1}], []]}',
    "id null": b'{"results": [[{"id": null, "score": 1}], []]}',
    "id of both kinds": b'{"results": [[{"id": 1, "score": 1}, {"id": "a", "score": 1}], []]}',
    "id twice": b'{"results": [[{"id": 1, "score": 1}, {"id": 1, "score": 1}], []]}',
    "large id": b'{"results": [[{"id": 99999999999999999999, "score": 1}], []]}',
    "score a string": b'{"results": [[{"id": 1, "score": "1"}], []]}',
    "score true": b'{"results": [[{"id": 1, "score": true}], []]}',
    "score NaN": b'{"results": [[{"id": 1, "score": NaN}], []]}',
    "score too large": b'{"results": [[{"id": 1, "score": 1e300}], []]}',
    "too many hits": b'{"results": [[{"id": 1, "score": 1}, {"id": 2, "score": 1}, {"id": 3, "score": 1}], []]}',
}


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Yield the URL of a server that answers one request with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(body)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize("name", NONSENSE)
def test_a_shard_that_answers_nonsense_is_reported(name: str, parts: list[MuveraIndex]) -> None:
    content = NONSENSE[name]
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
    with answering(b"SSH-2.0" if name == "not http" else head + content) as url:
        index = ShardedIndex({"a": parts[0], "b": HTTPShard(url)})
        answer = index.search(QUERIES[:2], 2, on_failure="report")
    assert url in answer.failed["b"]
    assert len(answer.rankings) == 2


def test_shards_with_both_kinds_of_ids_are_refused(parts: list[MuveraIndex]) -> None:
    named = MuveraIndex.build(DOCUMENTS[:5].with_ids(list("abcde")))
    with pytest.raises(ShardError, match="integers, or all strings"):
        ShardedIndex({"a": parts[0], "b": named}).search(QUERIES, 3)
