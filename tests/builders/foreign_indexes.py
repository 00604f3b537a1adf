"""Writers of small indexes for the tests, from the specification and without torch."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

STORAGES = {"f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte", "u2": "BFloat16"}


def write_pt(path: Path, *tensors: NDArray[Any], container: str = "") -> None:
    """Write tensors as torch.save does: one bare, or several in a tuple or list.

    uint16 is taken as the bits of bfloat16.
    """
    body = b""
    for key, tensor in enumerate(tensors):
        name = STORAGES[tensor.dtype.str[1:]].encode()
        strides = [step // tensor.itemsize for step in np.ascontiguousarray(tensor).strides]
        body += b"ctorch._utils\n_rebuild_tensor_v2\n("  # the function, and a mark for its arguments
        body += b"(" + _text("storage") + b"ctorch\n%sStorage\n" % name + _text(str(key)) + _text("cuda:0")
        body += _whole(tensor.size) + b"tQ" + _whole(0) + _tuple(tensor.shape)
        body += _tuple(strides[: tensor.ndim]) + b"\x89ccollections\nOrderedDict\n)RtR"
    opening, closing = {"tuple": (b"(", b"t"), "list": (b"](", b"e"), "": (b"", b"")}[container]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{path.stem}/data.pkl", b"\x80\x02" + opening + body + closing + b".")
        archive.writestr(f"{path.stem}/byteorder", "little")
        for key, tensor in enumerate(tensors):
            archive.writestr(f"{path.stem}/data/{key}", tensor.tobytes())


def _tuple(values: Any) -> bytes:
    return b"(" + b"".join(map(_whole, values)) + b"t"


def _whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def random_index(
    seed: int, lengths: list[list[int]], dimension: int = 16, nbits: int = 2, centroids: int = 5
) -> dict[str, Any]:
    """Return the arrays of a random index.

    Each chunk has one pair of codes and residuals.
    """
    rng = np.random.default_rng(seed)
    return {
        "dim": dimension,
        "nbits": nbits,
        "centroids": rng.normal(size=(centroids, dimension)).astype(np.float16),
        "weights": np.sort(rng.normal(size=2**nbits)).astype(np.float32),
        "lengths": lengths,
        "codes": [rng.integers(0, centroids, sum(chunk)).astype(np.int32) for chunk in lengths],
        "packed": [
            rng.integers(0, 256, (sum(chunk), dimension * nbits // 8)).astype(np.uint8) for chunk in lengths
        ],
    }


def write_plaid(folder: Path, index: dict[str, Any]) -> Path:
    """Write `index` as colbert-ai lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pt(folder / "centroids.pt", index["centroids"])
    cutoffs = np.zeros(2 ** index["nbits"] - 1, np.float32)
    write_pt(folder / "buckets.pt", cutoffs, index["weights"], container="tuple")
    for i in range(len(index["lengths"])):
        write_pt(folder / f"{i}.codes.pt", index["codes"][i])
        write_pt(folder / f"{i}.residuals.pt", index["packed"][i])
    return _with_json(folder, index, config={"dim": index["dim"], "nbits": index["nbits"]})


def _with_json(folder: Path, index: dict[str, Any], **metadata: Any) -> Path:
    chunks = {f"doclens.{i}": lengths for i, lengths in enumerate(index["lengths"])}
    for name, content in {**chunks, "metadata": {"num_chunks": len(chunks), **metadata}}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def write_fast_plaid(folder: Path, index: dict[str, Any]) -> Path:
    """Write `index` as next-plaid lays it out."""
    folder.mkdir(parents=True)
    np.save(folder / "centroids.npy", index["centroids"].astype(np.float32))
    np.save(folder / "bucket_weights.npy", index["weights"])
    for i in range(len(index["lengths"])):
        np.save(folder / f"{i}.codes.npy", index["codes"][i].astype(np.int64))
        np.save(folder / f"{i}.residuals.npy", index["packed"][i])
    return _with_json(folder, index, nbits=index["nbits"], next_plaid_compatible=True)


