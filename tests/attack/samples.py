"""Small valid files and folders of every kind that the library reads.

The mutations start from these.
"""

import gzip
import io
import json
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import (
    random_index,
    write_byaldi,
    write_fast_plaid,
    write_lancedb,
    write_plaid,
    write_pt,
    write_qdrant,
    write_warp,
)
from builders.golden_indexes import CASES, FOLDER
from builders.paths import GOLDEN
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, TextIndex
from muvera.convert import convert
from muvera.distributed.shards import prepare, write_shard
from muvera.fde.config import FDEConfig
from muvera.fde.encoder import FDEEncoder
from muvera.index.settings import IndexSettings

NAMES, DIMENSION = ("a", "b", "c", "d", "é"), 4
DOCUMENTS = MultiVectors.from_flat(
    np.random.default_rng(0).normal(size=(10, DIMENSION)).astype(np.float32), (3, 0, 1, 2, 4), ids=NAMES
)


def converted(place: Path, format: str) -> Path:
    pytest.importorskip({"parquet": "pyarrow"}.get(format, "numpy"))
    convert(DOCUMENTS, place / f"a.{format}", format)
    return place / f"a.{format}"


def copied(place: Path, folder: Path) -> Path:
    if folder.name.startswith("hnsw"):
        pytest.importorskip("hnswlib")
    return Path(shutil.copytree(folder, place / folder.name))


def npy(place: Path) -> Path:
    DOCUMENTS.save(place / "docs")
    return place / "docs"


def npz(place: Path) -> Path:
    documents: dict[str, Any] = {f"emb_{i}": tokens for i, tokens in enumerate(DOCUMENTS)}
    np.savez_compressed(place / "a.npz", **documents)
    return place / "a.npz"


def padded(place: Path) -> Path:
    np.save(place / "x.npy", np.ones((3, 4, DIMENSION), np.float32))
    np.save(place / "x_lengths.npy", np.array([2, 4, 0]))
    return place / "x.npy"


