"""adapt: search the token vectors of one model with the queries of another.

An index can change its model without encoding all texts first.  A linear map takes the
new model's query tokens to the old model's space, where the old index finds candidates.
The new model encodes these candidates when they are first found, and ranks them
exactly.

The map is orthogonal: between spaces of the same dimension, it keeps lengths and
angles.  It is fitted on token vectors of both models for the same characters
(orthogonal Procrustes, as in Drift-Adapter, arXiv 2509.23471; compare the stitching of
models, arXiv 2209.15430, and backward-compatible training, arXiv 2003.11942).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..fde.linear_algebra import one_blas_thread, product
from ..index.muvera_index import MuveraIndex
from ..metadata import TextDocument
from ..utils.checks import given, require_int
from ..utils.random_streams import random_stream
from .encoders.base import (
    CachedEncoder,
    TextEncoder,
    as_texts,
    encode_texts,
    passage_length,
    token_spans,
)
from .encoders.registry import as_text_encoder
from .encoders.windows import Spans
from .hit import SearchOptions
from .protocol import NewTexts, Texts
from .ranking import Parts, best_parts
from .reranking import rerank_texts
from .store import TextStore
from .text_index import TextIndex

# Texts of the index that both models encode for the fit.  100 find up to .04 fewer of
# the best texts: `python -m experiments adapt`.
_FITTED = 200

# Texts that the new model ranks for each query.
_CANDIDATES = 50

# A name that SQLite keeps in memory.
_IN_MEMORY = ":memory:"


def adapt(
    index: TextIndex,
    encoder: TextEncoder | str,
    *,
    cache: str | os.PathLike[str] | None = None,
    texts: Iterable[str] | None = None,
    candidates: int = _CANDIDATES,
) -> AdaptedIndex:
    """Return an index that another text encoder searches, and keep the token vectors.

    The old index finds candidates with the mapped tokens of a query.  The new encoder
    encodes each candidate once, and ranks the candidates exactly.

    Parameters
    ----------
    index : TextIndex
        The index of the old encoder.  It stays as it is; changes of either one change
        both.
    encoder : TextEncoder or str
        The new encoder.  Both encoders must return the characters of their tokens.
    cache : path, optional
        An SQLite file for the new encoder's vectors; see
        :class:`muvera.texts.encoders.base.CachedEncoder`.  Default: keep them in
        memory.
    texts : iterable of str, optional
        Typical texts to fit the map on; both encoders encode them.  With fewer than
        200, unlike models find clearly fewer of the best texts.  Default: 200 random
        texts of the index.
    candidates : int
        Texts that the new encoder ranks for each query, or `k` if that is more.  More
        raise recall, and more texts are encoded.

    Returns
    -------
    AdaptedIndex

    Raises
    ------
    ValueError
        If the texts have no tokens of the same characters, or an encoder does not
        return the characters of its tokens.
    TypeError, ImportError
        If `index` is not a TextIndex, and as for :func:`muvera.load_text_encoder`.
    """
    if not isinstance(index, TextIndex):
        raise TypeError(
            f"index must be a TextIndex, got {given(index)}. Load one with TextIndex.load, or build one."
        )
    require_int("candidates", candidates, 1)
    model = as_text_encoder(encoder)
    cached = model if isinstance(model, CachedEncoder) else CachedEncoder(model, cache or _IN_MEMORY)
    chosen = _some_texts(index.texts) if texts is None else as_texts(texts)
    new, old = aligned_tokens(index.encoder, cached, chosen)
    dimension = index.index.config.dimension if isinstance(index.texts, TextStore) else old.shape[1]
    if old.shape[1] != dimension:
        raise ValueError(
            f"The index has vectors of {dimension} dimensions, but its encoder {index.encoder.name} now "
            f"gives documents {old.shape[1]}. Load the index with the encoder that made it."
        )
    _require_dimension(cached, encode_texts(cached.encode_queries, [chosen[0]]), "queries", new.shape[1])
    return AdaptedIndex(AdaptedTexts(index, cached, orthogonal_map(new, old), candidates), cached)


class AdaptedIndex(TextIndex):
    """A text index of one encoder that another encoder searches; see :func:`adapt`.

    All methods of :class:`muvera.TextIndex` work.  :meth:`save` writes the old index.
    How rare a word is, is counted among the candidates of a query.  Long texts are
    ranked by all of their tokens, as in :meth:`muvera.TextIndex.rerank`.

    Parameters
    ----------
    texts : AdaptedTexts
        The texts of the old index.
    encoder : TextEncoder
        The new encoder.
    """

    def __init__(self, texts: AdaptedTexts, encoder: TextEncoder) -> None:
        super().__init__(texts, encoder)
        self._adapted = texts

    def measure_recall(self, queries: Sequence[str], k: int = 10, *, depth: int = 1000) -> float:
        """Return the share of the new encoder's best texts that a search finds.

        Parameters
        ----------
        queries : sequence of str
            Typical queries; at least one.
        k : int
            Number of best texts to look for.
        depth : int
            Candidates of each query among which the best texts are searched; the new
            encoder encodes all of them.  With fewer candidates than texts, the true
            recall can be lower.

        Returns
        -------
        float
            The mean over queries, by similarity alone.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`muvera.TextIndex.search`, or without queries.
        """
        asked = as_texts(queries, "queries")
        if not asked:
            raise ValueError("queries must be at least one, got none. Give typical queries.")
        deep = TextIndex(self._adapted.with_candidates(depth), self.encoder)
        found, best = (one.search(asked, k, words=0) for one in (self, deep))
        pairs = [
            ({hit.id for hit in own}, {hit.id for hit in wanted})
            for own, wanted in zip(found, best, strict=True)
        ]
        return float(np.mean([len(own & wanted) / max(1, len(wanted)) for own, wanted in pairs]))


class AdaptedTexts:
    """Texts of an old index, ranked by a new encoder.

    :class:`muvera.texts.protocol.Texts` describes the methods.

    Parameters
    ----------
    index : TextIndex
        The index of the old model, which finds candidates.
    encoder : TextEncoder
        The new encoder.  It should store vectors, because every search encodes its
        candidates.
    token_map : float32 (new dimension, old dimension)
        Takes tokens of the new encoder to the space of the old one.
    candidates : int
        Texts that the new encoder ranks for each query.
    """

    #: The new encoder makes the mean vectors of the candidates.
    has_means = True

    #: The old index cannot store what the new encoder makes.
    table = None

    def __init__(
        self, index: TextIndex, encoder: TextEncoder, token_map: NDArray[np.float32], candidates: int
    ) -> None:
        old: Texts = index.texts
        self.token_map = token_map
        self._index = index
        self._old = old
        self._encoder = encoder
        self._candidates = candidates
        self.get = old.get
        self.select = old.select
        self.groups = old.groups
        self.on_one_state = old.on_one_state
        self.put_metadata = old.put_metadata
        self.delete = old.delete
        self.rebuild = old.rebuild
        self.save = old.save
        self.close = old.close

    def with_candidates(self, candidates: int) -> AdaptedTexts:
        """Return the same texts with another number of candidates."""
        return AdaptedTexts(self._index, self._encoder, self.token_map, require_int("depth", candidates, 1))

    def __repr__(self) -> str:
        return f"{self._old!r} of {self._index.encoder.name!r}"

    def __len__(self) -> int:
        return len(self._old)

    def __contains__(self, id: object) -> bool:
        return id in self._old

    def __iter__(self) -> Iterator[TextDocument]:
        return iter(self._old)

    @property
    def vectors(self) -> MuveraIndex:
        """The old encoder's index."""
        return self._old.vectors

    @property
    def changing(self) -> AbstractContextManager[object]:
        """A lock of the old index."""
        return self._old.changing

    def tokens(self, ids: list[int | str]) -> MultiVectors:
        """Return the new encoder's token vectors of texts."""
        contents = [document.text for document in self._old.get(ids)]
        return encode_texts(self._encoder.encode_documents, contents).with_ids(ids)

    def mapped(self, queries: MultiVectors) -> MultiVectors:
        """Return the new encoder's tokens in the space of the old one."""
        _require_dimension(self._encoder, queries, "queries", len(self.token_map))
        return MultiVectors(product(np.asarray(queries.tokens, np.float32), self.token_map), queries.offsets)

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best texts for each query.

        `encoded` are the queries' tokens of the new encoder.  The old index ranks
        ``options.candidates`` texts for each query.
        """
        count = max(options.k, self._candidates)
        wide = replace(
            options,
            k=count,
            candidates=None if options.candidates is None else max(options.candidates, count),
            mean=options.mean if self._old.has_means else 0.0,
            passage=passage_length(self._index.encoder),
            group_by=None,
        )
        field, most = options.group_by, options.k if options.group_by is None else count
        ranked: list[Parts] = []
        for query, found in zip(queries, self._old.rank(queries, self.mapped(encoded), wide), strict=True):
            documents = self._old.get(list(found), missing="ignore")
            contents = [document.text for document in documents]
            best = rerank_texts(self._encoder, query, contents, most, options.weights, options.threads).hits
            ranked.append({documents[int(hit.id)].id: hit.parts for hit in best})
        if field is None:
            return ranked
        groups = self.groups(field, list({id: None for parts in ranked for id in parts}))
        return [best_parts(parts, groups, options.k) for parts in ranked]

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Calibrate the old index with mapped queries."""
        self._old.calibrate(self.mapped(queries), threads)

    def put(self, new: NewTexts, threads: int | None, update: bool = False) -> list[int | str]:
        """Add texts to the old index; its encoder encodes them, too."""
        assert isinstance(new.encoded, MultiVectors)  # rows of a table need a folder
        old = encode_texts(self._index.encoder.encode_documents, new.texts)
        named = old.with_ids(new.encoded.ids) if new.encoded.has_ids else old
        return self._old.put(NewTexts(named, new.texts, new.metadata), threads, update)


