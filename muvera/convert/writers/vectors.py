"""Writers of document vectors for other vector searches: one float32 vector per document, and its id.

Each vector is passed as a document with one token, in a :class:`~muvera.data.multivectors.MultiVectors`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.atomic_files import write_json
from .base import Gathered, Writer
from .collections import write_npy, write_parquet

# OpenSearch's limits: dimensions of a vector, bytes of an id.
_MAX_DIMENSION, _MAX_ID_BYTES = 16_000, 512

# Characters after which a new bulk file begins; OpenSearch accepts requests of 100 MB by default.
_BULK_CHARACTERS = 8 << 20

# Links per node, and candidates of construction and of search, as in muvera.engines.
_M, _EF = 16, 128


def _opensearch(vectors: Gathered, folder: Path) -> None:
    """Write ``mapping.json``, the request that creates the index, and the requests ``bulk-00000.ndjson``, ..."""
    if vectors.dimension > _MAX_DIMENSION:
        raise ValueError(
            f"OpenSearch accepts at most {_MAX_DIMENSION} dimensions, but these vectors have {vectors.dimension}. "
            "Use an encoder with smaller vectors."
        )
    documents = _bulk_documents(vectors)
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
    integers = np.asarray(vectors.ids).dtype.kind == "i"
    write_json(folder / "mapping.json", opensearch_index(vectors.dimension, integers))


def opensearch_index(dimension: int, integer_ids: bool) -> dict[str, Any]:
    """Return the settings and the mapping of an OpenSearch index with the fields ``id`` and ``vector``."""
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


def _bulk_documents(batches: Gathered) -> Iterator[str]:
    """Yield two lines per document: the action and the document."""
    for batch in batches:
        for name, vector in zip(batch.ids.tolist(), batch.tokens, strict=True):
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


#: Writer of each format, for :func:`~muvera.convert.writers.base.write_documents`.  All documents have ids.
FORMATS: dict[str, Writer] = {
    "npy": Writer(partial(write_npy, column="vectors"), ("vectors.npy", "ids.json")),
    "parquet": Writer(partial(write_parquet, column="vector")),
    "opensearch": Writer(_opensearch, ("mapping.json", "bulk-*.ndjson")),
}
