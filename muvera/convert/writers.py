"""Writers of token embeddings, and of document vectors.

Document vectors are for other vector searches.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids, as_ids, running_total
from ..utils.arrays import save_array
from ..utils.atomic_files import atomic_file, atomic_folder, write_json
from ..utils.checks import as_path, import_extra
from ..utils.hints import Argument, Message


class Writer(NamedTuple):
    """A format that is written."""

    #: Write documents, a :class:`Gathered`, to a new file or into a new folder.
    write: Callable[..., None]
    #: Patterns of the files in its folder; None for a format of one file.
    files: tuple[str, ...] | None = None
    #: Names of further parameters of `write`.
    options: tuple[str, ...] = ()


@contextmanager
def new_target(target: Path, overwrite: bool, files: Sequence[str] | None) -> Iterator[Path]:
    """Yield a new file or folder, which becomes `target` if the block succeeds.

    It is beside `target`.  `files` are the patterns of the files in a folder; None for
    a file.

    Raises
    ------
    FileExistsError
        If the target exists and `overwrite` is False, or it contains other files.
    OSError
        If the block raised a system error, such as for a full disk: an error of the
        same class that names the target.
    ValueError
        If the target is a URL.
    """
    target = as_path(target, "target", "folder or file")  # before any folder is made
    new: Any = (
        atomic_file(target, overwrite) if files is None else atomic_folder(target, overwrite, own=files)
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with new as path:
            yield path
    except OSError as error:
        # Raise errors unchanged if they name a file, or did not come from the operating
        # system.
        if error.errno is None or error.strerror is None or error.filename is not None:
            raise
        named = type(error)(f"{target} could not be written: {' '.join(error.strerror.split()).rstrip('.')}.")
        named.errno = error.errno
        raise named from error


class Gathered:
    """Batches that are checked as they pass, and whose lengths and ids are collected.

    The first batch sets the dtype, to which later float16 batches are converted.
    Either all batches have ids or none.
    """

    def __init__(self, batches: Iterator[MultiVectors], place: str) -> None:
        self.place = place
        self.num_documents = self.num_tokens = 0
        first = next(batches)
        self._batches = chain([first], batches)
        self.dimension = first.dimension
        self.dtype: np.dtype[Any] = first.tokens.dtype
        self._has_ids: bool | None = None
        self._lengths: list[NDArray[np.int64]] = []
        self._ids: list[Any] = []

    def __iter__(self) -> Iterator[MultiVectors]:
        return map(self._checked, self._batches)

    def _checked(self, batch: MultiVectors) -> MultiVectors:
        batch.require_finite(first=self.num_documents, place=self.place)
        if len(batch) and self._has_ids is None:
            self._has_ids = batch.has_ids
        narrow = self.dtype == np.float16 and batch.tokens.dtype != np.float16 and batch.num_tokens
        other_ids = len(batch) and self._has_ids != batch.has_ids
        if batch.dimension != self.dimension or other_ids or narrow:
            raise ValueError(
                Message(
                    f"{self.place}: the documents from number {self.num_documents} on have "
                    f"{_kind(batch.dimension, batch.tokens.dtype, batch.has_ids)}, but those before have "
                    f"{_kind(self.dimension, self.dtype, bool(self._has_ids))}. All must have the same: "
                    "give ids to all or to none, and convert with ",
                    Argument("dtype", "'float32'"),
                    " or ",
                    Argument("dtype", "'float16'"),
                    ".",
                )
            )
        ids = batch.ids if batch.has_ids else None
        if batch.tokens.dtype != self.dtype:
            batch = MultiVectors(batch.tokens.astype(self.dtype), batch.offsets, ids)
        self._lengths.append(batch.lengths)
        self._ids.extend([] if ids is None else ids.tolist())
        self.num_documents += len(batch)
        self.num_tokens += batch.num_tokens
        return batch

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document so far."""
        return np.concatenate(self._lengths)

    @property
    def ids(self) -> Ids | None:
        """All ids, checked over the batches; None without ids."""
        if not self._has_ids:
            return None
        return as_ids(self._ids, self.num_documents, f"{self.place}: ids", parts=True)


def _kind(dimension: int, dtype: DTypeLike, has_ids: bool) -> str:
    return f"dimension={dimension}, {dtype} and {'ids' if has_ids else 'no ids'}"


