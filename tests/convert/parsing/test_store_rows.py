"""Rows as vector stores export them, each in the forms that their documentation shows."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import collection, everything
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from muvera.convert.parsing.number_literals import from_hex, literals, unpack_signs
from muvera.convert.parsing.store_decoders import weaviate_bytes
from muvera.convert.readers import jsonl

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])
TOKENS = {name: tokens.tolist() for name, tokens in zip("abcd", DOCS, strict=True)}

INT8 = "tensor<int8>(dt{},x[2])"


def blocks(tokens: list[Any]) -> dict[str, Any]:
    """Return Vespa's blocks, under their positions."""
    return {str(position): row for position, row in enumerate(tokens)}


def vespa(tensor: Any) -> dict[str, Any]:
    """Return a row of Vespa with one tensor."""
    return {"id": "id:ns:doc::1", "fields": {"c": tensor}}


def cells(indexed: str, *values: tuple[str, int, float]) -> dict[str, Any]:
    """Return Vespa's cells, each with its token and coordinate."""
    listed = [{"address": {"dt": token, "x": str(x)}, "value": value} for token, x, value in values]
    return {"type": f"tensor<float>(dt{{}},{indexed})", "cells": listed}


def read(path: Path, listed: list[Any], **options: Any) -> Any:
    """Return the source of rows written as JSON lines."""
    path = path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    return jsonl.open_source(path, **options)


def assert_docs(source: Any) -> None:
    got = everything(source)
    assert got.ids.tolist() == ["a", "b", "c", "d"]
    assert got.lengths.tolist() == [3, 0, 1, 2]
    np.testing.assert_array_equal(got.tokens, DOCS.tokens)
    assert not source.lossy
    assert source.nbits is None


@pytest.mark.parametrize(
    "row",
    [
        lambda i, t: {"id": i, "payload": {"n": 1}, "vector": t},
        lambda i, t: {"id": i, "payload": None, "vector": {"fde": [1.0, 2.0], "colbert": t}},
        lambda i, t: {"id": i, "vector": {"colbert": t} if t else {}},  # a point may lack a vector
        lambda i, t: {"id": i, "class": "C", "properties": {"text": "x"}, "vectors": {"default": t}},
        lambda i, t: {"id": i, "properties": {}, "vector": {"colbert": t, "dense": [0.5]}},
        lambda i, t: {"id": i, "clips": [{"vec": v, "second": 1} for v in t], "title": "x"},
        lambda i, t: {"id": i, "clips": [{"vec": v, "other": v[:2]} for v in t]},
        lambda i, t: {"_index": "x", "_id": i, "_score": 1.0, "_source": {"colbert": t, "text": "x"}},
        lambda i, t: {"_id": i, "_source": {"colbert": t} if t else {"text": "x"}},
        lambda i, t: {"id": i, "emb": "{" + ",".join(f'"{json.dumps(v)}"' for v in t) + "}"},
        lambda i, t: {"id": i, "emb": [json.dumps(v) for v in t]},
        lambda i, t: {"id": i, "emb": None if not t else [json.dumps(v) for v in t]},
        lambda i, t: {"id": f"id:ns:doc::{i}", "fields": {"c": {"blocks": blocks(t)}}},
        lambda i, t: {"put": f"id:ns:doc::{i}", "fields": {"t": "x", "c": blocks(t)}},
        lambda i, t: {
            "id": f"id:ns:doc:g=1:{i}",
            "fields": {
                "c": {
                    "type": "tensor<float>(dt{},x[4])",
                    "blocks": [{"address": {"dt": str(n)}, "values": v} for n, v in enumerate(t)],
                }
            },
        },
        lambda i, t: {
            "id": f"id:ns:doc::{i}",
            "fields": {
                "c": {
                    "type": "tensor<float>(tok{},d[4])",
                    "cells": [
                        {"address": {"d": str(x), "tok": str(n)}, "value": value}
                        for n, v in enumerate(t)
                        for x, value in enumerate(v)
                    ],
                }
            },
        },
        lambda i, t: {
            "id": f"id:ns:doc::{i}",
            "fields": {
                "c": {
                    "type": "tensor<float>(dt{},x[4])",
                    "blocks": {str(n): np.asarray(v, ">f4").tobytes().hex() for n, v in enumerate(t)},
                }
            },
        },
    ],
)  # fmt: skip
def test_rows_of_every_store(tmp_path: Path, row: Any) -> None:
    listed = [row(name, tokens) for name, tokens in TOKENS.items()]
    two = any("other" in part for r in listed for part in (r.get("clips") or []))
    assert_docs(read(tmp_path, listed, field="clips[vec]" if two else None))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda points: {"result": {"points": points, "next_page_offset": None}, "status": "ok"},
        lambda points: {"result": points},
        lambda points: {"points": points},
        lambda points: {"objects": points},
    ],
)
def test_answers_that_hold_rows(tmp_path: Path, wrap: Any) -> None:
    points = [{"id": i, "payload": {}, "vector": {"colbert": t}} for i, t in TOKENS.items()]
    assert_docs(read(tmp_path, [wrap(points)]))


