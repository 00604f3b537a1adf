"""Parquet, Arrow and LanceDB tables of every list type.

Their own libraries write them.
"""

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

# Half precision, so that every type of numbers holds them exactly.
DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"], dtype=np.float16)


def kinds(dimension: int) -> dict[str, Any]:
    """Return the usual types of a column of documents."""
    return {
        "list of list": pa.list_(pa.list_(pa.float32())),
        "list of fixed": pa.list_(pa.list_(pa.float16(), dimension)),
        "large of large": pa.large_list(pa.large_list(pa.float64())),
        "large of fixed": pa.large_list(pa.list_(pa.float32(), dimension)),
        # Like Hugging Face's Array2D, an extension type over lists.
        "extension": pa.opaque(pa.list_(pa.list_(pa.float32())), "array2d", "muvera"),
    }


def cells(docs: MultiVectors, name: str = "list of list") -> Any:
    kind = kinds(docs.dimension)[name]
    storage = docs.to_arrow().cast(getattr(kind, "storage_type", kind))
    return pa.ExtensionArray.from_storage(kind, storage) if name == "extension" else storage


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


CASES = [("parquet", kind) for kind in kinds(4)] + [(f, "extension") for f in ("arrow", "stream", "feather")]


@pytest.mark.parametrize(("form", "kind"), CASES)
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
        got = everything(source, max_tokens)
        assert_same(got, DOCS, exact_dtype=False)
        assert got.tokens.dtype == (np.float16 if kind == "list of fixed" else np.float32)
    if form != "feather":
        assert_same(read(tmp_path), got)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), docs=collections(min_tokens=1))
def test_slices_and_nulls_of_a_column(data: st.DataObject, docs: MultiVectors) -> None:
    """Batches are slices of a column; null documents have no tokens."""
    kind = data.draw(st.sampled_from(["list of list", "large of large", "large of fixed"]))
    listed: list[Any] = [tokens.astype(np.float32).tolist() for tokens in docs]
    listed = [None if not row and data.draw(st.booleans()) else row for row in listed]
    table = pa.table({"emb": pa.array(listed, kinds(docs.dimension)[kind])})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "docs.arrow")
        with pa.ipc.new_file(str(path), table.schema) as writer:
            for batch in table.to_batches(data.draw(st.integers(1, 4))):
                writer.write_batch(batch)
        got = everything(open_source(path), data.draw(st.integers(1, 9)))
    assert got.lengths.tolist() == docs.lengths.tolist()
    np.testing.assert_array_equal(got.tokens, docs.tokens.astype(np.float32))


def write_parts(folder: Path) -> None:
    for i in range(4):
        write(folder / f"part-{i + 8}.parquet", id=[i], emb=cells(DOCS[[i]]))


def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    write_parts(tmp_path)
    source = open_source(tmp_path)
    assert source.num_documents == 4
    assert_same(everything(source), DOCS.with_ids([0, 1, 2, 3]), exact_dtype=False)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param(
            {"id": [9], "emb": cells(collection([1], dimension=1))},
            r": document 4 has shape \(1, 1\)",
            id="other width",
        ),
        pytest.param({"other": [1]}, " lacks one of the columns id, emb", id="other columns"),
    ],
)
def test_a_file_that_does_not_fit_its_folder_is_named(tmp_path: Path, columns: Any, message: str) -> None:
    write_parts(tmp_path)
    write(tmp_path / "part-99.parquet", **columns)
    with pytest.raises(ValueError, match=rf"part-99\.parquet{message}"):
        read(tmp_path)


def test_a_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    """Arrow's own count of bytes stays far below the single row group's 64 MiB."""
    table = pa.table({"emb": collection([64] * 2048, dimension=128).to_arrow()})
    pq.write_table(table, tmp_path / "docs.parquet", row_group_size=2048)
    del table
    before = pa.total_allocated_bytes()
    largest = 0
    for batch in open_source(tmp_path / "docs.parquet").batches(4096):
        assert batch.num_tokens <= 4096
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert 0 < largest < 24 * 2**20


@pytest.fixture
def two_columns(tmp_path: Path) -> Path:
    columns = {"left": cells(DOCS), "right": cells(DOCS, "list of fixed")}
    return write(tmp_path / "a.parquet", key=[4, 3, 2, 1], single=[[1.0]] * 4, **columns)


