"""Source over named arrays, as npy folders, npz, safetensors, HDF5 and zarr hold them.

The same few names are used everywhere: tokens beside lengths or offsets, perhaps ids and a
mask; or one array a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.offsets import as_integers, as_offsets, offsets_from_lengths
from ...data.validation import Ids, as_ids
from .arrays import FlatSource, PaddedSource, Rows
from .base import Source
from .documents import Document, RowSource

__all__ = ["PARTS", "Names", "find", "ids_of", "offsets_of", "per_document", "source_of"]


class Names(NamedTuple):
    """Names under which a collection's arrays are found; the first that exists is taken."""

    tokens: tuple[str, ...]
    lengths: tuple[str, ...]
    offsets: tuple[str, ...]
    ids: tuple[str, ...]
    mask: tuple[str, ...]


def _names(prefixes: tuple[str, ...], tokens: tuple[str, ...], plain: bool) -> Names:
    """Return ``docs_tokens`` and the like for each prefix, and ``tokens`` itself if `plain`."""

    def every(*words: str) -> tuple[str, ...]:
        return (words if plain else ()) + tuple(f"{p}_{w}" for p in prefixes for w in words)

    return Names(
        tokens=every("tokens", "embeddings", "vectors") + tokens,
        lengths=every("lengths", "lens", "doclens", "counts"),
        offsets=every("offsets", "indptr"),
        ids=every("ids", "doc_ids"),
        mask=every("mask", "attention_mask", "masks"),
    )


#: For ``part="docs"`` and ``part="queries"``: ours, kANNolo's and TACHIOM's (documents, vectors,
#: doclens, doc_ids; queries, queries_ids) and LEMUR's (train, train_counts; test, test_counts).
PARTS = {
    "docs": _names(("docs", "doc", "documents", "train"), ("documents", "train"), plain=True),
    "queries": _names(
        ("queries", "query", "test"), ("queries", "query_embedding", "query_embeddings", "test"), plain=False
    ),
}


def names_of(part: str) -> Names:
    """Return the names of `part`, which must be "docs" or "queries".

    Raises
    ------
    ValueError
        For another part.
    """
    if part not in PARTS:
        raise ValueError(f"part must be 'docs' or 'queries', got {part!r}.")
    return PARTS[part]


def find(names: tuple[str, ...], present: Iterable[str]) -> str | None:
    """Return the first of `names` that is `present`."""
    there = set(present)
    return next((name for name in names if name in there), None)


def require_floating(dtype: np.dtype[Any], place: str) -> None:
    """Raise TypeError unless `dtype` is floating point."""
    if dtype.kind != "f":
        raise TypeError(
            f"{place} has dtype {dtype}, but token vectors must be floating point. "
            "Quantized vectors need their scale: convert them to float32 first."
        )


def offsets_of(values: Any, rows: int, place: str, *, lengths: bool | None = None) -> NDArray[np.int64]:
    """Return offsets, from `values` that are lengths or offsets.

    Parameters
    ----------
    values : integers (n,) or (n + 1,)
        Whole numbers; some tools store them as float64.
    rows : int
        Token vectors there are.
    place : str
        Where `values` stand, for messages.
    lengths : bool, optional
        Whether they are lengths.  Default: offsets only where they cannot be lengths.

    Raises
    ------
    TypeError, ValueError
        As :mod:`muvera.data.offsets` says, with `place` in the message.
    """
    numbers = as_integers(values, place)
    if lengths is None:
        lengths = not _can_be_offsets(numbers, rows)
    return offsets_from_lengths(numbers, rows, place) if lengths else as_offsets(numbers, rows, place)


def _can_be_offsets(numbers: NDArray[np.int64], rows: int) -> bool:
    """Return whether these cannot be lengths: they run from 0 to `rows`, and add up to more."""
    ends = len(numbers) > 0 and numbers[0] == 0 and numbers[-1] == rows
    return bool(ends and (numbers[1:] >= numbers[:-1]).all() and numbers[:-1].any())


def ids_of(values: Any, count: int, place: str) -> Ids:
    """Return ids as int64 or str, taking bytes as UTF-8; messages name `place`.

    Raises
    ------
    TypeError, ValueError
        As :func:`~muvera.data.validation.as_ids`, and for bytes that are no UTF-8.
    """
    listed = np.asarray(values).tolist() if not isinstance(values, list) else values
    if isinstance(listed, list) and any(isinstance(value, bytes) for value in listed):
        try:
            listed = [v.decode("utf-8") if isinstance(v, bytes) else v for v in listed]
        except UnicodeDecodeError as error:
            raise ValueError(f"{place} holds an id that is not UTF-8: {error}.") from None
    return as_ids(listed, count, place)


