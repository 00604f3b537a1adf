"""Parquet, Arrow and LanceDB tables of every list type, written by their own libraries."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, collections, everything
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert import open_source, read
from muvera.data.multivectors import MultiVectors

pa = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the parquet extra is not installed")

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


def types(dimension: int) -> dict[str, Any]:
    """Return the usual ways to declare documents."""
    number = pa.float32()
    return {
        "list of list": pa.list_(pa.list_(number)),
        "list of fixed": pa.list_(pa.list_(number, dimension)),
        "large of large": pa.large_list(pa.large_list(number)),
        "large of fixed": pa.large_list(pa.list_(number, dimension)),
    }


def cells(docs: MultiVectors, kind: str = "list of list") -> Any:
    return pa.array([tokens.tolist() for tokens in docs], types(docs.dimension)[kind])


def fixed(docs: MultiVectors, number: Any) -> Any:
    inner = pa.FixedSizeListArray.from_arrays(pa.array(docs.tokens.reshape(-1)).cast(number), docs.dimension)
    return pa.ListArray.from_arrays(pa.array(docs.offsets, pa.int32()), inner)


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


@pytest.mark.parametrize(
    ("form", "kind"),
    [("parquet", kind) for kind in types(4)]
    + [(form, "large of fixed") for form in ("arrow", "stream", "feather")],
)
def test_every_list_type_in_every_file(tmp_path: Path, form: str, kind: str) -> None:
    table = pa.table({"text": list("wxyz"), "doc_id": DOCS.ids.tolist(), "emb": cells(DOCS, kind)})
    path = tmp_path / f"docs.{'arrow' if form == 'stream' else form}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=3)
    elif form == "feather":
        __import__("pyarrow.feather").feather.write_feather(table, path)
    else:
        opener = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table, 2)
    source = open_source(path)
    assert (source.name, source.dimension) == ("parquet" if form == "parquet" else "arrow", 4)
    for max_tokens in (1, 2, 100):
        assert_same(everything(source, max_tokens), DOCS)
    if form != "feather":
        assert_same(read(tmp_path), DOCS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"docs\.{path.suffix[1:]} is damaged"):
        read(path)


@pytest.mark.parametrize("number", [pa.float16(), pa.float64()])
def test_precisions(tmp_path: Path, number: Any) -> None:
    docs = collection([3, 0, 1, 2], dtype=np.float16)
    got = read(write(tmp_path / "docs.parquet", emb=fixed(docs, number)))
    assert got.tokens.dtype == (np.float16 if number == pa.float16() else np.float32)
    assert_same(got, docs, exact_dtype=False)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), docs=collections(min_tokens=1))
def test_slices_and_nulls_of_a_column(data: st.DataObject, docs: MultiVectors) -> None:
    """Batches are slices of a column; null documents have no tokens."""
    kind = data.draw(st.sampled_from(list(types(docs.dimension))))
    listed: list[Any] = [tokens.astype(np.float32).tolist() for tokens in docs]
    listed = [None if not row and data.draw(st.booleans()) else row for row in listed]
    table = pa.table({"emb": pa.array(listed, types(docs.dimension)[kind])})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "docs.arrow")
        with pa.ipc.new_file(str(path), table.schema) as writer:
            for batch in table.to_batches(data.draw(st.integers(1, 4))):
                writer.write_batch(batch)
        got = everything(open_source(path), data.draw(st.integers(1, 9)))
    assert got.lengths.tolist() == docs.lengths.tolist()
    np.testing.assert_array_equal(got.tokens, docs.tokens.astype(np.float32))


def test_extension_types(tmp_path: Path) -> None:
    """Hugging Face's Array2D is an extension type over lists."""

    class Wrapped(pa.ExtensionType):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(pa.list_(pa.list_(pa.float32())), "muvera.test.array2d")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Any:
            return cls()

    pa.register_extension_type(Wrapped())
    try:
        wrapped = pa.ExtensionArray.from_storage(Wrapped(), cells(DOCS))
        assert_same(read(write(tmp_path / "docs.parquet", id=DOCS.ids.tolist(), emb=wrapped)), DOCS)
    finally:
        pa.unregister_extension_type("muvera.test.array2d")


def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"part-{i + 8}.parquet", id=[i], emb=cells(DOCS[[i]]))
    source = open_source(tmp_path)
    assert source.num_documents == 4
    assert_same(everything(source), DOCS.with_ids([0, 1, 2, 3]))
    wrong = pa.array([[[1.0]]], pa.list_(pa.list_(pa.float32())))
    write(tmp_path / "part-99.parquet", id=[9], emb=wrong)
    with pytest.raises(ValueError, match=r"part-99\.parquet: document 4 has shape \(1, 1\)"):
        read(tmp_path)
    write(tmp_path / "part-99.parquet", other=[1])
    with pytest.raises(ValueError, match=r"part-99\.parquet lacks one of the columns id, emb"):
        read(tmp_path)


def test_a_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    """Arrow's own count of bytes stays far below the single row group's 64 MiB."""
    docs = collection([64] * 2048, dimension=128)
    pq.write_table(
        pa.table({"emb": fixed(docs, pa.float32())}), tmp_path / "docs.parquet", row_group_size=2048
    )
    before = pa.total_allocated_bytes()
    largest = 0
    for batch in open_source(tmp_path / "docs.parquet").batches(4096):
        assert batch.num_tokens <= 4096
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert 0 < largest < 24 * 2**20


