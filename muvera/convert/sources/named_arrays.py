"""Sources over the named arrays of npy folders, npz, safetensors, HDF5 and zarr.

A container holds either one array of tokens with lengths or offsets, or one array per document.  Ids
and a mask are optional.  The same names work in every container.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.offsets import as_integers, as_offsets, offsets_from_lengths
from ...data.validation import Ids, as_ids
from ..damage import ReadError, ReadTypeError
from .base import Document, FlatSource, PaddedSource, Rows, RowSource, Source

__all__ = ["Names", "find", "missing_tokens", "names_of", "source_of"]


class Names(NamedTuple):
    """Names of a collection's arrays; the first name that exists is used."""

    tokens: tuple[str, ...]
    lengths: tuple[str, ...]
    offsets: tuple[str, ...]
    ids: tuple[str, ...]
    mask: tuple[str, ...]


def _names(prefixes: tuple[str, ...], tokens: tuple[str, ...], plain: bool) -> Names:
    """Return names such as ``docs_tokens`` for each prefix, and ``tokens`` itself if `plain`."""

    def every(*words: str) -> tuple[str, ...]:
        return (words if plain else ()) + tuple(f"{p}_{w}" for p in prefixes for w in words)

    return Names(
        tokens=every("tokens", "embeddings", "vectors") + tokens,
        lengths=every("lengths", "lens", "doclens", "counts"),
        offsets=every("offsets", "indptr"),
        ids=every("ids", "doc_ids"),
        mask=every("mask", "attention_mask", "masks"),
    )


_PARTS = {
    "docs": _names(("docs", "doc", "documents", "train"), ("documents", "train"), plain=True),
    "queries": _names(
        ("queries", "query", "test"), ("queries", "query_embedding", "query_embeddings", "test"), plain=False
    ),
}


def names_of(part: str) -> Names:
    """Return the names of `part`, which must be "docs" or "queries"."""
    if part not in _PARTS:
        raise ReadError(f"part must be 'docs' or 'queries', got {part!r}.")
    return _PARTS[part]


def find(names: Iterable[str], present: Container[str]) -> str | None:
    """Return the first of `names` that is in `present`, or None."""
    return next((name for name in names if name in present), None)


def missing_tokens(part: str, present: Iterable[str], place: str) -> ReadError:
    """Return the error for a container without token vectors under a known name."""
    return ReadError(
        f"{place} has no token vectors under a known name: looked for {', '.join(names_of(part).tokens)} "
        f"(part={part!r}), found {', '.join(sorted(present)[:12]) or 'nothing'}."
    )


def source_of(
    arrays: Mapping[str, Rows], *, name: str, place: str, part: str = "docs", ids: Any = None
) -> Source:
    """Return a source over a container's arrays; `ids` replace the ids in the container."""
    names = names_of(part)
    key, ids_key = find(names.tokens, arrays), find(names.ids, arrays)
    if ids is None and ids_key is not None:
        ids = arrays[ids_key][:]
    elif ids is None and {"ids_utf8", "ids_offsets"} <= arrays.keys():
        ids = _unpacked_ids(arrays["ids_utf8"][:], arrays["ids_offsets"][:], place)
    if key is None:
        rest = {other: arrays[other] for other in arrays if other not in (*names.ids, "n")}
        if not rest or any(len(array.shape) != 2 or array.dtype.kind != "f" for array in rest.values()):
            raise missing_tokens(part, arrays, place)
        return _per_document(rest, ids, name, place)
    tokens = arrays[key]
    shape = tuple(tokens.shape)
    if tokens.dtype == object:
        return _rows([(None, array) for array in tokens], "entry {}", ids, name, place)
    if tokens.dtype.kind != "f":
        raise ReadTypeError(
            f"{place}: {key} has dtype {tokens.dtype}, but token vectors must be floating point. Convert them first."
        )
    if len(shape) not in (2, 3) or 0 in shape[1:]:
        raise ValueError(f"{key} must have 2 axes, or 3 if padded, got {shape}")
    lengths_key, offsets_key = find(names.lengths, arrays), find(names.offsets, arrays)
    if len(shape) == 3:
        mask_key = find(names.mask, arrays)
        mask = None if mask_key is None else arrays[mask_key]
        if mask is None and lengths_key is not None:
            lengths = as_integers(arrays[lengths_key][:], f"{place}: {lengths_key}")
            if lengths.shape != shape[:1] or (lengths < 0).any() or (lengths > shape[1]).any():
                raise ValueError(
                    f"{lengths_key} must hold one length of 0 to {shape[1]} for each of {shape[0]} documents"
                )
            mask = np.arange(shape[1]) < lengths[:, None]
        if mask is not None and tuple(mask.shape) != shape[:2]:
            raise ValueError(f"{mask_key} has shape {tuple(mask.shape)}, but {key} needs {shape[:2]}")
        return PaddedSource(tokens, _checked_ids(ids, shape[0], place), name=name, mask=mask)
    bounds_key = offsets_key if lengths_key is None else lengths_key
    if bounds_key is None:
        raise ReadError(
            f"{place} has {shape[0]} token vectors in {key}, but no lengths or offsets of documents: looked for "
            f"{', '.join(names.lengths + names.offsets)}."
        )
    numbers = as_integers(arrays[bounds_key][:], f"{place}: {bounds_key}")
    # Some exports store offsets under a name of lengths.
    are_offsets = bounds_key in names.offsets or _must_be_offsets(numbers, shape[0])
    convert = as_offsets if are_offsets else offsets_from_lengths
    offsets = convert(numbers, shape[0], f"{place}: {bounds_key}")
    return FlatSource(tokens, offsets, _checked_ids(ids, len(offsets) - 1, place), name=name)


