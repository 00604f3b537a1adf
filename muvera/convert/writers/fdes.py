"""Writers of FDEs for stores of single vectors: one float32 vector for each document, and its id.

:func:`write_vectors` is the doorway; the text formats are in ``fde_text_rows`` and
``opensearch``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...data.validation import Ids, as_ids
from ...utils.atomic_files import save_array, write_json
from ...utils.optional_imports import import_extra
from . import fde_text_rows, opensearch
from .base import NpyStream, Vectors, atomic_file, new_folder
from .store_limits import check_dimension

__all__ = ["FORMATS", "VectorFormat", "write_vectors"]


Batches = Iterator[Vectors]


def write_vectors(
    batches: Batches, target: Path, form: str, *, overwrite: bool = False, half: bool = False
) -> int:
    """Write FDEs for a store, and return how many there were.

    Parameters
    ----------
    batches : iterator of Vectors
        In order; only one at a time is in memory.  Ids must be unique.
    target : Path
        The file or folder, which appears when it is complete.
    form : str
        ``npy``
            A folder with ``vectors.npy`` (n, dimension) and ``ids.json``.
        ``faiss``
            The same with ``ids.npy`` (int64) for ``faiss.IndexIDMap.add_with_ids``; where the
            ids are strings those are positions in ``ids.json``.
        ``parquet``
            A file with the columns ``id`` and ``fde`` (fixed-size list).
        ``lancedb``
            A database folder with the table ``fdes`` of the columns ``id`` and ``vector``.
        ``pgvector``
            Text for ``COPY table (id, embedding) FROM ...``: id, tab, ``[0.1,0.2,...]``.
        ``qdrant``
            A point a line: ``id``, ``vector`` with the name ``fde``, ``payload`` with the id.
        ``milvus``
            A JSON file for bulk insert: ``rows`` of ``id`` and ``fde``.
        ``opensearch``
            A folder with ``mapping.json``, the body that creates the index, and parts for the bulk
            API, ``bulk-00000.ndjson`` and so on: ``id`` and ``fde``.
    overwrite : bool
        Replace an existing target.
    half : bool
        Round to half precision, for pgvector's ``halfvec``, whose index takes twice the
        dimensions.

    Raises
    ------
    ValueError
        Where the store's index cannot take that many dimensions; the message names
        configurations that fit.  Where a number is not finite, or an id comes twice.
    """
    if form not in FORMATS:
        raise ValueError(f"form must be one of {', '.join(FORMATS)}, got {form!r}.")
    first = next(iter(batches), None)
    if first is None:
        raise ValueError("There is nothing to write: no FDEs were given.")
    dimension = int(first.vectors.shape[1])
    check_dimension(dimension, form, half=half)
    checked = _Checked(first, batches, half)
    FORMATS[form](checked, Path(target), dimension, overwrite)
    return checked.count


class _Checked:
    """Batches that are checked as they pass; ids are remembered to find one that comes twice."""

    def __init__(self, first: Vectors, rest: Batches, half: bool) -> None:
        self._first, self._rest, self._half = first, rest, half
        self.dimension = first.vectors.shape[1]
        self.count = 0
        self._ids: list[Any] = []

    @property
    def ids(self) -> Ids:
        """All ids so far, unique."""
        return as_ids(self._ids, self.count)

    def __iter__(self) -> Iterator[Vectors]:
        yield self._check(self._first)
        for batch in self._rest:
            yield self._check(batch)
        _ = self.ids

    def _check(self, batch: Vectors) -> Vectors:
        vectors = np.ascontiguousarray(batch.vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension or len(batch.ids) != len(vectors):
            raise ValueError(
                f"FDEs from number {self.count} on have shape {vectors.shape} with {len(batch.ids)} ids, but "
                f"must have {self.dimension} columns and an id a row."
            )
        if self._half:
            with np.errstate(over="ignore"):
                vectors = vectors.astype(np.float16).astype(np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            why = " in half precision, which ends at 65504" if self._half else ""
            named = batch.ids[row : row + 1].tolist()[0]
            raise ValueError(
                f"The FDE of document {self.count + row} (id {named!r}) is not finite{why}. "
                "Repair its tokens, or remove it."
            )
        self.count += len(vectors)
        self._ids.extend(batch.ids.tolist())
        return Vectors(vectors, batch.ids)


VectorFormat = Callable[[_Checked, Path, int, bool], None]

_NPY_FILES = ("vectors.npy", "ids.json", "ids.npy")


def _npy(batches: _Checked, target: Path, dimension: int, overwrite: bool) -> None:
    with new_folder(target, overwrite, _NPY_FILES) as folder:
        _save_vectors(batches, folder, dimension)
        write_json(folder / "ids.json", batches.ids.tolist())


def _faiss(batches: _Checked, target: Path, dimension: int, overwrite: bool) -> None:
    with new_folder(target, overwrite, _NPY_FILES) as folder:
        _save_vectors(batches, folder, dimension)
        ids = batches.ids
        if ids.dtype.kind != "i":
            write_json(folder / "ids.json", ids.tolist())
        save_array(folder / "ids.npy", ids if ids.dtype.kind == "i" else np.arange(len(ids)))


def _save_vectors(batches: _Checked, folder: Path, dimension: int) -> None:
    with (folder / "vectors.npy").open("wb") as stream:
        rows = NpyStream(stream, dimension, np.dtype(np.float32))
        for batch in batches:
            rows.add(batch.vectors)
        rows.finish()


def _parquet(batches: _Checked, target: Path, dimension: int, overwrite: bool) -> None:
    pa = import_extra("pyarrow", "parquet", "Writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "Writing Parquet")
    rows = iter(batches)
    first = _record_batch(pa, next(rows), "fde", dimension)
    with atomic_file(target, overwrite) as file, pq.ParquetWriter(file, first.schema) as writer:
        writer.write_batch(first)
        for batch in rows:
            writer.write_batch(_record_batch(pa, batch, "fde", dimension))


def _lancedb(batches: _Checked, target: Path, dimension: int, overwrite: bool) -> None:
    lancedb = import_extra("lancedb", "lancedb", "Writing LanceDB")
    pa = import_extra("pyarrow", "lancedb", "Writing LanceDB")
    rows = iter(batches)
    first = _record_batch(pa, next(rows), "vector", dimension)
    with new_folder(target, overwrite, ("fdes.lance",)) as folder:
        try:
            table = lancedb.connect(str(folder)).create_table("fdes", pa.Table.from_batches([first]))
            # One batch after the other: what fails in a batch fails here, as itself.
            for batch in rows:
                table.add(pa.Table.from_batches([_record_batch(pa, batch, "vector", dimension)]))
        except RuntimeError as error:  # of LanceDB, which ends with a place in its source
            reason = re.sub(r", /\S+:\d+:\d+$", "", " ".join(str(error).split())).rstrip(".")
            raise OSError(f"{target} could not be written: {reason}.") from error


def _record_batch(pa: Any, batch: Vectors, column: str, dimension: int) -> Any:
    kind = pa.int64() if batch.ids.dtype.kind == "i" else pa.string()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.reshape(-1)), dimension)
    return pa.RecordBatch.from_arrays([pa.array(batch.ids.tolist(), kind), vectors], ["id", column])


def _opensearch(batches: _Checked, target: Path, dimension: int, overwrite: bool) -> None:
    with new_folder(target, overwrite, opensearch.FILES) as folder:
        opensearch.write_bulk(iter(batches), folder)
        body = opensearch.index_body(dimension, batches.ids.dtype.kind == "i")
        write_json(folder / opensearch.MAPPING, body)


def _text(lines: Callable[[Iterator[Vectors]], Iterator[str]]) -> VectorFormat:
    def write(batches: _Checked, target: Path, dimension: int, overwrite: bool) -> None:
        with (
            atomic_file(target, overwrite) as file,
            file.open("w", encoding="utf-8", newline="\n") as stream,
        ):
            stream.writelines(lines(iter(batches)))

    return write


#: Every format and what writes it.
FORMATS: dict[str, VectorFormat] = {
    "npy": _npy,
    "faiss": _faiss,
    "parquet": _parquet,
    "lancedb": _lancedb,
    "pgvector": _text(fde_text_rows.pgvector),
    "qdrant": _text(fde_text_rows.qdrant),
    "milvus": _text(fde_text_rows.milvus),
    "opensearch": _opensearch,
}
