"""Small collections for systems, and exact scores to compare their answers with."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets.collection import Collection, tokens_checksum
from experiments.systems.base import Answers, Material
from experiments.systems.registry import SYSTEMS
from muvera import MultiVectors


def collection_of(
    documents: MultiVectors, queries: MultiVectors | None = None, name: str = "small", **fields: Any
) -> Collection:
    """A collection of documents and, by default, the first tokens of six of them as queries."""
    if queries is None:
        queries = MultiVectors.from_arrays([documents[i][:3] for i in range(min(6, len(documents)))])
    names = [str(i) for i in range(len(documents))]
    checksum = tokens_checksum(documents, queries)
    return Collection(name, documents, queries, checksum, names, names[: len(queries)], **fields)


def material(
    source: MultiVectors | Collection, folder: Path, cache: Path | None = None, **fields: Any
) -> Material:
    """The material of a system for a collection, or for documents alone."""
    collection = source if isinstance(source, Collection) else collection_of(source, **fields)
    return Material(collection, folder, cache or folder, seed=7, threads=1)


def built(name: str, source: MultiVectors | Collection, folder: Path, **build: Any) -> Any:
    """A built system."""
    system: Any = SYSTEMS[name](**build)
    system.build(material(source, folder))
    return system


def exact_scores(queries: MultiVectors, documents: MultiVectors) -> np.ndarray:
    """Chamfer in slow NumPy, float64 (n_queries, n_documents)."""
    return np.array(
        [[(q.astype(float) @ p.T.astype(float)).max(axis=1).sum() for p in documents] for q in queries]
    )


def ask(system: Any, queries: MultiVectors, k: int, **query: Any) -> Answers:
    """Search with all queries, and check the properties of every answer."""
    answers: Answers = system.search(queries, k, **query)
    assert answers.ids.shape == answers.scores.shape == (len(queries), k)
    assert answers.seconds.shape == (len(queries),) and (answers.seconds > 0).all()
    for ids, scores in zip(answers.ids, answers.scores, strict=True):
        count = int((ids >= 0).sum())
        assert (ids[count:] == -1).all()
        assert len(set(ids[:count].tolist())) == count
        assert (np.diff(scores[:count]) <= 0).all()
    return answers
