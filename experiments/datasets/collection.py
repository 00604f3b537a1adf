"""A collection with all that systems and metrics may need, and parts of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

__all__ = ["Collection", "tokens_checksum"]


@dataclass(frozen=True, eq=False)
class Collection:
    """Token vectors of documents and queries, with their texts and judgements where there are any.

    Parameters
    ----------
    name : str
    documents, queries : MultiVectors
        Those that have tokens, in the order of the files; positions are their ids.
    checksum : str
        Of all tokens and lengths: sixteen hexadecimal digits.
    document_ids, query_ids : list of str
        What the files call them.
    document_texts, query_texts : list of str, optional
    document_pooled, query_pooled : float32 (n, width), optional
        The model's own single vectors.
    document_token_ids, query_token_ids : list of int arrays (tokens,), optional
        Vocabulary ids of the token vectors.
    judgements : list of dict, optional
        For each query the grades of documents by position.
    training_queries : MultiVectors, optional
        Queries that are not asked, for systems that learn from queries.
    problems : list of str
        What is wrong with the collection's files, in sentences.
    """

    name: str
    documents: MultiVectors
    queries: MultiVectors
    checksum: str
    document_ids: list[str]
    query_ids: list[str]
    document_texts: list[str] | None = None
    query_texts: list[str] | None = None
    document_pooled: NDArray[np.float32] | None = None
    query_pooled: NDArray[np.float32] | None = None
    document_token_ids: list[NDArray[np.int64]] | None = None
    query_token_ids: list[NDArray[np.int64]] | None = None
    judgements: list[dict[int, int]] | None = None
    training_queries: MultiVectors | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def content(self) -> str:
        """Checksum of all that a system may be built from: sixteen hexadecimal digits."""
        digest = hashlib.sha256(self.checksum.encode())
        for texts in (self.document_texts, self.query_texts):
            digest.update(json.dumps(texts).encode())
        for pooled in (self.document_pooled, self.query_pooled):
            digest.update(b"" if pooled is None else np.ascontiguousarray(pooled).tobytes())
        for ids in (self.document_token_ids, self.query_token_ids):
            digest.update(b"".join(np.ascontiguousarray(one, np.int64).tobytes() for one in ids or []))
        if self.training_queries is not None:
            digest.update(tokens_checksum(self.training_queries).encode())
        return digest.hexdigest()[:16]

    def without_training_queries(self, share: float) -> Collection:
        """Return the collection with `share` of its queries set aside as `training_queries`.

        The choice is random, and the same for the same collection.
        """
        total = len(self.query_ids)
        order = np.random.default_rng(0).permutation(total)
        count = round(share * total)
        training = _renumbered(self.queries[np.sort(order[:count])])
        return replace(self._with_queries(np.sort(order[count:])), training_queries=training)

    def asked(self, count: int) -> Collection:
        """Return the collection with at most `count` of its queries, judged ones first, in their order.

        The choice is random, and the same for the same collection.
        """
        total = len(self.query_ids)
        if total <= count:
            return self
        order = np.random.default_rng(0).permutation(total)
        if self.judgements is not None:
            judged = np.array([bool(row) for row in self.judgements])
            order = order[np.argsort(~judged[order], kind="stable")]
        return self._with_queries(np.sort(order[:count]))

    def sampled(self, count: int | None) -> Collection:
        """Return the collection with `count` of its documents; None: all.

        The choice is random, but for the documents that are relevant to a query: they come first, for
        metrics need them, up to half of the sample.  Judgements of documents that are left out go with them.
        """
        total = len(self.document_ids)
        if count is None or count >= total:
            return self
        order = np.random.default_rng(0).permutation(total)
        if self.judgements is not None:
            relevant = np.zeros(total, np.bool_)
            relevant[[p for row in self.judgements for p, grade in row.items() if grade > 0]] = True
            first = order[relevant[order]][: count // 2]
            order = np.concatenate([first, order[~np.isin(order, first)]])
        picked = np.sort(order[:count])
        places = {int(old): new for new, old in enumerate(picked)}
        judgements = None
        if self.judgements is not None:
            judgements = [{places[p]: g for p, g in row.items() if p in places} for row in self.judgements]
        return replace(
            self,
            documents=_renumbered(self.documents[picked]),
            checksum=_derived(self.checksum, "documents", picked),
            document_ids=_picked(self.document_ids, picked),
            document_texts=_picked(self.document_texts, picked),
            document_pooled=None if self.document_pooled is None else self.document_pooled[picked],
            document_token_ids=_picked(self.document_token_ids, picked),
            judgements=judgements,
        )

    def _with_queries(self, picked: NDArray[np.int64]) -> Collection:
        return replace(
            self,
            queries=_renumbered(self.queries[picked]),
            checksum=_derived(self.checksum, "queries", picked),
            query_ids=_picked(self.query_ids, picked),
            query_texts=_picked(self.query_texts, picked),
            query_pooled=None if self.query_pooled is None else self.query_pooled[picked],
            query_token_ids=_picked(self.query_token_ids, picked),
            judgements=_picked(self.judgements, picked),
        )


def tokens_checksum(*sides: MultiVectors) -> str:
    """Return sixteen hexadecimal digits that depend on all tokens and lengths."""
    digest = hashlib.sha256()
    for texts in sides:
        for array in (texts.tokens, texts.offsets):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _picked(values: Any, picked: NDArray[np.int64]) -> Any:
    return None if values is None else [values[i] for i in picked]


def _renumbered(texts: MultiVectors) -> MultiVectors:
    """Return the same texts with their positions as ids."""
    return MultiVectors(texts.tokens, texts.offsets)


def _derived(checksum: str, what: str, picked: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(f"{checksum} {what} ".encode())
    digest.update(np.ascontiguousarray(picked, np.int64).tobytes())
    return digest.hexdigest()[:16]
