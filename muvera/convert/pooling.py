"""Token pooling: replace groups of tokens by their means, so that a document has fewer vectors.

:func:`pool_tokens` clusters similar tokens by Ward's method.  The libraries that encode documents
differ in details, and a rule's name stands for one library's behavior, read from its source:

====================== ========= ==================== ============== ============== =======
name                   protected protected tokens     Ward on        clusters count unit
====================== ========= ==================== ============== ============== =======
sentence-transformers  1         first                distances      the others     yes
pylate (from 1.5)      1         first                distances      the others     no
pylate-1.4             1         last                 rows           the others     no
colbert                0         last                 rows           all tokens     no
colpali                0         -                    rows           all tokens     yes
====================== ========= ==================== ============== ============== =======

"Distances" means 1 - cosine of two tokens.  "Rows" means that the rows of this matrix are points:
those libraries pass the square matrix to SciPy, which interprets it this way.  A document gets
``1 / factor`` as many clusters as "clusters count" has tokens, rounded down.

:func:`pool_words` averages all pieces of a word (ColBERTer, arXiv:2203.13088).  Tokenizers mark
pieces: WordPiece continues a word with ``##``; SentencePiece begins one with ``▁`` and byte-level
BPE with ``Ġ``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.offsets import running_total
from ..data.validation import as_array
from ..encoders.matmul import one_blas_thread
from ..kernels.norms import unit_rows
from ..utils.checks import require_choice, require_int, require_number

__all__ = [
    "RULES",
    "PoolingRule",
    "Vocabulary",
    "pool_tokens",
    "pool_words",
    "pooling_rule",
    "token_clusters",
    "unit",
]

_SPECIAL = re.compile(r"\[[A-Za-z0-9_]+\]|<[A-Za-z_/|][^<>]*>")

# Limit of a vocabulary's ids; the largest models have about a million.
_MAX_PIECES = 1 << 24


@dataclass(frozen=True)
class PoolingRule:
    """Rule by which one library pools tokens.

    Parameters
    ----------
    protected : int
        Number of leading tokens of a document that are not pooled.
    protected_last : bool
        Put the protected tokens after the clusters instead of before.
    rows_as_points : bool
        Cluster the rows of the distance matrix as points, instead of using the distances.
    count_protected : bool
        Include the protected tokens in the number of clusters.
    renormalize : bool
        Scale all vectors to unit length afterwards.
    """

    protected: int
    protected_last: bool = False
    rows_as_points: bool = False
    count_protected: bool = False
    renormalize: bool = False


#: Rules by name, see the module's table.  ``colbert`` is release 0.2.22.
RULES = {
    "sentence-transformers": PoolingRule(protected=1, renormalize=True),
    "pylate": PoolingRule(protected=1),
    "pylate-1.4": PoolingRule(protected=1, protected_last=True, rows_as_points=True),
    "colbert": PoolingRule(protected=0, protected_last=True, rows_as_points=True, count_protected=True),
    "colpali": PoolingRule(protected=0, rows_as_points=True, renormalize=True),
}


def pooling_rule(
    rule: str | PoolingRule, protected: int | None = None, renormalize: bool | None = None
) -> PoolingRule:
    """Return a rule, with `protected` and `renormalize` replaced if they are not None."""
    if isinstance(rule, str):
        require_choice("pooling", rule, RULES)
        rule = RULES[rule]
    if protected is not None:
        rule = replace(rule, protected=require_int("protected", protected, 0))
    return rule if renormalize is None else replace(rule, renormalize=bool(renormalize))


def pool_tokens(
    documents: MultiVectors,
    factor: float = 2.0,
    rule: str | PoolingRule = "sentence-transformers",
    *,
    protected: int | None = None,
    renormalize: bool | None = None,
) -> MultiVectors:
    """Replace groups of similar tokens by their means; about ``1 / factor`` of the tokens remain.

    Each document is pooled alone, so its result does not depend on the others.

    Parameters
    ----------
    documents : MultiVectors
        Unit vectors: inner products are taken as cosines.
    factor : float
        At least 1.  Divides memory and reranking time; 2 costs next to no recall on published
        collections, 3 about one percent.
    rule : str or PoolingRule
        See the module's table.
    protected, renormalize : optional
        Replace those of the rule.

    Returns
    -------
    MultiVectors
        With the same dtype, ids and empty documents.

    Examples
    --------
    >>> import numpy as np
    >>> tokens = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    >>> pool_tokens(MultiVectors.from_arrays([tokens]), 2, protected=0)[0].sum(axis=0)
    array([1., 1., 1., 1.], dtype=float32)
    """
    rule = pooling_rule(rule, protected, renormalize)
    if factor == 1:
        return unit(documents) if rule.renormalize else documents
    labels, counts = token_clusters(documents, factor, rule)
    return _means(documents, labels, counts, rule.renormalize)


@one_blas_thread()  # several threads only slow down products of single documents
def token_clusters(
    documents: MultiVectors, factor: float = 2.0, rule: str | PoolingRule = "sentence-transformers"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the position of each token's pooled vector in its document, and their number per document."""
    rule = pooling_rule(rule)
    require_number("The pooling factor", factor, 1, hint="2 halves the tokens.")
    documents.require_finite()
    labels = np.empty(documents.num_tokens, np.int64)
    counts = np.empty(len(documents), np.int64)
    for i, tokens in enumerate(documents):
        own = labels[documents.offsets[i] : documents.offsets[i + 1]]
        protected = min(rule.protected, len(tokens))
        counted = len(tokens) if rule.count_protected else len(tokens) - protected
        clusters = _ward_clusters(tokens[protected:], max(int(counted // factor), 1), rule.rows_as_points)
        count = int(clusters.max(initial=-1)) + 1
        own[:protected] = np.arange(protected) + (count if rule.protected_last else 0)
        own[protected:] = clusters + (0 if rule.protected_last else protected)
        counts[i] = count + protected
    return labels, counts


def _ward_clusters(tokens: NDArray[Any], limit: int, rows_as_points: bool) -> NDArray[Any]:
    """Return the cluster of each token, from 0 on; equal heights may leave fewer than `limit`."""
    if len(tokens) <= limit:
        return np.arange(len(tokens))
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    rows = np.asarray(tokens, np.float32)
    distances = 1 - rows @ rows.T
    condensed = pdist(distances) if rows_as_points else squareform(distances.clip(0, 2), checks=False)
    return np.asarray(fcluster(linkage(condensed, "ward"), limit, "maxclust") - 1)


def _means(
    documents: MultiVectors, labels: NDArray[np.int64], counts: NDArray[np.int64], renormalize: bool
) -> MultiVectors:
    """Average the tokens of each document that have the same label; labels have no gaps."""
    offsets = running_total(counts)
    groups = labels + np.repeat(offsets[:-1], documents.lengths)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=offsets[-1])
    means = np.zeros((int(offsets[-1]), documents.dimension), np.float32)
    if len(means):
        tokens = np.asarray(documents.tokens[order], np.float32)
        np.add.reduceat(tokens, running_total(sizes)[:-1], axis=0, out=means)
        means /= sizes[:, None].astype(np.float32)
    if renormalize:
        unit_rows(means)  # a mean of exactly zero stays zero
    return _with_tokens(documents, means, offsets)


def unit(documents: MultiVectors) -> MultiVectors:
    """Scale every token to unit length; zero tokens stay zero."""
    rows = np.array(documents.tokens, np.float32, order="C")
    unit_rows(rows)
    return _with_tokens(documents, rows, documents.offsets)


def _with_tokens(documents: MultiVectors, rows: NDArray[Any], offsets: NDArray[np.int64]) -> MultiVectors:
    tokens: Any = rows.astype(documents.tokens.dtype, copy=False)
    return MultiVectors(tokens, offsets, documents.ids if documents.has_ids else None)


class Vocabulary:
    """Vocabulary of a tokenizer: which pieces continue a word, and which stand alone.

    Parameters
    ----------
    pieces : sequence of str, mapping of str to int, or path
        The pieces in the order of their ids, or piece to id; or a ``vocab.txt`` (one piece a line)
        or a Hugging Face ``tokenizer.json``.

    Attributes
    ----------
    continues : bool (size,)
        True if a piece continues the word before it.
    alone : bool (size,)
        True if a piece is always a word of its own: special tokens, and if the marks are at word
        beginnings, also pieces without a letter or digit.
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
                    "The vocabulary marks no words: no piece begins with '##', '▁' or 'Ġ'. "
                    "Give the tokenizer's own vocabulary."
                )
            continuing = [not piece.startswith(marks) for piece in self.pieces]
            alone = special | ~np.array([any(map(str.isalnum, piece)) for piece in self.pieces], bool)
        self.continues: NDArray[np.bool_] = np.array(continuing, bool) & ~alone
        self.alone: NDArray[np.bool_] = alone

    def __len__(self) -> int:
        return len(self.pieces)

    def words(self, token_ids: Any, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return True for each token that begins a word; the first of a document always does."""
        ids = _as_token_ids(token_ids)
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
        Ids and empty documents are kept.
    token_ids : integers (n_tokens,)
        The vocabulary id of every token.
    vocabulary : Vocabulary, or an argument for one
        See :class:`Vocabulary`.
    unique : bool
        Average all occurrences of a word in a document, as ColBERTer's bag of unique whole words
        does.  Words are in the order of their first occurrence.
    renormalize : bool
        Scale the means to unit length; ColBERTer does not.

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
    ids = _as_token_ids(token_ids)
    begins = vocabulary.words(ids, offsets)
    words = np.cumsum(begins) - 1
    bounds = running_total(begins)[offsets]
    if unique:
        owners = np.repeat(np.arange(len(documents)), np.diff(bounds))
        renumbered, owners = _unique_words(ids, begins, words, owners)
        words, bounds = renumbered[words], np.searchsorted(owners, np.arange(len(documents) + 1))
    labels = words - np.repeat(bounds[:-1], documents.lengths)
    return _means(documents, labels, np.diff(bounds), renormalize)


def _unique_words(
    ids: NDArray[np.int64], begins: NDArray[np.bool_], words: NDArray[np.int64], owners: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of each word among the unique words, and the documents of those."""
    starts = np.flatnonzero(begins)
    positions = np.arange(len(ids)) - starts[words] if len(ids) else np.empty(0, np.int64)
    spelled = np.full((len(starts), int(positions.max(initial=0)) + 2), -1, np.int64)
    spelled[:, 0] = owners
    spelled[words, positions + 1] = ids
    _, first, inverse = np.unique(spelled, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)], owners[first[order]]


def _as_token_ids(token_ids: Any) -> NDArray[np.int64]:
    array = as_array(token_ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(
            f"token_ids must be integers with one axis, got {array.dtype} of shape {array.shape}. "
            "Join the documents' ids in the order of the tokens."
        )
    return array.astype(np.int64)


def _in_order(numbers: Mapping[str, int]) -> list[str]:
    """Return the pieces in the order of their ids; an unused id gets an empty piece."""
    pieces: dict[int, str] = {}
    for piece, value in numbers.items():
        number = require_int(f"The id of the vocabulary's piece {piece!r}", value, 0, _MAX_PIECES - 1)
        if number in pieces:
            raise ValueError(
                f"The vocabulary gives the id {number} to both {pieces[number]!r} and {piece!r}."
            )
        pieces[number] = piece
    return [pieces.get(i, "") for i in range(max(pieces, default=-1) + 1)]


def _load(path: Path) -> Sequence[str] | Mapping[str, int]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
    try:
        content = json.loads(text)
        vocabulary = content["model"]["vocab"]
        added = {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} has no model.vocab ({error!r}). Give a tokenizer.json or a vocab.txt."
        ) from error
    if isinstance(vocabulary, list):  # a unigram model: (piece, score) in the order of ids
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    # An added piece replaces the piece with the same id.
    replaced = set(added.values())
    return {**{piece: i for piece, i in vocabulary.items() if i not in replaced}, **added}
