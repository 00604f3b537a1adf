"""Readers of PLAID indexes: of ColBERT and RAGatouille, and of fast-plaid and next-plaid.

Chunk i is a list of codes, their packed residuals, and ``doclens.{i}.json``.  Vectors have the loss of
their 1, 2, 4 or 8 bits per coordinate, and are normalized as the engines do before they score.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import as_lengths
from ...utils.checks import require_int
from ...utils.npy_files import load_npy
from ..damage import ReadError
from ..parsing.files import read_json, read_json_object
from ..parsing.pickles import load_npy_safely
from ..parsing.torch_file import StoredTensor, read_array, read_torch
from ..sources.base import FlatSource, Reader
from ..sources.plaid_codec import Chunk, Codec, QuantizedSource

__all__ = ["READERS", "open_fast_plaid", "open_plaid"]


def open_plaid(path: Path, *, ids: bool = True) -> QuantizedSource:
    """Open an index of ColBERT or RAGatouille, without torch.

    Passages without tokens keep their position.  RAGatouille's ``pid_docid_map.json`` gives the ids; a
    document of several passages gets ``"id#0"``, ``"id#1"``, ... because ids are unique.  With ``ids=False``,
    passages are numbered.
    """
    metadata = read_json_object(path / "metadata.json")
    config = metadata.get("config", {})
    centroids = read_array(path / "centroids.pt")
    if centroids.ndim == 2 and config.get("dim", centroids.shape[1]) != centroids.shape[1]:
        raise ValueError(
            f"centroids.pt has {centroids.shape[1]} columns, but metadata.json has dim={config['dim']}"
        )
    buckets = read_torch(path / "buckets.pt")
    if not isinstance(buckets, (tuple, list)) or [type(tensor) for tensor in buckets] != [StoredTensor] * 2:
        raise ValueError("buckets.pt must hold the pair (cutoffs, weights)")
    weights = buckets[1].numpy()
    nbits = config.get("nbits", weights.size.bit_length() - 1)
    codec = Codec(centroids, weights, nbits)

    def chunk(i: int) -> Chunk:
        codes, residuals = path / f"{i}.codes.pt", path / f"{i}.residuals.pt"
        lengths = _lengths(path / f"doclens.{i}.json")
        return Chunk(codes.name, lengths, lambda: (read_array(codes), read_array(residuals)))

    chunks = [chunk(i) for i in range(_chunk_count(path, metadata))]
    names = path / "pid_docid_map.json"
    named = ids and names.is_file()
    total = sum(len(chunk.lengths) for chunk in chunks)
    return QuantizedSource("plaid", codec, chunks, _ragatouille_ids(names, total) if named else None)


def _chunk_count(path: Path, metadata: dict[str, Any]) -> int:
    return require_int("num_chunks", metadata.get("num_chunks"), 0)


def _lengths(path: Path) -> NDArray[np.int64]:
    return as_lengths(read_json(path), path.name)


def _ragatouille_ids(file: Path, count: int) -> list[str]:
    names = read_json_object(file)
    missing = next((pid for pid in range(count) if str(pid) not in names), None)
    if missing is not None:
        raise ReadError(
            f"{file} names {len(names)} passages, but not passage {missing} of {count}. Remove the file to number them."
        )
    ordered = [str(names[str(pid)]) for pid in range(count)]
    totals, seen = Counter(ordered), Counter[str]()
    ids = []
    for name in ordered:
        ids.append(f"{name}#{seen[name]}" if totals[name] > 1 else name)
        seen[name] += 1
    return ids


# -- fast-plaid and next-plaid ----------------------------------------------------


def open_fast_plaid(path: Path, *, exact: bool = True) -> FlatSource | QuantizedSource:
    """Open an index of fast-plaid or next-plaid.

    Up to fast-plaid 1.6 each chunk has files of its own; since 1.7 all are in ``merged_codes.npy`` and
    ``merged_residuals.npy``.  The documents of ``buffer.npy`` are also in the chunks.  A small index
    keeps exact vectors in ``embeddings.npy``, which are preferred unless ``exact=False``.
    """
    metadata = read_json_object(path / "metadata.json")
    lengths = [_lengths(path / f"doclens.{i}.json") for i in range(_chunk_count(path, metadata))]
    note = None
    if exact and (path / "embeddings.npy").is_file():
        collection = _exact_vectors(path, np.concatenate([np.zeros(0, np.int64), *lengths]))
        if collection is not None:
            return FlatSource.of(collection, "fast_plaid")
        note = "embeddings.npy does not match the index and was ignored; the residuals were decoded."
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    codec = Codec(centroids, weights, metadata.get("nbits"))
    rows = {kind: _merged_rows(path, kind, lengths) for kind in ("codes", "residuals")}

    def chunk(i: int) -> Chunk:
        def load() -> tuple[NDArray[Any], NDArray[Any]]:
            codes, residuals = (_rows(path, kind, i, rows[kind][i]) for kind in rows)
            return codes, residuals

        return Chunk(f"{i}.codes.npy", lengths[i], load)

    return QuantizedSource("fast_plaid", codec, [chunk(i) for i in range(len(lengths))], note=note)


def _exact_vectors(path: Path, lengths: NDArray[np.int64]) -> MultiVectors | None:
    """Return the exact vectors; None if they are not those of the index."""
    beside = path / "embeddings_lengths.json"
    if beside.is_file():  # next-plaid: one flat array
        tokens, stored = load_npy(path / "embeddings.npy"), _lengths(beside)
        if not np.array_equal(stored, lengths) or tokens.ndim != 2 or len(tokens) != stored.sum():
            return None
        return MultiVectors.from_flat(tokens, stored)
    arrays = load_npy_safely(path / "embeddings.npy")  # fast-plaid: a pickle of arrays
    if arrays.ndim == 0 or not all(isinstance(array, np.ndarray) for array in arrays):
        return None
    same = [len(array) for array in arrays] == lengths.tolist()
    return MultiVectors.from_arrays(arrays) if same else None


def _merged_rows(path: Path, kind: str, lengths: list[NDArray[np.int64]]) -> list[slice]:
    """Return the rows of each chunk in the merged file."""
    file = path / f"merged_{kind}.manifest.json"
    manifest = read_json_object(file) if file.is_file() else {}
    rows, start = [], 0
    for i, chunk in enumerate(lengths):
        entry = manifest.get(f"{i}.{kind}.npy", {"rows": int(chunk.sum())})
        count = require_int(f"{file.name}: rows of chunk {i}", entry["rows"], 0)
        rows.append(slice(start, start + count))
        start += count
    return rows


def _rows(path: Path, kind: str, i: int, rows: slice) -> NDArray[Any]:
    own, merged = path / f"{i}.{kind}.npy", path / f"merged_{kind}.npy"
    if own.is_file():  # newer than the merged file if both exist
        return load_npy(own)
    if not merged.is_file():
        raise ValueError(f"it has neither {own.name} nor {merged.name}")
    return load_npy(merged)[rows]


READERS = (
    Reader(
        "plaid",
        "metadata.json with centroids.pt (a ColBERT or RAGatouille index)",
        lambda path: (path / "centroids.pt").is_file() and (path / "metadata.json").is_file(),
        open_plaid,
    ),
    Reader(
        "fast_plaid",
        "metadata.json with centroids.npy and bucket_weights.npy (a fast-plaid or next-plaid index)",
        lambda path: all(
            (path / name).is_file() for name in ("metadata.json", "centroids.npy", "bucket_weights.npy")
        ),
        open_fast_plaid,
    ),
)
