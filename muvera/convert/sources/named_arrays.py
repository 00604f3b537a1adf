"""Sources over the named arrays of npy folders, npz, safetensors, HDF5 and zarr.

A container holds either one array of tokens with lengths or offsets, or one array per document.  Ids
and a mask are optional.  The same names work in every container.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ...data.offsets import as_integers, as_offsets, offsets_from_lengths
from ...data.validation import Ids, as_ids
from ..damage import ReadError
from .base import Document, FlatSource, Rows, RowSource, Source, unpadded

__all__ = ["find", "missing_tokens", "names_of", "source_of"]

# Padded documents that are read at a time.
_PADDED = 64


#: Words in the names of a collection's arrays; the first name that exists is used.
_WORDS = {
    "tokens": ("tokens", "embeddings", "vectors"),
    "lengths": ("lengths", "lens", "doclens", "counts"),
    "offsets": ("offsets", "indptr"),
    "ids": ("ids", "doc_ids"),
    "mask": ("mask", "attention_mask", "masks"),
}  # fmt: skip
_PREFIXES = {
    "docs": ("", "docs_", "doc_", "documents_", "train_"),
    "queries": ("queries_", "query_", "test_"),
}
#: Further names of the tokens.
_TOKENS = {
    "docs": ("documents", "train"),
    "queries": ("queries", "query_embedding", "query_embeddings", "test"),
}


def names_of(part: str) -> dict[str, list[str]]:
    """Return the names of the arrays of `part`, which must be "docs" or "queries", by the keys of `_WORDS`."""
    if part not in _PREFIXES:
        raise ReadError(f"part must be 'docs' or 'queries', got {part!r}.")
    names = {kind: [p + word for p in _PREFIXES[part] for word in words] for kind, words in _WORDS.items()}
    names["tokens"] += _TOKENS[part]
    return names


def find(names: Iterable[str], present: Container[str]) -> str | None:
    """Return the first of `names` that is in `present`, or None."""
    return next((name for name in names if name in present), None)


def missing_tokens(part: str, present: Iterable[str]) -> ReadError:
    """Return the error for a container without token vectors under a known name."""
    return ReadError(
        f"it has no token vectors under a known name: looked for {', '.join(names_of(part)['tokens'])} "
        f"(part={part!r}), found {', '.join(sorted(present)[:12]) or 'nothing'}. Rename the array."
    )


def source_of(arrays: Mapping[str, Rows], *, name: str, part: str = "docs", ids: Any = None) -> Source:
    """Return a source over a container's arrays; `ids` replace the ids in the container."""
    names = names_of(part)
    key, ids_key = find(names["tokens"], arrays), find(names["ids"], arrays)
    if ids is None and ids_key is not None:
        ids = arrays[ids_key][:]
    elif ids is None and {"ids_utf8", "ids_offsets"} <= arrays.keys():  # as our writers pack strings
        text = np.asarray(arrays["ids_utf8"][:], np.uint8).tobytes()
        ids = [text[start:stop] for start, stop in pairwise(as_offsets(arrays["ids_offsets"][:], len(text)))]
    if key is None:
        rest = {other: arrays[other] for other in arrays if other not in (*names["ids"], "n")}
        if not rest or any(len(array.shape) != 2 or array.dtype.kind != "f" for array in rest.values()):
            raise missing_tokens(part, arrays)
        return _per_document(rest, ids, name)
    tokens = arrays[key]
    shape = tuple(tokens.shape)
    if tokens.dtype == object:
        return _rows([(None, array) for array in tokens], ids, name)
    if tokens.dtype.kind != "f":
        raise ReadError(
            f"{key} has dtype {tokens.dtype}, but token vectors must be floating point. Convert them first."
        )
    if len(shape) not in (2, 3) or 0 in shape[1:]:
        raise ValueError(f"{key} must have 2 axes, or 3 if padded, got {shape}")
    if len(shape) == 3:
        return _padded(tokens, _mask(arrays, names, shape), ids, name)
    lengths, offsets = find(names["lengths"], arrays), find(names["offsets"], arrays)
    if lengths is not None:
        bounds = offsets_from_lengths(arrays[lengths][:], shape[0], lengths)
    elif offsets is not None:
        bounds = as_offsets(arrays[offsets][:], shape[0], offsets)
    else:
        raise ReadError(
            f"it has {shape[0]} token vectors in {key}, but no lengths or offsets of documents: looked for "
            f"{', '.join(names['lengths'] + names['offsets'])}. Add the number of tokens of each document."
        )
    return FlatSource(tokens, bounds, _checked_ids(ids, len(bounds) - 1), name=name)


