"""Small valid files and folders of every kind that the library reads: the mutations start from these."""

import gzip
import json
import shutil
from collections.abc import Callable
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
    write_qdrant,
    write_warp,
)
from builders.golden_indexes import CASES, FOLDER
from builders.paths import GOLDEN
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, TextIndex
from muvera.convert import convert
from muvera.encoders.registry import make_encoder, preset_config

NAMES, DIMENSION = ("a", "b", "c", "d", "é"), 4
DOCUMENTS = MultiVectors.from_flat(
    np.random.default_rng(0).normal(size=(10, DIMENSION)).astype(np.float32), (3, 0, 1, 2, 4), ids=NAMES
)

#: Writes a sample into an empty folder and returns its path.
Make = Callable[[Path], Path]


def converted(format: str) -> Make:
    def make(place: Path) -> Path:
        pytest.importorskip({"parquet": "pyarrow"}.get(format, "numpy"))
        convert(DOCUMENTS, place / f"a.{format}", format)
        return place / f"a.{format}"

    return make


def copied(folder: Path) -> Make:
    def make(place: Path) -> Path:
        if folder.name.startswith("hnsw"):
            pytest.importorskip("hnswlib")
        return Path(shutil.copytree(folder, place / folder.name))

    return make


def npz(place: Path) -> Path:
    documents: dict[str, Any] = {f"emb_{i}": tokens for i, tokens in enumerate(DOCUMENTS)}
    np.savez_compressed(place / "a.npz", **documents)
    return place / "a.npz"


def padded(place: Path) -> Path:
    np.save(place / "x.npy", np.ones((3, 4, DIMENSION), np.float32))
    np.save(place / "x_lengths.npy", np.array([2, 4, 0]))
    return place / "x.npy"


def rows(row: Callable[[str, list[Any]], Any], name: str = "rows.jsonl") -> Make:
    def make(place: Path) -> Path:
        values = [row(i, tokens.tolist()) for i, tokens in zip(NAMES, DOCUMENTS, strict=True)]
        text = json.dumps(values) if name == "a.json" else "".join(json.dumps(one) + "\n" for one in values)
        (place / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return place / name

    return make


def byaldi(place: Path) -> Path:
    pages = [np.full((2 + i % 2, DIMENSION), 0.5 + i, np.float32) for i in range(4)]
    return write_byaldi(place / "byaldi", pages, per_file=2)


def qdrant(place: Path) -> Path:
    pytest.importorskip("qdrant_client")
    return write_qdrant(place / "db", DOCUMENTS, "colbert")


def lancedb(place: Path) -> Path:
    pytest.importorskip("lancedb")
    return write_lancedb(place / "db", DOCUMENTS)


def arrow(stream: bool) -> Make:
    def make(place: Path) -> Path:
        pa: Any = pytest.importorskip("pyarrow")
        lists = pa.array([tokens.tolist() for tokens in DOCUMENTS], pa.large_list(pa.list_(pa.float64())))
        table = pa.table({"id": list(NAMES), "tokens": lists if stream else DOCUMENTS.to_arrow()})
        opener: Any = pa.ipc.new_stream if stream else pa.ipc.new_file
        with opener(str(place / "a.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return place / "a.arrow"

    return make


def zarr(place: Path) -> Path:
    group: Any = pytest.importorskip("zarr").create_group(str(place / "a.zarr"), zarr_format=3)
    for name, values in (("tokens", DOCUMENTS.tokens), ("offsets", DOCUMENTS.offsets)):
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(4, *values.shape[1:]))[:] = (
            values
        )
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


#: Encoders that no index of the golden files has.
ENCODERS = {
    "reference": preset_config("reference", DIMENSION, num_repetitions=2),
    "projected": preset_config("paper", DIMENSION, final_projection_dimension=8),
}


def encoder(config: Any) -> Make:
    def make(place: Path) -> Path:
        tokens = np.random.default_rng(1).normal(size=(900, config.dimension)).astype(np.float32)
        made = make_encoder(config).fit(MultiVectors.from_flat(tokens, [3] * 300))
        made.save(place / "encoder")
        return place / "encoder"

    return make


#: Writer of each sample; it skips a test without the library that it needs.
SAMPLES: dict[str, Make] = {
    "npy": lambda place: (DOCUMENTS.save(place / "docs"), place / "docs")[1],  # type: ignore[func-returns-value]
    "npy_padded": padded,
    "npz": converted("npz"),
    "npz_documents": npz,
    "safetensors": converted("safetensors"),
    "jsonl_gz": rows(lambda i, t: {"id": i, "tokens": t}, "rows.jsonl.gz"),
    "json": rows(lambda i, t: {"id": i, "embeddings": t}, "a.json"),
    "jsonl_qdrant": rows(lambda i, t: {"id": i, "payload": {"n": 1}, "vector": {"colbert": t}}),
    "plaid": lambda place: write_plaid(place / "plaid", random_index(0, [[3, 0, 2], [1, 4]])),
    "next_plaid": lambda place: write_fast_plaid(place / "next", random_index(0, [[3, 0, 2], [1, 4]])),
    "fast_plaid": copied(GOLDEN / "convert" / "fast_plaid_1.4.6"),
    "pylate_scann": copied(GOLDEN / "convert" / "pylate_scann"),
    "pylate_fast_plaid": copied(GOLDEN / "convert" / "pylate_fast_plaid"),
    "pylate_plaid": copied(GOLDEN / "convert" / "pylate_stanford_plaid"),
    "pylate_voyager": copied(GOLDEN / "convert" / "pylate_voyager"),
    "warp": lambda place: write_warp(place, random_index(2, [[3, 0, 5, 1, 7, 2]], 16, 4))[0],
    "byaldi": byaldi,
    "qdrant": qdrant,
    "lancedb": lancedb,
    "parquet": converted("parquet"),
    "arrow_file": arrow(stream=False),
    "arrow_stream": arrow(stream=True),
    "zarr": zarr,
    "hdf5": hdf5,
    **{f"index_{name}": copied(FOLDER / name) for name in CASES},
    "texts": texts,
    "texts_journal": journal,
    **{f"encoder_{name}": encoder(config) for name, config in ENCODERS.items()},
}


def make_sample(name: str, folder: Path) -> Path:
    (folder / "sample").mkdir()
    return SAMPLES[name](folder / "sample")
