"""Reader of PyLate's index folders, which returns the document ids that were given to PyLate.

* FastPlaid: ``fast_plaid_index/`` with a map of positions to ids.
* StanfordPLAID (and the older PLAID): ColBERT's files with the same map.
* Voyager: ``index.voyager`` contains all token vectors, and a map the numbers of each document's tokens.
* ScaNN: ``flattened_embeddings.npy``, and a map the rows of each document.

Removed documents are skipped, even if their vectors still exist.  Maps are pickles of a dict, in older
releases SQLite files of sqlitedict; neither runs code.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.validation import as_integers, as_lengths, running_total
from ...utils.arrays import load_npy
from ..parsing import load_plain, open_table
from ..sources import FlatSource, Reader, ReadError
from .plaid import open_fast_plaid, open_plaid

_PLAID = "plaid_ids_to_documents_ids"
_VOYAGER = "document_ids_to_embeddings"
_SCANN = "doc_id_to_embedding_range"


def _root(path: Path) -> Path:
    """Return the folder with the maps of an index, which may be inside it."""
    return path.parent if path.name == "fast_plaid_index" and _has_map(path.parent, _PLAID) else path


def _matches(path: Path) -> bool:
    return (
        _has_map(_root(path), _PLAID)
        or ((path / "index.voyager").is_file() and _has_map(path, _VOYAGER))
        or (path / "flattened_embeddings.npy").is_file()
    )


def _open(path: Path, *, exact: bool = True) -> FlatSource:
    """Open ``<index_folder>/<index_name>``; `exact` is that of fast-plaid."""
    path = _root(path)
    if _has_map(path, _PLAID):
        fast = path / "fast_plaid_index"
        inner: FlatSource = open_fast_plaid(fast, exact=exact) if fast.is_dir() else open_plaid(path)
        _choose_named(inner, _read_map(path, _PLAID))
        return inner
    if (path / "index.voyager").is_file():
        tokens, labels = _voyager_vectors(path / "index.voyager")
        return _looked_up(tokens, labels, _read_map(path, _VOYAGER))
    tokens = load_npy(path / "flattened_embeddings.npy")
    table = path / f"{_SCANN}.tsv"
    if table.is_file():  # releases after 1.6
        lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
        ranges = {name: (int(first), int(count)) for name, first, count in lines}
    else:
        ranges = _read_map(path, _SCANN)
    rows = {name: range(first, first + count) for name, (first, count) in ranges.items()}
    return _looked_up(tokens, np.arange(len(tokens)), rows)


def _choose_named(index: FlatSource, names: dict[Any, Any]) -> None:
    """Name the documents of an index by a map of positions to ids, and skip the others."""
    keys = [int(key) if isinstance(key, str) else key for key in names]  # SQLite has texts
    positions = as_integers(keys, "The map's positions")
    kept = np.isin(np.arange(index.num_documents or 0), positions)
    if kept.sum() != len(positions):
        raise ValueError(
            f"the map must have positions from 0 to {len(kept) - 1}, each at most once, got {len(positions)} "
            f"from {positions.min()} to {positions.max()}"
        )
    ids = list(names.values())
    index.choose(kept, [ids[i] for i in np.argsort(positions)])
    index.name = "pylate"


def _looked_up(
    tokens: NDArray[Any], labels: NDArray[np.int64], documents: Mapping[Any, Sequence[int]]
) -> FlatSource:
    """Return the source of documents whose tokens a map names by label, in the order of the map."""
    lengths = [len(rows) for rows in documents.values()]
    count = sum(lengths)
    # Checked before any array is made: a small map of shared lists or long ranges can name any number of tokens.
    fits = count <= len(labels)
    if fits:
        wanted = np.fromiter(chain.from_iterable(documents.values()), np.int64, count)
        order = np.argsort(labels, kind="stable")
        at = np.minimum(np.searchsorted(labels, wanted, sorter=order), max(len(labels) - 1, 0))
        rows = order[at] if len(labels) else at
        fits = np.array_equal(labels[rows], wanted)
    if not fits:
        raise ValueError(f"the map names {count} tokens, not all among the {len(labels)} of the index")
    offsets = running_total(as_lengths(lengths, "The map"))
    return FlatSource(tokens, offsets, list(documents), name="pylate", rows=rows)


# -- maps -------------------------------------------------------------------------


def _has_map(folder: Path, stem: str) -> bool:
    return any((folder / f"{stem}{suffix}").is_file() for suffix in (".pkl", ".sqlite"))


def _read_map(folder: Path, stem: str) -> dict[Any, Any]:
    pickled, database = folder / f"{stem}.pkl", folder / f"{stem}.sqlite"
    if pickled.is_file():
        value = load_plain(pickled.read_bytes(), pickled.name)
        if not isinstance(value, dict):
            raise ReadError(f"{pickled.name} must contain a dict, got {type(value).__name__}. Copy it again.")
        return value
    with closing(open_table(database, "unnamed", ("key", "value"), "sqlitedict")) as connection:
        rows = connection.execute("SELECT key, value FROM unnamed ORDER BY rowid").fetchall()
    return {
        key: load_plain(value, database.name) if isinstance(value, bytes) else value for key, value in rows
    }


_VOYAGER_HEAD = struct.Struct("<4siiBBfB")  # "VOYA", version, dimension, space, kind of numbers, norm, flag
_VOYAGER_FLOAT32 = 0x20
#: hnswlib's header: offset of the links, capacity, count, bytes of a record, offsets of the id and of the
#: numbers in it, and nine numbers about the graph.
_HNSWLIB_HEAD = struct.Struct("<QQQQQQiIQQQdQ")


def _voyager_vectors(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the vectors of a Voyager index, memory-mapped, and their labels; the graph is not read."""
    with path.open("rb") as stream:
        head = stream.read(_VOYAGER_HEAD.size + _HNSWLIB_HEAD.size)
    magic, version, dimension, _, numbers, _, transformed = _VOYAGER_HEAD.unpack_from(head)
    if magic != b"VOYA" or version != 1 or numbers != _VOYAGER_FLOAT32 or transformed:
        raise ValueError("index.voyager is not of version 1 with float32")
    _, _, count, size, label_at, numbers_at, *_ = _HNSWLIB_HEAD.unpack_from(head, _VOYAGER_HEAD.size)
    record = np.dtype(
        {
            "names": ["numbers", "label"],
            "formats": [("<f4", (dimension,)), "<i8"],
            "offsets": [numbers_at, label_at],
            "itemsize": size,
        }
    )
    file = np.memmap(path, record, "r", len(head), (count,)) if count else np.empty(0, record)
    return file["numbers"], np.asarray(file["label"])


READERS = (
    Reader(
        "pylate",
        "plaid_ids_to_documents_ids.pkl, index.voyager or doc_id_to_embedding_range.pkl (an index of PyLate)",
        _matches,
        _open,
    ),
)
