"""Whole-word pooling: one vector for all tokens of a word (ColBERTer)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import running_total
from ..kernels.rows import normalize_rows
from .transforms import with_tokens

_WORD = re.compile(r"\w+")


def pool_words(
    documents: MultiVectors, words: Sequence[ArrayLike], *, renormalize: bool = True
) -> MultiVectors:
    """Replace the tokens of each word by their mean.

    Source: ColBERTer, arXiv 2203.13088.  It divides memory and ranking time by the
    tokens per word, and changes similarities: tokens of a word have different
    directions.  ``python -m experiments run pooling`` compares the loss with
    :func:`muvera.convert.pool_tokens`.

    Parameters
    ----------
    documents : MultiVectors
        Documents to pool; they do not change.
    words : sequence of int arrays
        For each document the number of each token's word.  Tokens with equal numbers
        are averaged, wherever they stand.  :func:`word_numbers` computes them.
    renormalize : bool
        Scale the means to unit length.  ColBERTer does not.

    Returns
    -------
    MultiVectors
        The words of each document in the order of their first token; the dtype and the
        ids stay the same.

    Raises
    ------
    ValueError
        If there are not one array per document and one number per token.

    Examples
    --------
    >>> documents = MultiVectors.from_arrays([np.eye(3, dtype=np.float32)])
    >>> pool_words(documents, [[7, 7, 3]], renormalize=False)[0]
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 1. ]], dtype=float32)
    """
    if len(words) != len(documents):
        raise ValueError(
            f"words must have one array per document, got {len(words)} for {len(documents)} documents."
        )
    pooled = []
    for i, (tokens, numbers) in enumerate(zip(documents, words, strict=True)):
        numbers = np.asarray(numbers, np.int64)
        if numbers.shape != (len(tokens),):
            raise ValueError(
                f"words[{i}] must have one number for each of {len(tokens)} tokens, got shape "
                f"{numbers.shape}."
            )
        _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        sums: NDArray[np.float32] = np.zeros((len(first), documents.dimension), np.float32)
        np.add.at(sums, rank[inverse], np.asarray(tokens, np.float32))
        sums /= np.bincount(rank[inverse], minlength=len(first))[:, None].astype(np.float32)
        pooled.append(sums)
    rows = np.concatenate([np.zeros((0, documents.dimension), np.float32), *pooled])
    if renormalize:
        normalize_rows(rows)  # a mean of exactly zero stays zero
    offsets = running_total([len(tokens) for tokens in pooled])
    return with_tokens(documents, rows.astype(documents.tokens.dtype, copy=False), offsets)


def word_numbers(text: str, spans: Sequence[tuple[int, int]], *, unique: bool = False) -> NDArray[np.int64]:
    """Return the number of each token's word, for :func:`pool_words`.

    Parameters
    ----------
    text : str
        The encoded text.
    spans : sequence of (start, stop)
        The characters of each token, as :meth:`muvera.TextEncoder.token_spans` returns
        them.  Tokens outside of words, such as special tokens and punctuation, are
        separate words.
    unique : bool
        Give all occurrences of a word the same number, without regard to case.
        ColBERTer does.

    Returns
    -------
    int64 (n_tokens,)

    Examples
    --------
    >>> word_numbers("Red redder", [(0, 0), (0, 3), (4, 7), (7, 10)])
    array([2, 0, 1, 1])
    """
    matches = list(_WORD.finditer(text))
    starts = np.array([match.start() for match in matches], np.int64)
    names: dict[str, int] = {}
    numbers = np.empty(len(spans), np.int64)
    for i, (start, stop) in enumerate(spans):
        place = int(np.searchsorted(starts, start, side="right")) - 1
        inside = stop > start and place >= 0 and stop <= matches[place].end()
        if not inside:
            numbers[i] = len(matches) + i
        elif unique:
            numbers[i] = names.setdefault(matches[place].group().casefold(), place)
        else:
            numbers[i] = place
    return numbers