def _must_be_offsets(numbers: NDArray[np.int64], rows: int) -> bool:
    """Return True if `numbers` run from 0 to `rows` and add up to more, so they cannot be lengths."""
    ends = len(numbers) > 0 and numbers[0] == 0 and numbers[-1] == rows
    return bool(ends and (numbers[1:] >= numbers[:-1]).all() and numbers[:-1].any())


def _checked_ids(values: Any, count: int, place: str) -> Ids | None:
    """Return ids as int64 or str; bytes are UTF-8."""
    if values is None:
        return None
    listed = values if isinstance(values, list) else np.asarray(values).tolist()
    if isinstance(listed, list):
        listed = [value.decode("utf-8") if isinstance(value, bytes) else value for value in listed]
    return as_ids(listed, count, f"{place}: ids")


def _unpacked_ids(content: Any, offsets: Any, place: str) -> list[bytes]:
    """Return ids that our writers pack into one array of bytes."""
    text = bytes(np.asarray(content, np.uint8))
    bounds = as_offsets(offsets, len(text), f"{place}: ids_offsets").tolist()
    return [text[start:stop] for start, stop in pairwise(bounds)]


def _per_document(arrays: Mapping[str, Rows], ids: Any, name: str, place: str) -> RowSource:
    """Return a source over one array per document.

    Arrays ``emb_0, emb_1, ...`` are sorted by number.  Other arrays keep their order, and their names are ids.
    """
    keys = list(arrays)
    numbered = all(re.fullmatch(r"emb_\d+", key) for key in keys)
    if numbered:
        keys = sorted(keys, key=lambda key: int(key[4:]))
        if keys != [f"emb_{i}" for i in range(len(keys))]:
            raise ReadError(f"{place} has {len(keys)} documents up to {keys[-1]}: some are missing.")
    return _rows([(None if numbered else key, arrays[key]) for key in keys], "array {}", ids, name, place)


def _rows(entries: list[tuple[str | None, Rows]], where: str, ids: Any, name: str, place: str) -> RowSource:
    """Return a source over one array per document; `ids` replace the ids in the entries."""
    names = _checked_ids(ids, len(entries), place)
    given = [key for key, _ in entries] if names is None else names.tolist()

    def documents() -> Iterator[Document]:
        for i, (_, array) in enumerate(entries):
            tokens = array[:] if hasattr(array, "shape") else array
            if not isinstance(tokens, np.ndarray) or (tokens.dtype.kind != "f" and tokens.size):
                kind = getattr(tokens, "dtype", type(tokens).__name__)
                raise ReadTypeError(f"{place}: document {i} is {kind}, not an array of floats.")
            yield Document(given[i], tokens, where.format(i))

    return RowSource(documents, name=name, place=place, num_documents=len(entries))
