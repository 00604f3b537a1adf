"""HDF5 files: tokens with lengths or offsets, one dataset a document, or ragged rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...data.validation import Ids
from ...utils.optional_imports import import_extra
from ..parsing.hdf5_heaps import require_sound_heaps
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
        (tokens, dimension) a document, whose name is its id; or one dataset of ragged rows
        (numbers of all tokens of a document, attribute ``dimension`` on it or the file).
    part : {"docs", "queries"}
        Which collection, where there are both.
    group : str, optional
        Where in the file to look.  Default: the root, or the group in it that is called as
        `part`, or its only one.

    Raises
    ------
    ValueError
        Where the file is damaged, has no token vectors, or refers to other files: links to
        other files, external storage and virtual datasets could hand out any file.
    ImportError
        Where h5py is missing.
    """
    h5py = import_extra("h5py", "hdf5", "Reading HDF5")
    path = Path(path)
    # The handle is the source's: datasets are read while batches are asked for.
    file = h5py.File(path, "r")
    node = _group(h5py, file, group, part, path)
    place = str(path) if node.name == "/" else f"{path}:{node.name}"
    members = _members(h5py, node, path)
    datasets = {key: value for key, value in members.items() if isinstance(value, h5py.Dataset)}
    for name, dataset in datasets.items():
        _require_stored(dataset, f"{place}: {name}")
    _require_heaps(file, datasets.values(), path)
    names = names_of(part)
    ids_key = find(names.ids, datasets)
    ids = None if ids_key is None else datasets.pop(ids_key)[()]
    key = find(names.tokens, datasets)
    if key is not None and h5py.check_vlen_dtype(datasets[key].dtype) is not None:
        return _ragged(datasets[key], _width(datasets[key], node, f"{place}: {key}"), ids, f"{place}: {key}")
    if key is None:
        source = per_document(datasets, name=NAME, place=place, ids=ids)
        if source is not None:
            return source
    return source_of(datasets, name=NAME, place=place, part=part, ids=ids)


def _group(h5py: Any, file: Any, group: str | None, part: str, path: Path) -> Any:
    if group is not None:
        node = file
        for step in group.strip("/").split("/"):
            node = _members(h5py, node, path).get(step) if isinstance(node, h5py.Group) else None
        if not isinstance(node, h5py.Group):
            raise ValueError(f"{path} has no group {group!r}; it has {', '.join(file) or 'nothing'}.")
        return node
    members = _members(h5py, file, path)
    groups = [key for key, value in members.items() if isinstance(value, h5py.Group)]
    if len(groups) == len(members) and groups:
        if part in groups:
            return members[part]
        if len(groups) == 1:
            return members[groups[0]]
        raise ValueError(f"{path} has the groups {', '.join(groups)}. Say which with group=.")
    return file


def _members(h5py: Any, node: Any, path: Path) -> dict[str, Any]:
    """Return what a group holds by name, refusing whatever leads out of the file."""
    here = h5py.h5o.get_info(node.id).fileno
    members = {}
    for key in node:
        link = node.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(
                f"{path} has a link {key!r} to the file {link.filename!r}, and only what lies in a file is "
                "read. Copy the datasets into one file."
            )
        member = node.get(key)
        if member is None:
            raise ValueError(f"{path} has a link {key!r} that leads nowhere. Export it again.")
        # A soft link may lead through another group's link to another file.
        if h5py.h5o.get_info(member.id).fileno != here:
            raise ValueError(
                f"{path} has a link {key!r} into another file, and only what lies in a file is read. "
                "Copy the datasets into one file."
            )
        members[key] = member
    return members


def _require_stored(dataset: Any, place: str) -> None:
    """Raise where numbers lie in other files, or were never written."""
    if dataset.external:
        raise ValueError(
            f"{place} keeps its numbers in the file {dataset.external[0][0]!r}, and only what lies in a file "
            "is read. Copy the dataset into one file."
        )
    if dataset.is_virtual:
        raise ValueError(
            f"{place} is a virtual dataset, made of those of other files, and only what lies in a file is "
            "read. Copy the dataset into one file."
        )
    if dataset.chunks is None or not dataset.size:
        return
    # HDF5 reads a missing chunk as zeros, of which there may be any number.
    needed = math.prod(-(-rows // chunk) for rows, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    stored = dataset.id.get_num_chunks()
    if stored < needed:
        raise ValueError(
            f"{place} has {stored} of its {needed} chunks; the others are missing. Copy or export it again."
        )


def _require_heaps(file: Any, datasets: Iterable[Any], path: Path) -> None:
    """Check the heaps of a file with rows of varying length or texts."""
    in_heaps = [dataset for dataset in datasets if dataset.dtype.hasobject]
    if in_heaps:
        addresses, sizes = file.id.get_create_plist().get_sizes()
        filtered = any(dataset.id.get_create_plist().get_nfilters() for dataset in in_heaps)
        require_sound_heaps(path, sizes, addresses, filtered=filtered)


def _width(dataset: Any, node: Any, place: str) -> int:
    """Return the attribute ``dim`` of a dataset of ragged rows, or of its group."""
    holder = next((holder for holder in (dataset, node) if "dim" in holder.attrs), None)
    if holder is None:
        raise ValueError(f"{place} has ragged rows, but no attribute 'dim' says how wide a token is.")
    kind = holder.attrs.get_id("dim").dtype
    if kind.kind not in "iu":
        raise ValueError(f"{place} has the attribute dim of type {kind}, but it must be a whole number.")
    width = int(holder.attrs["dim"])
    if width < 1:
        raise ValueError(f"{place} has the attribute dim={width}, but a token needs at least one number.")
    return width


def _ragged(dataset: Any, width: int, ids: Any, place: str) -> Source:
    """Open rows of varying length, each all numbers of one document."""
    count = len(dataset)
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
