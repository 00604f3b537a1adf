"""Parquet and Arrow files of every list type, written by pyarrow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, collections, everything
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.readers import arrow_ipc, parquet
from muvera.convert.sources import arrow_columns
from muvera.data.multivectors import MultiVectors

pa = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the parquet extra is not installed")

LENGTHS = [3, 0, 1, 2]
DOCS = collection(LENGTHS, ids=["a", "b", "c", "d"])


def types(dimension: int, number: Any = None) -> dict[str, Any]:
    """Return the usual ways to declare documents."""
    number = number or pa.float32()
    return {
        "list of list": pa.list_(pa.list_(number)),
        "list of fixed": pa.list_(pa.list_(number, dimension)),
        "large of large": pa.large_list(pa.large_list(number)),
        "large of fixed": pa.large_list(pa.list_(number, dimension)),
    }


def cells(docs: MultiVectors, kind: Any) -> Any:
    return pa.array([tokens.tolist() for tokens in docs], kind)


@pytest.mark.parametrize("kind", list(types(4)))
@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_parquet_of_every_list_type(tmp_path: Path, kind: str, compression: str) -> None:
    table = pa.table({"text": list("wxyz"), "doc_id": DOCS.ids.tolist(), "emb": cells(DOCS, types(4)[kind])})
    pq.write_table(table, tmp_path / "docs.parquet", row_group_size=3, compression=compression)
    assert parquet.matches(tmp_path / "docs.parquet")
    source = parquet.open_source(tmp_path / "docs.parquet")
    assert source.dimension == 4
    assert source.num_documents == 4
    for max_tokens in (1, 2, 100):
        assert_same(everything(source, max_tokens), DOCS)


@pytest.mark.parametrize("number", [pa.float16(), pa.float64()])
def test_precisions(tmp_path: Path, number: Any) -> None:
    docs = collection(LENGTHS, dtype=np.float16)
    values = pa.array(docs.tokens.reshape(-1)).cast(number)
    inner = pa.FixedSizeListArray.from_arrays(values, 4)
    table = pa.table({"emb": pa.ListArray.from_arrays(pa.array(docs.offsets, pa.int32()), inner)})
    pq.write_table(table, tmp_path / "docs.parquet")
    got = everything(parquet.open_source(tmp_path / "docs.parquet"))
    assert got.tokens.dtype == (np.float16 if number == pa.float16() else np.float32)
    assert_same(got, docs, exact_dtype=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), docs=collections(min_tokens=1))
def test_slices_and_nulls_of_an_array(data: st.DataObject, docs: MultiVectors) -> None:
    """A slice of a column says the same as its documents alone; null documents have no tokens."""
    kind = data.draw(st.sampled_from(list(types(docs.dimension))))
    listed: list[Any] = [tokens.astype(np.float32).tolist() for tokens in docs]
    listed = [None if not row and data.draw(st.booleans()) else row for row in listed]
    array = pa.array(listed, types(docs.dimension)[kind])
    start = data.draw(st.integers(0, len(docs)))
    count = data.draw(st.integers(0, len(docs) - start))
    tokens, offsets = arrow_columns.documents_of(pa, array.slice(start, count), docs.dimension, "here", 0)
    bounds = docs.offsets[start : start + count + 1]
    assert tokens is not None
    assert offsets.tolist() == (bounds - bounds[0]).tolist()
    np.testing.assert_array_equal(tokens, docs.tokens[bounds[0] : bounds[-1]].astype(np.float32))


def test_fixed_size_documents_and_extension_types(tmp_path: Path) -> None:
    """Arrays of one length a document, as padded batches are stored; null ones have no tokens."""
    kind = pa.list_(pa.list_(pa.float32(), 2), 3)
    array = pa.array([[[1, 2]] * 3, None, [[3, 4]] * 3], kind)
    tokens, offsets = arrow_columns.documents_of(pa, array, None, "here", 0)
    assert offsets.tolist() == [0, 3, 3, 6]
    assert tokens is not None
    assert tokens[:, 0].tolist() == [1, 1, 1, 3, 3, 3]

    class Wrapped(pa.ExtensionType):  # type: ignore[misc, name-defined]  # as Array2D of Hugging Face datasets
        def __init__(self) -> None:
            super().__init__(pa.list_(pa.list_(pa.float32())), "muvera.test.array2d")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Any:
            return cls()

    pa.register_extension_type(Wrapped())
    try:
        storage = cells(DOCS, pa.list_(pa.list_(pa.float32())))
        wrapped = pa.ExtensionArray.from_storage(Wrapped(), storage)
        pq.write_table(pa.table({"id": DOCS.ids.tolist(), "emb": wrapped}), tmp_path / "docs.parquet")
        assert_same(everything(parquet.open_source(tmp_path / "docs.parquet")), DOCS)
    finally:
        pa.unregister_extension_type("muvera.test.array2d")


def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for i, tokens in enumerate(DOCS):
        part = pa.table(
            {
                "id": [i],
                "emb": cells(MultiVectors.from_arrays([tokens], dimension=4), types(4)["list of list"]),
            }
        )
        pq.write_table(part, tmp_path / f"part-{i + 8}.parquet")
    assert parquet.matches(tmp_path)
    source = parquet.open_source(tmp_path)
    assert source.num_documents == 4
    assert_same(everything(source), DOCS.with_ids([0, 1, 2, 3]))
    pq.write_table(pa.table({"other": [1]}), tmp_path / "part-99.parquet")
    with pytest.raises(ValueError, match=r"part-99\.parquet has no column 'emb', but part-8\.parquet has"):
        parquet.open_source(tmp_path)


def test_long_row_groups_come_in_pieces(tmp_path: Path) -> None:
    docs = collection([50] * 40, dimension=8)
    pq.write_table(pa.table({"emb": cells(docs, types(8)["list of fixed"])}), tmp_path / "docs.parquet")
    parts = list(parquet.open_source(tmp_path / "docs.parquet").batches(120))
    assert {part.num_tokens for part in parts} == {100}
    assert_same(MultiVectors.concatenate(parts), docs)


def test_a_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    """Arrow's own count of bytes stays far below the one row group's 64 MiB."""
    docs = collection([64] * 2048, dimension=128)
    values = pa.FixedSizeListArray.from_arrays(pa.array(docs.tokens.reshape(-1)), 128)
    column = pa.ListArray.from_arrays(pa.array(docs.offsets, pa.int32()), values)
    pq.write_table(pa.table({"emb": column}), tmp_path / "docs.parquet", row_group_size=2048)
    del values, column
    before = pa.total_allocated_bytes()
    largest = 0
    for _ in parquet.open_source(tmp_path / "docs.parquet").batches(4096):
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert 0 < largest < 24 * 2**20


@pytest.mark.parametrize("form", ["file", "stream", "feather"])
def test_arrow_files(tmp_path: Path, form: str) -> None:
    table = pa.table({"id": DOCS.ids.tolist(), "emb": cells(DOCS, types(4)["list of list"])})
    path = tmp_path / ("docs.feather" if form == "feather" else "docs.arrow")
    if form == "feather":
        from pyarrow import feather

        feather.write_feather(table, path)
    else:
        opener = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table, 2)
    assert arrow_ipc.matches(path)
    assert arrow_ipc.matches(tmp_path) == (form != "feather")
    assert_same(everything(arrow_ipc.open_source(path)), DOCS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is damaged, or is not in the format 'arrow' \("):
        everything(arrow_ipc.open_source(path))


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_are_found_or_asked_for(tmp_path: Path) -> None:
    left, right = cells(DOCS, types(4)["list of list"]), cells(DOCS, types(4)["list of fixed"])
    path = write(tmp_path / "a.parquet", key=[4, 3, 2, 1], left=left, right=right, single=[[1.0]] * 4)
    with pytest.raises(ValueError, match=r"has token vectors in left, right\. Say which with column="):
        parquet.open_source(path)
    got = everything(parquet.open_source(path, column="right", id_column="key"))
    assert_same(got, DOCS.with_ids([4, 3, 2, 1]))
    with pytest.raises(ValueError, match=r"the column 'single' is list<.*must be a list of lists of floats"):
        parquet.open_source(path, column="single")
    with pytest.raises(ValueError, match="the column 'no' does not exist"):
        parquet.open_source(path, column="no")
    with pytest.raises(ValueError, match="has no column 'no' for ids; it has key, left, right, single"):
        parquet.open_source(path, column="left", id_column="no")
    with pytest.raises(ValueError, match=r"has no column of token vectors.*it has text"):
        parquet.open_source(write(tmp_path / "b.parquet", text=["a"]))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[[1.0, 2]], [[1.0, 2], [3.0]]], "document 1 has a token of 1 numbers, but those before have 2"),
        ([[[1.0, 2]], [], [[1.0, 2], None]], "document 2 has a null token"),
        ([[[1.0, 2]], [], [[1.0, None]]], "document 2 has a null in a token"),
        (
            [[[1.0, 2]], [[5.0, 2], [1.0, float("nan")]]],
            r"document 1 \(id 1\) has nan in its token 1, coordinate 1",
        ),
    ],
)
def test_bad_cells(tmp_path: Path, rows: Any, sentence: str) -> None:
    column = pa.array(rows, pa.list_(pa.list_(pa.float32())))
    path = write(tmp_path / "bad.parquet", id=list(range(len(rows))), emb=column)
    with pytest.raises(ValueError, match=r"bad\.parquet: " + sentence):
        everything(parquet.open_source(path), 100)


def test_null_ids_and_no_tokens(tmp_path: Path) -> None:
    column = cells(DOCS, types(4)["list of list"])
    path = write(tmp_path / "a.parquet", id=["a", "b", None, "d"], emb=column)
    with pytest.raises(ValueError, match="id is null for document 2"):
        everything(parquet.open_source(path))
    path = write(tmp_path / "b.parquet", emb=pa.array([[], None], types(4)["list of list"]))
    with pytest.raises(ValueError, match="no document with a token, so that its dimension is unknown"):
        parquet.open_source(path)


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "docs.parquet", emb=cells(DOCS, types(4)["list of list"]))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"docs\.parquet is damaged, or is not in the format 'parquet' \("):
        parquet.open_source(path)


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "docs.parquet", emb=cells(DOCS, types(4)["list of list"]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"Reading Parquet needs pyarrow.*'muvera-toolkit\[parquet\]'"):
        parquet.open_source(path)
    assert parquet.matches(path), "what it is can be said without the extra"
