"""Reader of outputs of encoders in memory, recognized by their form; no encoder is imported.

It accepts arrays and tensors on any device, 2-D (one text) or 3-D (padded, with a mask or with rows of
zeros on either side); lists and generators of those, as PyLate, sentence-transformers, fastembed and
colpali-engine return them; dicts with ``token_embeddings`` and a mask, alone or one per text; BGE-M3's
dict with ``colbert_vecs``; answers of embedding APIs; and dicts of id to array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ...data.multivectors import MultiVectors
from ...data.validation import TokenArray, as_array, as_ids, as_tokens
from ..sources.base import Document, FlatSource, RowSource, Source

__all__ = ["open_object"]

_TOKENS = ("token_embeddings", "colbert_vecs", "embeddings", "embedding", "last_hidden_state")
#: PyLate's ``masks`` also excludes punctuation, so it comes before the attention mask.
_MASKS = ("masks", "mask", "attention_mask")

_SINGLE = (
    "{} is one vector per text, not one per token. Ask the encoder for token embeddings "
    "(output_value='token_embeddings', return_colbert_vecs=True, or a late-interaction model), and put a "
    "single text's array in a list."
)


def open_object(value: Any, *, mask: Any = None, ids: Any = None) -> Source:
    """Return embeddings in memory as a source; a generator is read once, in bounded memory.

    `mask` (n, longest) is True for the real tokens of a padded array.  Without it, rows of zeros are
    padding, which the report counts.  `ids` has one external id per text.
    """
    if isinstance(value, MultiVectors):
        return FlatSource.of(value if ids is None else value.with_ids(ids), "memory")
    if hasattr(value, "keys"):
        value, mask, ids = _unwrapped(value, mask, ids)
    if hasattr(value, "ndim"):
        value, mask = [value], None if mask is None else [mask]
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(
            f"A path, a Source, an array, or a list or generator of arrays is needed, got {type(value).__name__}."
        )
    if mask is not None:
        value = [{"embeddings": tokens, "mask": real} for tokens, real in zip(value, mask, strict=True)]
    return _MemorySource(value, ids)


def _unwrapped(value: Any, mask: Any, ids: Any) -> tuple[Any, Any, Any]:
    """Return the embeddings in a dict, their mask and their ids."""
    keys = list(value.keys())
    tokens = next((value[key] for key in _TOKENS if key in keys and value[key] is not None), None)
    if tokens is not None:
        if mask is None:
            mask = next((value[key] for key in _MASKS if key in keys and value[key] is not None), None)
        return tokens, mask, ids
    if "dense_vecs" in keys:
        raise ValueError("The dict has no colbert_vecs: encode with return_colbert_vecs=True.")
    if isinstance(value.get("data"), (list, tuple)):  # an API's answer, in any order
        return sorted(value["data"], key=lambda entry: entry.get("index", 0)), mask, ids
    arrays = [value[key] for key in keys]
    if keys and ids is None and mask is None and all(map(_looks_like_tokens, arrays)):
        return arrays, None, keys
    raise ValueError(
        f"A dict with the keys {', '.join(map(repr, keys[:8])) or 'of nothing'} is not supported: expected "
        f"one of {', '.join(_TOKENS)}, or ids as keys and arrays (tokens, dimension) as values."
    )


def _looks_like_tokens(value: Any) -> bool:
    rows = isinstance(value, list) and (not value or isinstance(value[0], (list, tuple)))
    return rows or getattr(value, "ndim", None) == 2


class _MemorySource(RowSource):
    """Source over the texts of a list or a generator."""

    def __init__(self, items: Iterable[Any], ids: Any) -> None:
        if isinstance(items, Sequence) and len(items) == 0:
            raise ValueError("An empty list has no text, so the dimension is unknown.")
        if isinstance(items, Sequence) and isinstance(items[0], (int, float, np.number)):
            raise ValueError(_SINGLE.format("A list of numbers"))
        self._items = items
        self._names = None if ids is None else as_ids(ids, len(ids)).tolist()
        self._was_read = False
        super().__init__(self._documents, name="memory", place="the object")

    def _documents(self) -> Iterator[Document]:
        if self._was_read and isinstance(self._items, Iterator):
            raise ValueError("These embeddings were already read. Open the object again.")
        self._was_read, self.dropped_rows = True, 0
        ids, position = self._names, 0
        for number, item in enumerate(self._items):
            for tokens, dropped in _texts(item, f"item {number}"):
                self.dropped_rows += dropped
                if ids is not None and position >= len(ids):
                    raise ValueError(
                        f"ids has {len(ids)} entries, but there are more texts; give one per text."
                    )
                yield Document(None if ids is None else ids[position], tokens, f"item {number}")
                position += 1
        if ids is not None and position != len(ids):
            raise ValueError(f"ids has {len(ids)} entries for {position} texts; give one per text.")


def _texts(item: Any, name: str) -> Iterator[tuple[TokenArray, int]]:
    """Yield the token arrays of one item, and the number of padding rows dropped from each."""
    mask = None
    if hasattr(item, "keys"):
        keys = list(item.keys())
        key = next((key for key in _TOKENS if key in keys), None)
        if key is None:
            raise ValueError(f"{name} is a dict without {' or '.join(_TOKENS[:4])}.")
        mask = next((item[key] for key in _MASKS if key in keys and item[key] is not None), None)
        item = item[key]
    if isinstance(item, (str, bytes)):
        raise TypeError(f"{name} is a text, not its embeddings. Encode the texts first.")
    array = as_tokens(item, name)
    if array.size == 0 and array.ndim <= 2:
        yield array.reshape(0, array.shape[-1] if array.ndim == 2 else 0), 0
        return
    if array.ndim == 1:
        raise ValueError(_SINGLE.format(f"{name}, of shape {array.shape},"))
    if array.ndim > 3:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (tokens, dimension), or padded (texts, tokens, dimension)."
        )
    if mask is None:
        real = np.ones(array.shape[:-1], bool) if array.ndim == 2 else array.any(axis=-1)
    else:
        real = as_array(mask).astype(bool)
    if real.shape != array.shape[:-1]:
        raise ValueError(f"{name}: its mask has shape {real.shape}, but its tokens need {array.shape[:-1]}.")
    padded = array if array.ndim == 3 else array[None]
    for tokens, rows in zip(padded, real.reshape(padded.shape[:2]), strict=True):
        yield (tokens if rows.all() else tokens[rows]), int(len(rows) - rows.sum())
