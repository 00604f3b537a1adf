"""Transforms of token vectors between a source and its target, one document at a time.

Each function takes a batch and returns one; no document's result depends on its batch.
:class:`Options` puts them in order: zero rows are dropped, columns cut off, vectors
normalized, tokens pooled, numbers narrowed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...kernels.norms import unit_rows
from ...utils.checks import require_choice, require_int, require_number
from .ward_pooling import RULES, pool_tokens, pooling_rule, unit
from .word_pooling import Vocabulary, pool_words

__all__ = ["Options", "cast", "drop_zero_rows", "normalize", "option_names", "truncate_dimension"]

_WORDS = ("whole-word", "colberter")
_DROPS = ("trailing", "leading", "all", "error")
_LARGEST_HALF = 65504.0


def drop_zero_rows(documents: MultiVectors, which: str = "all", first: int = 0) -> MultiVectors:
    """Drop tokens that are entirely zero: padding, which would score 0 instead of nothing.

    Parameters
    ----------
    documents : MultiVectors
        A document of nothing but zeros stays as an empty one.
    which : {"trailing", "leading", "all", "error"}
        Those after a document's last real token, before its first, all; or raise ValueError
        where there is one.
    first : int
        How many documents came before, for messages.

    Raises
    ------
    ValueError
        For another `which`, and under "error" for the first token that is entirely zero.
    """
    return _keep(documents, real_rows(documents, which, first))


def real_rows(documents: MultiVectors, which: str, first: int = 0) -> NDArray[np.bool_]:
    """Return which tokens stay, bool (n_tokens,); parameters as in :func:`drop_zero_rows`.

    Raises
    ------
    ValueError
        As :func:`drop_zero_rows`.
    """
    require_choice("drop_zero_rows", which, _DROPS)
    real: NDArray[np.bool_] = np.asarray(documents.tokens.any(axis=1))
    if which == "all" or real.all():
        return real
    if which == "error":
        row = int(np.argmin(real))
        raise ValueError(
            f"{_token_name(documents, row, first)} is entirely zero: padding, or a token that the encoder dropped. "
            "Drop it with drop_zero_rows='all', 'trailing' or 'leading'."
        )
    count = running_total(real)
    starts, stops = documents.offsets[:-1], documents.offsets[1:]
    if which == "leading":
        before = count[1:] - np.repeat(count[starts], documents.lengths)
        return np.asarray(before > 0)
    after = np.repeat(count[stops], documents.lengths) - count[:-1]
    return np.asarray(after > 0)


def truncate_dimension(documents: MultiVectors, dimension: int, first: int = 0) -> MultiVectors:
    """Keep the first `dimension` columns, brought to unit length again.

    Only for models trained for it (Matryoshka); others lose their meaning with the columns.

    Raises
    ------
    TypeError, ValueError
        For `dimension` that is no int from 1 to the dimension, and for a token that becomes entirely
        zero.
    """
    dimension = require_int("truncate_dimension", dimension)
    if not 1 <= dimension <= documents.dimension:
        raise ValueError(
            f"truncate_dimension={dimension} must lie within 1 and the source's dimension={documents.dimension}."
        )
    return normalize(_with(documents, np.ascontiguousarray(documents.tokens[:, :dimension])), first)


def normalize(documents: MultiVectors, first: int = 0) -> MultiVectors:
    """Bring every token to unit length, in the dtype it has.

    Raises
    ------
    ValueError
        Naming the token that is entirely zero and so has no direction.
    """
    rows = np.array(documents.tokens, np.float32, order="C")
    zero = int(unit_rows(rows))
    if zero >= 0:
        raise ValueError(
            f"{_token_name(documents, zero, first)} is entirely zero and cannot be normalized. "
            "Drop such rows with drop_zero_rows='all'."
        )
    return _with(documents, rows.astype(documents.tokens.dtype, copy=False))


def cast(documents: MultiVectors, dtype: str, first: int = 0) -> MultiVectors:
    """Return the documents as ``"float32"`` or ``"float16"`` (half the memory, 3 digits).

    Raises
    ------
    ValueError
        For another type, and for a number that float16 does not hold.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}.")
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
    return _with(documents, documents.tokens.astype(dtype))