def test_elasticsearch_answers_and_bulk_files(tmp_path: Path) -> None:
    hits = [{"_id": i, "_source": {"colbert": t}} for i, t in TOKENS.items()]
    assert_docs(read(tmp_path, [{"took": 1, "hits": {"total": 4, "hits": hits}}]))
    bulk: list[Any] = []
    for i, t in TOKENS.items():
        bulk += [{"index": {"_id": i, "_index": "x"}}, {"colbert": t}]
    assert_docs(read(tmp_path, bulk))


def test_ids_from_the_payload(tmp_path: Path) -> None:
    points = [{"id": n, "payload": {"key": i}, "vector": t} for n, (i, t) in enumerate(TOKENS.items())]
    assert everything(read(tmp_path, points)).ids.tolist() == [0, 1, 2, 3]
    assert_docs(read(tmp_path, points, id_field="key"))


def test_vespa_blocks_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    blocks = {str(n): [float(n), 0.0] for n in (10, 9, 2, 0, 1, 11)}
    row = {"id": "id:n:d::1", "fields": {"c": {"type": "tensor<float>(dt{},x[2])", "blocks": blocks}}}
    assert everything(read(tmp_path, [row])).tokens[:, 0].tolist() == [0, 1, 2, 9, 10, 11]


def test_vespa_bfloat16_as_hex(tmp_path: Path) -> None:
    exact = (DOCS.tokens.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    text = [(row.view(np.uint32) >> 16).astype(">u2").tobytes().hex() for row in exact]
    row = {
        "id": "id:n:d::1",
        "fields": {"c": {"type": "tensor<bfloat16>(dt{},x[4])", "blocks": dict(enumerate(text))}},
    }
    source = read(tmp_path, [row])
    np.testing.assert_array_equal(everything(source, 99).tokens, exact)
    del row["fields"]["c"]["type"]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"line 1: c is hex without a tensor type\. Give cell_type="):
        read(tmp_path, [row])
    named = read(tmp_path, [row], cell_type="bfloat16")
    np.testing.assert_array_equal(everything(named, 99).tokens, exact)


@pytest.mark.parametrize("as_text", [True, False])
def test_vespa_int8_holds_signs_by_default(tmp_path: Path, as_text: bool) -> None:
    vectors = collection([3], dimension=16).tokens
    packed = np.packbits(vectors > 0, axis=1).astype(np.int8)
    blocks = {str(n): (row.tobytes().hex() if as_text else row.tolist()) for n, row in enumerate(packed)}
    row = {"id": "id:n:d::1", "fields": {"c": {"type": "tensor<int8>(dt{},x[2])", "blocks": blocks}}}
    source = read(tmp_path, [row])
    assert (source.lossy, source.nbits, source.dimension) == (True, 1, 16)
    np.testing.assert_array_equal(everything(source, 9).tokens, np.where(vectors > 0, 1.0, -1.0))
    plain = read(tmp_path, [row], packed_signs=False)
    assert (plain.lossy, plain.nbits, plain.dimension) == (True, 8, 2)
    np.testing.assert_array_equal(everything(plain, 9).tokens, packed.astype(np.float32))


def test_elasticsearch_bits(tmp_path: Path) -> None:
    vectors = collection([3], dimension=16).tokens
    packed = np.packbits(vectors > 0, axis=1).astype(np.int8)
    signs = np.where(vectors > 0, 1.0, -1.0)
    text = {"_id": "1", "_source": {"c": [row.tobytes().hex() for row in packed]}}
    source = read(tmp_path, [text])
    assert (source.nbits, source.dimension) == (1, 16)
    np.testing.assert_array_equal(everything(source, 9).tokens, signs)
    numbers = {"_id": "1", "_source": {"c": packed.tolist()}}
    np.testing.assert_array_equal(everything(read(tmp_path, [numbers], packed_signs=True), 9).tokens, signs)
    assert read(tmp_path, [numbers]).dimension == 2, "bytes are numbers unless told"


@given(vectors=arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 9))))
def test_signs_are_unpacked_as_numpy_packs_them(vectors: np.ndarray) -> None:
    """An independent decoder, bit by bit: the highest bit is the first dimension."""
    wanted = [[1 if (int(b) & 0xFF) >> (7 - j) & 1 else -1 for b in row for j in range(8)] for row in vectors]
    assert unpack_signs(vectors).tolist() == wanted


@given(values=arrays(np.float32, st.integers(1, 9), elements=st.floats(width=32, allow_nan=False)))
def test_hex_cells_are_big_endian(values: np.ndarray) -> None:
    text = "".join(struct.pack(">f", value).hex() for value in values)
    np.testing.assert_array_equal(from_hex(text, "float", "x"), values)
    np.testing.assert_array_equal(from_hex(text.upper(), "float", "x"), values)


