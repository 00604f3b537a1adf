"""Small good files of every format, which the mutations start from."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from muvera.convert import convert, read
from muvera.data.multivectors import MultiVectors

__all__ = ["SAMPLES", "make_samples"]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "convert"

LENGTHS = (3, 0, 1, 2, 4)
NAMES = ("a", "b", "c", "d", "é")
DIMENSION = 4


def documents(dtype: Any = np.float32) -> MultiVectors:
    """Return the documents of most samples."""
    tokens = np.random.default_rng(0).normal(size=(sum(LENGTHS), DIMENSION)).astype(dtype)
    return MultiVectors.from_flat(tokens, LENGTHS, ids=NAMES)


def make_samples(folder: Path) -> dict[str, Path]:
    """Write every sample whose library is installed below `folder`, and return their paths."""
    made = {}
    for name, (needs, make) in SAMPLES.items():
        if all(find_spec(module) is not None for module in needs):
            place = folder / name
            place.mkdir(parents=True)
            made[name] = make(place)
            if not len(read(made[name])):  # what is refused as it is would prove nothing
                raise RuntimeError(f"The sample {name} has no documents.")
    return made


def _builders() -> Any:
    """Import the tests' writers of foreign indexes."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.append(str(ROOT / "tests"))
    return import_module("builders.foreign_indexes")


def _npy(place: Path) -> Path:
    documents().save(place / "docs")
    return place / "docs"


def _npy_padded(place: Path) -> Path:
    np.save(place / "x.npy", np.random.default_rng(0).normal(size=(3, 4, DIMENSION)).astype(np.float32))
    np.save(place / "x_lengths.npy", np.array([2, 4, 0]))
    return place / "x.npy"


def _kannolo(place: Path) -> Path:
    halves = documents(np.float16)
    np.save(place / "documents.npy", halves.tokens.view(np.uint16))
    np.save(place / "doclens.npy", halves.lengths.astype(np.int32))
    return place


def _dessert(place: Path) -> Path:
    for i in range(2):
        np.save(place / f"encoding{i}_float16.npy", documents(np.float16).tokens)
        np.save(place / f"doclens{i}.npy", documents().lengths.astype(np.float64))
    return place


def _written(to: str, name: str) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        convert(documents(), place / name, to)
        return place / name

    return make


def _npz_compressed(place: Path) -> Path:
    docs = documents()
    np.savez_compressed(place / "a.npz", tokens=docs.tokens, lengths=docs.lengths, ids=docs.ids)
    return place / "a.npz"


def _npz_documents(place: Path) -> Path:
    arrays: dict[str, Any] = {f"emb_{i}": tokens for i, tokens in enumerate(documents())}
    np.savez(place / "a.npz", **arrays, n=len(arrays))
    return place / "a.npz"


def _lines(
    row: Callable[[str, list[Any]], Any], name: str = "rows.jsonl", packed: bool = False
) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        docs = documents()
        rows = [row(i, tokens.tolist()) for i, tokens in zip(docs.ids.tolist(), docs, strict=True)]
        text = "".join(json.dumps(value) + "\n" for value in rows).encode()
        (place / name).write_bytes(gzip.compress(text, mtime=0) if packed else text)
        return place / name

    return make


def _json(place: Path) -> Path:
    rows = [{"id": i, "embeddings": t.tolist()} for i, t in zip(NAMES, documents(), strict=True)]
    (place / "a.json").write_text(json.dumps({"data": rows}), encoding="utf-8")
    return place / "a.json"


def _blocks(tokens: list[Any]) -> dict[str, Any]:
    return {str(position): row for position, row in enumerate(tokens)}


def _vespa_cells(identity: str, tokens: list[Any]) -> Any:
    cells = [
        {"address": {"d": str(x), "tok": str(n)}, "value": value}
        for n, row in enumerate(tokens)
        for x, value in enumerate(row)
    ]
    tensor = {"type": f"tensor<float>(tok{{}},d[{DIMENSION}])", "cells": cells}
    return {"id": f"id:ns:doc::{identity}", "fields": {"c": tensor}}


def _golden(name: str) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        shutil.copytree(GOLDEN / name, place / name)
        return place / name

    return make


def _plaid(place: Path) -> Path:
    builders = _builders()
    return Path(builders.write_plaid(place / "plaid", builders.random_index(0, [[3, 0, 2], [1, 4]])))