@dataclass(frozen=True)
class Options:
    """Transforms to apply, in a fixed order; none by default.

    Parameters
    ----------
    drop_zero_rows : {"trailing", "leading", "all", "error"}, optional
        See :func:`drop_zero_rows`.
    truncate_dimension : int, optional
        See :func:`truncate_dimension`.
    normalize : bool
        See :func:`normalize`.
    pooling : str, optional
        A rule of :mod:`~muvera.convert.transforms.ward_pooling`, ``"whole-word"``, or ``"colberter"`` (unique
        whole words, not renormalized).
    pool_factor : float
        For the rules: a document keeps about ``1 / pool_factor`` of its tokens.
    protected, renormalize : optional
        Change those of the pooling.
    token_ids, vocabulary : optional
        For whole words: the vocabulary id of every token of the source, in its order, and
        what :class:`~muvera.convert.transforms.word_pooling.Vocabulary` takes.
    dtype : {"float32", "float16"}, optional
        See :func:`cast`.
    threads : int, optional
        For pooling; None for all cores.

    Raises
    ------
    TypeError, ValueError
        For settings that are unknown, or do not fit each other.
    """

    drop_zero_rows: str | None = None
    truncate_dimension: int | None = None
    normalize: bool = False
    pooling: str | None = None
    pool_factor: float = 2.0
    protected: int | None = None
    renormalize: bool | None = None
    token_ids: Any = None
    vocabulary: Any = None
    dtype: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.drop_zero_rows is not None:
            require_choice("drop_zero_rows", self.drop_zero_rows, _DROPS)
        if self.dtype is not None:
            name = np.dtype(self.dtype).name
            if name not in ("float32", "float16"):
                raise ValueError(f"dtype must be 'float32' or 'float16', got {name!r}.")
            object.__setattr__(self, "dtype", name)
        if self.pooling in _WORDS:
            if self.token_ids is None or self.vocabulary is None:
                raise ValueError(
                    f"pooling={self.pooling!r} needs token_ids and vocabulary, to know the words."
                )
            if not isinstance(self.vocabulary, Vocabulary):
                object.__setattr__(self, "vocabulary", Vocabulary(self.vocabulary))
        elif self.pooling is not None:
            if isinstance(self.pooling, str):
                require_choice("pooling", self.pooling, (*RULES, *_WORDS))
            pooling_rule(self.pooling, self.protected, self.renormalize)
            require_number("pool_factor", self.pool_factor, 1, hint="2 halves the tokens.")

    def apply(
        self, batch: MultiVectors, first_document: int = 0, first_token: int = 0
    ) -> tuple[MultiVectors, int]:
        """Return `batch` transformed, and how many zero rows were dropped.

        Parameters
        ----------
        batch : MultiVectors
            Some consecutive documents of the source.
        first_document, first_token : int
            How many of each the source had before: for messages and for `token_ids`.

        Raises
        ------
        TypeError, ValueError
            For documents or token ids that a transform refuses.
        """
        tokens = batch.num_tokens
        ids: Any = None
        if self.pooling in _WORDS:
            ids = self._ids_of(first_token, tokens)
        if self.drop_zero_rows is not None:
            real = real_rows(batch, self.drop_zero_rows, first_document)
            batch = _keep(batch, real)
            ids = ids if ids is None else ids[real]
        dropped = tokens - batch.num_tokens
        if self.truncate_dimension is not None:
            batch = truncate_dimension(batch, self.truncate_dimension, first_document)
        elif self.normalize:
            batch = normalize(batch, first_document)
        if self.pooling in _WORDS:
            batch = self._pool_words(batch, ids)
        elif self.pooling is not None:
            rule = pooling_rule(self.pooling, self.protected, self.renormalize)
            batch = pool_tokens(batch, self.pool_factor, rule, threads=self.threads)
        if self.normalize and self.pooling is not None:
            batch = unit(batch)
        if self.dtype is not None:
            batch = cast(batch, self.dtype, first_document)
        return batch, dropped

    def _pool_words(self, batch: MultiVectors, ids: Any) -> MultiVectors:
        unique = self.pooling == "colberter"
        renormalize = not unique if self.renormalize is None else self.renormalize
        return pool_words(batch, ids, self.vocabulary, unique=unique, renormalize=renormalize)

    def _ids_of(self, first: int, count: int) -> Any:
        if len(self.token_ids) < first + count:
            raise ValueError(
                f"token_ids has {len(self.token_ids)} entries, but the source has at least {first + count} "
                "tokens; give one for each."
            )
        return self.token_ids[first : first + count]

    def done(self, tokens: int) -> None:
        """Check after the last batch that `token_ids` had an entry for each of the source's `tokens`.

        Raises
        ------
        ValueError
            Where it had more or fewer.
        """
        if self.pooling in _WORDS and len(self.token_ids) != tokens:
            raise ValueError(
                f"token_ids has {len(self.token_ids)} entries, but the source has {tokens} tokens; "
                "give one for each."
            )

    def given(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, without the arrays for words."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("token_ids", "vocabulary", "threads")
            and getattr(self, field.name) != field.default
        }


def option_names() -> frozenset[str]:
    """Return the names of the options, as keyword arguments of ``read`` and ``convert``."""
    return frozenset(field.name for field in fields(Options))


def _token_name(documents: MultiVectors, row: int, first: int) -> str:
    text, token = documents.text_of(row)
    return f"{documents.text_name(text, first=first)} token {token}"


def _with(documents: MultiVectors, tokens: Any) -> MultiVectors:
    return MultiVectors(tokens, documents.offsets, documents.ids if documents.has_ids else None)


def _keep(documents: MultiVectors, kept: NDArray[np.bool_]) -> MultiVectors:
    if kept.all():
        return documents
    count = running_total(kept)
    ids = documents.ids if documents.has_ids else None
    return MultiVectors(documents.tokens[kept], count[documents.offsets], ids)
