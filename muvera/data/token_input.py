"""Token vectors that come in: what users hand in becomes checked MultiVectors, or an error."""

from __future__ import annotations

from typing import Any

from ..utils.checks import given
from .multivectors import MultiVectors
from .validation import as_array, as_tokens

__all__ = ["as_multivectors", "checked_texts"]


def checked_texts(
    value: Any,
    name: str,
    dimension: int | None = None,
    owner: str = "",
    *,
    empty_dimension: int | None = None,
) -> MultiVectors:
    """Return `value` as MultiVectors of finite numbers.

    Parameters
    ----------
    value : MultiVectors, array_like (tokens, dimension), or sequence of those
    name : str
        What errors call it.
    dimension : int, optional
        Columns that it must have.
    owner : str
        Whose dimension that is, such as "this index".
    empty_dimension : int, optional
        Columns of an empty sequence, where `dimension` does not say.

    Raises
    ------
    TypeError
        For anything else, such as a text that is still to be encoded.
    ValueError
        For another dimension, or a number that is not finite.
    """
    columns = empty_dimension if dimension is None else dimension
    if columns is not None and isinstance(value, (list, tuple)) and not value:
        return MultiVectors.from_arrays([], dimension=columns)
    texts = as_multivectors(value, name)
    if dimension is not None:
        texts.require_dimension(dimension, name, owner)
    texts.require_finite(name)
    return texts


def as_multivectors(value: Any, name: str = "documents") -> MultiVectors:
    """Return `value` as MultiVectors.

    Parameters
    ----------
    value : MultiVectors, array_like (tokens, dimension), or sequence of those
        One 2-D array is one text.  A 3-D array is a batch without padding: use
        :meth:`MultiVectors.from_padded` where there is some.
    name : str
        What errors call the texts.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    if isinstance(value, MultiVectors):
        return value
    if hasattr(value, "ndim"):
        array = as_array(value, name)
        if array.ndim == 2:
            return MultiVectors.from_arrays([array], name=name)
        if array.ndim != 3:
            raise ValueError(
                f"{name} has shape {array.shape}; expected (tokens, dimension) for one text, (n, tokens, "
                "dimension) for several, a list of arrays or MultiVectors."
            )
        return MultiVectors.from_arrays(list(array), name=name)
    if isinstance(value, (str, bytes)):
        as_tokens(value, name)  # raises
    if not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be MultiVectors or arrays of token vectors, got {given(value)}.")
    return MultiVectors.from_arrays(value, name=name)
