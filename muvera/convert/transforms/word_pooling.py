"""Whole-word pooling: one vector for all pieces of a word (ColBERTer, arXiv:2203.13088).

A tokenizer marks its pieces: WordPiece continues a word with ``##``, SentencePiece begins
one with ``▁`` and byte-level BPE with ``Ġ``.  The vocabulary says which marking it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import as_array
from ...utils.checks import require_int
from ..parsing.json_values import parse_json
from .ward_pooling import average

__all__ = ["Vocabulary", "pool_words"]

_SPECIAL = re.compile(r"\[[A-Za-z0-9_]+\]|<[A-Za-z_/|][^<>]*>")


#: Most ids of a vocabulary; the largest of models have a million.
_MOST_PIECES = 1 << 24


class Vocabulary:
    """Vocabulary of a tokenizer: which pieces continue a word, and which stand alone.

    Parameters
    ----------
    pieces : sequence of str, mapping of str to int, or path
        The vocabulary in the order of its ids, or piece to id; or a ``vocab.txt`` (one piece
        a line) or a Hugging Face ``tokenizer.json``.

    Attributes
    ----------
    continues : bool (size,)
        Whether a piece goes on with the word before.
    alone : bool (size,)
        Whether a piece is a word by itself whatever stands beside it: special tokens, and
        where words are marked at their beginning also pieces without a letter or digit.
    """

    def __init__(self, pieces: Sequence[str] | Mapping[str, int] | str | os.PathLike[str]) -> None:
        if isinstance(pieces, (str, os.PathLike)):
            pieces = _load(Path(pieces))
        if isinstance(pieces, Mapping):
            pieces = _in_order(pieces)
        self.pieces = list(pieces)
        special = np.array([_SPECIAL.fullmatch(piece) is not None for piece in self.pieces], bool)
        if any(piece.startswith("##") for piece in self.pieces):
            continuing = [piece.startswith("##") and len(piece) > 2 for piece in self.pieces]
            alone = special
        else:
            marks = ("▁", "Ġ")
            if not any(piece.startswith(marks) for piece in self.pieces):
                raise ValueError(
                    "The vocabulary marks no word: no piece begins with '##', '▁' or 'Ġ'. "
                    "Give the tokenizer's own vocabulary."
                )
            continuing = [not piece.startswith(marks) for piece in self.pieces]
            alone = special | ~np.array([any(map(str.isalnum, piece)) for piece in self.pieces], bool)
        self.continues: NDArray[np.bool_] = np.array(continuing, bool) & ~alone
        self.alone: NDArray[np.bool_] = alone

    def __len__(self) -> int:
        return len(self.pieces)

    def words(self, token_ids: Any, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each token begins a word; a document's first always does.

        Raises
        ------
        TypeError, ValueError
            For token ids that are no integers, are not in the vocabulary, or are not one a token.
        """
        ids = _whole(token_ids)
        if len(ids) != offsets[-1]:
            raise ValueError(f"token_ids has {len(ids)} entries for {offsets[-1]} tokens; give one a token.")
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            wrong = ids[(ids < 0) | (ids >= len(self))][0]
            raise ValueError(
                f"token_ids has {wrong}, but the vocabulary has {len(self)} pieces. "
                "Give the vocabulary of the model that made the embeddings."
            )
        begins = ~self.continues[ids]
        begins[1:] |= self.alone[ids[:-1]]
        begins[offsets[:-1][np.diff(offsets) > 0]] = True
        return begins


def pool_words(
    documents: MultiVectors,
    token_ids: Any,
    vocabulary: Vocabulary | Sequence[str] | Mapping[str, int] | str | os.PathLike[str],
    *,
    unique: bool = False,
    renormalize: bool = True,
) -> MultiVectors:
    """Average the tokens of each word.

    Parameters
    ----------
    documents : MultiVectors
        Ids and empty documents stay.
    token_ids : integers (n_tokens,)
        The vocabulary id of every token.
    vocabulary : Vocabulary, or what makes one
        See :class:`Vocabulary`.
    unique : bool
        Average all occurrences of a word in a document too, as ColBERTer's bag of unique
        whole words does.  Words stand in the order of their first occurrence.
    renormalize : bool
        Bring the means to unit length; ColBERTer does not.

    Examples
    --------
    >>> import numpy as np
    >>> documents = MultiVectors.from_arrays([np.eye(3, dtype=np.float32)])
    >>> pool_words(documents, [0, 1, 0], ["token", "##izer"], renormalize=False)[0]
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 1. ]], dtype=float32)
    """
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary(vocabulary)
    offsets = documents.offsets
    ids = _whole(token_ids)
    begins = vocabulary.words(ids, offsets)
    words = np.cumsum(begins) - 1
    before = running_total(begins)[offsets]
    if unique:
        owners = np.repeat(np.arange(len(documents)), np.diff(before))
        renumbered, bounds = _unique_words(ids, begins, words, owners)
        words, before = renumbered[words], np.searchsorted(bounds, np.arange(len(documents) + 1))
    labels = words - np.repeat(before[:-1], documents.lengths)
    return average(documents, labels, np.diff(before), renormalize=renormalize)


def _unique_words(
    ids: NDArray[np.int64], begins: NDArray[np.bool_], words: NDArray[np.int64], owners: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each word's number among the different words, and the documents of those."""
    starts = np.flatnonzero(begins)
    place = np.arange(len(ids)) - starts[words] if len(ids) else np.empty(0, np.int64)
    longest = int(place.max()) + 1 if len(place) else 1
    spelled = np.full((len(starts), longest + 1), -1, np.int64)
    spelled[:, 0] = owners
    spelled[words, place + 1] = ids
    _, first, inverse = np.unique(spelled, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)], owners[first[order]]


def _whole(token_ids: Any) -> NDArray[np.int64]:
    array = as_array(token_ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(
            f"token_ids must be integers with one axis, got {array.dtype} of shape {array.shape}. "
            "Join the documents' ids in the order of the tokens."
        )
    return array.astype(np.int64)


def _in_order(numbers: Mapping[str, int]) -> list[str]:
    """Return the pieces in the order of their ids; ids without a piece are empty."""
    listed: dict[int, str] = {}
    for piece, number in numbers.items():
        at = require_int(f"The id of the vocabulary's piece {piece!r}", number, 0, _MOST_PIECES - 1)
        if at in listed:
            raise ValueError(f"The vocabulary gives the id {at} to both {listed[at]!r} and {piece!r}.")
        listed[at] = piece
    return [listed.get(i, "") for i in range(max(listed, default=-1) + 1)]


def _load(path: Path) -> Sequence[str] | Mapping[str, int]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
    try:
        content = parse_json(text)
        vocabulary = content["model"]["vocab"]
        added = {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} has no model.vocab ({error!r}). Give a tokenizer.json or a vocab.txt."
        ) from error
    if isinstance(vocabulary, list):  # a unigram model: (piece, score) in the order of ids
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    # An added piece takes the place of one that had its id.
    taken = set(added.values())
    return {**{piece: i for piece, i in vocabulary.items() if i not in taken}, **added}