@settings(deadline=None)
@given(
    values=arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 4)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_array_literals(values: np.ndarray) -> None:
    text = "{" + ",".join('"[' + ",".join(repr(float(v)) for v in row) + ']"' for row in values) + "}"
    np.testing.assert_array_equal(np.asarray(literals(text, "x"), np.float32), values)


def test_weaviate_bytes() -> None:
    content = struct.pack("<H", 4) + DOCS.tokens.tobytes()
    np.testing.assert_array_equal(weaviate_bytes(content), DOCS.tokens)
    with pytest.raises(ValueError, match="has 97 bytes, which are not two of width and rows of 4 float32"):
        weaviate_bytes(content[:-1])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (vespa({"type": "tensor<int4>(d{},x[2])", "blocks": {"0": "00"}}), "type 'int4'"),
        (vespa({"type": "tensor<float>(d{},x[1])", "blocks": {"0": "00"}}), "not the hex"),
        (
            vespa({"cells": [{"address": {"a": "0", "x": "0"}, "value": 1}]}),
            "must name one mapped and one indexed dimension",
        ),
        (
            vespa({"blocks": [{"address": {"a": "0", "b": "0"}, "values": [1.0]}]}),
            "only one mapped dimension can be tokens",
        ),
        ({"id": 1, "emb": '{"[1,2]","[1,2"}'}, "which is no pgvector literal"),
        ({"id": 1, "payload": {}, "vector": {"a": [[1.0]], "b": [[1.0]]}}, "has token vectors in a, b"),
        (vespa({"blocks": {"0": None}}), "line 1"),
        (
            vespa({"blocks": [{"address": {"t": "0"}, "values": [1.0]}, {"address": {"t": "0"}, "values": [2.0]}]}),
            "line 1: c has two values at '0', but an address stands for one",
        ),
        (
            vespa({"type": "tensor<float>(dt{},x[4])", "blocks": {"0": [1.0, 2.0, 3.0, 4.0], "1": [1.0, 2.0]}}),
            r"c has 2 numbers in its block '1', but its type tensor<float>\(dt\{\},x\[4\]\) declares 4",
        ),
        (vespa({"type": INT8, "blocks": {"0": [1, 300]}}), "c has 300.0 in its token 0, but an int8"),
        (vespa({"type": INT8, "blocks": {"0": [0.5, 3]}}), "c has 0.5 in its token 0, but an int8"),
        (vespa({"type": INT8, "blocks": {"0": [1, 1e30]}}), r"c has 1e\+30 in its token 0, but an int8"),
        (vespa(cells("x[3]", ("0", 0, 1.0), ("0", 2, 2.0))), "c has no cell for coordinate 1 of token '0'"),
        (vespa(cells("x[3]", ("0", 0, 1.0), ("0", 1, 2.0))), "c has no cell for coordinate 2 of token '0'"),
        (vespa(cells("x[]", ("0", 0, 1.0), ("0", 2, 2.0))), "c has no cell for coordinate 1 of token '0'"),
        (vespa(cells("x[1]", ("0", 0, 1.0), ("0", 1, 2.0))), "c has 2 numbers in its block '0', but .* declares 1"),
        (vespa(cells("x[2]", ("0", 0, 1.0), ("0", 0, 2.0))), "c, token '0', has two values at 0"),
        ({"id": "id:n:d::1", "put": 7.5, "fields": {"c": {"blocks": {"0": [True]}}}}, "c has bool True in its token 0"),
        ({"id": 7.5, "fields": {"c": {"blocks": {"0": [1.0]}}}}, "has as its 'id' the float 7.5"),
        ({"_id": "1", "_source": {"c": [[1, 2], [3, 999]]}, "packed": 1}, "c has 999.0 in its token 1, but an int8"),
        ({"id": 1, "emb": '{"[1,2]","[1,true]"}'}, "emb has bool True in its token 1"),
        ({"id": 1, "emb": '{"[1,2]",'}, "which is no array literal"),
        ({"id": 1, "payload": {"id": 2.5}, "vector": [[1.0]]}, None),
    ],
)  # fmt: skip
def test_bad_rows(tmp_path: Path, row: Any, sentence: str | None) -> None:
    options = {"packed_signs": True} if "packed" in row else {}
    if sentence is None:
        everything(read(tmp_path, [row], **options))
        return
    with pytest.raises(ValueError, match=sentence):
        everything(read(tmp_path, [row], **options))


def test_a_forced_format(tmp_path: Path) -> None:
    row = {"id": "a", "payload": {}, "vector": [[1.0, 2.0]]}
    assert everything(read(tmp_path, [row], row_format="qdrant")).tokens.tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="has no row with token vectors"):
        read(tmp_path, [row], row_format="vespa")
