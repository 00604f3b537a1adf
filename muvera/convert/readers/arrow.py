"""Readers of Arrow tables.

They are Parquet files, Arrow files and Hugging Face datasets, and LanceDB folders.  A
cell is one document: a list of tokens, each a list of floats.  The outer and the inner
lists may be lists, large lists or fixed-size lists.  By default, `column` with the
token vectors is the only column of nested lists, or the only one with a usual name, and
`id_column` a column with a usual name, if any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...data.multivectors import MultiVectors
from ...utils.checks import import_extra
from ..parsing import starts_with
from ..sources import IF_TEXTS, Document, Reader, ReadError, RowSource, Source, choose, naming_errors

if TYPE_CHECKING:
    import pyarrow as pa

_TOKENS = ("tokens", "embeddings", "embedding", "vectors", "vector", "colbert_vecs", "colbert", "multivector")
_IDS = ("id", "_id", "ids", "doc_id", "docid", "document_id", "pid", "corpus_id", "corpus-id")

# Maximum number of rows in a batch.
_ROWS = 1024

# Maximum size of a batch.
_BYTES = 4 << 20

#: Function that yields record batches of some columns of a file.
_Batches = Callable[[Path, list[str]], Iterator[Any]]


def _source(
    name: str,
    schema: pa.Schema,
    files: list[Path],
    batches: _Batches,
    column: str | None,
    id_column: str | None,
    num_documents: int | None = None,
) -> RowSource:
    """Return a source over the rows of Arrow tables; a null document has no tokens."""
    pa = import_extra("pyarrow", "parquet", "Reading Arrow tables")
    pc = import_extra("pyarrow.compute", "parquet", "Reading Arrow tables")
    column, id_column = _columns(schema, column, id_column)
    columns = [column] if id_column is None else [id_column, column]
    inner = _storage(_storage(schema.field(column).type).value_type)
    empty = np.empty((0, 0), np.float16 if inner.value_type == pa.float16() else np.float32)

    def documents() -> Iterator[Document]:
        tables = ((file, table) for file in files for table in batches(file, columns))
        for file, table in tables:
            if not set(columns) <= set(table.schema.names):
                raise ReadError(
                    f"{file} lacks one of the columns {', '.join(columns)} of {files[0].name}. "
                    "Rename its columns, or move it out of the folder."
                )
            cells = table.column(column)
            ids = [None] * len(table)
            with naming_errors(str(file), name):
                cells.validate(full=True)  # Arrow does not check offsets when it reads
                if id_column is not None:
                    table.column(id_column).validate(full=True)
                    ids = table.column(id_column).to_pylist()
                while hasattr(cells, "storage"):
                    cells = cells.storage
                lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy(zero_copy_only=False)
                tokens = MultiVectors.from_arrow(cells.drop_null()).tokens if lengths.any() else empty
            stops = np.cumsum(lengths)
            for identity, stop, length in zip(ids, stops.tolist(), lengths.tolist(), strict=True):
                yield Document(tokens[stop - length : stop], str(file), identity)

    dimension = int(inner.list_size) if pa.types.is_fixed_size_list(inner) else None
    return RowSource(documents, name=name, num_documents=num_documents, dimension=dimension)


def _columns(schema: pa.Schema, column: str | None, id_column: str | None) -> tuple[str, str | None]:
    """Return the column of token vectors, and the column of ids or None."""
    nested = [field.name for field in schema if _depth(field.type) == 2]
    if not nested:
        raise ReadError(
            "it has no column of token vectors (lists of lists of floats); its columns are "
            f"{', '.join(schema.names)}. {IF_TEXTS}"
        )
    if id_column is None:
        id_column = next((name for name in _IDS if name in schema.names), None)
    else:
        id_column = choose(id_column, schema.names, "column", "id_column")
    return choose(column, nested, "token column", "column", _TOKENS), id_column


def _storage(kind: pa.DataType) -> Any:
    """Return the type that an extension type stores."""
    while hasattr(kind, "storage_type"):
        kind = kind.storage_type
    return kind


def _depth(kind: pa.DataType) -> int:
    """Return the number of nested lists around floats; -1 if there are none."""
    types = import_extra("pyarrow", "parquet", "Reading Arrow tables").types
    depth = 0
    kind = _storage(kind)
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, depth = _storage(kind.value_type), depth + 1
    return depth if types.is_floating(kind) else -1


def _files(path: Path, suffix: str) -> list[Path]:
    """Return the file, or the files of a folder.

    Files are in the order of the numbers in their names.
    """

    def natural(file: Path) -> list[int | str]:
        return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", file.name)]

    return sorted(path.glob(f"*{suffix}"), key=natural) if path.is_dir() else [path]


# -- Parquet and Arrow IPC --------------------------------------------------------


class FileRows(NamedTuple):
    """The rows of a Parquet file from `start` up to `stop`."""

    file: Path
    start: int
    stop: int


def parquet_rows(path: Path) -> list[FileRows]:
    """Return all rows of a .parquet file, or of the files of a folder, in order."""
    pq = import_extra("pyarrow.parquet", "parquet", "Reading Parquet")
    return [FileRows(file, 0, pq.read_metadata(file).num_rows) for file in _files(path, ".parquet")]


def parquet_source(rows: list[FileRows], column: str | None = None, id_column: str | None = None) -> Source:
    """Return a source over rows of Parquet files, each file once.

    Only the row groups that contain these rows are read.
    """
    pq = import_extra("pyarrow.parquet", "parquet", "Reading Parquet")
    bounds = {part.file: (part.start, part.stop) for part in rows}

    def batches(file: Path, columns: list[str]) -> Iterator[Any]:
        start, stop = bounds[file]
        at = 0
        # Without these options pyarrow keeps the bytes of a whole row group in memory.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 22) as opened:
            for group in range(opened.num_row_groups):
                metadata = opened.metadata.row_group(group)
                if at + metadata.num_rows <= start or at >= stop:
                    at += metadata.num_rows
                    continue
                row_bytes = max(metadata.total_byte_size / max(metadata.num_rows, 1), 1)
                count = max(1, min(_ROWS, int(_BYTES / row_bytes)))
                for batch in opened.iter_batches(count, [group], columns):
                    first, last = max(start - at, 0), min(stop - at, len(batch))
                    at += len(batch)
                    if first < last:
                        yield batch.slice(first, last - first)

    files = list(bounds)
    count = sum(part.stop - part.start for part in rows)
    return _source("parquet", pq.read_schema(files[0]), files, batches, column, id_column, count)


def _open_parquet(path: Path, *, column: str | None = None, id_column: str | None = None) -> Source:
    """Open a .parquet file, or a folder of them."""
    return parquet_source(parquet_rows(path), column, id_column)


def _open_arrow(path: Path, *, column: str | None = None, id_column: str | None = None) -> Source:
    """Open a .arrow or .feather file, or a saved Hugging Face dataset."""
    pa = import_extra("pyarrow", "parquet", "Reading Arrow files")
    files = _files(path, ".arrow")

    def opened(mapped: object, file: Path) -> Any:
        is_file = starts_with(file, b"ARROW1")
        return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)

    def batches(file: Path, columns: list[str]) -> Iterator[Any]:
        with pa.memory_map(str(file)) as mapped:
            reader = opened(mapped, file)
            if hasattr(reader, "get_batch"):
                reader = map(reader.get_batch, range(reader.num_record_batches))
            yield from reader

    with pa.memory_map(str(files[0])) as mapped:
        schema = opened(mapped, files[0]).schema
    return _source("arrow", schema, files, batches, column, id_column)


# -- LanceDB ----------------------------------------------------------------------


def _open_lancedb(
    path: Path, *, table: str | None = None, column: str | None = None, id_column: str | None = None
) -> Source:
    """Open a LanceDB folder with <table>.lance in it, or a .lance folder.

    `table` is by default the only table in the folder.
    """
    lancedb = import_extra("lancedb", "lancedb", "Reading LanceDB")
    if path.suffix == ".lance":
        path, table = path.parent, table or path.stem
    name = choose(table, [entry.stem for entry in path.glob("*.lance")], "table", "table")
    folder = path / f"{name}.lance"
    for manifest in sorted((folder / "_versions").glob("*.manifest")):
        _require_no_base_paths(manifest)
    opened = lancedb.connect(str(path)).open_table(name)

    def batches(file: Path, columns: list[str]) -> Iterator[Any]:
        return opened.search().select(columns).to_batches(256)  # type: ignore[no-any-return]

    return _source("lancedb", opened.schema, [folder], batches, column, id_column, int(opened.count_rows()))


_BASE_PATHS = 18  # number of the manifest's field, in Lance's table.proto
_VARINT = re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]")  # of 64 bits


def _require_no_base_paths(manifest: Path) -> None:
    """Raise ReadError if a table's manifest lists base paths.

    LanceDB would open those folders.
    """
    content = manifest.read_bytes()
    at = int.from_bytes(content[-16:-8], "little")
    message = content[at + 4 : at + 4 + int.from_bytes(content[at : at + 4], "little")]
    at = 0

    def varint() -> int:
        nonlocal at
        encoded = _VARINT.match(message, at)
        if encoded is None:
            raise ValueError("its manifest is truncated")
        at = encoded.end()
        return sum((byte & 127) << 7 * i for i, byte in enumerate(encoded[0]))

    while at < len(message):
        key = varint()
        if key >> 3 == _BASE_PATHS:
            raise ReadError(
                f"{manifest} refers to folders outside the table, which are not read. Copy the table with "
                "LanceDB."
            )
        length = varint() if key & 7 in (0, 2) else {1: 8, 5: 4}[key & 7]
        at += length if key & 7 else 0


def _is_lancedb(path: Path) -> bool:
    return path.is_dir() and (path.suffix == ".lance" or any(path.glob("*.lance")))


def _is_parquet(path: Path) -> bool:
    return any(path.glob("*.parquet")) if path.is_dir() else starts_with(path, b"PAR1")


def _is_arrow(path: Path) -> bool:
    return any(path.glob("*.arrow")) if path.is_dir() else path.suffix in (".arrow", ".feather")


READERS = (
    Reader("lancedb", _is_lancedb, _open_lancedb, "my-lancedb -o table=docs"),
    Reader(
        "parquet",
        _is_parquet,
        _open_parquet,
        "docs.parquet -o column=tokens",
        "a .parquet file, or a folder of them, with a column of lists of lists of floats",
    ),
    Reader(
        "arrow",
        _is_arrow,
        _open_arrow,
        "my-dataset",
        "a .arrow or .feather file, or a saved Hugging Face dataset, with a column of lists of lists of "
        "floats",
    ),
)
