"""Default preset: which vectors an index makes where nothing is said about them.

Measured on collections of several models (``python -m experiments run end_to_end``): the mean token and the
covariance of a document's tokens, reduced to 256 floats by a map that is learned from the documents, need
fewer candidates than FDEs of twenty times the floats, and are searched faster.  Learning takes some seconds;
few documents are not enough for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.multivectors import MultiVectors
from ..encoders.registry import possible_presets
from .two_stage_search import MIN_FIT_DOCUMENTS

__all__ = ["FEW", "MANY", "default_preset", "number_of_documents"]

#: Presets for few documents, or an unknown number of them, and for many.
FEW, MANY = "default", "compact_covariance"


def default_preset(documents: int | None, dimension: int) -> str:
    """Return the preset for a number of documents.

    Parameters
    ----------
    documents : int or None
        None where it is unknown, as of a stream, whose first documents alone would be learned from.
    dimension : int
        Columns of a token vector.

    Examples
    --------
    >>> default_preset(100, 128), default_preset(1000, 128), default_preset(None, 128)
    ('default', 'compact_covariance', 'default')
    """
    if documents is None or documents < MIN_FIT_DOCUMENTS:
        return FEW
    return MANY if MANY in possible_presets(dimension) else FEW


def number_of_documents(documents: Any) -> int | None:
    """Return how many documents are given; None of a stream."""
    if isinstance(documents, (MultiVectors, Sequence)):
        return len(documents)
    count = getattr(documents, "num_documents", None)  # an opened source's, which may not know either
    return count if isinstance(count, int) else None