def _next_plaid(place: Path) -> Path:
    builders = _builders()
    return Path(builders.write_fast_plaid(place / "next", builders.random_index(0, [[3, 0, 2], [1, 4]])))


def _warp(place: Path) -> Path:
    builders = _builders()
    index = builders.random_index(2, [[3, 0, 5, 1, 7, 2]], 16, 4)
    codes, packed = index["codes"][0], index["packed"][0]
    owners = np.repeat(np.arange(len(index["lengths"][0])), index["lengths"][0]).astype(np.int32)
    order = np.argsort(codes, kind="stable")
    np.save(place / "centroids.npy", index["centroids"].astype(np.float32))
    np.save(place / "bucket_weights.npy", index["weights"])
    sizes = np.bincount(codes, minlength=len(index["centroids"])).astype(np.int64)
    builders.write_pt(place / "sizes.compacted.pt", sizes)
    builders.write_pt(place / "codes.compacted.pt", owners[order])
    builders.write_pt(place / "residuals.compacted.pt", packed[order])
    return place


def _byaldi(place: Path) -> Path:
    builders = _builders()
    (place / "embeddings").mkdir()
    for start in (0, 2):
        pages = [np.full((2 + page, DIMENSION), start + page + 0.5, np.float32) for page in range(2)]
        halves = [(page.view(np.uint32) >> 16).astype(np.uint16) for page in pages]
        builders.write_pt(place / "embeddings" / f"embeddings_{start}.pt", *halves, container="list")
    names = {str(i): {"doc_id": i, "page_id": 1} for i in range(4)}
    (place / "embed_id_to_doc_id.json.gz").write_bytes(gzip.compress(json.dumps(names).encode(), mtime=0))
    (place / "index_config.json.gz").write_bytes(gzip.compress(b"{}", mtime=0))
    return place


def _qdrant(place: Path) -> Path:
    qdrant_client: Any = import_module("qdrant_client")
    models = qdrant_client.models
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    tokens = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT, multivector_config=comparator)
    client = qdrant_client.QdrantClient(path=str(place / "db"))
    client.create_collection("docs", {"colbert": tokens})
    for i, (name, value) in enumerate(zip(NAMES, documents(), strict=True)):
        vector: Any = {"colbert": value.tolist()} if len(value) else {}
        client.upsert("docs", [models.PointStruct(id=i, vector=vector, payload={"key": name})])
    client.close()
    return place / "db"


def _table(pa: Any) -> Any:
    docs = documents()
    inner = pa.FixedSizeListArray.from_arrays(pa.array(docs.tokens.reshape(-1)), DIMENSION)
    column = pa.ListArray.from_arrays(pa.array(docs.offsets, pa.int32()), inner)
    return pa.table({"id": docs.ids.tolist(), "tokens": column})


def _lancedb(place: Path) -> Path:
    database: Any = import_module("lancedb").connect(str(place / "db"))
    database.create_table("docs", _table(import_module("pyarrow")))
    return place / "db"


def _parquet_lists(place: Path) -> Path:
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    rows = pa.array([t.tolist() for t in documents()], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"id": pa.array(range(len(NAMES))), "tokens": rows}), place / "a.parquet")
    return place / "a.parquet"


def _arrow(stream: bool, lists: bool = False) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        pa: Any = import_module("pyarrow")
        table = _table(pa)
        if lists:
            values = pa.array([t.tolist() for t in documents()], pa.large_list(pa.list_(pa.float64())))
            table = table.set_column(1, "tokens", values)
        path = place / "a.arrow"
        opener: Any = pa.ipc.new_stream if stream else pa.ipc.new_file
        with opener(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return path

    return make


def _hf_dataset(place: Path) -> Path:
    _arrow(stream=True)(place)
    (place / "a.arrow").rename(place / "data-00000-of-00001.arrow")
    (place / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    )
    return place


def _zarr(format: int) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        node: Any = import_module("zarr").create_group(str(place / "a.zarr"), zarr_format=format)
        docs = documents()
        for name, values in (("tokens", docs.tokens), ("offsets", docs.offsets)):
            chunks = (4, *values.shape[1:])
            node.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)[:] = values
        node.create_array("ids", shape=(len(docs),), dtype=str)[:] = docs.ids.astype(object)
        return place / "a.zarr"

    return make


