"""Writers of document vectors for other vector searches: one float32 vector per document, and its id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.validation import Ids, as_ids
from ...utils.atomic_files import write_json
from ...utils.optional_imports import import_extra
from .base import atomic_file, new_folder, write_rows

__all__ = ["FORMATS", "Vectors", "opensearch_index", "write_array", "write_vectors"]

# OpenSearch's limits: dimensions of a vector, bytes of an id.
_MAX_DIMENSION, _MAX_ID_BYTES = 16_000, 512

# Characters after which a new bulk file begins; OpenSearch accepts requests of 100 MB by default.
_BULK_CHARACTERS = 8 << 20

# Links per node and candidates, as in muvera.engines.
_M, _EF = 16, 128


class Vectors(NamedTuple):
    """Vectors of consecutive documents."""

    #: float32 (n, dimension).
    vectors: NDArray[np.float32]
    #: int64 or str (n,).
    ids: Ids


def write_array(batches: Iterator[Vectors], target: Path, dimension: int, *, overwrite: bool = False) -> None:
    """Write one .npy file (n, dimension), without ids."""
    # Written instead of memory-mapped: a full disk would kill a process that writes through a map.
    with atomic_file(target, overwrite) as file:
        _save(batches, file, dimension)


def write_vectors(batches: Iterator[Vectors], target: Path, to: str, *, overwrite: bool = False) -> None:
    """Write vectors with their ids.

    Parameters
    ----------
    batches : iterator of Vectors
        In order, at least one; only one at a time is in memory.  Ids must be unique.
    target : Path
        The file or folder, which appears when it is complete.
    to : str
        A key of :data:`FORMATS`.
    overwrite : bool
        Replace an existing target.

    Raises
    ------
    ValueError
        If a number is not finite, an id is repeated, or OpenSearch does not accept the dimension or
        an id.
    """
    FORMATS[to](_Checked(batches), target, overwrite)


class _Checked:
    """Iterator that checks batches and collects their ids."""

    def __init__(self, batches: Iterator[Vectors]) -> None:
        first = next(batches)
        self.dimension = int(first.vectors.shape[1])
        self._batches = chain([first], batches)
        self._ids: list[Any] = []

    @property
    def ids(self) -> Ids:
        """All ids so far, checked to be unique."""
        return as_ids(self._ids, len(self._ids))

    def __iter__(self) -> Iterator[Vectors]:
        for batch in self._batches:
            vectors = np.ascontiguousarray(batch.vectors, np.float32)
            finite = np.isfinite(vectors).all(axis=1)
            if not finite.all():
                row = int(np.argmin(finite))
                name = batch.ids[row : row + 1].tolist()[0]
                raise ValueError(
                    f"The vector of document {len(self._ids) + row} (id {name!r}) is not finite. Repair its tokens, "
                    "or remove it."
                )
            self._ids.extend(batch.ids.tolist())
            yield Vectors(vectors, batch.ids)


def _save(batches: Iterable[Vectors], file: Path, dimension: int) -> None:
    write_rows(file, (batch.vectors for batch in batches), dimension, np.float32)


# -- formats: a folder or file with vectors (n, dimension) and ids each ------------


def _npy(batches: _Checked, target: Path, overwrite: bool) -> None:
    """Write a folder with ``vectors.npy`` and ``ids.json``."""
    with new_folder(target, overwrite, ("vectors.npy", "ids.json")) as folder:
        _save(batches, folder / "vectors.npy", batches.dimension)
        write_json(folder / "ids.json", batches.ids.tolist())


def _parquet(batches: _Checked, target: Path, overwrite: bool) -> None:
    """Write a file with the columns ``id`` and ``vector`` (fixed-size list)."""
    pa = import_extra("pyarrow", "parquet", "Writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "Writing Parquet")

    def table(batch: Vectors) -> Any:
        kind = pa.int64() if batch.ids.dtype.kind == "i" else pa.string()
        lists = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.reshape(-1)), batches.dimension)
        return pa.table({"id": pa.array(batch.ids.tolist(), kind), "vector": lists})

    rows = map(table, batches)
    first = next(rows)
    with atomic_file(target, overwrite) as file, pq.ParquetWriter(file, first.schema) as writer:
        for batch in chain([first], rows):
            writer.write_table(batch)
        _ = batches.ids  # raises if an id is repeated


def _opensearch(batches: _Checked, target: Path, overwrite: bool) -> None:
    """Write ``mapping.json``, the request that creates the index, and the requests ``bulk-00000.ndjson``, ..."""
    if batches.dimension > _MAX_DIMENSION:
        raise ValueError(
            f"OpenSearch accepts at most {_MAX_DIMENSION} dimensions, but these vectors have {batches.dimension}. "
            "Use an encoder with smaller vectors."
        )
    with new_folder(target, overwrite, ("mapping.json", "bulk-*.ndjson")) as folder:
        documents = _bulk_documents(batches)
        for number in count():
            first = next(documents, None)
            if first is None:
                break
            path = folder / f"bulk-{number:05d}.ndjson"
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                size = 0
                for document in chain([first], documents):
                    size += stream.write(document)
                    if size >= _BULK_CHARACTERS:
                        break
        write_json(
            folder / "mapping.json", opensearch_index(batches.dimension, batches.ids.dtype.kind == "i")
        )


def opensearch_index(dimension: int, integer_ids: bool) -> dict[str, Any]:
    """Return the settings and the mapping of an OpenSearch index with the fields ``id`` and ``vector``."""
    method = {
        "name": "hnsw",
        "engine": "faiss",  # supports inner products in every version of OpenSearch that has it
        "space_type": "innerproduct",  # the default, l2, gives another ranking
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


def _bulk_documents(batches: _Checked) -> Iterator[str]:
    """Yield two lines per document: the action and the document."""
    for batch in batches:
        for name, vector in zip(batch.ids.tolist(), batch.vectors, strict=True):
            size = len(str(name).encode())
            if not 0 < size <= _MAX_ID_BYTES:
                raise ValueError(
                    f"OpenSearch accepts ids of 1 to {_MAX_ID_BYTES} bytes, but {str(name)[:40]!r} has {size}. "
                    "Give the documents other ids."
                )
            action = json.dumps({"index": {"_id": str(name)}}, ensure_ascii=False)
            identity = json.dumps(name, ensure_ascii=False)
            # NumPy writes a float32 with the fewest digits; Python would write seventeen.
            numbers = ",".join(vector.astype("U").tolist())
            yield f'{action}\n{{"id": {identity}, "vector": [{numbers}]}}\n'


#: Writer of each format.
FORMATS: dict[str, Callable[[_Checked, Path, bool], None]] = {
    "npy": _npy,
    "parquet": _parquet,
    "opensearch": _opensearch,
}