@contextmanager
def spooled(gathered: Gathered, path: Path) -> Iterator[MultiVectors]:
    """Yield all documents, for formats that need their number.

    The documents are read once.  Their tokens are memory-mapped from a temporary file
    beside `path`.
    """
    with tempfile.TemporaryFile(dir=path.parent, prefix=".muvera-") as file:
        for batch in gathered:
            file.write(np.ascontiguousarray(batch.tokens).data)
        file.flush()
        shape = (gathered.num_tokens, gathered.dimension)
        tokens: NDArray[Any] = np.empty(shape, gathered.dtype)
        if tokens.size:  # an empty file cannot be mapped
            tokens = np.memmap(file, gathered.dtype, "r", 0, shape)
        yield MultiVectors.from_flat(tokens, gathered.lengths, ids=gathered.ids)


# -- token embeddings -------------------------------------------------------------

_SAFETENSORS_TYPES = {
    np.dtype("<f2"): "F16", np.dtype("<f4"): "F32", np.dtype("<i8"): "I64", np.dtype("u1"): "U8",
}  # fmt: skip


def write_npy(documents: Gathered, folder: Path, *, column: str = "tokens") -> None:
    """Write the folder that :meth:`MultiVectors.load` maps.

    `column` is the name of the array, "tokens" or "vectors"; "vectors" has one row per
    document and no lengths.
    """
    blocks = (batch.tokens for batch in documents)
    # Written instead of memory-mapped: a full disk would kill a process that writes
    # through a map.
    _write_rows(folder / f"{column}.npy", blocks, documents.dimension, documents.dtype)
    if column == "tokens":
        save_array(folder / "lengths.npy", documents.lengths)
    ids = documents.ids
    if ids is not None:
        write_json(folder / "ids.json", ids.tolist())