def _hdf5(place: Path) -> Path:
    h5py: Any = import_module("h5py")
    docs = documents()
    with h5py.File(place / "a.h5", "w") as file:
        file.create_dataset("tokens", data=docs.tokens, chunks=(4, DIMENSION), compression="gzip")
        file["offsets"] = docs.offsets
        file["ids"] = docs.ids.tolist()
    return place / "a.h5"


def _hdf5_ragged(place: Path) -> Path:
    h5py: Any = import_module("h5py")
    with h5py.File(place / "a.h5", "w", libver="latest") as file:
        rows = file.create_dataset("docs/embeddings", (len(LENGTHS),), h5py.vlen_dtype(np.float32))
        for i, tokens in enumerate(documents()):
            rows[i] = tokens.reshape(-1)
        rows.attrs["dim"] = DIMENSION
    return place / "a.h5"


def _hdf5_documents(place: Path) -> Path:
    h5py: Any = import_module("h5py")
    with h5py.File(place / "a.h5", "w") as file:
        for name, tokens in zip(NAMES, documents(), strict=True):
            file[f"docs/{name}"] = tokens
    return place / "a.h5"


#: Name, the libraries that it needs, and what writes it into an empty folder.
SAMPLES: dict[str, tuple[tuple[str, ...], Callable[[Path], Path]]] = {
    "npy": ((), _npy),
    "npy_padded": ((), _npy_padded),
    "npy_kannolo": ((), _kannolo),
    "npy_dessert": ((), _dessert),
    "npz": ((), _written("npz", "a.npz")),
    "npz_compressed": ((), _npz_compressed),
    "npz_documents": ((), _npz_documents),
    "safetensors": ((), _written("safetensors", "a.safetensors")),
    "jsonl": ((), _lines(lambda i, t: {"id": i, "tokens": t})),
    "jsonl_gz": ((), _lines(lambda i, t: {"id": i, "tokens": t}, "rows.jsonl.gz", packed=True)),
    "json": ((), _json),
    "rows_qdrant": ((), _lines(lambda i, t: {"id": i, "payload": {"n": 1}, "vector": {"colbert": t}})),
    "rows_weaviate": (
        (),
        _lines(lambda i, t: {"id": i, "class": "C", "properties": {}, "vectors": {"v": t}}),
    ),
    "rows_milvus": ((), _lines(lambda i, t: {"id": i, "clips": [{"vec": v, "second": 1} for v in t]})),
    "rows_elastic": ((), _lines(lambda i, t: {"_id": i, "_score": 1.0, "_source": {"colbert": t}})),
    "rows_pgvector": (
        (),
        _lines(lambda i, t: {"id": i, "emb": "{" + ",".join(f'"{json.dumps(v)}"' for v in t) + "}"}),
    ),
    "rows_vespa": (
        (),
        _lines(lambda i, t: {"id": f"id:ns:doc::{i}", "fields": {"c": {"blocks": _blocks(t)}}}),
    ),
    "rows_vespa_cells": ((), _lines(_vespa_cells)),
    "plaid": ((), _plaid),
    "next_plaid": ((), _next_plaid),
    "fast_plaid": ((), _golden("fast_plaid_1.4.6")),
    "fast_plaid_small": ((), _golden("fast_plaid_1.4.6_small")),
    "warp": ((), _warp),
    "byaldi": ((), _byaldi),
    "pylate_scann": ((), _golden("pylate_scann")),
    "pylate_fast_plaid": ((), _golden("pylate_fast_plaid")),
    "pylate_plaid": ((), _golden("pylate_stanford_plaid")),
    "pylate_voyager": ((), _golden("pylate_voyager")),
    "qdrant": (("qdrant_client",), _qdrant),
    "lancedb": (("lancedb", "pyarrow"), _lancedb),
    "parquet": (("pyarrow",), _written("parquet", "a.parquet")),
    "parquet_lists": (("pyarrow",), _parquet_lists),
    "arrow_file": (("pyarrow",), _arrow(stream=False)),
    "arrow_stream": (("pyarrow",), _arrow(stream=True, lists=True)),
    "arrow_dataset": (("pyarrow",), _hf_dataset),
    "zarr_2": (("zarr",), _zarr(2)),
    "zarr_3": (("zarr",), _zarr(3)),
    "hdf5": (("h5py",), _hdf5),
    "hdf5_ragged": (("h5py",), _hdf5_ragged),
    "hdf5_documents": (("h5py",), _hdf5_documents),
}
