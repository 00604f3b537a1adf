"""A collection: token vectors of documents and queries, with texts and judgements."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors


@dataclass(frozen=True, eq=False)
class Collection:
    """Token vectors of documents and queries, and all other data of a collection.

    Only texts with tokens are part of it, in the order of the files; their positions
    are their ids.
    """

    name: str
    documents: MultiVectors
    queries: MultiVectors
    #: Sixteen hexadecimal digits of all tokens and lengths.
    checksum: str
    #: The ids in the files.
    document_ids: list[str]
    query_ids: list[str]
    document_texts: list[str] | None = None
    query_texts: list[str] | None = None
    #: The model's own single vectors (n, width).
    document_pooled: NDArray[np.float32] | None = None
    query_pooled: NDArray[np.float32] | None = None
    #: Vocabulary ids of the token vectors.
    document_token_ids: list[NDArray[np.int64]] | None = None
    query_token_ids: list[NDArray[np.int64]] | None = None
    #: For each query the grades of documents by position.
    judgements: list[dict[int, int]] | None = None
    #: Faults of the collection's files, in sentences.
    problems: list[str] = field(default_factory=list)

    @property
    def content(self) -> str:
        """Sixteen hexadecimal digits of all data that a system may be built from.

        Vocabulary ids of queries follow from their texts.
        """
        digest = hashlib.sha256(self.checksum.encode())
        for texts in (self.document_texts, self.query_texts):
            digest.update(json.dumps(texts).encode())
        for pooled in (self.document_pooled, self.query_pooled):
            digest.update(b"" if pooled is None else np.ascontiguousarray(pooled).tobytes())
        for row in self.document_token_ids or []:
            digest.update(np.ascontiguousarray(row, np.int64).tobytes())
        return digest.hexdigest()[:16]

    def asked(self, count: int) -> Collection:
        """Keep at most `count` random queries, judged ones first.

        The same for the same collection.
        """
        total = len(self.query_ids)
        if total <= count:
            return self
        order = np.random.default_rng(0).permutation(total)
        if self.judgements is not None:
            judged = np.array([bool(row) for row in self.judgements])
            order = order[np.argsort(~judged[order], kind="stable")]
        return self._with_queries(np.sort(order[:count]))

    def with_documents(self, count: int) -> Collection:
        """Keep the first `count` documents, without judgements."""
        return self.part(np.arange(min(count, len(self.document_ids))))

    def part(self, positions: NDArray[np.int64]) -> Collection:
        """Keep the documents at ascending `positions`, without judgements."""
        documents = self.documents[positions]
        return replace(
            self,
            documents=MultiVectors(documents.tokens, documents.offsets),
            document_ids=_picked(self.document_ids, positions),
            document_texts=_picked(self.document_texts, positions),
            document_pooled=None if self.document_pooled is None else self.document_pooled[positions],
            document_token_ids=_picked(self.document_token_ids, positions),
            judgements=None,
        )

    def _with_queries(self, positions: NDArray[np.int64]) -> Collection:
        digest = hashlib.sha256(f"{self.checksum} queries ".encode())
        digest.update(np.ascontiguousarray(positions, np.int64).tobytes())
        queries = self.queries[positions]
        return replace(
            self,
            queries=MultiVectors(queries.tokens, queries.offsets),
            checksum=digest.hexdigest()[:16],
            query_ids=_picked(self.query_ids, positions),
            query_texts=_picked(self.query_texts, positions),
            query_token_ids=_picked(self.query_token_ids, positions),
            query_pooled=None if self.query_pooled is None else self.query_pooled[positions],
            judgements=_picked(self.judgements, positions),
        )


def tokens_checksum(*sides: MultiVectors) -> str:
    """Return sixteen hexadecimal digits of all tokens and lengths."""
    digest = hashlib.sha256()
    for texts in sides:
        for array in (texts.tokens, texts.offsets):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _picked(values: Any, positions: NDArray[np.int64]) -> Any:
    return None if values is None else [values[i] for i in positions]