def source_of(
    arrays: Mapping[str, Rows], *, name: str, place: str, part: str = "docs", ids: Any = None
) -> Source:
    """Return the source that `arrays` hold under their usual names.

    Parameters
    ----------
    arrays : mapping of str to rows
        Everything in the container.
    name, place : str
        The format's name; the file, for messages.
    part : {"docs", "queries"}
        Which collection, where the container has both.
    ids : sequence, optional
        Ids found elsewhere.  Default: the array of that name, if any.

    Raises
    ------
    ValueError
        Where no tokens are found, or they do not fit their lengths.
    """
    names = names_of(part)
    key = find(names.tokens, arrays)
    if key is None:
        listed = ", ".join(sorted(arrays)) or "nothing"
        raise ValueError(
            f"{place} has no token vectors under a known name: looked for {', '.join(names.tokens)} "
            f"(part={part!r}), found {listed}."
        )
    tokens = arrays[key]
    require_floating(tokens.dtype, f"{place}: {key}")
    ids_key = find(names.ids, arrays)
    lengths_key, offsets_key = find(names.lengths, arrays), find(names.offsets, arrays)

    def ids_for(count: int) -> Ids | None:
        if ids is not None:
            return ids_of(ids, count, f"{place}: ids")
        if ids_key is None and {"ids_utf8", "ids_offsets"} <= arrays.keys():
            packed = _unpacked_ids(arrays["ids_utf8"][:], arrays["ids_offsets"][:], place)
            return ids_of(packed, count, f"{place}: ids_utf8")
        return None if ids_key is None else ids_of(arrays[ids_key][:], count, f"{place}: {ids_key}")

    if len(tokens.shape) in (2, 3) and 0 in tokens.shape[1:]:
        raise ValueError(
            f"{place}: {key} must have shape (tokens, dimension), or padded (documents, longest, dimension), "
            f"of which only the first may be 0; got {tuple(tokens.shape)}."
        )
    if len(tokens.shape) == 3:
        mask_key = find(names.mask, arrays)
        count = tokens.shape[0]
        mask = None if mask_key is None else arrays[mask_key]
        if mask is not None and tuple(mask.shape) != tuple(tokens.shape[:2]):
            raise ValueError(
                f"{place}: {mask_key} has shape {tuple(mask.shape)}, but {key} needs "
                f"{tuple(tokens.shape[:2])}."
            )
        lengths = None
        if mask is None and lengths_key is not None:
            lengths = _padded_lengths(arrays[lengths_key][:], tokens.shape, f"{place}: {lengths_key}")
        return PaddedSource(tokens, ids_for(count), name=name, place=place, mask=mask, lengths=lengths)
    if len(tokens.shape) != 2:
        raise ValueError(f"{place}: {key} must have shape (tokens, dimension), got {tuple(tokens.shape)}.")
    bounds_key = offsets_key if lengths_key is None else lengths_key
    if bounds_key is None:
        raise ValueError(
            f"{place} has {tokens.shape[0]} token vectors in {key}, but nothing says where a document ends: "
            f"looked for {', '.join(names.lengths + names.offsets)}."
        )
    # What is called offsets is offsets; what is called lengths is offsets in some exports.
    bounds = arrays[bounds_key][:]
    known = False if bounds_key in names.offsets else None
    offsets = offsets_of(bounds, int(tokens.shape[0]), f"{place}: {bounds_key}", lengths=known)
    return FlatSource(tokens, offsets, ids_for(len(offsets) - 1), name=name, place=place)


def _unpacked_ids(content: Any, offsets: Any, place: str) -> list[bytes]:
    """Return ids that stand in one array of bytes, as :func:`~..writers.base.packed_strings` writes them."""
    text = bytes(np.asarray(content, np.uint8))
    bounds = as_offsets(offsets, len(text), f"{place}: ids_offsets").tolist()
    return [text[start:stop] for start, stop in pairwise(bounds)]


def _padded_lengths(values: Any, shape: tuple[int, ...], place: str) -> NDArray[np.int64]:
    lengths = as_integers(values, place)
    if lengths.shape != shape[:1] or (lengths < 0).any() or (lengths > shape[1]).any():
        raise ValueError(f"{place} must hold one length of 0 to {shape[1]} for each of {shape[0]} documents.")
    return lengths


def per_document(arrays: Mapping[str, Rows], *, name: str, place: str, ids: Any = None) -> RowSource | None:
    """Return a source where every array is one document (tokens, dimension); None where not.

    Arrays called ``emb_0, emb_1, ...`` come in the order of their numbers, with `ids` or
    none; others in the container's order, under their names as ids.

    Raises
    ------
    TypeError, ValueError
        For numbers with gaps, ids that do not fit, and where no document has a token.
    """
    keys = list(arrays)
    numbers = [re.fullmatch(r"emb_(\d+)", key) for key in keys]
    numbered = bool(keys) and all(numbers)
    if not keys or any(len(arrays[key].shape) != 2 or arrays[key].dtype.kind != "f" for key in keys):
        return None
    if numbered:
        keys.sort(key=lambda key: int(key[4:]))
        missing = next((i for i, key in enumerate(keys) if int(key[4:]) != i), None)
        if missing is not None:
            raise ValueError(f"{place} has no emb_{missing}, but {keys[-1]}. Is it complete?")
    names: list[Any] = keys if not numbered else [None] * len(keys)
    if ids is not None:
        names = ids_of(ids, len(keys), f"{place}: ids").tolist()

    def documents() -> Iterator[Document]:
        for key, value in zip(keys, names, strict=True):
            yield Document(value, np.asarray(arrays[key][:]), key)

    return RowSource(documents, name=name, place=place, num_documents=len(keys))
