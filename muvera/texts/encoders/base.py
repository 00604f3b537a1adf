"""The protocol of text encoders, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ...data.multivectors import MultiVectors
from ...data.validation import as_array

__all__ = [
    "Side",
    "TextEncoder",
    "as_texts",
    "encode_in_batches",
    "encode_texts",
    "from_matrices",
    "require_text_encoder",
]

Side = Literal["document", "query"]

#: Texts that are encoded between two reports of progress.
BATCH = 64


@runtime_checkable
class TextEncoder(Protocol):
    """A late-interaction model: texts to token vectors, one set a text.

    Attributes
    ----------
    name : str
        What made the vectors, with everything that changes them, such as the checkpoint and its revision.
        An index stores it and refuses another one.
    """

    name: str

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents, in order."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries, in order."""
        ...

    def token_spans(self, text: str, side: Side) -> list[tuple[int, int]] | None:
        """Return where each token vector of a text comes from, or None where the model does not say.

        Returns
        -------
        list of (start, stop) or None
            Positions of characters, one pair a vector; start == stop for a vector of no part of the text,
            such as that of a special token.
        """
        ...


def require_text_encoder(encoder: Any) -> TextEncoder:
    """Return `encoder` where it is a text encoder, or raise.

    Raises
    ------
    TypeError
        Naming what is missing.
    """
    wanted = ("name", "encode_documents", "encode_queries", "token_spans")
    missing = [name for name in wanted if not hasattr(encoder, name)]
    if missing:
        raise TypeError(
            f"encoder must be a text encoder with {', '.join(wanted)}; {type(encoder).__name__} has no "
            f"{missing[0]}. Use muvera.load_text_encoder('minilm') or another of its names."
        )
    checked: TextEncoder = encoder
    return checked


def as_texts(texts: Any, name: str = "texts") -> list[str]:
    """Return a collection of texts as a list; one string alone is one text.

    Raises
    ------
    TypeError
        For anything but strings.
    """
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a string or strings, got {type(texts).__name__}.")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{i}] must be a string, got {type(text).__name__}. Token vectors go into a MuveraIndex."
            )
    return found


def from_matrices(matrices: Iterable[Any], dimension: int | None = None) -> MultiVectors:
    """Return the matrices that a model's library gave, (tokens, dimension) each, as one collection."""
    arrays = [as_array(matrix, f"matrices[{i}]") for i, matrix in enumerate(matrices)]
    arrays = [array if array.dtype == np.float16 else array.astype(np.float32) for array in arrays]
    return MultiVectors.from_arrays(arrays, dimension=arrays[0].shape[1] if arrays else dimension)


def encode_texts(encode: Callable[[Sequence[str]], MultiVectors], texts: Sequence[str]) -> MultiVectors:
    """Return the token vectors of texts, in order; a blank text has none, for it says nothing.

    Models give a blank text the vectors of special tokens, which resemble everything a little.

    Parameters
    ----------
    encode : callable
        ``encode_documents`` or ``encode_queries`` of an encoder.
    texts : sequence of str

    Raises
    ------
    ValueError
        Where the encoder returns another number of sets of vectors.
    """
    encoded = encode(texts)
    if len(encoded) != len(texts):
        raise ValueError(
            f"The encoder returned {len(encoded)} sets of vectors for {len(texts)} texts. Each text needs one."
        )
    blank = np.array([not text.strip() for text in texts], bool)
    if not blank.any():
        return encoded
    lengths = np.where(blank, 0, encoded.lengths)
    return MultiVectors.from_flat(encoded.tokens[np.repeat(~blank, encoded.lengths)], lengths)


def encode_in_batches(
    encode: Callable[[Sequence[str]], MultiVectors],
    texts: Sequence[str],
    progress: Callable[[int], object] | None = None,
    batch: int = BATCH,
) -> Iterator[MultiVectors]:
    """Yield the vectors of some texts at a time, so that memory holds one batch and progress moves.

    Parameters
    ----------
    encode : callable
        ``encode_documents`` or ``encode_queries`` of an encoder.
    texts : sequence of str
    progress : callable, optional
        Called with the number of texts after each batch.
    batch : int
        Texts at a time.
    """
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        yield encode_texts(encode, part)
        if progress is not None:
            progress(len(part))
