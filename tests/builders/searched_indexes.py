"""A collection, and indexes of it in all the ways that they search."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real
from muvera import MultiVectors, MuveraIndex

__all__ = [
    "DOCUMENTS",
    "EMPTY",
    "QUERIES",
    "WAYS",
    "answers",
    "batches",
    "built",
    "every_way",
    "recall",
    "vectors_of",
    "with_nan",
]

DOCUMENTS = documents_like_real(300)
QUERIES = queries_like_real(DOCUMENTS, 15)
EMPTY = np.flatnonzero(DOCUMENTS.lengths == 0)

# The ways that an index searches.
WAYS: list[dict[str, Any]] = [
    {"exact_tokens": 10**6},
    {"exact_tokens": 0, "backend": "exact"},
    {"exact_tokens": 0, "backend": "hnsw"},
    {"exact_tokens": 0, "backend": "usearch"},
    {"exact_tokens": 0, "backend": "int8"},
]

CODED = pytest.param(
    {"exact_tokens": 0, "backend": "pq", "pq": {"rescore": 60}},
    marks=pytest.mark.compiled("codes are learned from hundreds of vectors"),
    id="pq",
)

every_way = pytest.mark.parametrize("way", [*WAYS, CODED], ids=lambda way: way.get("backend", "all tokens"))


def built(documents: Any = DOCUMENTS, **settings: Any) -> MuveraIndex:
    """Return an index of `documents`."""
    return MuveraIndex.build(documents, CONFIG, threads=1, **settings)


def answers(index: MuveraIndex, **settings: Any) -> list[list[tuple[Any, float]]]:
    """Return what QUERIES find."""
    return [list(ranking) for ranking in index.search(QUERIES, **{"k": 8, "candidates": 40, **settings})]


def vectors_of(index: MuveraIndex) -> dict[str, Any]:
    """Return what info() says of the vectors."""
    vectors = index.info().vectors
    assert vectors is not None
    return vectors


def recall(found: list[Any], expected: list[Any]) -> float:
    """Return the share of the expected (id, score) whose score is reached at its rank or above: ties count as equal."""
    shares = []
    for a, b in zip(found, expected, strict=True):
        names = {name for name, _ in a}
        shares.append(np.mean([name in names or score <= a[-1][1] for name, score in b]))
    return float(np.mean(shares))


def batches(documents: MultiVectors, size: int) -> Iterator[MultiVectors]:
    """Yield parts of documents without ids of their own."""
    for start in range(0, len(documents), size):
        part = documents[start : start + size]
        yield MultiVectors.from_flat(part.tokens, part.lengths)


def with_nan(count: int) -> MultiVectors:
    """Return documents whose last token holds a NaN."""
    tokens = np.ones((count, DIM), np.float32)
    tokens[-1, 3] = np.nan
    return MultiVectors.from_flat(tokens, [1] * count, ids=np.arange(1000, 1000 + count))
