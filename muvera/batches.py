"""Documents that come a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from .vectors import MultiVectors, as_multivectors

__all__ = ["as_batches"]


def as_batches(documents: Any) -> Iterator[MultiVectors]:
    """Return `documents` as collections: an iterable of them streams, all else is one."""
    if isinstance(documents, MultiVectors) or hasattr(documents, "ndim"):
        return iter([as_multivectors(documents)])
    values = iter(documents)
    first = next(values, None)
    if first is None:
        return iter([])
    if isinstance(first, MultiVectors):
        return chain([first], values)
    return iter([MultiVectors.from_arrays(chain([first], values))])
