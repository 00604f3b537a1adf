"""HDF5 files: tokens with lengths or offsets, one dataset a document, or ragged rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...data.validation import Ids
from ...utils.optional_imports import import_extra
from ..sources.base import Source
from ..sources.documents import Document, RowSource
from ..sources.named_arrays import find, ids_of, names_of, per_document, source_of

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "hdf5"
DESCRIPTION = (
    "a .h5 or .hdf5 file with tokens and offsets or lengths, with one dataset a document, or with ragged "
    "rows and an attribute dim"
)


def matches(path: Path) -> bool:
    """Say whether `path` begins as an HDF5 file."""
    try:
        with path.open("rb") as stream:
            return stream.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def open_source(path: Path, *, part: str = "docs", group: str | None = None) -> Source:
    """Return the source of an HDF5 file; needs ``muvera-toolkit[hdf5]``.

    Parameters
    ----------
    path : Path
        Datasets ``tokens`` and ``offsets`` or ``lengths``, perhaps ``ids``; or one dataset
        (tokens, dim) a document, whose name is its id; or one dataset of ragged rows
        (numbers of all tokens of a document, attribute ``dimension`` on it or the file).
    part : {"docs", "queries"}
        Which collection, where there are both.
    group : str, optional
        Where in the file to look.  Default: the root, or the group in it that is called as
        `part`, or its only one.
    """
    h5py = import_extra("h5py", "hdf5", "Reading HDF5")
    path = Path(path)
    try:
        # The handle is the source's: datasets are read while batches are asked for.
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is truncated or no HDF5 file: {error}.") from None
    node = _group(h5py, file, group, part, path)
    place = str(path) if node.name == "/" else f"{path}:{node.name}"
    datasets = {key: value for key, value in node.items() if isinstance(value, h5py.Dataset)}
    names = names_of(part)
    ids_key = find(names.ids, datasets)
    ids = None if ids_key is None else datasets.pop(ids_key)[()]
    key = find(names.tokens, datasets)
    if key is not None and h5py.check_vlen_dtype(datasets[key].dtype) is not None:
        return _ragged(datasets[key], node.attrs.get("dim"), ids, f"{place}: {key}")
    if key is None:
        source = per_document(datasets, name=NAME, place=place, ids=ids)
        if source is not None:
            return source
    return source_of(datasets, name=NAME, place=place, part=part, ids=ids)


def _group(h5py: Any, file: Any, group: str | None, part: str, path: Path) -> Any:
    if group is not None:
        node = file.get(group)
        if not isinstance(node, h5py.Group):
            raise ValueError(f"{path} has no group {group!r}; it has {', '.join(file) or 'nothing'}.")
        return node
    groups = [key for key in file if isinstance(file[key], h5py.Group)]
    if len(groups) == len(file) and groups:
        if part in groups:
            return file[part]
        if len(groups) == 1:
            return file[groups[0]]
        raise ValueError(f"{path} has the groups {', '.join(groups)}. Say which with group=.")
    return file


def _ragged(dataset: Any, dimension: Any, ids: Any, place: str) -> Source:
    """Open rows of varying length, each all numbers of one document."""
    dimension = dataset.attrs.get("dim", dimension)
    if dimension is None:
        raise ValueError(f"{place} has ragged rows, but no attribute 'dim' says how wide a token is.")
    width, count = int(dimension), len(dataset)
    checked: Ids | None = None if ids is None else ids_of(ids, count, f"{place}: ids")

    def documents() -> Iterator[Document]:
        for start in range(0, count, 256):
            for i, row in enumerate(dataset[start : start + 256], start):
                numbers = np.asarray(row)
                if len(numbers) % width:
                    raise ValueError(
                        f"{place}: document {i} has {len(numbers)} numbers, no multiple of dimension={width}."
                    )
                yield Document(
                    None if checked is None else checked[i : i + 1].tolist()[0],
                    numbers.reshape(-1, width),
                    f"row {i}",
                )

    return RowSource(documents, name=NAME, place=place, num_documents=count, dimension=width)
