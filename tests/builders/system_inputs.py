"""Small collections for systems, and what their answers are held against."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets.collection import Collection
from experiments.systems.base import Answers, Material
from muvera import MultiVectors


def unit_texts(
    seed: int, lengths: Sequence[int], dimension: int = 16, dtype: Any = np.float32
) -> MultiVectors:
    """Texts of random unit vectors."""
    stream = np.random.default_rng(seed)
    tokens = stream.normal(size=(sum(lengths), dimension))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors.from_flat(tokens.astype(dtype), list(lengths))


def some_documents(seed: int, count: int, dimension: int = 16, dtype: Any = np.float32) -> MultiVectors:
    """Documents of 1 to 12 tokens."""
    lengths = np.random.default_rng(seed + 1000).integers(1, 13, count)
    return unit_texts(seed, lengths.tolist(), dimension, dtype)


def collection_material(collection: Collection, folder: Path) -> Material:
    """What a system is built from, with all that a collection has."""
    return Material(
        documents=collection.documents,
        document_texts=collection.document_texts,
        query_texts=collection.query_texts,
        document_pooled=collection.document_pooled,
        query_pooled=collection.query_pooled,
        document_token_ids=collection.document_token_ids,
        query_token_ids=collection.query_token_ids,
        folder=folder,
        cache=folder,
        seed=42,
        threads=1,
    )


def material(documents: MultiVectors, folder: Path, cache: Path | None = None) -> Material:
    """What a system is built from, where the documents are all there is."""
    return Material(documents=documents, folder=folder, cache=cache or folder, seed=7, threads=1)


def exact_scores(queries: MultiVectors, documents: MultiVectors) -> np.ndarray:
    """Chamfer in slow NumPy, float64 (n_queries, n_documents)."""
    return np.array(
        [
            [(q.astype(np.float64) @ p.T.astype(np.float64)).max(axis=1).sum() for p in documents]
            for q in queries
        ]
    )


def ask(system: Any, queries: MultiVectors, k: int, **query: Any) -> Answers:
    """Search with all queries and check what holds for every answer."""
    answers: Answers = system.search(queries, k, **query)
    assert answers.ids.shape == answers.scores.shape == (len(queries), k)
    assert answers.seconds.shape == (len(queries),)
    assert (answers.seconds > 0).all()
    for ids, scores in zip(answers.ids, answers.scores, strict=True):
        found = int((ids >= 0).sum())
        assert (ids[found:] == -1).all()
        assert len(set(ids[:found].tolist())) == found
        assert (np.diff(scores[:found]) <= 0).all()
    return answers