def aligned_tokens(
    old: TextEncoder, new: TextEncoder, texts: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the token vectors of two encoders for the same characters.

    A token of `new` is paired with the token of `old` that has its middle character.
    Tokens without characters are left out.  The result is float64 (n, new dimension)
    and float64 (n, old dimension).

    Raise ValueError without any pair, or for an encoder that does not return
    characters.
    """
    filled = [text for text in texts if text.strip()]
    before = encode_texts(old.encode_documents, filled)
    after = encode_texts(new.encode_documents, filled)
    pairs = []
    for text, first, second in zip(filled, before, after, strict=True):
        rows, partners = _partners(
            token_spans(new, text, "document", len(second)), token_spans(old, text, "document", len(first))
        )
        pairs.append((second[rows], first[partners]))
    if not sum(len(rows) for rows, _ in pairs):
        raise ValueError(
            f"The encoders {old.name} and {new.name} have no token of the same characters in "
            f"{len(filled)} texts. Give other texts."
        )
    sides = zip(*pairs, strict=True)
    new_tokens, old_tokens = (np.concatenate(side).astype(np.float64) for side in sides)
    return new_tokens, old_tokens


def _require_dimension(encoder: TextEncoder, encoded: MultiVectors, side: str, dimension: int) -> None:
    if encoded.dimension != dimension:
        raise ValueError(
            f"The encoder {encoder.name} gives {side} {encoded.dimension} dimensions, but {dimension} are "
            "expected. Give an encoder whose documents and queries have the same dimension."
        )


def _partners(spans: Spans, others: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions of tokens, and of those tokens of `others` that cover them."""
    own = np.array(spans, np.int64).reshape(-1, 2)
    other = np.array(others, np.int64).reshape(-1, 2)
    rows = np.flatnonzero(own[:, 0] < own[:, 1])
    filled = np.flatnonzero(other[:, 0] < other[:, 1])
    filled = filled[np.argsort(other[filled, 0], kind="stable")]
    middle = own[rows].sum(axis=1) // 2
    # The last token that begins at or before the middle; -1 is dropped with the others.
    last = np.searchsorted(other[filled, 0], middle, side="right") - 1
    covers = (last >= 0) & (other[filled, 1][last] > middle) if len(filled) else np.zeros(len(rows), bool)
    return rows[covers], filled[last[covers]]


def orthogonal_map(new: NDArray[np.float64], old: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the orthogonal matrix that takes rows of `new` nearest to rows of `old`.

    `new` is float64 (n, new dimension), and `old`, (n, old dimension), has the partner
    of each row.  The result is float32 (new dimension, old dimension).

    Means are subtracted for the fit, because a mean that all tokens share would
    outweigh the rest.  Between spaces of different dimensions, the shorter side's rows
    or columns are orthonormal.  A ridge regression finds fewer of the best texts for
    most pairs of models: `python -m experiments adapt`.
    """
    with one_blas_thread():
        left, _, right = scipy.linalg.svd((new - new.mean(axis=0)).T @ old, full_matrices=False)
        return np.asarray(left @ right, np.float32)


def _some_texts(stored: Texts) -> list[str]:
    """Return random texts of an index, the same ones in every call."""
    ids = stored.select({})
    chosen = random_stream(0).permutation(len(ids))[:_FITTED]
    return [document.text for document in stored.get([ids[i] for i in np.sort(chosen)])]