def test_columns_are_found_or_given(two_columns: Path) -> None:
    assert_same(read(two_columns, column="right", id_column="key"), DOCS.with_ids([4, 3, 2, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"has the token columns left, right\. Choose one with column="),
        ({"column": "single"}, "has no token column 'single', but the token columns left, right"),
        ({"column": "left", "id_column": "no"}, "has no column 'no', but the columns key, left, right"),
    ],
)
def test_columns_that_are_not_there_are_named(
    two_columns: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(two_columns, **options)


def test_a_file_without_token_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no column of token vectors.*columns are text\."):
        read(write(tmp_path / "b.parquet", text=["a"]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[[1.0, 2]], [[1.0, 2], [3.0]]], "is damaged"),
        ([[[1.0, 2]], [], [[1.0, 2], None]], "is damaged"),
        ([[[1.0, 2]], [], [[1.0, None]]], "is damaged"),
        ([[[1.0, 2]], [[5.0, 2], [1.0, float("nan")]]], r"document 1 \(id 1\) has nan in its token 1"),
        ([[], None], "no document with a token"),
    ],
)
def test_bad_cells(tmp_path: Path, rows: Any, message: str) -> None:
    column = pa.array(rows, kinds(2)["list of list"])
    path = write(tmp_path / "bad.parquet", id=list(range(len(rows))), emb=column)
    with pytest.raises((ValueError, TypeError), match=rf"bad\.parquet.*{message}"):
        read(path)


# -- LanceDB ----------------------------------------------------------------------


@pytest.fixture
def db(tmp_path: Path) -> Any:
    """A LanceDB folder `tmp_path` with the table "docs"."""
    db = pytest.importorskip("lancedb", reason="the lancedb extra is not installed").connect(str(tmp_path))
    db.create_table("docs", lance_table(DOCS))
    return db


def lance_table(docs: MultiVectors) -> Any:
    vectors = docs.to_arrow().cast(pa.list_(pa.list_(pa.float64(), 4)))
    return pa.table({"id": docs.ids.tolist(), "text": ["x"] * len(docs), "vector": vectors})


def test_lancedb(tmp_path: Path, db: Any) -> None:
    table = db.open_table("docs")
    more = collection([2, 1], ids=["e", "f"], seed=1)
    table.add(lance_table(more))
    table.delete("id = 'c'")
    with pytest.raises(ValueError, match=r"has no table 'up', but the tables docs"):
        read(tmp_path, table="up")
    for path in (tmp_path, tmp_path / "docs.lance"):
        source = open_source(path)
        assert (source.name, source.dimension, source.num_documents) == ("lancedb", 4, 5)
        for max_tokens in (1, 100):
            got = everything(source, max_tokens)
            assert got.ids.tolist() == ["a", "b", "d", "e", "f"] and got.lengths.tolist() == [3, 0, 2, 2, 1]
            np.testing.assert_array_equal(got.tokens[:3], DOCS[0])
            np.testing.assert_array_equal(got.tokens[-3:], more.tokens)


@pytest.mark.usefixtures("db")
def test_lancedb_opens_no_other_folder(tmp_path: Path) -> None:
    (file,) = (tmp_path / "docs.lance" / "_versions").glob("*.manifest")
    content = file.read_bytes()
    begins = int.from_bytes(content[-16:-8], "little")
    length = int.from_bytes(content[begins : begins + 4], "little")

    def manifest(message: bytes) -> bytes:
        return content[:begins] + len(message).to_bytes(4, "little") + message + content[-16:]

    base = b"\x1a\x00\x22\x0b/etc/secret"  # is_dataset_root and path
    elsewhere = content[begins + 4 : begins + 4 + length] + b"\x92\x01" + bytes([len(base)]) + base
    for changed, message in (
        (manifest(elsewhere), r"\.manifest refers to folders outside the table"),
        (content[:-3], "is damaged"),
        (manifest(b"\xff" * 10**6 + b"\0"), "is damaged"),  # summing its digits would take minutes
    ):
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            read(tmp_path)
    file.write_bytes(content)
    assert len(read(tmp_path)) == 4
