"""zarr groups on the disk: tokens with lengths or offsets, or one array a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...utils.optional_imports import import_extra
from ..sources.base import Source
from ..sources.named_arrays import find, names_of, per_document, source_of

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "zarr"
DESCRIPTION = (
    "a zarr group (zarr.json or .zgroup) with tokens and offsets or lengths, or one array a document"
)


def matches(path: Path) -> bool:
    """Say whether `path` is a zarr group, of format 2 or 3."""
    return path.is_dir() and ((path / "zarr.json").is_file() or (path / ".zgroup").is_file())


def open_source(path: Path, *, part: str = "docs", group: str | None = None) -> Source:
    """Return the source of a zarr group; needs ``muvera-toolkit[zarr]``.

    Parameters
    ----------
    path : Path
        Arrays ``tokens`` and ``offsets`` or ``lengths``, perhaps ``ids``; or one array
        (tokens, dim) a document, whose name is its id.
    part : {"docs", "queries"}
        Which collection, where there are both.
    group : str, optional
        A group below `path`.
    """
    zarr = import_extra("zarr", "zarr", "Reading zarr")
    path = Path(path)
    place = str(path) if group is None else f"{path}/{group}"
    try:
        node = zarr.open_group(str(path), mode="r", path=group or "")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"{place} is no zarr group: {error}.") from None
    arrays: dict[str, Any] = dict(node.arrays())
    names = names_of(part)
    ids_key = find(names.ids, arrays)
    ids = None if ids_key is None else arrays.pop(ids_key)[:]
    for key, array in arrays.items():
        # zarr reads a missing chunk as zeros; token vectors are never zero over a whole chunk.
        if key in names.tokens and array.nchunks_initialized < array.nchunks:
            raise ValueError(
                f"{place}: {key} has {array.nchunks_initialized} of its {array.nchunks} chunks; the others "
                "are missing. Copy or export it again."
            )
    if find(names.tokens, arrays) is None:
        source = per_document(dict(sorted(arrays.items())), name=NAME, place=place, ids=ids)
        if source is not None:
            return source
    return source_of(arrays, name=NAME, place=place, part=part, ids=ids)
