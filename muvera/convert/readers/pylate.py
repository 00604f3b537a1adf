"""Index folders of PyLate, under the document ids that were given to it.

* Voyager: ``index.voyager`` holds every token vector, normalized (needs voyager).
* FastPlaid: ``fast_plaid_index/``, see :mod:`muvera.convert.readers.fast_plaid`.
* StanfordPLAID (and the older PLAID): see :mod:`muvera.convert.readers.plaid`.
* ScaNN: ``flattened_embeddings.npy``, the exact vectors.

Documents that were removed are left out, also where their vectors are still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import as_ids
from ...utils.npy_files import load_npy
from ...utils.optional_imports import import_extra
from ..parsing.pylate_id_maps import MappedSource, has_map, has_pylate_maps, read_map, same_kind
from ..sources.base import CollectionSource, Source, token_batches
from . import fast_plaid, plaid

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "pylate"
DESCRIPTION = (
    "plaid_ids_to_documents_ids.pkl, index.voyager or doc_id_to_embedding_range.pkl (an index of PyLate)"
)

_VOYAGER = "document_ids_to_embeddings"
_PLAID = "plaid_ids_to_documents_ids"
_SCANN = "doc_id_to_embedding_range"


def matches(path: Path) -> bool:
    """Whether `path` looks like an index folder of PyLate."""
    try:
        if path.name == "fast_plaid_index" and has_pylate_maps(path.parent):
            return True
        return (
            has_pylate_maps(path)
            or ((path / "index.voyager").is_file() and has_map(path, _VOYAGER))
            or (
                (path / "flattened_embeddings.npy").is_file()
                and (has_map(path, _SCANN) or (path / f"{_SCANN}.tsv").is_file())
            )
        )
    except OSError:
        return False


def open_source(path: Path, **options: Any) -> Source:
    """Open an index folder of PyLate.

    Parameters
    ----------
    path : Path
        ``<index_folder>/<index_name>``.
    **options
        Go to :func:`muvera.convert.readers.fast_plaid.open_source` or
        :func:`muvera.convert.readers.plaid.open_source`; the other kinds take none.
    """
    path = Path(path)
    if path.name == "fast_plaid_index" and has_pylate_maps(path.parent):
        path = path.parent
    if has_pylate_maps(path):
        inner: Source
        if (path / "fast_plaid_index").is_dir():
            inner = fast_plaid.open_source(path / "fast_plaid_index", **options)
        else:
            inner = plaid.open_source(path, **options)
        return MappedSource(inner, read_map(path, _PLAID), path, NAME)
    if options:
        raise TypeError(f"{path} is no quantized index, so it takes no option {sorted(options)[0]!r}.")
    if (path / "index.voyager").is_file():
        return _VoyagerSource(path)
    return _scann(path)


class _VoyagerSource:
    """Documents of a Voyager index, fetched batch by batch from it."""

    name = NAME

    def __init__(self, path: Path) -> None:
        voyager = import_extra("voyager", "voyager", "Reading a Voyager index of PyLate")
        named = read_map(path, _VOYAGER)
        try:
            rows = [np.asarray(value, np.int64).reshape(-1) for value in named.values()]
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{path} has a document without a list of token numbers. Copy it again."
            ) from None
        with (path / "index.voyager").open("rb") as stream:
            try:
                self._index = voyager.Index.load(stream)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"{path / 'index.voyager'} is damaged ({error}). Copy it again.") from error
        self._rows = np.concatenate([np.zeros(0, np.int64), *rows])
        lengths = np.array([len(row) for row in rows], np.int64)
        self._offsets = running_total(lengths)
        known = len(self._index.ids)
        if len(self._rows) and not 0 <= self._rows.min() <= self._rows.max() < known:
            raise ValueError(
                f"The map of {path} names token {self._rows.max()}, but index.voyager has {known}. "
                "Map and index are of different times: copy the whole folder again."
            )
        self._ids = as_ids(same_kind(list(named)), len(rows), f"The ids of {path}")
        self.dimension = int(self._index.num_dimensions)
        self.num_documents: int | None = len(rows)
        self.num_tokens: int | None = len(self._rows)
        self.lossy = self._index.storage_data_type != voyager.StorageDataType.Float32
        self.nbits: int | None = 8 if self.lossy else None

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents in the order in which they were added."""
        for start, stop in token_batches(self._offsets, max_tokens):
            bounds = self._offsets[start : stop + 1]
            rows = self._rows[bounds[0] : bounds[-1]]
            tokens = self._index.get_vectors(rows) if len(rows) else np.empty((0, self.dimension), np.float32)
            yield MultiVectors(tokens, bounds - bounds[0], self._ids[start:stop])


def _scann(path: Path) -> CollectionSource:
    tokens = load_npy(path / "flattened_embeddings.npy")
    ranges = _scann_ranges(path)
    starts = np.array([start for start, _ in ranges.values()], np.int64)
    lengths = np.array([length for _, length in ranges.values()], np.int64)
    ids = same_kind(list(ranges))
    if len(ranges) and (starts.min() < 0 or lengths.min() < 0 or (starts + lengths).max() > len(tokens)):
        raise ValueError(
            f"The ranges of {path} end at row {(starts + lengths).max()}, but flattened_embeddings.npy has "
            f"{len(tokens)}. They are of different times: copy the whole folder again."
        )
    order = np.argsort(starts, kind="stable")
    ends = running_total(lengths[order])
    if not np.array_equal(starts[order][lengths[order] > 0], ends[:-1][lengths[order] > 0]):
        # Gaps: PyLate deletes a document's range and leaves its rows.
        tokens = tokens[_row_numbers(starts[order], lengths[order])]
    tokens = tokens[: ends[-1]]
    return CollectionSource(MultiVectors(tokens, ends, [ids[i] for i in order]), NAME)


def _row_numbers(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())


def _scann_ranges(path: Path) -> dict[Any, tuple[int, int]]:
    """Return document id to (first row, number of rows), from the pickle or the TSV."""
    table = path / f"{_SCANN}.tsv"
    try:
        if not has_map(path, _SCANN) and table.is_file():
            lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
            return {name: (int(start), int(length)) for name, start, length in lines}
        return {name: (int(start), int(length)) for name, (start, length) in read_map(path, _SCANN).items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / _SCANN} must give a start and a length a document ({error}).") from error
