"""Transforms of token vectors between a source and its target; results do not depend on the batch size."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import running_total
from ..utils.checks import require_choice, require_int, require_number
from .pooling import RULES, pool_tokens, unit, with_tokens

_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Options:
    """Transforms to apply, in the order of the parameters; none by default.

    Parameters
    ----------
    truncate_dimension : int, optional
        Keep the first columns, scaled to unit length again.  Only for models trained for it
        (Matryoshka).
    drop_zero_rows : bool
        Drop tokens that are entirely zero (padding, which would score 0).
    normalize : bool
        Scale every token to unit length.
    pooling : str, optional
        A rule of :data:`~muvera.convert.RULES`.
    pool_factor : float
        Pooling keeps about ``1 / pool_factor`` of a document's tokens.
    dtype : {"float32", "float16"}, optional
        float16 needs half the memory and keeps 3 digits.

    Raises
    ------
    TypeError, ValueError
        For settings that are unknown or contradict each other.
    """

    truncate_dimension: int | None = None
    drop_zero_rows: bool = False
    normalize: bool = False
    pooling: str | None = None
    pool_factor: float = 2.0
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.truncate_dimension is not None:
            require_int("truncate_dimension", self.truncate_dimension, 1)
        if self.dtype is not None:
            name = np.dtype(self.dtype).name
            require_choice("dtype", name, ("float32", "float16"))
            object.__setattr__(self, "dtype", name)
        if self.pooling is not None:
            require_choice("pooling", self.pooling, RULES)
            require_number("pool_factor", self.pool_factor, 1, hint="2 halves the tokens.")

    def apply(self, batch: MultiVectors, first_document: int = 0) -> tuple[MultiVectors, int]:
        """Return the transformed batch, and the number of dropped zero rows.

        `first_document` is the number of documents before this batch, for messages.

        Raises
        ------
        ValueError
            For documents that a transform refuses.
        """
        count = batch.num_tokens
        if self.truncate_dimension is not None:
            batch = _truncated(batch, self.truncate_dimension)
        if self.drop_zero_rows:
            batch = _without_zeros(batch)
        dropped = count - batch.num_tokens
        if self.normalize or self.truncate_dimension is not None:
            batch = _normalized(batch, first_document)
        if self.pooling is not None:
            batch = pool_tokens(batch, self.pool_factor, self.pooling)
            batch = unit(batch)[0] if self.normalize else batch
        if self.dtype is not None:
            batch = _cast(batch, self.dtype, first_document)
        return batch, dropped

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


def _without_zeros(documents: MultiVectors) -> MultiVectors:
    real: NDArray[np.bool_] = np.asarray(documents.tokens.any(axis=1))
    if real.all():
        return documents
    return with_tokens(documents, documents.tokens[real], running_total(real)[documents.offsets])


def _truncated(documents: MultiVectors, dimension: int) -> MultiVectors:
    if dimension > documents.dimension:
        raise ValueError(
            f"truncate_dimension={dimension} must be at most the source's dimension={documents.dimension}."
        )
    return with_tokens(documents, np.ascontiguousarray(documents.tokens[:, :dimension]))


def _normalized(documents: MultiVectors, first: int) -> MultiVectors:
    scaled, zero = unit(documents)
    if zero >= 0:
        raise ValueError(
            f"{_token_name(documents, zero, first)} is entirely zero and cannot be normalized. "
            "Drop such rows with drop_zero_rows=True."
        )
    return scaled


def _cast(documents: MultiVectors, dtype: str, first: int) -> MultiVectors:
    if documents.tokens.dtype == dtype:
        return documents
    if dtype == "float16" and documents.num_tokens:
        large = np.abs(documents.tokens).max(axis=1) > _LARGEST_HALF
        if large.any():
            row = int(np.argmax(large))
            raise ValueError(
                f"{_token_name(documents, row, first)} has a number beyond {_LARGEST_HALF:.0f}, the largest "
                "float16. Keep float32, or normalize the vectors."
            )
    return with_tokens(documents, documents.tokens.astype(dtype))


def _token_name(documents: MultiVectors, row: int, first: int) -> str:
    text, token = documents.text_of(row)
    return f"{documents.text_name(text, first=first)} token {token}"
