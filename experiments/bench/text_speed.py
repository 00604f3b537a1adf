"""What filters and spans cost: a condition on many documents, and scores of sentences beside plain ranking."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from muvera import MeanConfig, MultiVectors, MuveraIndex, TextIndex, rank_spans, rerank
from muvera.reranking.spans import windows
from muvera.texts.database import DocumentDatabase

__all__ = ["text_speed"]

_DIMENSION, _GROUPS = 16, 100


def text_speed(documents: int = 100_000, rounds: int = 20) -> list[tuple[str, float]]:
    """Measure filters and spans, in this thread's processor time.

    Parameters
    ----------
    documents : int
        Of which a filter keeps one in a hundred.
    rounds : int
        Of which the median counts.

    Returns
    -------
    list of (name, value)
    """
    index = _index(documents)
    condition = {"group": 17}
    found = [
        ("filter that keeps 1%: select, ms", _milliseconds(lambda: index.select(condition), rounds)),
        ("search without a filter, ms", _milliseconds(lambda: index.search("a", 10, threads=1), rounds)),
        (
            "search with it, ms",
            _milliseconds(lambda: index.search("a", 10, where=condition, threads=1), rounds),
        ),
    ]
    plain, spans, known = _spans(rounds)
    return [
        *found,
        ("100 documents of 120 tokens, plain ranking, ms", plain),
        ("the same by spans of 20 tokens, ms", spans),
        ("by spans, where the documents' scores are known, ms", known),
        ("spans against plain ranking", known / plain),
    ]


class _Fixed:
    """An encoder whose queries are all the same, for a model's time is not what is measured."""

    name = "fixed"

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Return one vector a text."""
        return MultiVectors.from_arrays([np.ones((1, _DIMENSION), np.float32)] * len(texts))

    encode_queries = encode_documents

    def token_spans(self, text: str, side: Any) -> None:
        """Return None."""
        return None


def _index(count: int) -> TextIndex:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2 * count, _DIMENSION)).astype(np.float32)
    vectors = MultiVectors.from_flat(tokens, np.full(count, 2))
    database = DocumentDatabase()
    metadata = [
        {"group": int(group), "year": 1900 + i % 120}
        for i, group in enumerate(rng.permutation(count) % _GROUPS)
    ]
    database.put(list(range(count)), [f"text number {i}" for i in range(count)], metadata)
    index = MuveraIndex.build(vectors, MeanConfig(dimension=_DIMENSION), backend="exact")
    return TextIndex(index, database, _Fixed())


def _spans(rounds: int) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    texts = MultiVectors.from_arrays([_unit(rng.normal(size=(120, 128))) for _ in range(100)])
    query = _unit(rng.normal(size=(32, 128)))
    queries = MultiVectors.from_arrays([query])
    every = [np.arange(100)]
    parts = [windows(120, 20, 20)] * 100
    return (
        _milliseconds(lambda: rerank(queries, texts, every, 10, threads=1), rounds),
        _milliseconds(lambda: rank_spans(query, texts, parts, 10), rounds),
        _milliseconds(lambda: rank_spans(query, texts, parts, 10, document_scores=np.zeros(100)), rounds),
    )


def _unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _milliseconds(work: Callable[[], object], rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        times.append(1000 * (time.thread_time() - start))
    return float(np.median(times))
