"""Reader of outputs of encoders in memory.

They are recognized by their form; no encoder is imported.  It accepts arrays and
tensors, 2-D (one text) or 3-D (padded); lists and generators of those; dicts with token
embeddings and a mask, alone or one per text; answers of embedding APIs; and dicts of id
to array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...data.multivectors import MultiVectors
from ...data.validation import IdsLike, TokenArray, as_array, as_tokens
from ..sources import Document, FlatSource, RowSource, Source, unpadded

#: Usual fields with token vectors.
TOKEN_FIELDS = ("token_embeddings", "colbert_vecs", "embeddings", "embedding", "last_hidden_state")
#: PyLate's ``masks`` also excludes punctuation, so it comes before the attention mask.
_MASKS = ("masks", "mask", "attention_mask")


def open_object(value: Any, *, mask: Any = None, ids: IdsLike | None = None) -> Source:
    """Return embeddings in memory, in one of the forms above, as a source.

    A generator is read once, in bounded memory.  `mask` (n, longest) is True for the
    real tokens of a padded array; by default, rows of zeros are padding.  `ids` replace
    the ids of `value`, or the positions.  Raise TypeError or ValueError if `value` has
    none of the forms.
    """
    if isinstance(value, MultiVectors):
        return FlatSource.of(value if ids is None else value.with_ids(ids), "memory")
    if hasattr(value, "keys"):
        value, mask, ids = _unwrapped(value, mask, ids)
    if hasattr(value, "ndim"):
        value, mask = [value], None if mask is None else [mask]
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(
            "A path, a Source, an array, or a list or generator of arrays is needed, got "
            f"{type(value).__name__}."
        )
    if mask is not None:
        value = [{"embeddings": tokens, "mask": real} for tokens, real in zip(value, mask, strict=True)]
    was_read = False

    def documents() -> Iterator[Document]:
        nonlocal was_read
        if was_read and isinstance(value, Iterator):
            raise ValueError("These embeddings were already read. Open the object again.")
        was_read = True
        for number, item in enumerate(value):
            name = f"item {number}"
            for tokens, dropped in _texts(item, name):
                yield Document(tokens, name, dropped=dropped)

    return RowSource(documents, name="memory", ids=ids)


def _unwrapped(value: Mapping[Any, Any], mask: Any, ids: IdsLike | None) -> tuple[Any, Any, IdsLike | None]:
    """Return the embeddings in a dict, their mask and their ids."""
    keys = list(value.keys())
    tokens, own_mask = _tokens_and_mask(value)
    if tokens is not None:
        return tokens, own_mask if mask is None else mask, ids
    if "dense_vecs" in keys:
        raise ValueError("The dict has no colbert_vecs: encode with return_colbert_vecs=True.")
    if isinstance(value.get("data"), (list, tuple)):  # an API's answer, in any order
        return sorted(value["data"], key=lambda entry: entry.get("index", 0)), mask, ids
    arrays = [value[key] for key in keys]
    if keys and ids is None and mask is None and all(map(_looks_like_tokens, arrays)):
        return arrays, None, keys
    raise ValueError(
        f"A dict with the keys {', '.join(map(repr, keys[:8])) or 'of nothing'} is not supported: expected "
        f"one of {', '.join(TOKEN_FIELDS)}, or ids as keys and arrays (tokens, dimension) as values."
    )


def _tokens_and_mask(value: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Return the first usual field with token vectors, and with a mask, or None."""
    keys = list(value.keys())
    tokens, mask = (
        next((value[key] for key in usual if key in keys and value[key] is not None), None)
        for usual in (TOKEN_FIELDS, _MASKS)
    )
    return tokens, mask


def _looks_like_tokens(value: object) -> bool:
    rows = isinstance(value, list) and (not value or isinstance(value[0], (list, tuple)))
    return rows or getattr(value, "ndim", None) == 2


def _texts(item: Any, name: str) -> Iterator[tuple[TokenArray, int]]:
    """Yield the token arrays of one item.

    With each comes the number of padding rows dropped from it.
    """
    mask = None
    if hasattr(item, "keys"):
        item, mask = _tokens_and_mask(item)
        if item is None:
            raise ValueError(f"{name} is a dict without {' or '.join(TOKEN_FIELDS[:4])}.")
    array = as_tokens(item, name)
    if array.ndim == 2 and mask is not None:
        array, mask = array[None], as_array(mask)[None]
    if array.size == 0 and array.ndim <= 2:
        yield array.reshape(0, array.shape[-1] if array.ndim == 2 else 0), 0
    elif array.ndim == 2:
        yield array, 0
    elif array.ndim == 3:
        mask = None if mask is None else as_array(mask)
        if mask is not None and mask.shape != array.shape[:2]:
            raise ValueError(
                f"{name}: its mask has shape {mask.shape}, but its tokens need {array.shape[:2]}."
            )
        yield from unpadded(array, mask)
    else:
        raise ValueError(
            f"{name} has shape {array.shape}, but must have shape (tokens, dimension), or padded (texts, "
            "tokens, dimension). For one vector per text, ask the encoder for token embeddings "
            "(output_value='token_embeddings', return_colbert_vecs=True, or a late-interaction model), "
            "and put a single text's array in a list."
        )
