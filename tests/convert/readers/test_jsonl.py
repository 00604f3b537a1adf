"""JSON and JSON lines: documents, hosted APIs and damage.  Stores' rows: test_rows.py."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert.readers import jsonl

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])
NAMED = [{"id": i, "tokens": t.tolist()} for i, t in zip(DOCS.ids.tolist(), DOCS, strict=True)]
BARE = [tokens.tolist() for tokens in DOCS]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def whole(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("max_tokens", [1, 3, 100])
def test_a_document_a_line(tmp_path: Path, max_tokens: int) -> None:
    path = lines(tmp_path / "docs.jsonl", NAMED)
    assert jsonl.matches(path)
    assert_same(everything(jsonl.open_source(path), max_tokens), DOCS)


def test_compressed_and_with_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl.gz"
    path.write_bytes(gzip.compress("\n\n".join(map(json.dumps, NAMED)).encode()))
    assert jsonl.matches(path)
    assert_same(everything(jsonl.open_source(path)), DOCS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"docs\.jsonl\.gz is damaged or truncated after line"):
        everything(jsonl.open_source(path))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (NAMED, True),
        (BARE, False),
        ({"rows": NAMED}, True),
        ({"documents": NAMED}, True),
        (dict(zip("abcd", BARE, strict=True)), True),
        ({"colbert_vecs": BARE, "dense_vecs": [[1.0]] * 4}, False),
        ({"embeddings": BARE}, False),
    ],
)
def test_one_json_value(tmp_path: Path, value: Any, named: bool) -> None:
    got = everything(jsonl.open_source(whole(tmp_path / "docs.json", value)))
    assert got.lengths.tolist() == [3, 0, 1, 2]
    assert got.has_ids == named
    if named:
        assert_same(got, DOCS)


def test_bare_lines_keep_empty_documents(tmp_path: Path) -> None:
    got = everything(jsonl.open_source(lines(tmp_path / "docs.jsonl", BARE)))
    assert got.lengths.tolist() == [3, 0, 1, 2]


def test_json_lines_under_the_name_of_json(tmp_path: Path) -> None:
    assert_same(everything(jsonl.open_source(lines(tmp_path / "docs.json", NAMED))), DOCS)


@pytest.mark.parametrize("key", ["embedding", "embeddings"])
def test_hosted_answers_in_the_order_of_their_index(tmp_path: Path, key: str) -> None:
    data = [{"object": "embedding", "index": i, key: BARE[i]} for i in (2, 0, 3, 1)]
    answer = {"model": "any", "data": data, "usage": {"total_tokens": 6}}
    got = everything(jsonl.open_source(whole(tmp_path / "answer.json", answer)))
    assert_same(got, collection([3, 0, 1, 2]))
    both = everything(jsonl.open_source(lines(tmp_path / "answers.jsonl", [answer, answer])))
    assert both.lengths.tolist() == [3, 0, 1, 2] * 2


def test_fields_by_name(tmp_path: Path) -> None:
    rows = [{"n": i, "left": BARE[i], "right": BARE[3 - i]} for i in range(4)]
    path = lines(tmp_path / "docs.jsonl", rows)
    with pytest.raises(ValueError, match=r"line 1: has token vectors in left, right\. Say which with field="):
        jsonl.open_source(path)
    got = everything(jsonl.open_source(path, field="left", id_field="n"))
    assert_same(got, DOCS.with_ids([0, 1, 2, 3]))
    with pytest.raises(
        ValueError, match="has no row with anything in 'up'; its first has the fields n, left"
    ):
        jsonl.open_source(path, field="up")
    with pytest.raises(ValueError, match="line 1: has no id in 'up'; its fields are n, left, right"):
        everything(jsonl.open_source(path, field="left", id_field="up"))
    with pytest.raises(ValueError, match=r"row_format must be one of elasticsearch, .*, plain, got 'mine'"):
        jsonl.open_source(path, row_format="mine")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"id": "x", "tokens": [[1, 2, 3]]},
            "line 3: document 2 has 3 columns, but this source has dimension=4",
        ),
        ({"id": "x", "tokens": [[1, 2, 3, 4], [1, 2]]}, "line 3: tokens has 2 numbers in its token 1, but 4"),
        ({"id": "x", "tokens": [1, 2, 3, 4]}, "line 3: tokens is a single vector, not one vector a token"),
        (
            {"id": "x", "tokens": [["a", "b"]]},
            "line 3: tokens has str 'a' in its token 0, where a number must stand",
        ),
        ({"id": "x", "error": "no"}, "line 3: has no 'tokens', only id, error; null says no tokens"),
        ({"tokens": [[1, 2, 3, 4]]}, "line 3: document 2 has no id, but those before have one"),
        (
            {"id": "x", "tokens": [[1, 2, 3, float("nan")]]},
            r"document 2 \(id 'x'\) has nan in its token 0, coordinate 3",
        ),
        (
            {"id": "x", "tokens": [[1, None, 3, 4]]},
            "line 3: tokens has NoneType None in its token 0, where a number must stand",
        ),
        ({"id": "a", "tokens": [[1, 2, 3, 4]]}, "must be unique, but 'a' stands at positions 0 and 2"),
        ("text", "line 3"),
        (
            {"id": "x", "tokens": [[1, 2, 3, 4], [1, "2", 3, 4]]},
            "tokens has str '2' in its token 1, where a number",
        ),
        (
            {"id": "x", "tokens": [[1, True, 3, 4]]},
            "line 3: tokens has bool True in its token 0, where a number",
        ),
        ({"id": "x", "tokens": [[1, 10**400, 3, 4]]}, "line 3: tokens has an integer that is too large"),
        (
            {"id": "x", "tokens": [[1, 1e300, 3, 4]]},
            r"document 2 \(id 'x'\) has inf in its token 0, coordinate 1",
        ),
        (
            {"id": "x", "tokens": [[1, 1e30, 3, 4]]},
            r"has 1e\+30 in its token 0, .* must be below 1e\+12 in size",
        ),
        (
            {"id": 7.0, "tokens": [[1, 2, 3, 4]]},
            "line 3: has as its 'id' the float 7.0, but an id is a whole number or",
        ),
        ({"id": True, "tokens": [[1, 2, 3, 4]]}, "line 3: has as its 'id' the bool True, but"),
        ({"id": ["x"], "tokens": [[1, 2, 3, 4]]}, r"line 3: has as its 'id' the list \['x'\], but"),
        ({"id": 10**30, "tokens": [[1, 2, 3, 4]]}, "mix kinds"),
    ],
)
def test_bad_lines(tmp_path: Path, row: Any, sentence: str) -> None:
    path = lines(tmp_path / "bad.jsonl", [*NAMED[:2], row])
    with pytest.raises((ValueError, TypeError), match=sentence):
        everything(jsonl.open_source(path), 100)


def test_ids_of_two_kinds(tmp_path: Path) -> None:
    path = lines(tmp_path / "bad.jsonl", [*NAMED[:2], {"id": 3, "tokens": [[1, 2, 3, 4]]}])
    with pytest.raises(TypeError, match=r"from document 0 on mix kinds \(int, str\)"):
        everything(jsonl.open_source(path), 100)


def test_truncated(tmp_path: Path) -> None:
    path = lines(tmp_path / "docs.jsonl", NAMED)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"docs\.jsonl, line 4 is truncated or no JSON"):
        everything(jsonl.open_source(path))
    path = whole(tmp_path / "docs.json", NAMED)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"docs\.json is truncated or no JSON"):
        jsonl.open_source(path)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "has no documents"),
        ([{"id": 1, "text": "a"}], "has no row with token vectors; its first has the fields id, text"),
        ([{"id": 1, "tokens": []}], "has no row with token vectors"),
    ],
)
def test_nothing_to_read(tmp_path: Path, rows: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        jsonl.open_source(lines(tmp_path / "docs.jsonl", rows))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"id": "x", "id": "y", "tokens": [[1]]}', "line 2 .*: the key 'id' stands twice in one object"),
        ("[" * 100_000, "line 2 is truncated or no JSON: .*recursion"),
        ('{"hits": {"hits": 7}}', "line 2: the row does not have its store's form"),
        ('{"id": 1, "class": "a", "vectors": [[1]]}', "line 2: the row does not have its store's form"),
        ('{"id": 1, "payload": {}, "vector": {"c": [[1], 2]}}', "line 2: "),
    ],
)
def test_lines_that_are_built_to_break(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "a", "tokens": []}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad\.jsonl, {sentence}"):
        everything(jsonl.open_source(path))


@pytest.mark.parametrize("name", ["docs.jsonl.gz", "docs.json.gz"])
def test_packed_files_that_unpack_to_much(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b" " * (64 << 20) + b"[[1]]"))
    with pytest.raises(ValueError, match=r"unpacks \d+ bytes to more than 16777216"):
        jsonl.open_source(path)


@pytest.mark.parametrize("name", ["docs.jsonl.gz", "docs.json.gz"])
def test_damaged_packed_files(tmp_path: Path, name: str) -> None:
    content = bytearray(gzip.compress(("\n".join(map(json.dumps, NAMED)) * 20).encode(), 0))
    for place in (3, 12, 18, len(content) - 2):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / name).write_bytes(damaged)
        try:
            everything(jsonl.open_source(tmp_path / name))
        except (ValueError, TypeError) as error:
            assert str(tmp_path / name) in str(error)