def _write_rows(file: Path, blocks: Iterable[NDArray[Any]], columns: int, dtype: DTypeLike) -> None:
    """Write a .npy file (rows, columns) from blocks of rows."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (0, columns)}
    rows = 0
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).data)
            rows += len(block)
        # NumPy pads the header, so that a longer number fits.
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (rows, columns)})


def write_npz(gathered: Gathered, file: Path) -> None:
    """Write ``tokens``, ``lengths`` and ``ids``.

    They are not compressed, because token vectors hardly compress.
    """
    with spooled(gathered, file) as documents:
        arrays: dict[str, NDArray[Any]] = {"tokens": documents.tokens, "lengths": documents.lengths}
        if documents.has_ids:
            ids = documents.ids
            arrays |= _packed_strings(ids.tolist()) if ids.dtype == object else {"ids": ids}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, values in arrays.items():
                # ZipInfo has no date, so the same documents make the same bytes.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def write_safetensors(gathered: Gathered, file: Path) -> None:
    """Write ``tokens``, ``offsets`` and ids, without the library.

    String ids are arrays of bytes, because the header could not hold many strings.
    """
    with spooled(gathered, file) as documents:
        tensors: dict[str, NDArray[Any]] = {"offsets": documents.offsets, "tokens": documents.tokens}
        if documents.has_ids:
            integers = documents.ids.dtype.kind == "i"
            tensors |= {"ids": documents.ids} if integers else _packed_strings(documents.ids.tolist())
        # Wide types first: every tensor begins at a multiple of its item size.
        ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)
        header: dict[str, Any] = {"__metadata__": {"format": "np"}}
        start = 0
        for name, array in ordered:
            header[name] = {
                "dtype": _SAFETENSORS_TYPES[array.dtype], "shape": list(array.shape),
                "data_offsets": [start, start + array.nbytes],
            }  # fmt: skip
            start += array.nbytes
        encoded = json.dumps(header, ensure_ascii=False).encode()
        encoded += b" " * (-len(encoded) % 8)
        with file.open("wb") as stream:
            stream.write(len(encoded).to_bytes(8, "little") + encoded)
            for _, array in ordered:
                stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _packed_strings(values: list[str]) -> dict[str, NDArray[Any]]:
    """Return string ids as their UTF-8 bytes and offsets.

    In a NumPy array, one long string would widen every entry.
    """
    encoded = [value.encode() for value in values]
    content = np.frombuffer(b"".join(encoded), np.uint8)
    return {"ids_offsets": running_total([len(value) for value in encoded]), "ids_utf8": content}


def write_parquet(documents: Gathered, file: Path, *, column: str = "tokens") -> None:
    """Write the columns ``id`` and `column`, a row group per batch.

    A cell of "tokens" is a list of tokens, a cell of "vector" one vector.  Raise
    TypeError or ValueError if some ids are integers and some strings, or an id is
    repeated.
    """
    pa = import_extra("pyarrow", "parquet", "Writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "Writing Parquet")
    batches = iter(documents)
    first = _arrow_table(pa, next(batches), column)
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first, max(len(first), 1))
        del first
        for batch in batches:
            table = _arrow_table(pa, batch, column)
            if table.schema != writer.schema:
                raise TypeError("Documents with int ids and with str ids cannot be in one file.")
            writer.write_table(table, max(len(batch), 1))
        _ = documents.ids  # raises if an id is repeated


def _arrow_table(pa: Any, batch: MultiVectors, column: str) -> Any:
    """Return a batch as an Arrow table, without copying its numbers."""
    cells = batch.to_arrow()
    columns = {column: cells if column == "tokens" else cells.flatten()}
    if batch.has_ids:
        kind = pa.int64() if batch.ids.dtype.kind == "i" else pa.string()
        columns = {"id": pa.array(batch.ids.tolist(), kind), **columns}
    return pa.table(columns)


# -- document vectors: a document has one token, its vector, and an id ------------

# OpenSearch's limit of a vector's dimensions.
_MAX_DIMENSION = 16_000

# OpenSearch's limit of an id's bytes.
_MAX_ID_BYTES = 512

# Characters after which a new bulk file begins; OpenSearch accepts requests of 100 MB
# by default.
_BULK_CHARACTERS = 8 << 20

# Links per node of the graph, as in muvera.engines.
_M = 16

# Candidates while the graph is built and searched, as in muvera.engines.
_EF = 128


def _write_opensearch(vectors: Gathered, folder: Path) -> None:
    """Write the requests that create and fill an OpenSearch index.

    They are ``mapping.json``, and ``bulk-00000.ndjson``, ``bulk-00001.ndjson``, ...
    """
    if vectors.dimension > _MAX_DIMENSION:
        raise ValueError(
            f"OpenSearch accepts at most {_MAX_DIMENSION} dimensions, but these vectors have "
            f"{vectors.dimension}. Use an encoder with smaller vectors."
        )
    for number, body in enumerate(_bulk_bodies(vectors)):
        (folder / f"bulk-{number:05d}.ndjson").write_text(body, encoding="utf-8", newline="\n")
    integers = np.asarray(vectors.ids).dtype.kind == "i"
    write_json(folder / "mapping.json", opensearch_index(vectors.dimension, integers))


def opensearch_index(dimension: int, integer_ids: bool) -> dict[str, Any]:
    """Return the settings and the mapping of an OpenSearch index.

    This is the body of the request that creates the index.  Ids are integers or
    strings.
    """
    method = {
        "name": "hnsw",
        "engine": "faiss",  # supports inner products in every version of OpenSearch that has it
        "space_type": "innerproduct",  # the default, l2, ranks differently
        "parameters": {"m": _M, "ef_construction": _EF},
    }
    return {
        "settings": {"index": {"knn": True, "knn.algo_param.ef_search": _EF}},
        "mappings": {
            "properties": {
                "id": {"type": "long" if integer_ids else "keyword"},
                "vector": {"type": "knn_vector", "dimension": dimension, "method": method},
            }
        },
    }


def _bulk_bodies(batches: Gathered) -> Iterator[str]:
    """Yield the bodies of requests.

    A document has two lines: the action and the document.
    """
    body = io.StringIO()
    for batch in batches:
        for name, vector in zip(batch.ids.tolist(), batch.tokens, strict=True):
            size = len(str(name).encode())
            if not 0 < size <= _MAX_ID_BYTES:
                raise ValueError(
                    f"OpenSearch accepts ids of 1 to {_MAX_ID_BYTES} bytes, but {str(name)[:40]!r} has "
                    f"{size}. Give the documents other ids."
                )
            action = json.dumps({"index": {"_id": str(name)}}, ensure_ascii=False)
            identity = json.dumps(name, ensure_ascii=False)
            # NumPy writes a float32 with the fewest digits; Python would write
            # seventeen.
            numbers = ",".join(vector.astype("U").tolist())
            body.write(f'{action}\n{{"id": {identity}, "vector": [{numbers}]}}\n')
            if body.tell() >= _BULK_CHARACTERS:
                yield body.getvalue()
                body = io.StringIO()
    if body.tell():
        yield body.getvalue()


#: Writers of document vectors.
VECTOR_WRITERS: dict[str, Writer] = {
    "npy": Writer(partial(write_npy, column="vectors"), ("vectors.npy", "ids.json")),
    "parquet": Writer(partial(write_parquet, column="vector")),
    "opensearch": Writer(_write_opensearch, ("mapping.json", "bulk-*.ndjson")),
}