def _mask(arrays: Mapping[str, Rows], names: dict[str, list[str]], shape: tuple[int, ...]) -> Rows | None:
    """Return the mask (n, longest) of padded documents, stored or made from their lengths; None without both."""
    mask, key = find(names["mask"], arrays), find(names["lengths"], arrays)
    if mask is not None:
        if tuple(arrays[mask].shape) != shape[:2]:
            raise ValueError(f"{mask} has shape {tuple(arrays[mask].shape)}, but the tokens need {shape[:2]}")
        return arrays[mask]
    if key is None:
        return None
    lengths = as_integers(arrays[key][:], key)
    if lengths.shape != shape[:1] or (lengths < 0).any() or (lengths > shape[1]).any():
        got = f"{lengths.min(initial=0)} to {lengths.max(initial=0)}, of shape {lengths.shape}"
        raise ValueError(
            f"{key} must hold one length of 0 to {shape[1]} for each of {shape[0]} documents, got {got}"
        )
    return np.arange(shape[1]) < lengths[:, None]


def _checked_ids(values: Any, count: int) -> Ids | None:
    """Return ids as int64 or str; bytes are UTF-8."""
    if values is None:
        return None
    listed = values if isinstance(values, list) else np.asarray(values).tolist()
    if isinstance(listed, list):
        listed = [value.decode("utf-8") if isinstance(value, bytes) else value for value in listed]
    return as_ids(listed, count, "ids")


def _padded(tokens: Rows, mask: Rows | None, ids: Any, name: str) -> RowSource:
    """Return a source over a padded array (n, longest, dimension)."""
    count = int(tokens.shape[0])
    named = _checked_ids(ids, count)
    given = [None] * count if named is None else named.tolist()

    def documents() -> Iterator[Document]:
        for start in range(0, count, _PADDED):
            block = slice(start, start + _PADDED)
            masked = None if mask is None else np.asarray(mask[block])
            texts = unpadded(np.asarray(tokens[block]), masked, name)
            for identity, (rows, dropped) in zip(given[block], texts, strict=True):
                yield Document(identity, rows, "the padded array", dropped)

    return RowSource(documents, name=name, num_documents=count, dimension=int(tokens.shape[2]))


def _per_document(arrays: Mapping[str, Rows], ids: Any, name: str) -> RowSource:
    """Return a source over one array per document.

    Arrays ``emb_0, emb_1, ...`` are sorted by number.  Other arrays keep their order, and their names are ids.
    """
    keys = list(arrays)
    if not all(re.fullmatch(r"emb_\d+", key) for key in keys):
        return _rows(list(arrays.items()), ids, name)
    keys.sort(key=lambda key: int(key[4:]))
    if keys != [f"emb_{i}" for i in range(len(keys))]:
        raise ReadError(
            f"it has {len(keys)} documents up to {keys[-1]}: some are missing. Number them from emb_0."
        )
    return _rows([(None, arrays[key]) for key in keys], ids, name)


def _rows(entries: list[tuple[str | None, Rows]], ids: Any, name: str) -> RowSource:
    """Return a source over one array per document; `ids` replace the ids in the entries."""
    names = _checked_ids(ids, len(entries))
    given = [key for key, _ in entries] if names is None else names.tolist()

    def documents() -> Iterator[Document]:
        for i, (_, array) in enumerate(entries):
            tokens = array[:] if hasattr(array, "shape") else array
            if not isinstance(tokens, np.ndarray) or (tokens.dtype.kind != "f" and tokens.size):
                kind = getattr(tokens, "dtype", type(tokens).__name__)
                raise ReadError(
                    f"document {i} must be an array of floats, got {kind}. Convert it to float32."
                )
            yield Document(given[i], tokens, f"array {i}")

    return RowSource(documents, name=name, num_documents=len(entries))
