"""Reader of PyLate's index folders, under the document ids that were given to it.

* Voyager: ``index.voyager`` holds every token vector, normalized; its library is not needed.
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

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import as_integers, as_lengths, running_total
from ...data.validation import as_ids
from ...utils.npy_files import load_npy
from ..parsing.pylate_id_maps import MappedSource, has_map, has_pylate_maps, read_map, same_kind
from ..parsing.voyager_file import read_voyager
from ..sources.base import CollectionSource, Source
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
    """Return whether `path` looks like an index folder of PyLate."""
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
    """Return the source of an index folder of PyLate.

    Parameters
    ----------
    path : Path
        ``<index_folder>/<index_name>``.
    **options
        Go to :func:`muvera.convert.readers.fast_plaid.open_source` or
        :func:`muvera.convert.readers.plaid.open_source`; the other kinds take none.

    Raises
    ------
    FileNotFoundError, ValueError, RefusedPickleError
        As :func:`muvera.convert.readers.plaid.open_source`, and for maps that do not fit.
    TypeError
        For an option that the kind of index does not take.
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
    """Source over a Voyager index, whose vectors are fetched batch by batch."""

    name = NAME

    def __init__(self, path: Path) -> None:
        named = read_map(path, _VOYAGER)
        self._index = read_voyager(path / "index.voyager")
        known = len(self._index.ids)
        try:
            lengths = as_lengths([len(value) for value in named.values()], f"The map of {path}")
            if lengths.sum() > known:
                raise ValueError(f"it names {lengths.sum()} tokens, but index.voyager has {known}")
            self._rows = as_integers([row for value in named.values() for row in value], "its tokens")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} has a map that does not list tokens of its index: {str(error).rstrip('.')}. "
                "Copy the whole folder again."
            ) from None
        if len(self._rows) and not 0 <= self._rows.min() <= self._rows.max() < known:
            raise ValueError(
                f"The map of {path} names token {self._rows.max()}, but index.voyager has {known}. "
                "Map and index are of different times: copy the whole folder again."
            )
        self._offsets = running_total(lengths)
        self._ids = as_ids(same_kind(list(named)), len(lengths), f"The ids of {path}")
        self.dimension = self._index.raw.shape[1]
        self.num_documents: int | None = len(lengths)
        self.num_tokens: int | None = len(self._rows)
        self.nbits = self._index.nbits
        self.lossy = self.nbits is not None

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents in the order in which they were added."""
        for start, stop in token_batches(self._offsets, max_tokens):
            bounds = self._offsets[start : stop + 1]
            tokens = self._index.vectors(self._rows[bounds[0] : bounds[-1]])
            yield MultiVectors(tokens, bounds - bounds[0], self._ids[start:stop])


def _scann(path: Path) -> CollectionSource:
    tokens = load_npy(path / "flattened_embeddings.npy")
    ranges = _scann_ranges(path)
    starts = as_integers([start for start, _ in ranges.values()], f"The starts in {path / _SCANN}")
    lengths = as_lengths([length for _, length in ranges.values()], f"The lengths in {path / _SCANN}")
    outside = (starts < 0) | (lengths > len(tokens)) | (starts > len(tokens) - lengths)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(
            f"The ranges of {path} end at row {int(starts[i]) + int(lengths[i])}, but flattened_embeddings.npy "
            f"has {len(tokens)}. They are of different times: copy the whole folder again."
        )
    ids = same_kind(list(ranges))
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    filled = lengths > 0
    shared = (starts + lengths)[filled][:-1] > starts[filled][1:]
    if shared.any():
        row = starts[filled][1:][shared][0]
        raise ValueError(
            f"The ranges of {path} give row {row} to two documents. Copy the whole folder again."
        )
    ends = running_total(lengths)
    if not np.array_equal(starts[filled], ends[:-1][filled]):
        # Gaps: PyLate deletes a document's range and leaves its rows.
        tokens = tokens[np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])]
    tokens = tokens[: ends[-1]]
    return CollectionSource(MultiVectors(tokens, ends, [ids[i] for i in order]), NAME)


def _scann_ranges(path: Path) -> dict[Any, tuple[int, int]]:
    """Return document id to (first row, number of rows), from the pickle or the TSV."""
    table = path / f"{_SCANN}.tsv"
    try:
        if not has_map(path, _SCANN) and table.is_file():
            lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
            ranges = {name: (int(start), int(length)) for name, start, length in lines}
            if len(ranges) < len(lines):
                raise ValueError(f"{len(lines) - len(ranges)} documents stand twice")
            return ranges
        return {name: (int(start), int(length)) for name, (start, length) in read_map(path, _SCANN).items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / _SCANN} must give a start and a length a document ({error}).") from error