def test_columns_are_found_or_given(tmp_path: Path) -> None:
    columns = {"left": cells(DOCS), "right": cells(DOCS, "list of fixed")}
    path = write(tmp_path / "a.parquet", key=[4, 3, 2, 1], single=[[1.0]] * 4, **columns)
    assert_same(read(path, column="right", id_column="key"), DOCS.with_ids([4, 3, 2, 1]))
    for options, message in (
        ({}, r"has the token columns left, right\. Choose one with column="),
        ({"column": "single"}, "has no token column 'single', but the token columns left, right"),
        (
            {"column": "left", "id_column": "no"},
            "has no column 'no', but the columns key, left, right, single",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(path, None, isolated=False, **options)
    with pytest.raises(ValueError, match=r"has no column of token vectors.*columns are text\."):
        read(write(tmp_path / "b.parquet", text=["a"]))


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        ([[[1.0, 2]], [[1.0, 2], [3.0]]], [0, 1], "is damaged"),
        ([[[1.0, 2]], [], [[1.0, 2], None]], [0, 1, 2], "is damaged"),
        ([[[1.0, 2]], [], [[1.0, None]]], [0, 1, 2], "is damaged"),
        (
            [[[1.0, 2]], [[5.0, 2], [1.0, float("nan")]]],
            [0, 1],
            r"document 1 \(id 1\) has nan in its token 1",
        ),
        ([[], None], [0, 1], "no document with a token"),
    ],
)
def test_bad_cells(tmp_path: Path, rows: Any, ids: Any, message: str) -> None:
    column = pa.array(rows, pa.list_(pa.list_(pa.float32())))
    path = write(tmp_path / "bad.parquet", id=ids, emb=column)
    with pytest.raises((ValueError, TypeError), match=rf"bad\.parquet.*{message}"):
        read(path)


# -- LanceDB ----------------------------------------------------------------------


@pytest.fixture
def lancedb() -> Any:
    return pytest.importorskip("lancedb", reason="the lancedb extra is not installed")


def lance_table(number: Any, docs: MultiVectors = DOCS) -> Any:
    return pa.table({"id": docs.ids.tolist(), "text": ["x"] * len(docs), "vector": fixed(docs, number)})


def test_lancedb(tmp_path: Path, lancedb: Any) -> None:
    number = pa.float64()
    table = lancedb.connect(str(tmp_path)).create_table("docs", lance_table(number))
    more = collection([2, 1], ids=["e", "f"], seed=1)
    table.add(lance_table(number, more))
    table.delete("id = 'c'")
    for path in (tmp_path, tmp_path / "docs.lance"):
        source = open_source(path)
        assert (source.name, source.dimension, source.num_documents) == ("lancedb", 4, 5)
        for max_tokens in (1, 100):
            got = everything(source, max_tokens)
            assert got.ids.tolist() == ["a", "b", "d", "e", "f"] and got.lengths.tolist() == [3, 0, 2, 2, 1]
            np.testing.assert_array_equal(got.tokens[:3], DOCS[0])
            np.testing.assert_array_equal(got.tokens[-3:], more.tokens)


def test_lancedb_which_table(tmp_path: Path, lancedb: Any) -> None:
    db = lancedb.connect(str(tmp_path))
    db.create_table("left", lance_table(pa.float32()))
    db.create_table("right", pa.table({"vector": [[1.0]]}))
    (tmp_path / "broken.lance").mkdir()
    assert_same(read(tmp_path, table="left"), DOCS)
    for options, message in (
        ({}, r"has the tables broken, left, right\. Choose one with table="),
        ({"table": "up"}, "has no table 'up', but the tables broken, left, right"),
        ({"table": "right"}, "has no column of token vectors"),
        ({"table": "broken"}, "is damaged, or is not in the format 'lancedb'"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path, None, isolated=False, **options)


def test_lancedb_opens_no_other_folder(tmp_path: Path, lancedb: Any) -> None:
    lancedb.connect(str(tmp_path)).create_table("docs", lance_table(pa.float32()))
    (file,) = (tmp_path / "docs.lance" / "_versions").glob("*.manifest")
    content = file.read_bytes()
    begins = int.from_bytes(content[-16:-8], "little")
    length = int.from_bytes(content[begins : begins + 4], "little")
    base = b"\x1a\x00\x22\x0b/etc/secret"  # is_dataset_root and path
    message = content[begins + 4 : begins + 4 + length] + b"\x92\x01" + bytes([len(base)]) + base
    file.write_bytes(content[:begins] + len(message).to_bytes(4, "little") + message + content[-16:])
    with pytest.raises(ValueError, match=r"\.manifest refers to folders outside the table"):
        read(tmp_path)
    number = b"\xff" * 10**6 + b"\0"  # summing its digits would take minutes
    endless = content[:begins] + len(number).to_bytes(4, "little") + number + content[-16:]
    for damaged in (content[:-3], endless):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            read(tmp_path)
    file.write_bytes(content)
    assert_same(read(tmp_path), DOCS)
