"""Reader of the indexes of fast-plaid and next-plaid.

The codec is ``centroids.npy`` and ``bucket_weights.npy``.  Up to fast-plaid 1.6 chunk i is
``{i}.codes.npy`` and ``{i}.residuals.npy``; since 1.7 these are folded into
``merged_codes.npy`` and ``merged_residuals.npy``, whose manifest says which rows belong to
which chunk, and then removed.

A small index also keeps the exact vectors, which are preferred here: next-plaid as numbers,
fast-plaid as a pickle, which is read without running it.  The documents of ``buffer.npy`` are
in the chunks too, so that file is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...data.multivectors import MultiVectors
from ...utils.checks import require_int
from ...utils.npy_files import load_npy
from ..parsing.index_files import chunk_count, chunk_lengths, read_json_object
from ..parsing.pylate_id_maps import has_pylate_maps
from ..parsing.safe_pickle import load_npy_safely
from ..sources.base import CollectionSource
from ..sources.plaid_codec import Chunk, Codec, QuantizedSource

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "fast_plaid"
DESCRIPTION = "metadata.json with centroids.npy and bucket_weights.npy (a fast-plaid or next-plaid index)"

_STALE_NOTE = "embeddings.npy does not match the index and was left aside; the residuals were decoded."


def matches(path: Path) -> bool:
    """Return whether `path` looks like a fast-plaid or next-plaid index that PyLate did not wrap."""
    try:
        needed = ("metadata.json", "centroids.npy", "bucket_weights.npy")
        if not all((path / name).is_file() for name in needed) or (path / "sizes.compacted.pt").is_file():
            return False
        return not (path.name == "fast_plaid_index" and has_pylate_maps(path.parent))
    except OSError:
        return False


def open_source(
    path: Path,
    *,
    exact: bool = True,
    dtype: DTypeLike = np.float32,
    threads: int | None = None,
) -> QuantizedSource | CollectionSource:
    """Return the source of a fast-plaid or next-plaid index.

    Documents are numbered in the order of insertion; a deletion renumbers them.

    Parameters
    ----------
    path : Path
        The index's folder.
    exact : bool
        Prefer the exact vectors to the decoded ones where the index keeps them; fast-plaid's pickle
        of them is read through a list of allowed names, so that it cannot run anything.
    dtype, threads
        As for :func:`muvera.convert.readers.plaid.open_source`.

    Raises
    ------
    FileNotFoundError, ValueError, RefusedPickleError
        As there.
    """
    path = Path(path)
    metadata = read_json_object(path / "metadata.json")
    count = chunk_count(path, metadata)
    lengths = [chunk_lengths(path / f"doclens.{i}.json") for i in range(count)]
    note = None
    if exact and (path / "embeddings.npy").is_file():
        collection, note = _exact(path, np.concatenate([np.zeros(0, np.int64), *lengths]))
        if collection is not None:
            return CollectionSource(collection, NAME)
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    codec = Codec(path, centroids, weights, metadata.get("nbits"), dtype=dtype, threads=threads)
    return QuantizedSource(NAME, codec, _chunks(path, lengths), note=note)


def _exact(path: Path, lengths: NDArray[np.int64]) -> tuple[MultiVectors | None, str | None]:
    """Return the exact vectors, or None and why not."""
    file, beside = path / "embeddings.npy", path / "embeddings_lengths.json"
    if beside.is_file():
        tokens, stored = load_npy(file), chunk_lengths(beside)
        if not np.array_equal(stored, lengths) or tokens.ndim != 2 or len(tokens) != stored.sum():
            return None, _STALE_NOTE
        return MultiVectors.from_flat(tokens, stored), None
    arrays = load_npy_safely(file)
    if arrays.ndim == 0 or not all(isinstance(array, np.ndarray) for array in arrays):
        return None, _STALE_NOTE
    if [len(array) for array in arrays] != lengths.tolist():
        return None, _STALE_NOTE
    return MultiVectors.from_arrays(arrays), None


def _chunks(path: Path, lengths: list[NDArray[np.int64]]) -> list[Chunk]:
    rows = {kind: _merged_rows(path, kind, lengths) for kind in ("codes", "residuals")}

    def chunk(i: int) -> Chunk:
        def load() -> tuple[NDArray[Any], NDArray[Any]]:
            return _part(path, "codes", i, rows["codes"]), _part(path, "residuals", i, rows["residuals"])

        return Chunk(f"{i}.codes.npy", lengths[i], load)

    return [chunk(i) for i in range(len(lengths))]


def _merged_rows(path: Path, kind: str, lengths: list[NDArray[np.int64]]) -> list[tuple[int, int]]:
    """Return each chunk's first row in the merged file and the one past its last."""
    file = path / f"merged_{kind}.manifest.json"
    manifest = read_json_object(file) if file.is_file() else {}
    rows, start = [], 0
    for i, chunk in enumerate(lengths):
        entry = manifest.get(f"{i}.{kind}.npy")
        given = entry.get("rows") if isinstance(entry, dict) else int(chunk.sum())
        try:
            count = require_int(f"{file}: rows of chunk {i}", given, 0, hint="Copy the folder again.")
        except TypeError as error:
            raise ValueError(str(error)) from None
        rows.append((start, start + count))
        start += count
    return rows


def _part(path: Path, kind: str, i: int, rows: list[tuple[int, int]]) -> NDArray[Any]:
    own, merged = path / f"{i}.{kind}.npy", path / f"merged_{kind}.npy"
    if own.is_file():  # newer than the merged file wherever both are there
        return load_npy(own)
    if not merged.is_file():
        raise FileNotFoundError(
            f"{path} has neither {own.name} nor {merged.name}, but metadata.json counts {len(rows)} chunks. "
            "Copy the whole folder again."
        )
    start, stop = rows[i]
    array = load_npy(merged)
    if stop > len(array):
        raise ValueError(
            f"{merged} has {len(array)} rows, but chunk {i} ends at row {stop}. Copy the whole folder again."
        )
    return array[start:stop]
