"""JSON and JSON lines: documents, answers of APIs, vector stores, and damage."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert import convert, open_source, read

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])
BARE = [tokens.tolist() for tokens in DOCS]
TOKENS = dict(zip("abcd", BARE, strict=True))
NAMED = [{"id": i, "tokens": t} for i, t in TOKENS.items()]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.ndjson", "docs.json", "docs.jsonl.gz"])
def test_one_document_per_line(tmp_path: Path, name: str) -> None:
    path = lines(tmp_path / name, NAMED)
    if name.endswith("gz"):
        path.write_bytes(gzip.compress("\n\n".join(map(json.dumps, NAMED)).encode()))
    source = open_source(path)
    assert source.name == "jsonl"
    for max_tokens in (1, 3, 100):
        assert_same(everything(source, max_tokens), DOCS)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (NAMED, True),
        (BARE, False),
        ({"rows": NAMED}, True),
        (TOKENS, True),
        ({"colbert_vecs": BARE, "dense_vecs": [[1.0]] * 4}, False),
        ({"data": [{"index": i, "embedding": BARE[i]} for i in (2, 0, 3, 1)], "usage": {"n": 6}}, False),
        ({"result": {"points": NAMED, "next_page_offset": None}}, True),
        ({"took": 1, "hits": {"total": 4, "hits": NAMED}}, True),
    ],
)
def test_one_json_value(tmp_path: Path, value: Any, named: bool) -> None:
    expected = DOCS if named else collection([3, 0, 1, 2])
    for name in ("docs.json", "docs.jsonl"):
        assert_same(everything(open_source(lines(tmp_path / name, [value]))), expected)


#: Functions that make a row from an id and token vectors.
ROWS: dict[str, Callable[[str, list[Any]], dict[str, Any]]] = {
    "plain": lambda i, t: {"id": i, "tokens": t, "data": [{"index": 1}], "rows": [{}]},
    "qdrant": lambda i, t: {"id": i, "payload": {"n": 1}, "vector": t},
    "qdrant named": lambda i, t: {"id": i, "payload": None, "vector": {"fde": [1.0, 2.0], "colbert": t}},
    "weaviate": lambda i, t: {"id": i, "class": "C", "properties": {"text": "x"}, "vectors": {"default": t}},
    "milvus": lambda i, t: {"id": i, "clips": [{"vec": v, "second": 1} for v in t], "title": "x"},
    "elasticsearch": lambda i, t: {"_index": "x", "_id": i, "_source": {"colbert": t, "text": "x"}},
    "elasticsearch without": lambda i, t: {"_id": i, "_source": {"colbert": t} if t else {"text": "x"}},
    "vespa": lambda i, t: {"id": f"id:ns:doc::{i}", "fields": {"c": {"blocks": dict(enumerate(t))}}},
    "vespa short": lambda i, t: {"put": f"id:ns:doc::{i}", "fields": {"t": "x", "c": dict(enumerate(t))}},
    "vespa list": lambda i, t: {
        "id": f"id:ns:doc:g=1:{i}",
        "fields": {"c": {"blocks": [{"address": {"d": str(n)}, "values": v} for n, v in enumerate(t)]}},
    },
}


@pytest.mark.parametrize("store", ROWS)
def test_rows_of_every_store(tmp_path: Path, store: str) -> None:
    rows = [ROWS[store](name, tokens) for name, tokens in TOKENS.items()]
    assert_same(read(lines(tmp_path / "rows.jsonl", rows)), DOCS)


def vespa(path: Path, kind: str, blocks: dict[str, Any]) -> Path:
    """Write a document with a tensor of these blocks; no type if `kind` is ""."""
    typed = {"type": kind, "blocks": blocks} if kind else blocks
    return lines(path / "docs.jsonl", [{"id": "id:n:d::1", "fields": {"c": typed}}])


def test_vespa_blocks_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    blocks = {str(n): [float(n), 0.0] for n in (10, 9, 2, 0, 1, 11)}
    path = vespa(tmp_path, "tensor<float>(dt{},x[2])", blocks)
    assert read(path).tokens[:, 0].tolist() == [0, 1, 2, 9, 10, 11]


SIGNS = np.where(collection([3], dimension=128).tokens > 0, 1, -1)
PACKED = np.packbits(SIGNS > 0, axis=1).view(np.int8)
NUMBERS = {str(i): row.tolist() for i, row in enumerate(PACKED)}
HEX = {str(i): row.tobytes().hex() for i, row in enumerate(PACKED)}
INT8 = "tensor<int8>(dt{},x[16])"


@pytest.mark.parametrize("blocks", [NUMBERS, HEX], ids=["numbers", "hex"])
@pytest.mark.parametrize(("kind", "options"), [(INT8, {}), ("", {"cell_type": "bits"})])
def test_packed_signs_of_vespa_are_unpacked(
    tmp_path: Path, blocks: dict[str, Any], kind: str, options: dict[str, Any]
) -> None:
    source = open_source(vespa(tmp_path, kind, blocks), **options)
    assert (source.dimension, source.lossy, source.nbits) == (128, True, 1)
    assert everything(source).tokens.tolist() == SIGNS.tolist()


def test_signs_come_in_the_order_of_unpack_bits(tmp_path: Path) -> None:
    """The highest bit of the first byte is the first coordinate."""
    tokens = read(vespa(tmp_path, INT8, {"0": [64, *[-1] * 15]})).tokens
    assert tokens[0, :8].tolist() == [-1, 1, -1, -1, -1, -1, -1, -1]


def test_int8_cells_are_numbers_if_one_says_so(tmp_path: Path) -> None:
    source = open_source(vespa(tmp_path, INT8, NUMBERS), cell_type="int8")
    assert (source.dimension, source.lossy, source.nbits) == (16, True, 8)
    assert everything(source).tokens.tolist() == PACKED.tolist()


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("", NUMBERS),
        ("", HEX),
        ("tensor<int8>(dt{},x[128])", {"0": [1] * 128}),
    ],
    ids=["integers without a type", "hex without a type", "wide int8"],
)
def test_cells_that_are_signs_or_numbers_are_refused(
    tmp_path: Path, kind: str, blocks: dict[str, Any]
) -> None:
    message = r"line 1: it has in fields\.c .*packed signs or numbers\. Give cell_type='bits'"
    with pytest.raises(ValueError, match=message):
        read(vespa(tmp_path, kind, blocks))


def test_a_matrix_of_vespa_without_a_type_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "docs.jsonl", [{"id": "id:n:d::1", "fields": {"c": PACKED.tolist()}}])
    with pytest.raises(ValueError, match="integers without a tensor type"):
        read(path)
    assert read(path, cell_type="bits").dimension == 128


@pytest.mark.parametrize(("cell", "code"), [("bfloat16", None), ("float", ">f4"), ("double", ">f8")])
def test_hex_of_floats(tmp_path: Path, cell: str, code: str | None) -> None:
    bits = (DOCS.tokens.view(np.uint32) & np.uint32(0xFFFF0000)).astype(np.uint32)
    rows = (bits >> 16).astype(">u2") if code is None else bits.view(np.float32).astype(code)
    blocks = {str(i): row.tobytes().hex() for i, row in enumerate(rows)}
    source = open_source(vespa(tmp_path, f"tensor<{cell}>(dt{{}},x[4])", blocks))
    assert not source.lossy
    assert everything(source).tokens.tolist() == bits.view(np.float32).tolist()


@pytest.mark.parametrize("tokens", [PACKED.tolist(), list(HEX.values())], ids=["numbers", "hex"])
@pytest.mark.parametrize("bulk", [False, True])
def test_bits_of_elasticsearch_need_a_type(tmp_path: Path, tokens: list[Any], bulk: bool) -> None:
    document = {"c": tokens, "tags": ["red", "blue"]}
    rows = [{"index": {"_id": "1"}}, document] if bulk else [{"_id": "1", "_source": document}]
    path = lines(tmp_path / "hits.jsonl", rows)
    message = r"it has in _source\.c .*packed signs or numbers\. Give cell_type='bits' for 128 signs"
    with pytest.raises(ValueError, match=message):
        read(path)
    assert read(path, cell_type="bits").tokens.tolist() == SIGNS.tolist()
    assert read(path, cell_type="int8").tokens.tolist() == PACKED.tolist()


def test_floats_of_elasticsearch_need_no_type(tmp_path: Path) -> None:
    rows = [{"_source": {"c": [[1.0, 2.0], [3.0, 4.5]]}}, {"_source": {"c": [[0.5, 200]]}}]
    assert read(lines(tmp_path / "hits.jsonl", rows)).lengths.tolist() == [2, 1]


def test_hex_under_another_name_needs_its_name_and_type(tmp_path: Path) -> None:
    path = lines(tmp_path / "hits.jsonl", [{"id": "1", "mine": list(HEX.values())}])
    with pytest.raises(ValueError, match="path with field=, and for hex strings also cell_type="):
        read(path)
    assert read(path, field="mine", cell_type="bits").tokens.tolist() == SIGNS.tolist()


@pytest.mark.parametrize(
    ("kind", "blocks", "message"),
    [
        ("tensor<int4>(d{},x[2])", {"0": "00"}, "cells of the type 'int4'"),
        ("tensor<float>(d{},x[1])", {"0": "00"}, "'00', which is not hex of float cells"),
        (INT8, {"0": [1, 300]}, "300, but an int8 is an integer from -128 to 127"),
        (INT8, {"0": [0.5, 3]}, "0.5, but an int8"),
        (INT8, {"0": None}, "line 1"),
        (INT8, {"0": [1, 2], "1": [3]}, r"in fields\.c a token of 1 numbers and one of 2"),
        (INT8, {"0": "0102", "1": "03"}, r"in fields\.c a token of 2 hex digits and one of 4"),
        ("", [{"address": {"a": "0", "b": "0"}, "values": [1.0]}], "addresses of several dimensions"),
        ("", [{"address": {"a": "0"}, "values": [1.0]}] * 2, "two blocks at one address"),
    ],
)
def test_bad_tensors(tmp_path: Path, kind: str, blocks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(vespa(tmp_path, kind, blocks if kind else {"blocks": blocks}), field="fields.c")


def bulk(path: Path, action: str = "index") -> Path:
    """Write a bulk file of Elasticsearch: an action before each document."""
    rows: list[Any] = []
    for name, tokens in TOKENS.items():
        rows += [{action: {"_index": "x", "_id": name}}, {"colbert": tokens, "text": "a"}]
    return lines(path, rows)


@pytest.mark.parametrize("name", ["bulk.ndjson", "bulk.json", "bulk.jsonl"])
@pytest.mark.parametrize("action", ["index", "create"])
def test_bulk_files(tmp_path: Path, name: str, action: str) -> None:
    assert_same(read(bulk(tmp_path / name, action)), DOCS)


def test_bulk_files_without_ids(tmp_path: Path) -> None:
    rows: list[Any] = []
    for tokens in BARE:
        rows += [{"index": {}}, {"colbert": tokens}]
    assert_same(read(lines(tmp_path / "bulk.ndjson", rows)), collection([3, 0, 1, 2]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"delete": {"_id": "a"}}], "line 1: it has the action 'delete'"),
        ([{"index": {}}, {"c": [[1.0]]}, {"update": {"_id": "a"}}, {"doc": {}}], "line 3: .* 'update'"),
        ([{"index": {}}, {"c": [[1.0]]}, {"index": {}}], "last action has no document"),
    ],
)
def test_other_actions_of_bulk_files_are_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(lines(tmp_path / "bulk.ndjson", rows))


NESTED_ROWS = [{"n": i, "left": BARE[i], "meta": {"right": BARE[i], "key": f"k{i}"}} for i in range(4)]


def test_paths_to_fields(tmp_path: Path) -> None:
    path, keys = lines(tmp_path / "docs.jsonl", NESTED_ROWS), [f"k{i}" for i in range(4)]
    assert_same(read(path, field="meta.right", id_field="meta.key"), DOCS.with_ids(keys))
    assert read(path, id_field="n").ids.tolist() == [0, 1, 2, 3]
    structs = [{"id": i, "clips": [{"vec": v, "other": v[:2]} for v in t]} for i, t in TOKENS.items()]
    assert_same(read(lines(tmp_path / "structs.jsonl", structs), field="clips.vec"), DOCS)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (NESTED_ROWS, {"field": "up"}, "line 1: it has no 'up', only n, left, meta"),
        (NESTED_ROWS, {"field": "left", "id_field": "up"}, "line 1: it has no id in 'up'"),
        (
            [{"n": 1, "left": BARE[0], "right": BARE[0]}],
            {},
            r"line 1: it has the token fields left, right\. Choose one with field=",
        ),
    ],
    ids=["no such field", "no such id", "two fields"],
)
def test_fields_that_are_not_there_are_named(
    tmp_path: Path, rows: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(lines(tmp_path / "docs.jsonl", rows), **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x", "tokens": [[1, 2, 3]]}, "line 3: document 2 has shape .* dimension=4"),
        ({"id": "x", "tokens": [[1, 2, 3, 4], [1, 2]]}, "line 3: it has in tokens a token of 2 numbers"),
        ({"id": "x", "tokens": [1, 2, 3, 4]}, r"line 3: it has in tokens int64 of shape \(4,\)"),
        ({"id": "x", "error": "no"}, "line 3: it has no 'tokens', only id, error"),
        ({"tokens": [[1, 2, 3, 4]]}, "line 3: document 2 has the id None"),
        ({"id": 3, "tokens": [[1, 2, 3, 4]]}, "has the id 3 of type int, but .* type str"),
        ({"id": 7.0, "tokens": [[1, 2, 3, 4]]}, r"line 3: it has id=7\.0"),
        ({"id": "a", "tokens": [[1, 2, 3, 4]]}, "'a' .*0 and 2"),
        ({"id": "x", "tokens": [[1, 2, 3, float("nan")]]}, r"document 2 \(id 'x'\) has nan .* coordinate 3"),
        ({"id": "x", "tokens": [[1, 1e300, 3, 4]]}, r"document 2 \(id 'x'\) has inf .* coordinate 1"),
        ("text", "line 3"),
    ],
)
def test_bad_lines(tmp_path: Path, row: Any, message: str) -> None:
    """In the second batch."""
    path = lines(tmp_path / "bad.jsonl", [*NAMED[:2], row])
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        convert(path, tmp_path / "out", max_tokens=3)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f"{json.dumps(NAMED[0])}\n[[", "line 2 is damaged"),
        ("a.jsonl", "", "has no documents"),
        ("a.jsonl", '{"id": 1, "n": 2}', "no row with token vectors, .* first has the fields id, n"),
        ("a.json", '["a text", "another"]', "If it contains texts, .* muvera texts index"),
        ("a.txt", "Two words.", "in no known format. If it contains texts, .* muvera texts index"),
        ("a.jsonl", "[" * 100_000, "line 1 is damaged"),
        ("a.json", b'["\xff"]', "is damaged"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, name: str, content: Any, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
