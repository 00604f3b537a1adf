"""zarr groups on the disk: tokens with lengths or offsets, or one array a document."""

from __future__ import annotations

import math
from collections.abc import Iterator
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

#: Codecs that turn bytes into numbers and texts and do nothing else, as zarr and numcodecs call them.
_CODECS = frozenset(
    (
        "bytes", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes", "vlen-array", "gzip", "zstd",
        "blosc", "zlib", "bz2", "lzma", "lz4", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3",
        "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype", "json2",
    )
)  # fmt: skip

#: Bytes that chunks may be missing of, where zeros may be meant.
_MAY_BE_ZEROS = 64 << 20

_METADATA = ("zarr.json", ".zarray", ".zattrs")


def matches(path: Path) -> bool:
    """Say whether `path` is a zarr group, of format 2 or 3."""
    return path.is_dir() and ((path / "zarr.json").is_file() or (path / ".zgroup").is_file())


def open_source(path: Path, *, part: str = "docs", group: str | None = None) -> Source:
    """Return the source of a zarr group; needs ``muvera-toolkit[zarr]``.

    Parameters
    ----------
    path : Path
        Arrays ``tokens`` and ``offsets`` or ``lengths``, perhaps ``ids``; or one array
        (tokens, dimension) a document, whose name is its id.
    part : {"docs", "queries"}
        Which collection, where there are both.
    group : str, optional
        A group below `path`.

    Raises
    ------
    ValueError
        Where the group is damaged or incomplete, has no token vectors, or uses a codec that is
        not known to be plain, such as ``pickle``, which runs programs.
    ImportError
        Where zarr is missing.
    """
    zarr = import_extra("zarr", "zarr", "Reading zarr")
    path = Path(path)
    place = str(path) if group is None else f"{path}/{group}"
    # A store of its own, because zarr takes some paths for addresses; and without consolidated
    # metadata, which may name arrays that lie elsewhere.
    store = zarr.storage.LocalStore(path, read_only=True)
    node = zarr.open_group(store, mode="r", path=group or "", use_consolidated=False)
    arrays: dict[str, Any] = dict(node.arrays())
    names = names_of(part)
    for key, array in arrays.items():
        _require_plain_codecs(array, f"{place}: {key}")
        _require_chunks(array, path / array.path, f"{place}: {key}", complete=key in names.tokens)
    ids_key = find(names.ids, arrays)
    ids = None if ids_key is None else arrays.pop(ids_key)[:]
    if find(names.tokens, arrays) is None:
        source = per_document(dict(sorted(arrays.items())), name=NAME, place=place, ids=ids)
        if source is not None:
            return source
    return source_of(arrays, name=NAME, place=place, part=part, ids=ids)


def _require_plain_codecs(array: Any, place: str) -> None:
    """Raise for a codec that is not known to read numbers and texts alone."""
    metadata = array.metadata.to_dict()
    for name in _codecs([metadata.get(key) for key in ("codecs", "filters", "compressor")]):
        if name.removeprefix("numcodecs.") not in _CODECS:
            raise ValueError(
                f"{place} uses the codec {name!r}, of which it is not known that it runs no programs. "
                f"Write the array with one of {', '.join(sorted(_CODECS))}."
            )


def _codecs(value: Any) -> Iterator[str]:
    """Yield the names of codecs in an array's metadata, and of those inside of other codecs."""
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _codecs(entry)
    elif isinstance(value, dict):
        yield str(value.get("name", value.get("id")))
        yield from _codecs([entry for entry in _inner(value) if isinstance(entry, (list, tuple))])


def _inner(codec: dict[str, Any]) -> list[Any]:
    settings = codec.get("configuration")
    return [settings.get(key) for key in ("codecs", "index_codecs")] if isinstance(settings, dict) else []


def _require_chunks(array: Any, folder: Path, place: str, *, complete: bool) -> None:
    """Raise where chunks are missing, which zarr reads as zeros, of which there may be any number.

    Token vectors are never zero over a whole chunk; lengths may be, and zarr leaves such chunks
    out.
    """
    chunk = array.chunks if getattr(array, "shards", None) is None else array.shards
    needed = math.prod(-(-rows // size) for rows, size in zip(array.shape, chunk, strict=True))
    if not (complete or math.prod(array.shape) * array.dtype.itemsize > _MAY_BE_ZEROS):
        return
    stored = sum(entry.is_file() and entry.name not in _METADATA for entry in folder.rglob("*"))
    if stored < needed:
        raise ValueError(
            f"{place} has {stored} of its {needed} chunks; the others are missing. Copy or export it again."
        )