def write_warp(folder: Path, index: dict[str, Any], *, repacked: bool = False) -> tuple[Path, NDArray[Any]]:
    """Group a one-chunk index by centroid, as WARP's converter does.

    Return the tokens in documents' order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nbits, codes, packed = index["nbits"], index["codes"][0], index["packed"][0]
    documents = np.repeat(np.arange(len(index["lengths"][0])), index["lengths"][0]).astype(np.int32)
    order = np.argsort(codes, kind="stable")
    np.save(folder / "centroids.npy", index["centroids"].astype(np.float32))
    np.save(folder / "bucket_weights.npy", index["weights"])
    sizes = np.bincount(codes, minlength=len(index["centroids"])).astype(np.int64)
    write_pt(folder / "sizes.compacted.pt", sizes)
    write_pt(folder / "codes.compacted.pt", documents[order])
    bits = np.unpackbits(packed, axis=1).reshape(len(codes), -1, nbits)
    buckets = (bits << np.arange(nbits)).sum(-1)
    if repacked:  # bucket numbers, highest bit first, dimension after dimension
        high_first = (buckets[..., None] >> np.arange(nbits)[::-1]) & 1
        rows = np.packbits(high_first.astype(np.uint8).reshape(len(codes), -1), axis=1)
        write_pt(folder / "residuals.repacked.compacted.pt", rows[order])
    else:
        write_pt(folder / "residuals.compacted.pt", packed[order])
    return folder, np.asarray(index["centroids"][codes].astype(np.float32) + index["weights"][buckets])


def write_byaldi(folder: Path, pages: Sequence[NDArray[Any]], per_file: int = 100) -> Path:
    """Write pages as byaldi does: the upper halves of their floats.

    Three pages are a document.
    """
    (folder / "embeddings").mkdir(parents=True)
    halves = [(page.view(np.uint32) >> 16).astype(np.uint16) for page in pages]
    for start in range(0, len(halves), per_file):
        path = folder / "embeddings" / f"embeddings_{start}.pt"
        write_pt(path, *halves[start : start + per_file], container="list")
    names = {str(i): {"doc_id": i // 3, "page_id": i % 3 + 1} for i in range(len(pages))}
    for name, value in (("embed_id_to_doc_id", names), ("index_config", {})):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(value).encode()))
    return folder


def write_qdrant(folder: Path, documents: MultiVectors, name: str = "") -> Path:
    """Write the collection "docs" of a local Qdrant folder, in the vector `name`.

    Points of empty texts have none.
    """
    import qdrant_client

    models: Any = qdrant_client.models
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    columns = models.VectorParams(size=documents.dimension, distance="Dot", multivector_config=several)
    client = qdrant_client.QdrantClient(path=str(folder))
    client.create_collection("docs", {name: columns} if name else columns)
    for i, (key, tokens) in enumerate(zip(documents.ids.tolist(), documents, strict=True)):
        vector = ({name: tokens.tolist()} if name else tokens.tolist()) if len(tokens) else {}
        client.upsert("docs", [models.PointStruct(id=i, vector=vector, payload={"key": key})])
    client.close()
    return folder


def write_lancedb(folder: Path, documents: MultiVectors) -> Path:
    import lancedb
    import pyarrow

    table = pyarrow.table({"id": documents.ids.tolist(), "tokens": documents.to_arrow()})
    lancedb.connect(str(folder)).create_table("docs", table)
    return folder


def decode_slowly(
    codes: NDArray[Any], packed: NDArray[Any], centroids: NDArray[Any], weights: NDArray[Any], nbits: int
) -> NDArray[np.float64]:
    """Decode bit by bit in Python, float64.

    Field i of a token begins at bit i * nbits, with its lowest bit.  Bit 0 is the
    highest bit of the first byte.
    """
    out = np.empty((len(codes), centroids.shape[1]))
    for t, code in enumerate(codes):
        for i in range(centroids.shape[1]):
            bucket = 0
            for k in range(nbits):
                byte, place = divmod(i * nbits + k, 8)
                bucket |= ((int(packed[t, byte]) >> (7 - place)) & 1) << k
            out[t, i] = float(centroids[code, i]) + float(weights[bucket])
        out[t] /= max(np.sqrt((out[t] ** 2).sum()), 1e-12)
    return out


def decode_index(index: dict[str, Any]) -> NDArray[np.float64]:
    parts = [
        decode_slowly(codes, packed, index["centroids"], index["weights"], index["nbits"])
        for codes, packed in zip(index["codes"], index["packed"], strict=True)
    ]
    return np.concatenate(parts)
