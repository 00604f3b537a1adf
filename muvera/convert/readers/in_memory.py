"""Reader of what encoders return in memory, by its shape alone: no encoder is imported.

Taken are arrays and tensors on any device, 2-D (one text) or 3-D (padded, with a mask or with
rows of zeros on either side); lists and generators of those, as PyLate, sentence-transformers,
fastembed and colpali-engine give them; dicts with ``token_embeddings`` and a mask, alone or
one a text; BGE-M3's dict with ``colbert_vecs``; answers of embedding APIs; and dicts of id to
array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.batches import collection_batches
from ...data.multivectors import MultiVectors
from ...data.validation import TokenArray, as_array, as_ids, as_tokens
from ..sources.arrays import PaddedSource, require_finite
from ..sources.base import CollectionSource, Source
from ..sources.documents import Document, RowSource

__all__ = ["open_object"]

_PLACE = "the object"
_TOKENS = ("token_embeddings", "colbert_vecs", "embeddings", "embedding", "last_hidden_state")
#: PyLate's ``masks`` also leaves punctuation out, so it goes before the attention mask.
_MASKS = ("masks", "mask", "attention_mask")


def open_object(value: Any, *, mask: Any = None, ids: Any = None) -> Source:
    """Return embeddings in memory as a source.

    Parameters
    ----------
    value : object
        See this module's docstring.  A generator is read once, in bounded memory.
    mask : (n, longest), optional
        True for the real tokens of a padded 3-D array.  Without it the rows that are entirely
        zero are taken for padding, and counted in the report.
    ids : sequence of int or str, optional
        External ids.

    Raises
    ------
    TypeError, ValueError
        For texts, single vectors and quantized integers, saying which encoder option to use.
    """
    if isinstance(value, MultiVectors):
        return _Collection(value if ids is None else value.with_ids(ids))
    if isinstance(value, Mapping) or hasattr(value, "keys"):
        return _mapping(value, mask, ids)
    if hasattr(value, "ndim"):
        array = as_array(value)
        if array.ndim == 3:
            real = None if mask is None else as_array(mask)
            given = None if ids is None else as_ids(ids, len(array))
            padded = as_tokens(array, "array")
            if real is not None and real.shape != padded.shape[:2]:
                raise ValueError(f"mask has shape {real.shape}, but the array needs {padded.shape[:2]}.")
            return PaddedSource(padded, given, name="memory", place=_PLACE, mask=real)
        _require_no_mask(mask)
        return _listed([array], ids)
    _require_no_mask(mask)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(
            f"A path, an array, or a list or generator of arrays is needed, got {type(value).__name__}."
        )
    return _listed(value, ids)


class _Collection(CollectionSource):
    """A collection whose numbers are checked as it is read."""

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        first = 0
        for batch in collection_batches(self.collection, max_tokens):
            yield require_finite(batch, _PLACE, first)
            first += len(batch)


class _Objects(RowSource):
    """Texts from a list or a generator."""

    def __init__(self, items: Iterable[Any], ids: Sequence[Any] | None, count: int | None) -> None:
        self.dropped_rows = 0
        super().__init__(_again(self._documents(items, ids)), name="memory", place=_PLACE)
        self.num_documents = count

    def _documents(self, items: Iterable[Any], ids: Sequence[Any] | None) -> Iterator[Document]:
        position = 0
        for number, item in enumerate(items):
            for tokens, dropped in _texts(item, number):
                self.dropped_rows += dropped
                if ids is not None and position >= len(ids):
                    raise ValueError(
                        f"ids has {len(ids)} entries, but there are more texts; give one a text."
                    )
                yield Document(None if ids is None else ids[position], tokens, f"item {number}")
                position += 1
        if ids is not None and position != len(ids):
            raise ValueError(f"ids has {len(ids)} entries for {position} texts; there must be one for each.")


def _listed(items: Iterable[Any], ids: Any) -> Source:
    if isinstance(items, Sequence) and len(items) == 0:
        raise ValueError("There is no text in an empty list, so that the dimension is unknown.")
    if isinstance(items, Sequence) and _is_number(items[0]):
        raise ValueError(_SINGLE.format("a list of numbers"))
    given = None if ids is None else as_ids(ids, len(ids)).tolist()
    return _Objects(items, given, None)


def _mapping(value: Any, mask: Any, ids: Any) -> Source:
    keys = list(value.keys())
    tokens = next((key for key in _TOKENS if key in keys and value[key] is not None), None)
    if tokens is not None:
        if mask is None:
            mask = next((value[key] for key in _MASKS if key in keys and value[key] is not None), None)
        content = value[tokens]
        if not hasattr(content, "ndim") and mask is not None:
            # A list a text: one mask each.
            pairs = zip(content, mask, strict=True)
            return _listed([{"token_embeddings": t, "mask": m} for t, m in pairs], ids)
        if hasattr(content, "ndim") and content.ndim == 2 and mask is not None:
            return _listed([{"token_embeddings": content, "mask": mask}], ids)
        return open_object(content, mask=mask, ids=ids)
    if "dense_vecs" in keys:
        raise ValueError("The dict has no colbert_vecs: encode with return_colbert_vecs=True.")
    _require_no_mask(mask)
    if isinstance(value.get("data"), (list, tuple)):
        entries = sorted(value["data"], key=lambda entry: entry.get("index", 0))
        return _listed(entries, ids)
    arrays = [value[key] for key in keys]
    if keys and ids is None and all(_looks_like_tokens(array) for array in arrays):
        return _listed(arrays, keys)
    raise ValueError(
        f"A dict with the keys {', '.join(map(repr, keys[:8])) or 'of nothing'} is not known: expected "
        f"one of {', '.join(_TOKENS)}, or ids as keys and arrays (tokens, dimension) as values."
    )


_SINGLE = (
    "{} is one vector a text, not one a token. Ask the encoder for token embeddings "
    "(output_value='token_embeddings', return_colbert_vecs=True, or a late-interaction model), and wrap one "
    "text's array in a list."
)


def _texts(item: Any, number: int) -> Iterator[tuple[TokenArray, int]]:
    """Yield the token arrays of one item, and how many padding rows each lost."""
    mask = None
    if isinstance(item, Mapping) or (hasattr(item, "keys") and not hasattr(item, "ndim")):
        keys = list(item.keys())
        key = next((key for key in _TOKENS if key in keys), None)
        if key is None:
            raise ValueError(f"item {number} is a dict without {' or '.join(_TOKENS[:4])}.")
        mask = next((item[name] for name in _MASKS if name in keys and item[name] is not None), None)
        item = item[key]
    if isinstance(item, (str, bytes)):
        raise TypeError(f"item {number} is a text, not its embeddings. Encode the texts first.")
    array = as_tokens(item, f"item {number}")
    if array.size == 0 and array.ndim <= 2:
        yield array.reshape(0, array.shape[-1] if array.ndim == 2 else 0), 0
        return
    if array.ndim == 1:
        raise ValueError(_SINGLE.format(f"item {number}, of shape {array.shape},"))
    real: NDArray[np.bool_] | None = None
    if mask is not None:
        real = as_array(mask).astype(bool)
        if real.shape != array.shape[:-1]:
            raise ValueError(
                f"item {number}: its mask has shape {real.shape}, but its tokens need {array.shape[:-1]}."
            )
    if array.ndim == 2:
        kept = array if real is None else array[real]
        yield kept, len(array) - len(kept)
        return
    if array.ndim != 3:
        raise ValueError(
            f"item {number} has shape {array.shape}; expected (tokens, dimension), or padded (texts, tokens, "
            "dimension)."
        )
    for i, padded in enumerate(array):
        kept = padded[padded.any(axis=1) if real is None else real[i]]
        yield kept, len(padded) - len(kept)


def _again(documents: Iterator[Document]) -> Callable[[], Iterator[Document]]:
    """Return a callable that starts `documents` anew, though it can be read once only.

    What is read the first time (a look at the dimension) is kept for the second, which
    reads the rest without keeping it.
    """
    seen: list[Document] = []
    calls = 0

    def start() -> Iterator[Document]:
        nonlocal calls
        calls += 1
        if calls == 1:
            for document in documents:
                seen.append(document)
                yield document
        elif calls == 2:
            while seen:
                yield seen.pop(0)
            yield from documents
        else:
            raise ValueError("These embeddings were read already. Open the object again.")

    return start


def _require_no_mask(mask: Any) -> None:
    if mask is not None:
        raise ValueError("mask= belongs to one padded array (n, longest, dimension).")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _looks_like_tokens(value: Any) -> bool:
    return getattr(value, "ndim", None) == 2 or (
        isinstance(value, list) and (not value or isinstance(value[0], (list, tuple)))
    )