def rows(place: Path, name: str, key: str) -> Path:
    """Write JSON, or lines of JSON.

    "vector" has named vectors as points of Qdrant do.
    """
    values = [{"id": i, key: tokens.tolist()} for i, tokens in zip(NAMES, DOCUMENTS, strict=True)]
    if key == "vector":
        values = [{"id": row["id"], "payload": {"n": 1}, key: {"colbert": row[key]}} for row in values]
    text = json.dumps(values) if name == "a.json" else "".join(json.dumps(row) + "\n" for row in values)
    (place / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return place / name


def bulk(place: Path) -> Path:
    actions = [{"index": {"_index": "x", "_id": name}} for name in NAMES]
    rows = [{"colbert": tokens.tolist()} for tokens in DOCUMENTS]
    text = "".join(json.dumps(line) + "\n" for pair in zip(actions, rows, strict=True) for line in pair)
    (place / "bulk.jsonl").write_text(text)
    return place / "bulk.jsonl"


def vespa(place: Path) -> Path:
    def blocks(tokens: Any) -> dict[str, Any]:
        return {str(i): row.tolist() for i, row in enumerate(np.packbits(tokens > 0, axis=1).view(np.int8))}

    rows = [
        {
            "id": f"id:n:d::{name}",
            "fields": {"c": {"type": "tensor<int8>(t{},x[1])", "blocks": blocks(tokens)}},
        }
        for name, tokens in zip(NAMES, DOCUMENTS, strict=True)
    ]
    (place / "vespa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place / "vespa.jsonl"


def torch_list(place: Path) -> Path:
    write_pt(place / "a.pt", *(np.asarray(tokens) for tokens in DOCUMENTS if len(tokens)), container="list")
    return place / "a.pt"


def pickled(place: Path) -> Path:
    arrays = [np.asarray(tokens) for tokens in DOCUMENTS]
    (place / "a.pkl").write_bytes(pickle.dumps(dict(zip(NAMES, arrays, strict=True))))
    return place / "a.pkl"


def table(place: Path) -> Path:
    def npy(tokens: Any) -> bytes:
        np.save(out := io.BytesIO(), tokens)
        return out.getvalue()

    with closing(sqlite3.connect(place / "a.sqlite")) as connection:
        connection.execute("CREATE TABLE docs (id TEXT, tokens BLOB)")
        cells = [(name, npy(tokens)) for name, tokens in zip(NAMES, DOCUMENTS, strict=True)]
        connection.executemany("INSERT INTO docs VALUES (?, ?)", cells)
        connection.commit()
    return place / "a.sqlite"


def duckdb(place: Path) -> Path:
    with pytest.importorskip("duckdb").connect(str(place / "a.duckdb")) as connection:
        connection.execute("CREATE TABLE docs (id VARCHAR, tokens FLOAT[][])")
        cells = [
            (name, tokens.tolist()) for name, tokens in zip(NAMES, DOCUMENTS, strict=True) if len(tokens)
        ]
        connection.executemany("INSERT INTO docs VALUES (?, ?)", cells)
    return place / "a.duckdb"


def shards(place: Path) -> Path:
    converted(place, "parquet")
    encoder = FDEEncoder(FDEConfig.preset("mean", DIMENSION))
    made = prepare(
        place / "a.parquet", encoder.fit(DOCUMENTS), place / "shards", 2, IndexSettings.of(tokens="2bit")
    )
    for name in made.names:
        write_shard(str(made.root), name, 1)
    return made.root


def byaldi(place: Path) -> Path:
    pages = [np.full((2 + i % 2, DIMENSION), 0.5 + i, np.float32) for i in range(4)]
    return write_byaldi(place / "byaldi", pages, per_file=2)


def qdrant(place: Path) -> Path:
    pytest.importorskip("qdrant_client")
    return write_qdrant(place / "db", DOCUMENTS, "colbert")


def lancedb(place: Path) -> Path:
    pytest.importorskip("lancedb")
    return write_lancedb(place / "db", DOCUMENTS)


def arrow(place: Path, stream: bool) -> Path:
    pa: Any = pytest.importorskip("pyarrow")
    lists = pa.array([tokens.tolist() for tokens in DOCUMENTS], pa.large_list(pa.list_(pa.float64())))
    table = pa.table({"id": list(NAMES), "tokens": lists if stream else DOCUMENTS.to_arrow()})
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(place / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return place / "a.arrow"


def zarr(place: Path) -> Path:
    group: Any = pytest.importorskip("zarr").create_group(str(place / "a.zarr"), zarr_format=3)
    for name, values in (("tokens", DOCUMENTS.tokens), ("offsets", DOCUMENTS.offsets)):
        group.create_array(name, data=np.asarray(values), chunks=(4, *values.shape[1:]))
    return place / "a.zarr"


def hdf5(place: Path) -> Path:
    h5py: Any = pytest.importorskip("h5py")
    with h5py.File(place / "a.h5", "w") as file:
        file.create_dataset("tokens", data=DOCUMENTS.tokens, chunks=(4, DIMENSION), compression="gzip")
        file["offsets"] = DOCUMENTS.offsets
        file["ids"] = list(NAMES)
    return place / "a.h5"


def texts(place: Path) -> Path:
    metadata = [{"year": i} for i in range(4)]
    TextIndex.build(
        ["a cat", "a dog", "", "the sky"], HashEncoder(4), metadata=metadata, path=place / "index"
    )
    return place / "index"


def journal(place: Path) -> Path:
    with TextIndex.open(texts(place), HashEncoder(4)) as made:
        made.add(["a bird", ""], metadata=[{"year": 9}, {}])
        made.delete([1])
        made.update(ids=[0], metadata=[{"year": 7}])
        shutil.copytree(place / "index", place / "journaled")  # before the save
    shutil.rmtree(place / "index")
    return place / "journaled"


def encoder(place: Path, preset: str, **changes: Any) -> Path:
    tokens = np.random.default_rng(1).normal(size=(900, DIMENSION)).astype(np.float32)
    made = FDEEncoder(FDEConfig.preset(preset, DIMENSION, **changes))
    made.fit(MultiVectors.from_flat(tokens, [3] * 300)).save(place / "encoder")
    return place / "encoder"


#: Functions that write a sample into an empty folder and return its path; they skip a
#: test without their library.
SAMPLES: dict[str, Callable[[Path], Path]] = {
    "npy": npy,
    "npy_padded": padded,
    "npz": partial(converted, format="npz"),
    "npz_documents": npz,
    "safetensors": partial(converted, format="safetensors"),
    "jsonl_gz": partial(rows, name="rows.jsonl.gz", key="tokens"),
    "json": partial(rows, name="a.json", key="embeddings"),
    "jsonl_qdrant": partial(rows, name="rows.jsonl", key="vector"),
    "jsonl_bulk": bulk,
    "jsonl_vespa": vespa,
    "pt": torch_list,
    "pickle": pickled,
    "sqlite": table,
    "plaid": lambda place: write_plaid(place / "plaid", random_index(0, [[3, 0, 2], [1, 4]])),
    "next_plaid": lambda place: write_fast_plaid(place / "next", random_index(0, [[3, 0, 2], [1, 4]])),
    "fast_plaid": partial(copied, folder=GOLDEN / "convert" / "fast_plaid_1.4.6"),
    "pylate_scann": partial(copied, folder=GOLDEN / "convert" / "pylate_scann"),
    "pylate_fast_plaid": partial(copied, folder=GOLDEN / "convert" / "pylate_fast_plaid"),
    "pylate_plaid": partial(copied, folder=GOLDEN / "convert" / "pylate_stanford_plaid"),
    "pylate_voyager": partial(copied, folder=GOLDEN / "convert" / "pylate_voyager"),
    "warp": lambda place: write_warp(place, random_index(2, [[3, 0, 5, 1, 7, 2]], 16, 4))[0],
    "byaldi": byaldi,
    "qdrant": qdrant,
    "lancedb": lancedb,
    "parquet": partial(converted, format="parquet"),
    "arrow_file": partial(arrow, stream=False),
    "arrow_stream": partial(arrow, stream=True),
    "zarr": zarr,
    "duckdb": duckdb,
    "shards": shards,
    "hdf5": hdf5,
    **{f"index_{name}": partial(copied, folder=FOLDER / name) for name in CASES},
    "texts": texts,
    "texts_journal": journal,
    # Encoders of the presets, and others that no index of the golden files has.
    **{
        f"encoder_{preset}": partial(encoder, preset=preset)
        for preset in ("fde", "moments", "mean", "simhash")
    },
    "encoder_landmarks": partial(encoder, preset="fde", moments=None, final_projection=None),
    "encoder_landmarks_mean": partial(encoder, preset="fde", moments="mean", final_projection=None),
    "encoder_landmarks_learned": partial(encoder, preset="fde", final_projection_dimension=16),
    "encoder_simhash_learned": partial(
        encoder, preset="simhash", final_projection="learned", final_projection_dimension=16
    ),
    "encoder_reference": partial(encoder, preset="reference", num_repetitions=2),
    "encoder_projected": partial(
        encoder, preset="paper", final_projection="count_sketch", final_projection_dimension=8
    ),
}


def make_sample(name: str, folder: Path) -> Path:
    (folder / "sample").mkdir()
    return SAMPLES[name](folder / "sample")
